//! What a camera keeps on disk and delivers until acknowledged: parts and events.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// One journalled fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970-01-01 UTC by the camera's clock, which may be wrong or step.
    pub unix_ms: u64,
    /// How often the camera program had been started, this time included: tells two parts of the same number apart.
    pub boot: u32,
    /// What happened.
    pub body: Body,
}

/// What a record tells. Grows only at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A part passed.
    Part(PartReport),
    /// Something else happened.
    Event(Event),
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartReport {
    /// Number of the part since the program started, from 1.
    pub part: u64,
    /// The driver's frame counter; 0 where there was no frame.
    pub frame_sequence: u32,
    /// First 8 bytes of the SHA-256 of the model package; zero where no model was active.
    pub model_id: [u8; 8],
    /// The outcome.
    pub outcome: Outcome,
    /// What the gate was told.
    pub action: GateAction,
    /// Score of the frame, on the scale of the anomaly map.
    pub score: Option<f32>,
    /// Threshold in force.
    pub threshold: Option<f32>,
    /// Microseconds from capture to verdict.
    pub latency_us: u32,
    /// Regions above the threshold, largest peak first; at most [`crate::limits::MAX_REGIONS`].
    pub regions: Vec<Region>,
    /// How many there were.
    pub regions_found: u32,
    /// The anomaly map, small.
    pub heat_map: Option<HeatMap>,
    /// The frame, small, as JPEG.
    pub thumbnail_jpeg: Option<Vec<u8>>,
}

/// What is known of a part. A fault is not a kind of reject, even where both move the gate. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// No pixel above the threshold.
    Ok,
    /// At least one is.
    Ng,
    /// It could not be inspected.
    Fault(Fault),
}

/// Why a part could not be inspected. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// No frame came for it.
    NoFrame,
    /// The driver marked its frame as damaged, or the frame could not be converted.
    DamagedFrame,
    /// The verdict came after the deadline.
    Late,
    /// Its frame was displaced by a newer one before it could be scored.
    Displaced,
    /// Scoring failed.
    Scoring,
    /// No model is active, or it has no threshold.
    NoModel,
}

/// What the gate was told. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateAction {
    /// There is no gate.
    None,
    /// Let the part pass.
    Pass,
    /// Push the part out.
    Reject,
}

/// A defect region in pixels of the captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Left edge.
    pub x_px: u32,
    /// Upper edge.
    pub y_px: u32,
    /// Width of the bounding box.
    pub width_px: u32,
    /// Height of the bounding box.
    pub height_px: u32,
    /// Area in square pixels.
    pub area_px: f32,
    /// Highest score.
    pub peak: f32,
    /// Mean score.
    pub mean: f32,
    /// Centre of gravity (x, y).
    pub centroid_px: [f32; 2],
}

/// An anomaly map in 8 bits: a pixel is `round(255 · min(score / full_scale, 1))`, as a grey PNG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// Score of 255.
    pub full_scale: f32,
    /// The PNG file.
    pub png: Vec<u8>,
}

/// Something that a person or a line controller should know. Grows only at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The program started.
    Started {
        /// Version of the program.
        version: String,
        /// First 8 bytes of the SHA-256 of the active package; zero without one.
        model_id: [u8; 8],
        /// Name and version of the model.
        model: String,
    },
    /// The program stops as it was asked to.
    Stopping,
    /// The camera delivers no frames.
    CaptureLost {
        /// Why, in words.
        reason: String,
    },
    /// Frames come again.
    CaptureResumed {
        /// Milliseconds without frames.
        after_ms: u64,
        /// Attempts to open the device.
        attempts: u32,
    },
    /// Journal records could not be kept (disk full, disk slow).
    RecordsLost {
        /// How many since the last such event.
        count: u64,
        /// Why, in words.
        reason: String,
    },
    /// A stage failed and was started anew.
    StageRestarted {
        /// Which.
        stage: String,
        /// Why, in words.
        reason: String,
    },
    /// The golden-sample check was run.
    GoldenCheck(GoldenResult),
    /// Good parts look different from when the model was calibrated.
    Drift {
        /// What moved.
        kind: DriftKind,
        /// How far, in the units of the kind.
        found: f32,
        /// What it was.
        expected: f32,
    },
    /// A setting was changed over a link.
    SettingChanged {
        /// Which.
        setting: String,
        /// From.
        before: String,
        /// To.
        after: String,
        /// The reason given.
        reason: String,
        /// The station that changed it.
        station: String,
    },
    /// The reject gate could not be driven.
    GateFault {
        /// Why, in words.
        reason: String,
    },
    /// Another package inspects from now on. Since version 2, like all that follow.
    PackageActivated {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// The golden tiles' largest deviation on this camera.
        parity_off: f32,
        /// Whether it is on trial.
        trial: bool,
        /// The station that asked for it; empty: the camera itself.
        station: String,
    },
    /// A package was offered and is not used.
    PackageRefused {
        /// Why, in words.
        reason: String,
        /// The station that offered it; empty: it was in a slot.
        station: String,
    },
    /// The package on trial is kept.
    PackageConfirmed {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// The station that asked for it.
        station: String,
    },
    /// The package before inspects again.
    RolledBack {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// Why, in words.
        reason: String,
        /// The station that asked for it; empty: the camera itself.
        station: String,
    },
    /// Somebody was not let in, or asked for what is not theirs to ask.
    LinkRefused {
        /// Address or name.
        peer: String,
        /// Why, in words.
        reason: String,
        /// How often since the last such event.
        count: u32,
    },
    /// A station was let in.
    StationPaired {
        /// Its name.
        station: String,
        /// What it may do.
        role: crate::message::Role,
        /// First 8 bytes of its key.
        key_id: [u8; 8],
    },
    /// A station is kept out from now on.
    StationRevoked {
        /// Its name.
        station: String,
        /// The reason given.
        reason: String,
        /// The station that asked for it; empty: the camera's own command line.
        by: String,
    },
}

/// What moved when a drift is reported. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DriftKind {
    /// Mean brightness of frames (0..=1).
    Brightness,
    /// Contrast: standard deviation of brightness (0..=1).
    Contrast,
    /// Sharpness: mean square of the Laplacian of brightness.
    Sharpness,
    /// Scores of good parts, while the image statistics are as they were: the surface itself.
    Surface,
}

/// Result of a golden-sample check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenResult {
    /// Whether everything was as expected.
    pub passed: bool,
    /// What was checked and found, in words.
    pub detail: String,
}
