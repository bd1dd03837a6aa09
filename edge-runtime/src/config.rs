//! `camera.toml`: everything that a camera is told at start. Unknown keys are errors with a suggestion, because a
//! misspelt safety setting that is silently ignored costs more than a camera that does not start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::message::Role;
use serde::Deserialize;

use crate::capture::replay::MAX_PAUSE;

/// Frames a second.
const RATES: RangeInclusive<f64> = 0.01..=10_000.0;
/// An hour: longer times are misspelt.
const LONGEST_MS: u64 = 3_600_000;
/// A year.
const MAX_MINUTES: u64 = 525_600;
/// A tebibyte.
const MAX_DISK_MB: u64 = 1 << 20;
/// Encoder counts between trigger and gate.
const MAX_COUNTS: u64 = 1 << 32;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no TOML, or a key or value is not known.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
}

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the camera, as stations show it.
    pub name: String,
    /// Folder for journal, images and positions; made if need be. Relative paths count from the configuration's folder.
    pub state: PathBuf,
    /// What to inspect with.
    pub model: Model,
    /// Where frames come from.
    pub capture: Capture,
    /// What makes a part.
    #[serde(default)]
    pub trigger: Trigger,
    /// The reject gate; without it verdicts are only reported.
    pub gate: Option<Gate>,
    /// Lines to a PLC.
    #[serde(default)]
    pub signals: Signals,
    /// Deadlines and threads.
    #[serde(default)]
    pub inspection: Inspection,
    /// What a report carries.
    #[serde(default)]
    pub report: Report,
    /// Who is told.
    #[serde(default)]
    pub link: Link,
    /// The journal.
    #[serde(default)]
    pub journal: Journal,
    /// The ring of stored images.
    #[serde(default)]
    pub images: Images,
    /// Metrics and health over HTTP.
    #[serde(default)]
    pub metrics: Metrics,
    /// The golden-sample check.
    #[serde(default)]
    pub golden: Golden,
    /// Drift detection.
    #[serde(default)]
    pub drift: Drift,
}

/// What to inspect with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The package to begin with; without one the camera waits for a station to bring one. Another one than at the last
    /// start displaces what stations brought.
    pub package: Option<PathBuf>,
    /// Public keys that may have signed it, at least one.
    pub trust: Vec<PathBuf>,
    /// Decide by this instead of the threshold of `package`; packages that stations bring have their own.
    pub threshold: Option<f32>,
    /// Inspect where this image is white, instead of the package's region of interest.
    pub roi_mask: Option<PathBuf>,
    /// Accept packages from stations that want images of another size or colour than the one before.
    #[serde(default)]
    pub any_input: bool,
}

/// Where frames come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Capture {
    /// A V4L2 camera.
    V4l2 {
        /// e.g. `/dev/video0` or `/dev/v4l/by-id/…`.
        device: PathBuf,
        /// Pixel format code, e.g. `GREY`; the best that the camera offers unless given.
        format: Option<String>,
        /// Width in pixels; the camera's unless given.
        width_px: Option<u32>,
        /// Height in pixels.
        height_px: Option<u32>,
        /// Frames a second; the camera's unless given.
        fps: Option<f64>,
        /// No frame for so long is a fault.
        #[serde(default = "default_frame_timeout_ms")]
        timeout_ms: u64,
        /// From the start of the exposure to the driver's time stamp; as the driver says unless given. Tells which
        /// frames were exposed after a trigger.
        exposure_to_stamp_us: Option<u64>,
        /// Driver controls by name, e.g. `exposure_time_absolute = 200`.
        #[serde(default)]
        controls: BTreeMap<String, Control>,
    },
    /// A folder of images, or a recording.
    Replay {
        /// Folder or file.
        path: PathBuf,
        /// `recorded`, `maximum`, or frames a second.
        #[serde(default)]
        speed: Speed,
        /// Begin again at the end.
        #[serde(default)]
        repeat: bool,
    },
}

/// Value of a driver control.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Control {
    /// A number, or a menu item's index.
    Integer(i64),
    /// On or off.
    Boolean(bool),
    /// A menu item's name.
    Item(String),
}

/// Speed of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(untagged)]
pub enum Speed {
    /// A word.
    Named(NamedSpeed),
    /// Frames a second.
    FramesPerSecond(f64),
    /// As recorded; images without times as fast as they are scored.
    #[default]
    #[serde(skip)]
    Default,
}

/// Speeds with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedSpeed {
    /// As recorded; a folder of images has no times.
    Recorded,
    /// As fast as frames are scored; none is dropped.
    Maximum,
}

/// What makes a part.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Trigger {
    /// Every frame is a part.
    // With braces: serde lets a variant without fields have any key.
    Free {},
    /// An edge on an input line is a part; the first frame exposed after it shows it.
    Gpio {
        // Not a flattened `Line`: serde refuses no unknown keys then.
        /// As in [`Line`].
        chip: PathBuf,
        /// As in [`Line`].
        line: u32,
        /// As in [`Line`].
        #[serde(default)]
        active_low: bool,
        /// Which edge.
        #[serde(default)]
        edge: EdgeKind,
        /// Edges closer together are one.
        #[serde(default)]
        debounce_us: u64,
        /// A frame must come within so long after the edge.
        #[serde(default = "default_frame_timeout_ms")]
        frame_within_ms: u64,
    },
}

impl Default for Trigger {
    fn default() -> Self {
        Self::Free {}
    }
}

/// Edge of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// From inactive to active.
    #[default]
    Rising,
    /// From active to inactive.
    Falling,
}

/// A GPIO line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// e.g. `/dev/gpiochip0`, or the chip's label.
    pub chip: PathBuf,
    /// Number of the line on the chip.
    pub line: u32,
    /// Whether the line is active when low.
    #[serde(default)]
    pub active_low: bool,
}

/// The reject gate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The output; active pushes a part out.
    pub output: Line,
    /// What happens to a part without a verdict, and while the camera cannot inspect.
    #[serde(default)]
    pub on_fault: OnFault,
    /// From trigger to gate.
    #[serde(default)]
    pub delay_ms: u64,
    /// How long the output stays active.
    #[serde(default = "default_pulse_ms")]
    pub pulse_ms: u64,
    /// Instead of by time, by edges of an encoder.
    pub encoder: Option<Encoder>,
}

/// What a part without a verdict gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Its line; rising edges count.
    pub input: Line,
    /// Counts from trigger to gate.
    pub delay_counts: u64,
    /// Counts that the output stays active.
    pub pulse_counts: u64,
}

/// Lines to a PLC.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Active while a part awaits its verdict.
    pub busy: Option<Line>,
    /// Active while parts can be inspected.
    pub ready: Option<Line>,
    /// Active while they cannot, and while reports cannot be kept.
    pub fault: Option<Line>,
}

/// Deadlines and threads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inspection {
    /// From trigger to verdict; later is a fault. The gate's delay where it is shorter, or where none is given.
    pub deadline_ms: Option<u64>,
    /// Frames scored at the same time.
    pub threads: usize,
    /// Threads that share the work on each of them.
    pub threads_per_frame: usize,
    /// Score in half precision where the processor has kernels for it (ARMv8.2 with FP16); elsewhere in single precision, with a warning.
    /// Threshold and promise are of scores in single precision.
    pub half_precision: bool,
    /// `inspect` or `observe` (every part passes, also while blind).
    pub mode: ModeName,
}

/// Mode at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Drives the gate.
    #[default]
    Inspect,
    /// Lets every part pass.
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
#[serde(rename_all = "lowercase")]
pub enum Pictures {
    /// None.
    None,
    /// Those of NG parts.
    #[default]
    Ng,
    /// All.
    All,
}

/// What a report carries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Which reports carry a heat map.
    pub heat_map: Pictures,
    /// Which reports carry a thumbnail.
    pub thumbnail: Pictures,
    /// Longer side of the thumbnail.
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

/// Who is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Address to listen on, e.g. `0.0.0.0:9750`.
    pub tcp: Option<SocketAddr>,
    /// A serial line.
    pub serial: Option<SerialLine>,
    /// Stations at the same time.
    pub max_stations: usize,
    /// Whether the camera tells its name and address on the local network (mDNS).
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

/// A serial line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialLine {
    /// e.g. `/dev/ttyS1`.
    pub path: PathBuf,
    /// Bits a second.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// What whoever is at the other end of the cable may do: there are no keys on it.
    #[serde(default)]
    pub role: SerialRole,
    /// Whether the recovery exchange is answered on it: a package can be flashed by a station of any version. The package
    /// must be signed all the same.
    #[serde(default = "yes")]
    pub recovery: bool,
}

/// What a station may do; see [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SerialRole {
    /// [`Role::Watch`].
    Watch,
    /// [`Role::Operate`].
    Operate,
    /// [`Role::Engineer`].
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

/// The journal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Largest size on disk.
    pub max_mb: u64,
    /// Records wait at most so long for the disk; together they cost one write.
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

/// The ring of stored images.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Largest size on disk; 0 stores none.
    pub max_mb: u64,
    /// One OK frame in so many is kept; 0 keeps none.
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

/// Metrics and health.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address, e.g. `127.0.0.1:9751`.
    pub http: Option<SocketAddr>,
}

/// The golden-sample check.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Golden {
    /// Every so many minutes; 0 only on command.
    pub every_min: u64,
    /// A frame that must be OK.
    pub good: Option<PathBuf>,
    /// A frame that must be NG.
    pub bad: Option<PathBuf>,
}

/// Drift detection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drift {
    /// Good parts in the running window; 0 turns drift detection off.
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

fn yes() -> bool {
    true
}

fn default_baud() -> u32 {
    115_200
}

impl Config {
    /// Reads, checks, and makes relative paths count from the file's folder.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text).map_err(|reason| ConfigError::Content {
            path: path.to_owned(),
            reason,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.anchor(folder);
        Ok(config)
    }

    /// From TOML; the error is one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("line {line}: {}", with_suggestion(error.message()))
        })?;
        config.check()?;
        Ok(config)
    }

    fn anchor(&mut self, folder: &Path) {
        let mut paths: Vec<&mut PathBuf> = vec![&mut self.state];
        paths.extend(&mut self.model.package);
        paths.extend(&mut self.model.trust);
        paths.extend(&mut self.model.roi_mask);
        paths.extend(&mut self.golden.good);
        paths.extend(&mut self.golden.bad);
        if let Capture::Replay { path, .. } = &mut self.capture {
            paths.push(path);
        }
        for path in paths {
            *path = folder.join(&*path);
        }
    }

    fn check(&self) -> Result<(), String> {
        let wrong = |key: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(format!("{key}: expected {expected}, found {found}"))
        };
        let longest = proto::limits::MAX_TEXT_BYTES;
        if self.name.is_empty() || self.name.len() > longest {
            return wrong("name", "1 to 512 bytes", &self.name.len());
        }
        if self.model.trust.is_empty() {
            return wrong("model.trust", "at least one public key", &"none");
        }
        if let Some(threshold) = self.model.threshold
            && !(threshold.is_finite() && threshold >= 0.0)
        {
            return wrong("model.threshold", "a number of at least 0", &threshold);
        }
        if !(1..=64).contains(&self.inspection.threads) {
            return wrong("inspection.threads", "1 to 64", &self.inspection.threads);
        }
        if !(1..=64).contains(&self.inspection.threads_per_frame) {
            let found = &self.inspection.threads_per_frame;
            return wrong("inspection.threads_per_frame", "1 to 64", found);
        }
        if !(1..=64).contains(&self.link.max_stations) {
            return wrong("link.max_stations", "1 to 64", &self.link.max_stations);
        }
        if !(16..=320).contains(&self.report.thumbnail_px) {
            return wrong(
                "report.thumbnail_px",
                "16 to 320",
                &self.report.thumbnail_px,
            );
        }
        for (key, range, found) in self.ranges() {
            if !range.contains(&found) {
                let (least, most) = (range.start(), range.end());
                return wrong(key, &format!("{least} to {most}"), &found);
            }
        }
        match &self.capture {
            Capture::V4l2 { fps: Some(fps), .. } if !RATES.contains(fps) => {
                return wrong("capture.fps", "0.01 to 10000", fps);
            }
            Capture::V4l2 {
                format: Some(format),
                ..
            } if format.is_empty() || format.len() > 4 || !format.is_ascii() => {
                return wrong("capture.format", "a code of 4 characters like GREY", format);
            }
            Capture::Replay {
                speed: Speed::FramesPerSecond(fps),
                ..
            } if !RATES.contains(fps) => {
                return wrong("capture.speed", "0.01 to 10000", fps);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whole numbers, and what they may be.
    fn ranges(&self) -> Vec<(&'static str, RangeInclusive<u64>, u64)> {
        let mut ranges = vec![
            ("journal.max_mb", 1..=MAX_DISK_MB, self.journal.max_mb),
            // The report thread shows that it lives at least so often.
            ("journal.sync_ms", 0..=5_000, self.journal.sync_ms),
            ("images.max_mb", 0..=MAX_DISK_MB, self.images.max_mb),
            ("golden.every_min", 0..=MAX_MINUTES, self.golden.every_min),
        ];
        if let Some(deadline_ms) = self.inspection.deadline_ms {
            ranges.push(("inspection.deadline_ms", 1..=LONGEST_MS, deadline_ms));
        }
        if let Capture::V4l2 {
            timeout_ms,
            exposure_to_stamp_us,
            ..
        } = self.capture
        {
            ranges.push(("capture.timeout_ms", 1..=LONGEST_MS, timeout_ms));
            let lag_us = exposure_to_stamp_us.unwrap_or(0);
            ranges.push(("capture.exposure_to_stamp_us", 0..=60_000_000, lag_us));
        }
        if let Trigger::Gpio {
            debounce_us,
            frame_within_ms,
            ..
        } = self.trigger
        {
            ranges.push(("trigger.debounce_us", 0..=1_000_000, debounce_us));
            ranges.push(("trigger.frame_within_ms", 1..=LONGEST_MS, frame_within_ms));
        }
        if let Some(gate) = &self.gate {
            ranges.push(("gate.delay_ms", 0..=LONGEST_MS, gate.delay_ms));
            ranges.push(("gate.pulse_ms", 1..=LONGEST_MS, gate.pulse_ms));
            if let Some(encoder) = &gate.encoder {
                let (delay, pulse) = (encoder.delay_counts, encoder.pulse_counts);
                ranges.push(("gate.encoder.delay_counts", 0..=MAX_COUNTS, delay));
                ranges.push(("gate.encoder.pulse_counts", 1..=MAX_COUNTS, pulse));
            }
        }
        ranges
    }

    /// The longest that the source keeps silent while all is well.
    pub fn longest_wait(&self) -> Duration {
        match self.capture {
            Capture::V4l2 { timeout_ms, .. } => Duration::from_millis(timeout_ms),
            Capture::Replay {
                speed: Speed::FramesPerSecond(fps),
                ..
            } => Duration::from_secs_f64(fps.recip()),
            Capture::Replay { .. } => MAX_PAUSE,
        }
    }

    /// Time from trigger to the latest verdict that still counts.
    pub fn deadline(&self) -> Option<Duration> {
        let own = self.inspection.deadline_ms;
        // With an encoder the gate's distance is no time.
        let gate = self.gate.as_ref().filter(|gate| gate.encoder.is_none());
        let shortest = match (own, gate.map(|gate| gate.delay_ms)) {
            (Some(own), Some(gate)) if gate > 0 => Some(own.min(gate)),
            (None, Some(gate)) if gate > 0 => Some(gate),
            (own, _) => own,
        };
        shortest.map(Duration::from_millis)
    }
}

/// "unknown field `x`, expected one of `a`, `b`" with the nearest name in front.
fn with_suggestion(message: &str) -> String {
    let message = message.replace('\n', " ");
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let ([name, known @ ..], true) = (&names[..], unknown) else {
        return message;
    };
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 3);
    match nearest {
        Some((_, known)) => {
            let kind = if message.contains("field") {
                "key"
            } else {
                "value"
            };
            format!("unknown {kind} `{name}`: did you mean `{known}`?")
        }
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "top"
        state = "state"
        [model]
        package = "m.awr"
        trust = ["m.pub"]
        [capture]
        kind = "replay"
        path = "frames"
    "#;

    #[test]
    fn a_small_configuration_has_safe_defaults() {
        let config = Config::parse(SMALL).unwrap();
        assert!(config.gate.is_none());
        assert_eq!(config.inspection.threads, 1);
        assert_eq!(config.deadline(), None);
        assert_eq!(OnFault::default(), OnFault::Reject);
    }

    #[test]
    fn the_documented_configuration_is_valid() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/camera.toml");
        let config = Config::read(Path::new(path)).unwrap();
        assert_eq!(config.deadline(), Some(Duration::from_millis(200)));
        assert!(matches!(config.trigger, Trigger::Gpio { .. }));
        let Capture::V4l2 { controls, .. } = config.capture else {
            panic!("it is a camera")
        };
        assert_eq!(controls.len(), 2);
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line_and_a_suggestion() {
        let text = SMALL.replace("package =", "pakage =");
        let error = Config::parse(&text).unwrap_err();
        assert!(
            error.contains("line 5") && error.contains("did you mean `package`"),
            "{error}"
        );
        let error = Config::parse(&format!("{SMALL}\n[jurnal]\nmax_mb = 1")).unwrap_err();
        assert!(error.contains("did you mean `journal`"), "{error}");
        let error = Config::parse(&format!("{SMALL}\nsped = 1")).unwrap_err();
        assert!(error.contains("did you mean `speed`"), "{error}");
        let error = Config::parse(&SMALL.replace("replay", "reply")).unwrap_err();
        assert!(error.contains("did you mean `replay`"), "{error}");
    }

    #[test]
    fn a_misspelt_polarity_is_refused_wherever_a_line_is() {
        let refused = |more: &str| {
            let error = Config::parse(&format!("{SMALL}\n{more}")).unwrap_err();
            assert!(error.contains("did you mean `active_low`"), "{error}");
        };
        let line = "{ chip = \"c\", line = 1, activelow = true }";
        refused(&format!("[gate]\noutput = {line}"));
        refused(&format!("[signals]\nready = {line}"));
        refused(&format!(
            "[gate]\noutput = {{ chip = \"c\", line = 1 }}\n\
             encoder = {{ input = {line}, delay_counts = 1, pulse_counts = 1 }}"
        ));
        refused("[trigger]\nkind = \"gpio\"\nchip = \"c\"\nline = 1\nactiv_low = true");
    }

    #[test]
    fn a_trigger_takes_its_own_keys_only() {
        let parse = |more: &str| Config::parse(&format!("{SMALL}\n[trigger]\n{more}"));
        let gpio = "kind = \"gpio\"\nchip = \"c\"\nline = 1\nactive_low = true";
        let config = parse(gpio).unwrap();
        let Trigger::Gpio {
            line, active_low, ..
        } = config.trigger
        else {
            panic!("it is a line")
        };
        assert_eq!((line, active_low), (1, true));
        assert!(matches!(
            parse("kind = \"free\"").unwrap().trigger,
            Trigger::Free {}
        ));
        let error = parse(&format!("{gpio}\nframe_withinms = 9")).unwrap_err();
        assert!(error.contains("did you mean `frame_within_ms`"), "{error}");
        assert!(parse("kind = \"free\"\nline = 4").is_err());
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let with = |more: &str| Config::parse(&format!("{SMALL}\n{more}")).unwrap_err();
        assert!(with("[inspection]\nthreads = 0").contains("inspection.threads"));
        let found = with("[inspection]\nthreads_per_frame = 65");
        assert!(found.contains("inspection.threads_per_frame"), "{found}");
        assert!(with("speed = 0.0").contains("capture.speed"));
        assert!(with("[journal]\nmax_mb = 0").contains("journal.max_mb"));
        assert!(with("[journal]\nsync_ms = 40000").contains("journal.sync_ms: expected 0 to 5000"));
        assert!(with("speed = 1e-20").contains("capture.speed"));
        let camera = |more: &str| {
            let capture = format!("kind = \"v4l2\"\ndevice = \"/dev/video0\"\n{more}");
            let text = SMALL.replace("kind = \"replay\"", &capture);
            Config::parse(&text.replace("path = \"frames\"", ""))
        };
        assert!(camera("fps = 1e-20").unwrap_err().contains("capture.fps"));
        let none = camera("timeout_ms = 0").unwrap_err();
        assert!(none.contains("capture.timeout_ms"), "{none}");
        let gate = "[gate]\noutput = { chip = \"c\", line = 1 }";
        assert!(with(&format!("{gate}\npulse_ms = 0")).contains("gate.pulse_ms"));
        let minute = camera("timeout_ms = 60000").unwrap();
        assert_eq!(minute.longest_wait(), Duration::from_secs(60));
        assert!(with("[link]\ntcp = \"nowhere\"").contains("line"));
    }

    #[test]
    fn speeds_are_words_or_numbers() {
        let speed = |value: &str| {
            let config = Config::parse(&format!("{SMALL}\nspeed = {value}")).unwrap();
            let Capture::Replay { speed, .. } = config.capture else {
                panic!("it is a replay")
            };
            speed
        };
        assert_eq!(speed("\"maximum\""), Speed::Named(NamedSpeed::Maximum));
        assert_eq!(speed("12.5"), Speed::FramesPerSecond(12.5));
        assert_eq!(speed("30"), Speed::FramesPerSecond(30.0));
    }

    #[test]
    fn the_deadline_is_the_shorter_of_the_gates_delay_and_the_one_asked_for() {
        let gate = |more: &str| {
            let gate = "[gate]\noutput = { chip = \"c\", line = 1 }\ndelay_ms = 200\n";
            Config::parse(&format!("{SMALL}\n{gate}{more}"))
                .unwrap()
                .deadline()
        };
        assert_eq!(gate(""), Some(Duration::from_millis(200)));
        assert_eq!(
            gate("[inspection]\ndeadline_ms = 90"),
            Some(Duration::from_millis(90))
        );
        assert_eq!(
            gate("[inspection]\ndeadline_ms = 900"),
            Some(Duration::from_millis(200))
        );
    }

    #[test]
    fn paths_count_from_the_configurations_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("camera.toml");
        std::fs::write(&path, SMALL).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.model.package, Some(root.path().join("m.awr")));
    }
}
