//! The tables of `camera.toml`, with their defaults; those of the hardware are in
//! [`super::hardware`]. [`super::check`] holds the allowed values.
//!
//! The doc comments of these types are the reference of `camera.toml` in the book: a test renders
//! them (`reference.rs`). So they address integrators, give units, and link to no Rust item.

use std::net::SocketAddr;
use std::path::PathBuf;

use proto::message::Role;
use serde::Deserialize;

use super::hardware::{Capture, Gate, Signals, Trigger};

/// Everything that a camera is configured with at its start. Only `name`, `state`, `[model]` and
/// `[capture]` are required. Relative paths start at the folder of the file. An unknown key is an
/// error.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the camera, as stations show it.
    pub name: String,
    /// Folder for everything that the camera keeps: journal, stored images, keys, packages. It is
    /// created if it does not exist. Stations can fetch recordings from `recordings/` in it.
    pub state: PathBuf,
    /// The model package, and whom to trust.
    pub model: Model,
    /// Where frames come from.
    pub capture: Capture,
    /// When a part begins.
    #[serde(default)]
    pub trigger: Trigger,
    /// The reject gate. Without this table, verdicts are only reported.
    pub gate: Option<Gate>,
    /// Output lines for a PLC. Each is optional.
    #[serde(default)]
    pub signals: Signals,
    /// What a failing condition does to the gate and to the signals, where that can be chosen.
    #[serde(default)]
    pub readiness: Readiness,
    /// Frames that cannot show a part: the part is a fault, whatever its score.
    #[serde(default)]
    pub plausibility: Plausibility,
    /// Deadline, threads and mode.
    #[serde(default)]
    pub inspection: Inspection,
    /// Which pictures a report carries.
    #[serde(default)]
    pub report: Report,
    /// How stations reach the camera.
    #[serde(default)]
    pub link: Link,
    /// The journal of reports on disk.
    #[serde(default)]
    pub journal: Journal,
    /// Frames kept on disk for the next training. NG and OK frames have half of the space each, and
    /// the oldest make room for new ones.
    #[serde(default)]
    pub images: Images,
    /// Metrics and health over HTTP.
    #[serde(default)]
    pub metrics: Metrics,
    /// The golden-sample check: scores the package's golden tiles and two frames whose verdicts are
    /// known. Unless `readiness.golden` says otherwise, the gate is held after a check that failed,
    /// until one passes.
    #[serde(default)]
    pub golden: Golden,
    /// Drift detection: compares recent good parts with the calibration. It needs a package that
    /// was calibrated on good parts.
    #[serde(default)]
    pub drift: Drift,
    /// What the operating system is asked for, so that a loaded processor delays no reject pulse.
    /// What it does not allow is logged, and inspection goes on without it.
    #[serde(default)]
    pub realtime: RealTime,
}

/// The model package, and whom to trust.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The package to start with. If it differs from the one configured at the previous start, it
    /// replaces a package that a station has flashed. Without this key the camera holds the gate
    /// safe and waits for a station to flash one.
    pub package: Option<PathBuf>,
    /// Public keys of those who may sign packages (the `.pub` files of `host-trainer keygen`).
    pub trust: Vec<PathBuf>,
    /// Threshold for the package that `package` names, instead of its own. Flashed packages use
    /// their own.
    pub threshold: Option<f32>,
    /// Lowest version of a package, as numbers with points between them: `"3"` or `"1.10"`. An
    /// older package is refused although its signature is good, so that nobody can bring back what a
    /// newer one has cured.
    pub min_version: Option<String>,
    /// An image that is white where to inspect, instead of the package's region of interest. It is
    /// stretched over the frame. It must lie inside of the package's region, for which the threshold
    /// was calibrated.
    pub roi_mask: Option<PathBuf>,
    /// Accept flashed packages for images of another size or colour than the active one.
    #[serde(default)]
    pub any_input: bool,
}

/// What a failing condition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The gate is held, `ready` goes off and `fault` on.
    Hold,
    /// `fault` goes on; parts are inspected and the gate follows them.
    Fault,
    /// It is only shown, in the metrics and in `/health`.
    Show,
}

/// What failing conditions do, where that can be chosen. Missing frames, a missing model, trigger
/// or encoder lines that cannot be read, a reject output that cannot be set and parts that are not
/// followed always hold the gate.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// Number of parts in a row without a verdict (scoring failed, frame lost, damaged or
    /// implausible, verdict too late) from which on parts are not being inspected.
    pub faults_in_a_row: u32,
    /// What that many faults in a row do, whatever `gate.on_fault` says. They end with the next
    /// verdict, a golden-sample check that passes, or another model.
    pub verdicts: Effect,
    /// What a silent trigger or encoder does. With `"hold"`, a line that waits for `ready` before
    /// it starts does not start after a pause longer than `silent_after_ms`: use `"fault"` there.
    pub silence: Effect,
    /// What a reject that was not confirmed does (`gate.confirm`), and a confirm input that cannot
    /// be read.
    pub confirm: Effect,
    /// What a failed golden-sample check does, until one passes.
    pub golden: Effect,
    /// What drift does, until it is over.
    pub drift: Effect,
    /// What it does that reports cannot be written to the disk.
    pub journal: Effect,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            faults_in_a_row: 3,
            verdicts: Effect::Hold,
            silence: Effect::Hold,
            confirm: Effect::Hold,
            golden: Effect::Hold,
            drift: Effect::Fault,
            journal: Effect::Fault,
        }
    }
}

/// Frames that cannot show a part.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Plausibility {
    /// Refuse frames that are black (at least 99.9 % of the pixels up to 2 % of full scale) or
    /// saturated (at least 99 % of the pixels at full scale), unless the package was calibrated on
    /// such parts, and frames whose brightness or contrast is far from that at calibration: by more
    /// than 10 standard deviations, and by more than three quarters of it.
    pub exposure: bool,
    /// Number of frames in a row with the same bytes from which on the sensor counts as frozen; 0
    /// turns the check off. A replay is never checked.
    pub identical_frames: u32,
}

impl Default for Plausibility {
    fn default() -> Self {
        Self {
            exposure: true,
            identical_frames: 3,
        }
    }
}

/// Deadline, threads and mode.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Inspection {
    /// Longest time in milliseconds from the trigger to the verdict; a part with a later verdict is
    /// a fault. Without an encoder, `gate.delay_ms` takes its place where it is shorter or this key
    /// is missing.
    pub deadline_ms: Option<u64>,
    /// Number of frames scored at the same time. More threads score more frames per second.
    pub threads: usize,
    /// Number of threads that share the work on one frame. More threads give a verdict sooner.
    /// `threads` plus `threads_per_frame` minus one should not exceed the number of processor
    /// cores.
    pub threads_per_frame: usize,
    /// Score in 16-bit arithmetic if the processor has it (ARMv8.2 with FP16). Elsewhere frames are
    /// scored in single precision, and the log says so. Scores change a little, and the threshold's
    /// promise is for scores in single precision: see the difference with
    /// `host-trainer evaluate --half` first.
    pub half_precision: bool,
    /// Mode at start.
    pub mode: ModeName,
}

/// Mode at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Verdicts drive the gate.
    #[default]
    Inspect,
    /// Every part passes and the gate is not held, except at the start and at the end of the
    /// program, where `gate.on_fault` applies. `ready` is off.
    Observe,
}

impl Default for Inspection {
    fn default() -> Self {
        Self {
            deadline_ms: None,
            threads: 1,
            threads_per_frame: 1,
            half_precision: false,
            mode: ModeName::Inspect,
        }
    }
}

/// Which reports carry pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Pictures {
    /// No report.
    None,
    /// Reports of NG parts.
    #[default]
    Ng,
    /// Every report.
    All,
}

/// Which pictures a report carries.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Reports that carry a heat map.
    pub heat_map: Pictures,
    /// Reports that carry a thumbnail.
    pub thumbnail: Pictures,
    /// Longer side of a thumbnail in pixels.
    pub thumbnail_px: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            heat_map: Pictures::Ng,
            thumbnail: Pictures::Ng,
            thumbnail_px: 160,
        }
    }
}

/// How stations reach the camera.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Address to listen on, for example `0.0.0.0:9750`. Without it there is no link over the
    /// network.
    pub tcp: Option<SocketAddr>,
    /// A serial line with a station at its other end. There are no keys on it: whoever is at the
    /// other end has the role that is set here.
    pub serial: Option<SerialLine>,
    /// Most stations connected over TCP at the same time. A station can hold 4 of these places, but
    /// never all; one with a higher role takes the place of one with a lower role.
    pub max_stations: usize,
    /// Announce name and address on the local network (mDNS), for `station discover`.
    pub announce: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            tcp: None,
            serial: None,
            max_stations: 8,
            announce: true,
        }
    }
}

/// A serial line with a station at its other end.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SerialLine {
    /// Device file, for example `/dev/ttyS1`.
    pub path: PathBuf,
    /// Bits per second.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// What the station at the other end may do. Whoever can plug in the cable has this role.
    #[serde(default)]
    pub role: SerialRole,
    /// Whether a station of any version can flash a package over this line, if its role is
    /// `engineer`. The package must be signed all the same.
    #[serde(default = "yes")]
    pub recovery: bool,
    /// Whether reports carry their pictures over this line. Verdicts behind a picture wait for it.
    /// Default: from 921600 bits per second on. The camera keeps the frames of NG parts on its disk
    /// (`[images]`), and `station pull` fetches them.
    pub pictures: Option<bool>,
}

impl SerialLine {
    /// Bits per second from which reports carry pictures unless the configuration says otherwise.
    const PICTURES_FROM_BAUD: u32 = 921_600;

    /// Whether reports carry their pictures over this line.
    pub fn carries_pictures(&self) -> bool {
        self.pictures
            .unwrap_or(self.baud >= Self::PICTURES_FROM_BAUD)
    }
}

/// What the station on a serial line may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SerialRole {
    /// See everything.
    #[default]
    Watch,
    /// Also run the golden-sample check and change the mode.
    Operate,
    /// Everything.
    Engineer,
}

impl From<SerialRole> for Role {
    fn from(role: SerialRole) -> Self {
        match role {
            SerialRole::Watch => Self::Watch,
            SerialRole::Operate => Self::Operate,
            SerialRole::Engineer => Self::Engineer,
        }
    }
}

/// The journal of reports on disk.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Largest size on disk in MiB. The oldest reports are deleted to stay within it. Events (what
    /// stations have changed, outages) have another 16 MiB, so that reports do not evict them.
    pub max_mb: u64,
    /// Longest time in milliseconds that a report waits to be written to the disk, and so the most
    /// that a power cut loses. Stations receive a report once it is written. Reports that wait
    /// together cost one write: the default suits SD cards, which wear with every write.
    pub sync_ms: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            max_mb: 256,
            sync_ms: 200,
        }
    }
}

/// Frames kept on disk for the next training.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Largest size on disk in MiB; 0 keeps no frames.
    pub max_mb: u64,
    /// One OK frame in this many is kept, chosen at random; 0 keeps none. Every NG frame is
    /// kept.
    pub ok_one_in: u32,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            max_mb: 1_024,
            ok_one_in: 1_000,
        }
    }
}

/// Metrics and health over HTTP.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address that serves `/metrics` (Prometheus) and `/health`, for example `127.0.0.1:9751`.
    /// Without it neither is served.
    pub http: Option<SocketAddr>,
}

/// The golden-sample check.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Golden {
    /// Interval of the check in minutes; with 0 it runs only on command (`station golden`).
    pub every_min: u64,
    /// A frame whose verdict must be OK.
    pub good: Option<PathBuf>,
    /// A frame whose verdict must be NG.
    pub bad: Option<PathBuf>,
}

/// Drift detection.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Drift {
    /// Number of recent good parts that are compared with the calibration; 0 turns drift detection
    /// off.
    pub window: usize,
}

impl Default for Drift {
    fn default() -> Self {
        Self { window: 500 }
    }
}

/// What the operating system is asked for, so that a loaded processor delays no reject pulse.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RealTime {
    /// Real-time priority (SCHED_FIFO) of the threads of gate, trigger and encoder; with 0 they run
    /// as all others do. The system must allow it, as the unit file does (`LimitRTPRIO`).
    pub priority: u8,
    /// Keep the program's memory from being swapped out. The system must allow it, as the unit file
    /// does (`LimitMEMLOCK`).
    pub lock_memory: bool,
}

impl Default for RealTime {
    fn default() -> Self {
        Self {
            priority: 20,
            lock_memory: false,
        }
    }
}

pub(super) fn yes() -> bool {
    true
}

fn default_baud() -> u32 {
    115_200
}
