//! How messages and records become bytes and are checked when they come back: postcard, plus the
//! length limits that the types do not express.

use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{MAX_MASK_RUNS, MAX_POLYGON_CORNERS, MAX_POLYGONS, MAX_TEXT_BYTES};
use crate::manifest::Roi;
use crate::recovery;

/// Why a payload could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A variant or an encoding that this build does not know; the peer may be newer.
    Unknown,
    /// The payload ends too early.
    Short,
    /// Bytes are left over.
    Trailing,
    /// A length beyond its limit ([`crate::limits`]). The text names what is too long.
    Limit(&'static str),
    /// The payload belongs to the recovery exchange ([`crate::recovery`]).
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

/// A value with a fixed encoding: a message, or a record inside one.
pub trait Message: Serialize + DeserializeOwned {
    /// Whether the value is a payload of its own, so that [`recovery::MARK`] as its first byte
    /// means a recovery message. A record is not: its first byte may be any.
    const IS_PAYLOAD: bool = true;

    /// Checks the lengths that the type does not bound.
    fn check(&self) -> Result<(), DecodeError>;

    /// Encodes the value as a payload.
    fn encode(&self) -> Vec<u8> {
        // Serialising to memory fails only for sequences of unknown length, and there are none.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Decodes a payload and checks it.
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

/// Checks a length against its limit; `what` names it in the error.
pub(crate) fn check_length(
    length: usize,
    limit: usize,
    what: &'static str,
) -> Result<(), DecodeError> {
    if length > limit {
        return Err(DecodeError::Limit(what));
    }
    Ok(())
}

/// Checks a text against [`MAX_TEXT_BYTES`].
pub(crate) fn check_text(text: &str) -> Result<(), DecodeError> {
    check_length(text.len(), MAX_TEXT_BYTES, "text")
}

/// Checks several texts, in order.
pub(crate) fn check_texts<const N: usize>(texts: [&str; N]) -> Result<(), DecodeError> {
    texts.into_iter().try_for_each(check_text)
}

/// Checks the lengths of a region of interest.
pub(crate) fn check_roi(roi: &Roi) -> Result<(), DecodeError> {
    match roi {
        Roi::Whole => Ok(()),
        Roi::Polygons(polygons) => {
            check_length(polygons.len(), MAX_POLYGONS, "list of polygons")?;
            polygons
                .iter()
                .try_for_each(|polygon| check_length(polygon.len(), MAX_POLYGON_CORNERS, "polygon"))
        }
        Roi::Bitmap { runs, .. } => check_length(runs.len(), MAX_MASK_RUNS, "mask"),
    }
}
