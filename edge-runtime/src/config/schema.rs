//! Every key of `camera.toml`, with its default. [`super::check`] holds the allowed values.
//!
//! The doc comments of these types are the reference of `camera.toml` in the book: a test renders
//! them (`reference.rs`). So they address integrators, give units, and link to no Rust item.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use proto::message::Role;
use serde::Deserialize;

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
    /// An image that is white where to inspect, instead of the package's region of interest. It is
    /// stretched over the frame.
    pub roi_mask: Option<PathBuf>,
    /// Accept flashed packages for images of another size or colour than the active one.
    #[serde(default)]
    pub any_input: bool,
}

/// Where frames come from.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Capture {
    /// A V4L2 camera. Format and size are met exactly and the rate within 1 %, or the program
    /// refuses them and lists what the device offers.
    V4l2 {
        /// Device file. Prefer a name that stays the same, such as `/dev/v4l/by-id/…`, to
        /// `/dev/video0`.
        device: PathBuf,
        /// V4L2 code of the pixel format, for example `GREY`. Default: the best supported format
        /// that the device offers.
        format: Option<String>,
        /// Width in pixels. Default: the device's present setting.
        width_px: Option<u32>,
        /// Height in pixels. Default: the device's present setting.
        height_px: Option<u32>,
        /// Frames per second. Default: the device's present setting.
        fps: Option<f64>,
        /// Time in milliseconds without a frame after which the camera counts as lost and is opened
        /// again. If the camera delivers frames only when a part comes, this must be longer than
        /// the longest pause between two parts.
        #[serde(default = "default_frame_timeout_ms")]
        timeout_ms: u64,
        /// Time in microseconds from the start of the exposure to the driver's time stamp. It
        /// decides which frame shows a triggered part. Default: 0 if the driver stamps the start of
        /// the exposure, otherwise one frame interval. Set it to exposure plus read-out if the
        /// trigger also drives the camera, or if long exposures overlap the read-out of the
        /// previous frame.
        exposure_to_stamp_us: Option<u64>,
        /// Driver controls by the names that `v4l2-ctl --list-ctrls` shows, for example
        /// `exposure_time_absolute = 200`. Each is read back after it was written.
        #[serde(default)]
        controls: BTreeMap<String, Control>,
    },
    /// A folder of images, or a file written by `edge-runtime record`. No frame is lost.
    Replay {
        /// Folder or file.
        path: PathBuf,
        /// How fast to replay. Default: `"recorded"` for a file, `"maximum"` for a folder.
        #[serde(default)]
        speed: Speed,
        /// Start again at the end.
        #[serde(default)]
        repeat: bool,
    },
}

/// Value of a driver control.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(untagged)]
pub enum Control {
    /// A number, or the index of a menu item.
    Integer(i64),
    /// On or off.
    Boolean(bool),
    /// The name of a menu item.
    Item(String),
}

/// Speed of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(untagged)]
pub enum Speed {
    /// A speed with a name.
    Named(NamedSpeed),
    /// Frames per second.
    FramesPerSecond(f64),
    /// As recorded; a folder of images, which has no times, at the maximum speed.
    #[default]
    #[serde(skip)]
    Default,
}

/// Speeds with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NamedSpeed {
    /// With the recorded times. A folder of images has none.
    Recorded,
    /// As fast as frames are scored.
    Maximum,
}

/// When a part begins.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Trigger {
    /// Every frame is a part.
    // With braces: serde accepts any key for a variant without fields.
    Free {},
    /// Every edge of an input line is a part. The first frame whose exposure began after the edge
    /// shows it.
    Gpio {
        // Not a flattened `Line`: serde would accept unknown keys.
        /// Path of the GPIO chip, for example `/dev/gpiochip0`, or its label.
        chip: PathBuf,
        /// Number of the line on the chip.
        line: u32,
        /// Whether the line is active when its voltage is low.
        #[serde(default)]
        active_low: bool,
        /// The edge that begins a part.
        #[serde(default)]
        edge: EdgeKind,
        /// Time in microseconds for which the line must be stable: shorter pulses are ignored.
        #[serde(default)]
        debounce_us: u64,
        /// Time in milliseconds after the edge within which the part's frame must come; otherwise
        /// the part is a fault. A camera that runs freely needs two frame intervals.
        #[serde(default = "default_frame_timeout_ms")]
        frame_within_ms: u64,
        /// Time in milliseconds without an edge after which the trigger counts as cut: a cut wire
        /// looks like a belt that stands. Set it a little above the longest pause between two parts
        /// of a running line. With an encoder, only time in which the belt moves counts. The fault
        /// ends with the next edge, once what passed unseen is past the gate.
        #[serde(default = "default_silent_ms")]
        silent_after_ms: u64,
        /// The reason why a silent trigger is no fault on this line, for example `"parts come by
        /// hand"`. It turns `silent_after_ms` off.
        silent_off: Option<String>,
    },
}

impl Default for Trigger {
    fn default() -> Self {
        Self::Free {}
    }
}

/// Edge of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// From inactive to active.
    #[default]
    Rising,
    /// From active to inactive.
    Falling,
}

/// An input or output line of a GPIO chip, written as `{ chip = "/dev/gpiochip0", line = 5 }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "GPIO line"))]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Path of the GPIO chip, for example `/dev/gpiochip0`, or its label.
    pub chip: PathBuf,
    /// Number of the line on the chip.
    pub line: u32,
    /// Whether the line is active when its voltage is low.
    #[serde(default)]
    pub active_low: bool,
}

/// The reject gate.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The output. While it is active, parts are pushed out.
    pub output: Line,
    /// What happens to a part without a verdict, and the state in which the output is held while
    /// the camera cannot inspect.
    #[serde(default)]
    pub on_fault: OnFault,
    /// Time in milliseconds from the trigger to the gate. Without a trigger line it counts from the
    /// frame's time stamp. A verdict that comes later is too late, and the part is a fault. With 0
    /// the output becomes active as soon as the verdict is there. Not used with `encoder`.
    #[serde(default)]
    pub delay_ms: u64,
    /// Time in milliseconds for which the output stays active. Not used with `encoder`.
    #[serde(default = "default_pulse_ms")]
    pub pulse_ms: u64,
    /// Measures the way to the gate by an encoder instead of by time, for a belt whose speed
    /// changes or that stops. The direction is not measured: a belt that moves back counts like one
    /// that moves on.
    pub encoder: Option<Encoder>,
    /// A sensor that shows that something was pushed out. A reject that it does not confirm is a
    /// fault, until the next one that it confirms.
    pub confirm: Option<Confirm>,
}

/// A sensor that shows that something was pushed out.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The input line. A rising edge confirms a reject.
    pub input: Line,
    /// Time in milliseconds after a reject pulse has begun within which the edge must come.
    #[serde(default = "default_confirm_ms")]
    pub within_ms: u64,
}

/// What happens to a part without a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// It is pushed out.
    #[default]
    Reject,
    /// It passes.
    Pass,
}

/// Conveyor encoder.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// The input line whose rising edges are counted.
    pub input: Line,
    /// Counts from the trigger to the gate.
    pub delay_counts: u64,
    /// Counts for which the output stays active.
    pub pulse_counts: u64,
    /// Most edges of the trigger in a row without a count between them. With more, the encoder
    /// counts as cut. Without a trigger line it is not used.
    #[serde(default = "default_parts_without_count")]
    pub parts_without_count: u32,
    /// Time in milliseconds without a count after which the encoder counts as cut. The fault ends
    /// with the next count, once every part that was on its way is past the gate.
    #[serde(default = "default_silent_ms")]
    pub silent_after_ms: u64,
    /// The reason why an encoder that does not count is no fault on this line, for example `"the
    /// line stops for breaks"`. It turns `silent_after_ms` off; `parts_without_count` stays on.
    pub silent_off: Option<String>,
}

/// Output lines for a PLC.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Signals {
    /// Active while at least one part awaits its verdict.
    pub busy: Option<Line>,
    /// Active while parts are being inspected and rejected.
    pub ready: Option<Line>,
    /// Active while parts cannot be inspected, while an output fails, while reports cannot be
    /// written to the disk, and while good parts have drifted.
    pub fault: Option<Line>,
    /// A square wave while `ready` is active, otherwise inactive. Unlike a level, it cannot outlive
    /// the program: a PLC that misses two edges knows that nobody inspects.
    pub heartbeat: Option<Line>,
    /// Period of the heartbeat in milliseconds.
    pub heartbeat_ms: u64,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            busy: None,
            ready: None,
            fault: None,
            heartbeat: None,
            heartbeat_ms: 1_000,
        }
    }
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
    /// Most stations connected over TCP at the same time.
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
    /// What the station at the other end may do.
    #[serde(default)]
    pub role: SerialRole,
    /// Whether a station of any version can flash a package over this line. The package must be
    /// signed all the same.
    #[serde(default = "yes")]
    pub recovery: bool,
}

/// What the station on a serial line may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SerialRole {
    /// See everything.
    Watch,
    /// Also run the golden-sample check and change the mode.
    Operate,
    /// Everything.
    #[default]
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
    /// Largest size on disk in MiB. The oldest reports are deleted to stay within it.
    pub max_mb: u64,
    /// Longest time in milliseconds that a report waits to be written to the disk. Reports that wait
    /// together cost one write.
    pub sync_ms: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            max_mb: 256,
            sync_ms: 20,
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

fn default_frame_timeout_ms() -> u64 {
    1_000
}

fn default_pulse_ms() -> u64 {
    50
}

fn default_confirm_ms() -> u64 {
    500
}

fn default_silent_ms() -> u64 {
    30_000
}

fn default_parts_without_count() -> u32 {
    3
}

fn yes() -> bool {
    true
}

fn default_baud() -> u32 {
    115_200
}
