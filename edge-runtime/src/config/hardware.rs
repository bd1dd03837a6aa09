//! The tables of `camera.toml` for hardware: camera, trigger, gate and signals.
//!
//! The doc comments are part of the reference of `camera.toml`; see [`super::schema`].

use super::schema::yes;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

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
        /// again. Default: 1000; for a camera that takes a frame only at a trigger, a second longer
        /// than the trigger may be silent, or an hour where that is not limited.
        timeout_ms: Option<u64>,
        /// Time in microseconds from the start of the exposure to the driver's time stamp: exposure
        /// plus read-out. It decides which frame shows a triggered part, so a trigger needs it.
        /// Default: 0 if the driver says that it stamps the start of the exposure.
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
        /// Whether every trigger makes the camera take exactly one frame, and nothing else does.
        /// Then a frame without a part, or a part without a frame, that is not made up for is a
        /// fault: verdicts could be about the part before or after. Set it to `false` for a camera
        /// that runs freely, of whose frames most show no part.
        #[serde(default = "yes")]
        drives_camera: bool,
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
