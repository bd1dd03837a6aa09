//! What goes over a link, in either direction.
//!
//! # Evolution
//! - Enums grow only at their end; fields are never added, removed or reordered. What is new is a new variant and
//!   raises [`crate::version::VERSION`].
//! - A payload that decodes with bytes left over is damaged, not newer: [`DecodeError::Trailing`].
//! - A variant that this build does not know is [`DecodeError::Unknown`]: count it and read on.
//! - The recovery exchange ([`crate::recovery`]) has a fixed layout of its own and never changes.
//!
//! `tests/snapshots.rs` pins the bytes of every message.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::*;
use crate::manifest::Roi;
use crate::recovery;
use crate::report::{Body, Event, GoldenResult, Record};

/// From a station to a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToCamera {
    /// First of all.
    Hello(StationHello),
    /// Every record up to this sequence number is safe with the station.
    Acknowledge {
        /// Sequence number.
        sequence: u64,
    },
    /// Do something; answered by [`FromCamera::Reply`] with the same number.
    Command {
        /// Chosen by the station.
        id: u32,
        /// What.
        command: Command,
    },
    /// Nothing to say; keeps the link from being taken for dead.
    Alive,
    /// [`recovery::Request::FlashChunk`] with its bytes compressed, answered in the same way. Since version 2.
    FlashDeflated {
        /// Where the bytes belong, uncompressed.
        offset_bytes: u64,
        /// How many they are, uncompressed; at most [`MAX_CHUNK_BYTES`].
        plain_bytes: u32,
        /// The bytes, as raw DEFLATE (RFC 1951).
        deflated: Vec<u8>,
    },
}

/// From a camera to a station.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromCamera {
    /// Answer to the station's hello.
    Hello(CameraHello),
    /// A journalled record. Sent again until acknowledged: the same sequence number is the same record.
    Record {
        /// Consecutive from 1 over the camera's life.
        sequence: u64,
        /// The record.
        record: Record,
    },
    /// Records that the journal's size limit displaced before this station acknowledged them, or that its disk damaged.
    Displaced {
        /// First one missing.
        from: u64,
        /// First one still there.
        to: u64,
    },
    /// State of the camera, every few seconds.
    Health(Health),
    /// A line of the camera's log.
    Log {
        /// 1 error … 5 trace.
        level: u8,
        /// The line.
        text: String,
    },
    /// What a command led to.
    Reply {
        /// The command's number.
        id: u32,
        /// The result.
        answer: Answer,
    },
    /// A piece of what [`Command::Snapshot`] asked for.
    Chunk {
        /// The command's number.
        id: u32,
        /// Which of the pictures.
        kind: SnapshotKind,
        /// Length of the picture in bytes.
        total_bytes: u32,
        /// Where this piece belongs.
        offset_bytes: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// The camera ends the link.
    Goodbye {
        /// Why, in words.
        reason: String,
    },
    /// A piece of what [`Command::FetchFile`] asked for. Since version 2.
    FileChunk {
        /// The command's number.
        id: u32,
        /// Where this piece belongs in the file.
        offset_bytes: u64,
        /// The piece; at most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationHello {
    /// [`crate::version::MAGIC`].
    pub magic: [u8; 4],
    /// Oldest version understood.
    pub min_version: u16,
    /// Newest version understood.
    pub max_version: u16,
    /// [`crate::version::SCHEMA_HASH`].
    pub schema_hash: u64,
    /// Name of the station, of 1 to [`MAX_NAME_BYTES`]; what it has acknowledged is kept under it.
    pub station: String,
    /// Where to begin.
    pub start: Start,
}

/// Where delivery begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Behind what this station acknowledged last; a new station gets all that there is.
    Acknowledged,
    /// With the next record: for watching.
    Now,
    /// At this sequence number.
    At(u64),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraHello {
    /// [`crate::version::MAGIC`].
    pub magic: [u8; 4],
    /// The version that will be spoken.
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
    /// How often the program was started.
    pub boot: u32,
    /// Oldest record in the journal.
    pub oldest: u64,
    /// The next record's sequence number.
    pub next: u64,
}

/// State of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Seconds since the program started.
    pub uptime_s: u64,
    /// Whether frames come.
    pub capturing: bool,
    /// Frames captured since the start.
    pub frames: u64,
    /// Frames lost since the start, wherever.
    pub frames_lost: u64,
    /// Parts: OK, NG, fault.
    pub parts: [u64; 3],
    /// Journal records lost since the start.
    pub records_lost: u64,
    /// Median and 99th percentile of scoring, in microseconds.
    pub scoring_us: [u32; 2],
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Processor temperature in degrees Celsius, where known.
    pub temperature_c: Option<f32>,
    /// Mode.
    pub mode: Mode,
}

/// What the camera does with verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Inspects and drives the gate.
    Inspect,
    /// Inspects and reports, but lets every part pass: for setting up.
    Observe,
}

/// What a station asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Threshold in force.
    ReadThreshold,
    /// Decide by another one until the program ends or another package is activated.
    SetThreshold {
        /// On the scale of the anomaly map, finite and not negative.
        value: f32,
        /// Why; journalled.
        reason: String,
    },
    /// Region of interest in force.
    ReadMask,
    /// Inspect another region.
    SetMask {
        /// The region.
        roi: Roi,
        /// Why; journalled.
        reason: String,
    },
    /// Mode in force.
    ReadMode,
    /// Change it.
    SetMode {
        /// To this.
        mode: Mode,
        /// Why; journalled.
        reason: String,
    },
    /// The last frame and its map.
    Snapshot,
    /// Run the golden-sample check.
    GoldenCheck,
    /// State, now.
    ReadHealth,
    /// What is in the two slots. Since version 2, like all that follow.
    ReadSlots,
    /// Who has access.
    ReadStations,
    /// Keep a station out from now on.
    RevokeStation {
        /// Its name or key id.
        station: String,
        /// Why; journalled.
        reason: String,
    },
    /// Give out a one-time code with which a station can be paired.
    OpenPairing {
        /// What it may do.
        role: Role,
    },
    /// What is kept on the camera's disk, in order of names.
    ListFiles {
        /// Of this kind.
        kind: FileKind,
        /// Only names behind this one; empty: from the first.
        after: String,
    },
    /// A file, in [`FromCamera::FileChunk`]s.
    FetchFile {
        /// Of this kind.
        kind: FileKind,
        /// As [`Answer::Files`] has it.
        name: String,
        /// Bytes that the station has already.
        offset_bytes: u64,
    },
}

/// What a station may do; each includes those before. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// See reports, health, settings, pictures.
    Watch,
    /// Run checks, change the mode.
    Operate,
    /// Change thresholds and masks, flash, confirm, roll back, admit and revoke stations.
    Engineer,
}

/// It is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotARole;

impl core::fmt::Display for NotARole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("expected watch, operate or engineer")
    }
}

impl core::error::Error for NotARole {}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Watch, Self::Operate, Self::Engineer];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Operate => "operate",
            Self::Engineer => "engineer",
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or(NotARole)
    }
}

/// What files are. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Stored frames that were NG: pictures, maps and facts.
    Ng,
    /// Stored frames that were OK.
    Ok,
    /// Recordings.
    Recording,
}

/// A file on a camera's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A place for a package, and what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotInfo {
    /// Its state.
    pub state: PackageState,
    /// SHA-256 of the package; zero where there is none.
    pub sha256: [u8; 32],
    /// Name and version of the model; empty where there is none.
    pub model: String,
    /// Key id of who signed it.
    pub signer: String,
    /// The golden tiles' largest deviation on this camera, where they were scored.
    pub parity_off: Option<f32>,
    /// The threshold that it decides by.
    pub threshold: Option<f32>,
}

/// State of a package on a camera, as in [`recovery::SlotState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageState {
    /// Nothing whole.
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
    /// What it may do.
    pub role: Role,
    /// First 8 bytes of its key.
    pub key_id: [u8; 8],
}

/// What a command led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// Not done.
    Refused {
        /// Why, in words.
        reason: String,
    },
    /// Threshold in force; `None` where the package has none.
    Threshold(Option<f32>),
    /// Region of interest in force.
    Mask(Roi),
    /// Mode in force.
    Mode(Mode),
    /// The snapshot's pictures follow in chunks.
    Snapshot {
        /// Number of the part that it shows.
        part: u64,
        /// Score, if it was scored.
        score: Option<f32>,
        /// Bytes of the frame (PNG) and of the map (TIFF, 32-bit float; 0 without one).
        bytes: [u32; 2],
    },
    /// The golden-sample check's result.
    Golden(GoldenResult),
    /// State.
    Health(Health),
    /// The two slots. Since version 2, like all that follow.
    Slots(Vec<SlotInfo>),
    /// Who has access.
    Stations(Vec<StationInfo>),
    /// The code to type at the station.
    Pairing {
        /// Like K7QF-2M9X-TBHE.
        code: String,
        /// How long it is good for, in seconds.
        valid_s: u32,
    },
    /// Files in order of their names; ask again behind the last one until none comes.
    Files(Vec<FileInfo>),
    /// The file follows in chunks.
    File {
        /// Its length.
        bytes: u64,
    },
}

/// Picture in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// The frame as PNG.
    FramePng,
    /// The anomaly map as 32-bit float TIFF.
    MapTiff,
}

/// Why a payload is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A variant or an encoding that this build does not know: perhaps a newer peer.
    Unknown,
    /// The payload ends too early.
    Short,
    /// Bytes are left over.
    Trailing,
    /// A length beyond its limit (`limits`), or a value outside its range.
    Limit(&'static str),
    /// It belongs to the recovery exchange.
    Recovery,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => f.write_str("a message that this version does not know"),
            Self::Short => f.write_str("a message that ends too early"),
            Self::Trailing => f.write_str("a message with bytes left over"),
            Self::Limit(what) => write!(f, "a message whose {what} is beyond its limit"),
            Self::Recovery => f.write_str("a recovery message where none is expected"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A message that can be put into a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Whether it is a payload of its own, and so must not be taken for a recovery message. (A record's first byte is
    /// any.)
    const IS_PAYLOAD: bool = true;

    /// Checks the lengths that the message's type does not bound.
    fn check(&self) -> Result<(), DecodeError>;

    /// As a payload.
    fn encode(&self) -> Vec<u8> {
        // Serialising to memory fails only for sequences of unknown length, of which there are none.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// From a payload.
    fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        if Self::IS_PAYLOAD && payload.first() == Some(&recovery::MARK) {
            return Err(DecodeError::Recovery);
        }
        match postcard::take_from_bytes::<Self>(payload) {
            Ok((message, [])) => message.check().map(|()| message),
            Ok(_) => Err(DecodeError::Trailing),
            Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Short),
            Err(_) => Err(DecodeError::Unknown),
        }
    }
}

fn within(length: usize, limit: usize, what: &'static str) -> Result<(), DecodeError> {
    if length > limit {
        return Err(DecodeError::Limit(what));
    }
    Ok(())
}

fn text(value: &str) -> Result<(), DecodeError> {
    within(value.len(), MAX_TEXT_BYTES, "text")
}

/// Cuts a text to what a message takes, between characters.
pub fn cut_text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

impl Message for ToCamera {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(hello) => text(&hello.station),
            Self::Command { command, .. } => match command {
                Command::SetThreshold { reason, .. } | Command::SetMode { reason, .. } => {
                    text(reason)
                }
                Command::SetMask { roi, reason } => check_roi(roi).and_then(|()| text(reason)),
                Command::RevokeStation { station, reason } => {
                    text(station).and_then(|()| text(reason))
                }
                Command::ListFiles { after: name, .. } | Command::FetchFile { name, .. } => {
                    text(name)
                }
                _ => Ok(()),
            },
            Self::FlashDeflated {
                plain_bytes,
                deflated,
                ..
            } => within(*plain_bytes as usize, MAX_CHUNK_BYTES, "chunk")
                .and_then(|()| within(deflated.len(), MAX_CHUNK_BYTES, "chunk")),
            _ => Ok(()),
        }
    }
}

impl Message for FromCamera {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(hello) => [&hello.camera, &hello.program, &hello.model]
                .into_iter()
                .try_for_each(|value| text(value)),
            Self::Record { record, .. } => record.check(),
            Self::Log { text: line, .. } | Self::Goodbye { reason: line } => text(line),
            Self::Reply { answer, .. } => match answer {
                Answer::Refused { reason } => text(reason),
                Answer::Mask(roi) => check_roi(roi),
                Answer::Golden(result) => text(&result.detail),
                Answer::Slots(slots) => within(slots.len(), MAX_LISTED, "list of slots")
                    .and_then(|()| slots.iter().try_for_each(|slot| text(&slot.model))),
                Answer::Stations(stations) => {
                    within(stations.len(), MAX_LISTED, "list of stations")?;
                    stations.iter().try_for_each(|station| text(&station.name))
                }
                Answer::Pairing { code, .. } => text(code),
                Answer::Files(files) => within(files.len(), MAX_LISTED, "list of files")
                    .and_then(|()| files.iter().try_for_each(|file| text(&file.name))),
                _ => Ok(()),
            },
            Self::Chunk { bytes, .. } | Self::FileChunk { bytes, .. } => {
                within(bytes.len(), MAX_CHUNK_BYTES, "chunk")
            }
            _ => Ok(()),
        }
    }
}

/// Records are journalled in this encoding too.
impl Message for Record {
    const IS_PAYLOAD: bool = false;

    fn check(&self) -> Result<(), DecodeError> {
        match &self.body {
            Body::Part(part) => {
                within(part.regions.len(), MAX_REGIONS, "list of regions")?;
                let map = part.heat_map.as_ref().map_or(0, |map| map.png.len());
                within(map, MAX_HEAT_MAP_BYTES, "heat map")?;
                let thumbnail = part.thumbnail_jpeg.as_ref().map_or(0, Vec::len);
                within(thumbnail, MAX_THUMBNAIL_BYTES, "thumbnail")
            }
            Body::Event(event) => match event {
                Event::Started { version, model, .. } => text(version).and_then(|()| text(model)),
                Event::CaptureLost { reason }
                | Event::RecordsLost { reason, .. }
                | Event::GateFault { reason } => text(reason),
                Event::StageRestarted { stage, reason } => text(stage).and_then(|()| text(reason)),
                Event::GoldenCheck(result) => text(&result.detail),
                Event::SettingChanged {
                    setting,
                    before,
                    after,
                    reason,
                    station,
                } => [setting, before, after, reason, station]
                    .into_iter()
                    .try_for_each(|value| text(value)),
                Event::PackageActivated { model, station, .. }
                | Event::PackageConfirmed { model, station, .. } => {
                    text(model).and_then(|()| text(station))
                }
                Event::PackageRefused { reason, station } => {
                    text(reason).and_then(|()| text(station))
                }
                Event::RolledBack {
                    model,
                    reason,
                    station,
                    ..
                } => [model, reason, station]
                    .into_iter()
                    .try_for_each(|value| text(value)),
                Event::LinkRefused { peer, reason, .. } => text(peer).and_then(|()| text(reason)),
                Event::StationPaired { station, .. } => text(station),
                Event::StationRevoked {
                    station,
                    reason,
                    by,
                } => [station, reason, by]
                    .into_iter()
                    .try_for_each(|value| text(value)),
                Event::Stopping | Event::CaptureResumed { .. } | Event::Drift { .. } => Ok(()),
            },
        }
    }
}

fn check_roi(roi: &Roi) -> Result<(), DecodeError> {
    match roi {
        Roi::Whole => Ok(()),
        Roi::Polygons(polygons) => {
            within(polygons.len(), MAX_TEXT_BYTES, "list of polygons")?;
            polygons
                .iter()
                .try_for_each(|polygon| within(polygon.len(), MAX_POLYGON_CORNERS, "polygon"))
        }
        Roi::Bitmap { runs, .. } => within(runs.len(), MAX_MASK_RUNS, "mask"),
    }
}
