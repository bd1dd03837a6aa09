//! Framing: a payload between zero bytes, with a CRC-32 appended and stuffed with COBS (Cheshire
//! and Baker 1999).
//!
//! ```text
//! 0x00  COBS( payload ‖ CRC-32 of payload, little-endian )  0x00
//! ```
//! The leading zero ends any noise that came before on a serial line. Empty frames are ignored, so
//! two zeros between frames do no harm. The CRC-32 is that of IEEE 802.3 (polynomial 0x04C11DB7,
//! reflected).

use alloc::vec;
use alloc::vec::Vec;

use crate::limits::MAX_PAYLOAD_BYTES;

/// Size of the checksum in bytes.
pub(crate) const CRC_BYTES: usize = 4;

/// Size in bytes of an accumulator's buffer that holds any frame: the stuffed payload and checksum,
/// without the zeros.
pub const MAX_STUFFED_BYTES: usize = max_stuffed_bytes(MAX_PAYLOAD_BYTES + CRC_BYTES);

/// Largest size of stuffed bytes. `cobs::max_encoding_length` does not count the empty last block
/// that the encoder writes after a last block of exactly 254 bytes.
const fn max_stuffed_bytes(plain_bytes: usize) -> usize {
    cobs::max_encoding_length(plain_bytes) + 1
}

/// A payload is longer than any receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Its length in bytes.
    pub found_bytes: usize,
}

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let found = self.found_bytes;
        write!(
            f,
            "expected a payload of at most {MAX_PAYLOAD_BYTES} bytes, found {found}"
        )
    }
}

impl core::error::Error for TooLong {}

/// Encodes a payload for the wire, zeros included.
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, TooLong> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(TooLong {
            found_bytes: payload.len(),
        });
    }
    let mut plain = Vec::with_capacity(payload.len() + CRC_BYTES);
    plain.extend_from_slice(payload);
    plain.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let mut wire = vec![0; 1 + max_stuffed_bytes(plain.len()) + 1];
    let stuffed = cobs::encode(&plain, &mut wire[1..]);
    wire.truncate(1 + stuffed);
    wire.push(0);
    Ok(wire)
}
