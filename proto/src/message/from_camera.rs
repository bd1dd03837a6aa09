//! What a camera sends to a station.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use crate::codec::{DecodeError, Message, check_length, check_roi, check_text, check_texts};
use crate::limits::{MAX_CHUNK_BYTES, MAX_LISTED};
use crate::manifest::Roi;
use crate::report::{GoldenResult, Record};
use crate::role::Role;

/// From a camera to a station.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromCamera {
    /// The answer to the station's hello.
    Hello(CameraHello),
    /// A journalled record. It is sent again until acknowledged: the same sequence number is the
    /// same record.
    Record {
        /// Sequence number, consecutive from 1 over the camera's life.
        sequence: u64,
        /// The record.
        record: Record,
    },
    /// Records that this station can no longer get: the journal's size limit evicted them before
    /// the station acknowledged them, or the disk damaged them.
    Displaced {
        /// Sequence number of the first one missing.
        from: u64,
        /// Sequence number of the first one after them that is still there.
        to: u64,
    },
    /// State of the camera, every few seconds.
    Health(Health),
    /// A line of the camera's log.
    Log {
        /// Level, from 1 (error) to 5 (trace).
        level: u8,
        /// The line.
        text: String,
    },
    /// The answer to a command.
    Reply {
        /// Number of the command.
        id: u32,
        /// The answer.
        answer: Answer,
    },
    /// A piece of a picture that [`Command::Snapshot`](super::Command::Snapshot) asked for.
    Chunk {
        /// Number of the command.
        id: u32,
        /// The picture that the piece belongs to.
        kind: SnapshotKind,
        /// Length of the picture in bytes.
        total_bytes: u32,
        /// Offset of the piece in the picture.
        offset_bytes: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// The camera ends the link.
    Goodbye {
        /// The reason, as text.
        reason: String,
    },
    /// A piece of the file that [`Command::FetchFile`](super::Command::FetchFile) asked for. Since
    /// version 2.
    FileChunk {
        /// Number of the command.
        id: u32,
        /// Offset of the piece in the file.
        offset_bytes: u64,
        /// The piece; at most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
}

/// How a camera introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraHello {
    /// [`crate::version::MAGIC`].
    pub magic: [u8; 4],
    /// The protocol version of this session.
    pub version: u16,
    /// [`crate::version::SCHEMA_HASH`].
    pub schema_hash: u64,
    /// Name of the camera, from its configuration.
    pub camera: String,
    /// Version of its program.
    pub program: String,
    /// First 8 bytes of the SHA-256 of the active package; zero without one.
    pub model_id: [u8; 8],
    /// Name and version of the model; empty without one.
    pub model: String,
    /// Boot counter: how many times the program has been started.
    pub boot: u32,
    /// Sequence number of the oldest record in the journal.
    pub oldest: u64,
    /// Sequence number that the next record will get.
    pub next: u64,
}

/// State of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Seconds since the program started.
    pub uptime_s: u64,
    /// Whether frames are arriving.
    pub capturing: bool,
    /// Frames captured since the start.
    pub frames: u64,
    /// Frames lost since the start, at any place between the sensor and the verdict.
    pub frames_lost: u64,
    /// Parts since the start: OK, NG, fault.
    pub parts: [u64; 3],
    /// Journal records lost since the start.
    pub records_lost: u64,
    /// Median and 99th percentile of the scoring time, in microseconds.
    pub scoring_us: [u32; 2],
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Processor temperature in degrees Celsius, where known.
    pub temperature_c: Option<f32>,
    /// Mode in force.
    pub mode: Mode,
}

/// A file on a camera's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// One of the two slots for packages, and what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotInfo {
    /// State of the package.
    pub state: PackageState,
    /// SHA-256 of the package; zero where there is none.
    pub sha256: [u8; 32],
    /// Name and version of the model; empty where there is none.
    pub model: String,
    /// Key id of the signer.
    pub signer: String,
    /// Largest deviation of the golden tiles on this camera; `None` where they were not scored.
    pub parity_off: Option<f32>,
    /// The package's threshold.
    pub threshold: Option<f32>,
}

/// State of a package on a camera, as in [`SlotState`](crate::recovery::SlotState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageState {
    /// No complete package.
    Empty,
    /// A verified package.
    Ready,
    /// The active package.
    Active,
    /// Active until the program ends, unless confirmed.
    Trial,
}

/// A station that has access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationInfo {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// First 8 bytes of its public key.
    pub key_id: [u8; 8],
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// Not done.
    Refused {
        /// The reason, as text.
        reason: String,
    },
    /// Threshold in force; `None` where the package has none.
    Threshold(Option<f32>),
    /// Region of interest in force.
    Mask(Roi),
    /// Mode in force.
    Mode(Mode),
    /// The snapshot; its pictures follow in chunks.
    Snapshot {
        /// Number of the part that it shows.
        part: u64,
        /// Score, if the part was scored.
        score: Option<f32>,
        /// Bytes of the frame (PNG) and of the map (TIFF, 32-bit float; 0 without one).
        bytes: [u32; 2],
    },
    /// Result of the golden-sample check.
    Golden(GoldenResult),
    /// State of the camera.
    Health(Health),
    /// The two slots. Since version 2, like all that follow.
    Slots(Vec<SlotInfo>),
    /// The access list.
    Stations(Vec<StationInfo>),
    /// The code to type at the station.
    Pairing {
        /// The code, in the form K7QF-2M9X-TBHE.
        code: String,
        /// Validity in seconds.
        valid_s: u32,
    },
    /// Files ordered by name. Ask again after the last name until the list is empty.
    Files(Vec<FileInfo>),
    /// The file follows in chunks.
    File {
        /// Its length.
        bytes: u64,
    },
    /// The settings in force. Since version 3.
    Settings(Settings),
    /// Whether parts are being inspected. Since version 3.
    Readiness(Readiness),
}

/// Whether parts are being inspected, as the camera's outputs say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The output *ready*: parts are inspected and rejected.
    pub ready: bool,
    /// The output *fault*: something is wrong that a person at the line must know.
    pub fault: bool,
    /// The gate is held in its safe state.
    pub gate_held: bool,
    /// Names of the conditions that fail, such as `pairing`; at most 64.
    pub failing: Vec<String>,
}

/// The settings in force, and where each comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The threshold; `None` without a package.
    pub threshold: Option<f32>,
    /// Where it comes from.
    pub threshold_from: SettingSource,
    /// The region of interest, in words.
    pub mask: String,
    /// Where it comes from.
    pub mask_from: SettingSource,
    /// The mode.
    pub mode: Mode,
    /// Where it comes from.
    pub mode_from: SettingSource,
}

/// Where a setting comes from. Grows only at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingSource {
    /// The package, or the default.
    Package,
    /// The camera's configuration.
    Configuration,
    /// A station.
    Station {
        /// Its name.
        station: String,
        /// Why it was set.
        reason: String,
        /// When it was set, by the camera's clock.
        unix_ms: u64,
    },
}

/// A picture in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// The frame as PNG.
    FramePng,
    /// The anomaly map as 32-bit float TIFF.
    MapTiff,
}

impl Message for FromCamera {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(hello) => check_texts([&hello.camera, &hello.program, &hello.model]),
            Self::Record { record, .. } => record.check(),
            Self::Log { text: line, .. } | Self::Goodbye { reason: line } => check_text(line),
            Self::Reply { answer, .. } => check_answer(answer),
            Self::Chunk { bytes, .. } | Self::FileChunk { bytes, .. } => {
                check_length(bytes.len(), MAX_CHUNK_BYTES, "chunk")
            }
            _ => Ok(()),
        }
    }
}

fn check_answer(answer: &Answer) -> Result<(), DecodeError> {
    match answer {
        Answer::Refused { reason } => check_text(reason),
        Answer::Mask(roi) => check_roi(roi),
        Answer::Golden(result) => check_text(&result.detail),
        Answer::Settings(settings) => {
            let sources = [
                &settings.threshold_from,
                &settings.mask_from,
                &settings.mode_from,
            ];
            check_text(&settings.mask)?;
            sources.into_iter().try_for_each(|source| match source {
                SettingSource::Station {
                    station, reason, ..
                } => check_texts([station, reason]),
                SettingSource::Package | SettingSource::Configuration => Ok(()),
            })
        }
        Answer::Readiness(readiness) => {
            check_length(readiness.failing.len(), MAX_LISTED, "list of conditions")?;
            readiness
                .failing
                .iter()
                .try_for_each(|name| check_text(name))
        }
        Answer::Slots(slots) => {
            check_length(slots.len(), MAX_LISTED, "list of slots")?;
            slots.iter().try_for_each(|slot| check_text(&slot.model))
        }
        Answer::Stations(stations) => {
            check_length(stations.len(), MAX_LISTED, "list of stations")?;
            stations
                .iter()
                .try_for_each(|station| check_text(&station.name))
        }
        Answer::Pairing { code, .. } => check_text(code),
        Answer::Files(files) => {
            check_length(files.len(), MAX_LISTED, "list of files")?;
            files.iter().try_for_each(|file| check_text(&file.name))
        }
        _ => Ok(()),
    }
}
