//! Why a package is refused, or the slots stay as they are.

use super::incoming::IncomingError;
use super::slots::SlotsError;

/// Why an update fails.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Another station is updating.
    #[error("{0:?} is updating this camera")]
    Busy(String),
    /// A piece came, or the end, without the beginning of a transfer.
    #[error("no transfer has begun")]
    NotBegun,
    /// The transfer failed.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// A compressed piece is damaged.
    #[error("expected a piece that decompresses to {expected} bytes; found a damaged one")]
    Deflate {
        /// Announced length of the decompressed piece.
        expected: usize,
    },
    /// The package cannot be used on this camera.
    #[error("{0}")]
    Refused(String),
    /// The slots do not allow it.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The disk cannot be read or written.
    #[error("{0}")]
    Disk(String),
}
