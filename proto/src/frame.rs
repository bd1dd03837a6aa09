//! Framing: a payload between zero bytes, stuffed with COBS (Cheshire and Baker 1999) and closed by a CRC-32.
//!
//! ```text
//! 0x00  COBS( payload ‖ CRC-32 of payload, little-endian )  0x00
//! ```
//! The leading zero ends whatever noise came before on a serial line; empty frames are ignored, so two zeros between
//! frames do no harm. CRC-32 is the one of IEEE 802.3 (polynomial 0x04C11DB7, reflected).

use alloc::vec;
use alloc::vec::Vec;

use crate::limits::MAX_PAYLOAD_BYTES;

/// Bytes of the checksum.
pub(crate) const CRC_BYTES: usize = 4;

/// Bytes that an accumulator needs to take any frame: the stuffed payload and checksum, without the zeros.
pub const MAX_STUFFED_BYTES: usize = room(MAX_PAYLOAD_BYTES + CRC_BYTES);

/// Room for stuffed bytes. The library's figure lacks the empty last block that its encoder writes behind a last
/// block of exactly 254 bytes.
const fn room(plain_bytes: usize) -> usize {
    cobs::max_encoding_length(plain_bytes) + 1
}

/// A payload is longer than any receiver takes.
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

/// A payload as it goes over the wire, zeros included.
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, TooLong> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(TooLong {
            found_bytes: payload.len(),
        });
    }
    let mut plain = Vec::with_capacity(payload.len() + CRC_BYTES);
    plain.extend_from_slice(payload);
    plain.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let mut wire = vec![0; 1 + room(plain.len()) + 1];
    let stuffed = cobs::encode(&plain, &mut wire[1..]);
    wire.truncate(1 + stuffed);
    wire.push(0);
    Ok(wire)
}
