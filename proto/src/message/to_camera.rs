//! What a station sends to a camera.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use crate::codec::{DecodeError, Message, check_length, check_roi, check_text, check_texts};
use crate::limits::MAX_CHUNK_BYTES;
use crate::manifest::Roi;
use crate::role::Role;

/// From a station to a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToCamera {
    /// The first message of a session.
    Hello(StationHello),
    /// The station has stored every record up to this sequence number.
    Acknowledge {
        /// Sequence number of the last record stored.
        sequence: u64,
    },
    /// A request, answered by [`FromCamera::Reply`](super::FromCamera::Reply) with the same
    /// number.
    Command {
        /// Number chosen by the station.
        id: u32,
        /// The request.
        command: Command,
    },
    /// Keeps the link from being taken for dead when there is nothing else to send.
    Alive,
    /// [`Request::FlashChunk`](crate::recovery::Request::FlashChunk) with its bytes compressed,
    /// answered in the same way. Since version 2.
    FlashDeflated {
        /// Offset of the uncompressed bytes in the package.
        offset_bytes: u64,
        /// Number of uncompressed bytes; at most [`MAX_CHUNK_BYTES`].
        plain_bytes: u32,
        /// The bytes, as raw DEFLATE (RFC 1951).
        deflated: Vec<u8>,
    },
}

/// How a station introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationHello {
    /// [`crate::version::MAGIC`].
    pub magic: [u8; 4],
    /// Oldest protocol version understood.
    pub min_version: u16,
    /// Newest protocol version understood.
    pub max_version: u16,
    /// [`crate::version::SCHEMA_HASH`].
    pub schema_hash: u64,
    /// Name of the station, of 1 to [`MAX_NAME_BYTES`](crate::limits::MAX_NAME_BYTES). The camera
    /// keeps the station's acknowledged position under it.
    pub station: String,
    /// Where delivery begins.
    pub start: Start,
}

/// Where delivery of records begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// After the last record that this station acknowledged. A new station gets all records that
    /// are still in the journal.
    Acknowledged,
    /// With the next record: for watching.
    Now,
    /// At this sequence number.
    At(u64),
}

/// What a station asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Read the threshold in force.
    ReadThreshold,
    /// Set the threshold of the active package. It lasts over restarts.
    SetThreshold {
        /// The threshold on the scale of the anomaly map, finite and not negative.
        value: f32,
        /// Why it is set; journalled.
        reason: String,
    },
    /// Read the region of interest in force.
    ReadMask,
    /// Set the region of interest of the active package. It lasts over restarts.
    SetMask {
        /// The region.
        roi: Roi,
        /// Why it is set; journalled.
        reason: String,
    },
    /// Read the mode in force.
    ReadMode,
    /// Set the mode. It lasts over restarts.
    SetMode {
        /// The mode.
        mode: Mode,
        /// Why it is set; journalled.
        reason: String,
    },
    /// Send the last frame and its anomaly map.
    Snapshot,
    /// Run the golden-sample check.
    GoldenCheck,
    /// Send the state now.
    ReadHealth,
    /// Read what is in the two slots. Since version 2, like all that follow.
    ReadSlots,
    /// Read the access list.
    ReadStations,
    /// Revoke a station's access.
    RevokeStation {
        /// Name or key id of the station.
        station: String,
        /// Why it is revoked; journalled.
        reason: String,
    },
    /// Issue a one-time code with which a station can be paired.
    OpenPairing {
        /// The role of the station that pairs.
        role: Role,
    },
    /// List files on the camera's disk, ordered by name.
    ListFiles {
        /// The kind of file.
        kind: FileKind,
        /// Only names that follow this one; empty: from the first.
        after: String,
    },
    /// Send a file, in [`FromCamera::FileChunk`](super::FromCamera::FileChunk)s.
    FetchFile {
        /// The kind of file.
        kind: FileKind,
        /// The name, as listed in [`Answer::Files`](super::Answer::Files).
        name: String,
        /// Bytes that the station already has.
        offset_bytes: u64,
    },
    /// Read the settings in force and where each comes from. Since version 3.
    ReadSettings,
    /// Read whether parts are being inspected, and what fails. Since version 3.
    ReadReadiness,
}

/// Kinds of files on a camera's disk. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Stored NG frames: pictures, maps, and their metadata.
    Ng,
    /// Stored OK frames.
    Ok,
    /// Recordings.
    Recording,
}

impl Message for ToCamera {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(hello) => check_text(&hello.station),
            Self::Command { command, .. } => match command {
                Command::SetThreshold { reason, .. } | Command::SetMode { reason, .. } => {
                    check_text(reason)
                }
                Command::SetMask { roi, reason } => {
                    check_roi(roi).and_then(|()| check_text(reason))
                }
                Command::RevokeStation { station, reason } => check_texts([station, reason]),
                Command::ListFiles { after: name, .. } | Command::FetchFile { name, .. } => {
                    check_text(name)
                }
                _ => Ok(()),
            },
            Self::FlashDeflated {
                plain_bytes,
                deflated,
                ..
            } => check_length(*plain_bytes as usize, MAX_CHUNK_BYTES, "chunk")
                .and_then(|()| check_length(deflated.len(), MAX_CHUNK_BYTES, "chunk")),
            _ => Ok(()),
        }
    }
}
