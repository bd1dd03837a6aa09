//! Records: the parts and events that a camera keeps on disk and delivers until they are
//! acknowledged.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Message, check_length, check_text, check_texts};
use crate::limits::{MAX_HEAT_MAP_BYTES, MAX_REGIONS, MAX_THUMBNAIL_BYTES};
use crate::role::Role;

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970-01-01 UTC by the camera's clock, which may be wrong or step.
    pub unix_ms: u64,
    /// Boot counter: how many times the camera program has been started, this time included. It
    /// tells apart two parts of the same number.
    pub boot: u32,
    /// What happened.
    pub body: Body,
}

/// What a record holds. Grows only at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A part came by.
    Part(PartReport),
    /// Something else happened.
    Event(Event),
}

/// The result for one part.
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
    /// What the gate was commanded to do.
    pub action: GateAction,
    /// Score of the frame, on the scale of the anomaly map.
    pub score: Option<f32>,
    /// Threshold in force.
    pub threshold: Option<f32>,
    /// Microseconds from capture to verdict.
    pub latency_us: u32,
    /// Regions above the threshold, highest peak first; at most [`MAX_REGIONS`].
    pub regions: Vec<RegionReport>,
    /// Number of regions found, including those left out of `regions`.
    pub regions_found: u32,
    /// The anomaly map, reduced.
    pub heat_map: Option<HeatMap>,
    /// The frame, reduced, as JPEG.
    pub thumbnail_jpeg: Option<Vec<u8>>,
}

/// Outcome of an inspection. A fault is not a kind of reject, even where both move the gate. Grows
/// only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// No pixel scores above the threshold.
    Ok,
    /// At least one pixel scores above the threshold.
    Ng,
    /// The part could not be inspected.
    Fault(Fault),
}

/// Why a part could not be inspected. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// No frame arrived for it.
    NoFrame,
    /// The driver marked its frame as damaged, or the frame could not be converted.
    DamagedFrame,
    /// The verdict came after the deadline.
    Late,
    /// A newer frame evicted its frame before it could be scored.
    Displaced,
    /// Scoring failed.
    Scoring,
    /// No model is active, or it has no threshold.
    NoModel,
    /// Its frame cannot show a part: it is black or saturated, far from what calibration saw, or
    /// identical to the frames before it. Since version 3.
    Implausible,
}

/// What the gate was commanded to do. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateAction {
    /// There is no gate.
    None,
    /// Let the part pass.
    Pass,
    /// Reject the part.
    Reject,
}

/// A defect region of a part report, in pixels of the captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegionReport {
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

/// An anomaly map in 8 bits, as a grey PNG: a pixel is `round(255 · min(score / full_scale, 1))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// The score that a pixel of 255 stands for.
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
    /// The program stops on request.
    Stopping,
    /// The capture device delivers no frames.
    CaptureLost {
        /// The reason, as text.
        reason: String,
    },
    /// Frames are arriving again.
    CaptureResumed {
        /// Milliseconds without frames.
        after_ms: u64,
        /// Attempts to open the device.
        attempts: u32,
    },
    /// Journal records could not be stored, for example because the disk is full or too slow.
    RecordsLost {
        /// Records lost since the last such event.
        count: u64,
        /// The reason, as text.
        reason: String,
    },
    /// A stage of the pipeline failed and was restarted.
    StageRestarted {
        /// Name of the stage.
        stage: String,
        /// The reason, as text.
        reason: String,
    },
    /// The golden-sample check was run.
    GoldenCheck(GoldenResult),
    /// Good parts have changed since the model was calibrated.
    Drift {
        /// The quantity that drifted.
        kind: DriftKind,
        /// Its present value, in the unit of the kind.
        found: f32,
        /// Its value at calibration.
        expected: f32,
    },
    /// A setting was changed over a link.
    SettingChanged {
        /// Name of the setting.
        setting: String,
        /// Value before.
        before: String,
        /// Value after.
        after: String,
        /// The reason given.
        reason: String,
        /// The station that changed it.
        station: String,
    },
    /// The reject gate could not be driven.
    GateFault {
        /// The reason, as text.
        reason: String,
    },
    /// Another package is active from now on. Since version 2, like all that follow.
    PackageActivated {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// Largest deviation of the golden tiles on this camera.
        parity_off: f32,
        /// Whether it is on trial.
        trial: bool,
        /// The station that asked for it; empty if the camera decided itself.
        station: String,
    },
    /// A package was refused.
    PackageRefused {
        /// The reason, as text.
        reason: String,
        /// The station that sent it; empty if the package was already in a slot.
        station: String,
    },
    /// The package on trial was confirmed.
    PackageConfirmed {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// The station that asked for it.
        station: String,
    },
    /// The previous package is active again.
    RolledBack {
        /// First 8 bytes of its SHA-256.
        model_id: [u8; 8],
        /// Name and version of its model.
        model: String,
        /// The reason, as text.
        reason: String,
        /// The station that asked for it; empty if the camera decided itself.
        station: String,
    },
    /// A peer was denied access, or a command that its role does not cover.
    LinkRefused {
        /// Address or name of the peer.
        peer: String,
        /// The reason, as text.
        reason: String,
        /// Refusals since the last such event.
        count: u32,
    },
    /// A station was paired and has access.
    StationPaired {
        /// Its name.
        station: String,
        /// Its role.
        role: Role,
        /// First 8 bytes of its public key.
        key_id: [u8; 8],
    },
    /// A station's access was revoked.
    StationRevoked {
        /// Its name.
        station: String,
        /// The reason given.
        reason: String,
        /// The station that asked for it; empty if it was the camera's own command line.
        by: String,
    },
}

/// The quantity that drifted. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DriftKind {
    /// Mean brightness of frames, 0..=1.
    Brightness,
    /// Contrast: standard deviation of brightness within frames, 0..=1.
    Contrast,
    /// Sharpness: mean square of the Laplacian of brightness.
    Sharpness,
    /// Scores of good parts, while the image statistics are unchanged: the surface itself.
    Surface,
}

/// Result of a golden-sample check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenResult {
    /// Whether every check passed.
    pub passed: bool,
    /// What was checked and found, as text.
    pub detail: String,
}

impl Message for Record {
    const IS_PAYLOAD: bool = false;

    fn check(&self) -> Result<(), DecodeError> {
        match &self.body {
            Body::Part(part) => {
                check_length(part.regions.len(), MAX_REGIONS, "list of regions")?;
                let map = part.heat_map.as_ref().map_or(0, |map| map.png.len());
                check_length(map, MAX_HEAT_MAP_BYTES, "heat map")?;
                let thumbnail = part.thumbnail_jpeg.as_ref().map_or(0, Vec::len);
                check_length(thumbnail, MAX_THUMBNAIL_BYTES, "thumbnail")
            }
            Body::Event(event) => check_event(event),
        }
    }
}

fn check_event(event: &Event) -> Result<(), DecodeError> {
    match event {
        Event::Started { version, model, .. } => check_texts([version, model]),
        Event::CaptureLost { reason }
        | Event::RecordsLost { reason, .. }
        | Event::GateFault { reason } => check_text(reason),
        Event::StageRestarted { stage, reason } => check_texts([stage, reason]),
        Event::GoldenCheck(result) => check_text(&result.detail),
        Event::SettingChanged {
            setting,
            before,
            after,
            reason,
            station,
        } => check_texts([setting, before, after, reason, station]),
        Event::PackageActivated { model, station, .. }
        | Event::PackageConfirmed { model, station, .. } => check_texts([model, station]),
        Event::PackageRefused { reason, station } => check_texts([reason, station]),
        Event::RolledBack {
            model,
            reason,
            station,
            ..
        } => check_texts([model, reason, station]),
        Event::LinkRefused { peer, reason, .. } => check_texts([peer, reason]),
        Event::StationPaired { station, .. } => check_text(station),
        Event::StationRevoked {
            station,
            reason,
            by,
        } => check_texts([station, reason, by]),
        Event::Stopping | Event::CaptureResumed { .. } | Event::Drift { .. } => Ok(()),
    }
}
