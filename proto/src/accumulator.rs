//! From bytes, in pieces of any size, to payloads. Allocates nothing: the buffer is the caller's.
//!
//! Too few bytes are not an error. A frame that is damaged, too long or cut off is reported once,
//! and reading continues after the next zero byte.

use crate::frame::CRC_BYTES;

/// Why bytes were discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// More bytes without a zero than the buffer holds.
    TooLong,
    /// The bytes are not COBS.
    Stuffing,
    /// The checksum is wrong or missing.
    Checksum,
}

/// Result of feeding bytes. `rest` holds the bytes that were not consumed: feed them next.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed<'a, 'b> {
    /// All bytes were consumed and no frame is complete.
    NeedMore,
    /// A payload with a valid checksum.
    Frame {
        /// The payload.
        payload: &'a [u8],
        /// Bytes after the frame.
        rest: &'b [u8],
    },
    /// A frame was discarded.
    Discarded {
        /// The reason.
        reason: Discard,
        /// Bytes after the frame.
        rest: &'b [u8],
    },
}

/// Collects one frame at a time in `buffer`. A buffer of [`crate::frame::MAX_STUFFED_BYTES`] holds
/// any frame; with a smaller one, longer frames are discarded.
#[derive(Debug)]
pub struct Accumulator<B> {
    buffer: B,
    used: usize,
    overflowed: bool,
}

impl<B: AsMut<[u8]>> Accumulator<B> {
    /// Creates an empty accumulator.
    pub fn new(buffer: B) -> Self {
        Self {
            buffer,
            used: 0,
            overflowed: false,
        }
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        self.used > 0 || self.overflowed
    }

    /// Consumes bytes up to the end of a frame.
    pub fn feed<'a, 'b>(&'a mut self, mut bytes: &'b [u8]) -> Fed<'a, 'b> {
        loop {
            let end = bytes.iter().position(|&byte| byte == 0);
            let (piece, rest) = match end {
                Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
                None => (bytes, None),
            };
            self.take(piece);
            let Some(rest) = rest else {
                return Fed::NeedMore;
            };
            let used = core::mem::take(&mut self.used);
            if core::mem::take(&mut self.overflowed) {
                let reason = Discard::TooLong;
                return Fed::Discarded { reason, rest };
            }
            if used == 0 {
                bytes = rest;
                continue;
            }
            return match unstuff(&mut self.buffer.as_mut()[..used]) {
                Ok(length) => Fed::Frame {
                    payload: &self.buffer.as_mut()[..length],
                    rest,
                },
                Err(reason) => Fed::Discarded { reason, rest },
            };
        }
    }

    fn take(&mut self, piece: &[u8]) {
        let room = self.buffer.as_mut().get_mut(self.used..);
        match room.and_then(|room| room.get_mut(..piece.len())) {
            Some(room) if !self.overflowed => {
                room.copy_from_slice(piece);
                self.used += piece.len();
            }
            _ => self.overflowed = true,
        }
    }
}

/// Decodes COBS in place and verifies the checksum. Returns the length of the payload.
fn unstuff(stuffed: &mut [u8]) -> Result<usize, Discard> {
    let length = cobs::decode_in_place(stuffed).map_err(|_| Discard::Stuffing)?;
    let plain = stuffed.get(..length).ok_or(Discard::Stuffing)?;
    let (payload, checksum) = plain
        .split_last_chunk::<CRC_BYTES>()
        .ok_or(Discard::Checksum)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return Err(Discard::Checksum);
    }
    Ok(payload.len())
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::{MAX_STUFFED_BYTES, encode};

    /// Feeds pieces and returns the payloads and discards, in order.
    fn feed_all(pieces: &[&[u8]], room: usize) -> Vec<Result<Vec<u8>, Discard>> {
        let mut accumulator = Accumulator::new(vec![0; room]);
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                rest = match accumulator.feed(rest) {
                    Fed::NeedMore => break,
                    Fed::Frame { payload, rest } => {
                        found.push(Ok(payload.to_vec()));
                        rest
                    }
                    Fed::Discarded { reason, rest } => {
                        found.push(Err(reason));
                        rest
                    }
                };
            }
        }
        found
    }

    #[test]
    fn a_frame_follows_the_standards() {
        // CRC-32 of "123456789" is 0xCBF43926 (the check value of IEEE 802.3's CRC). COBS encodes
        // a run without zeros as its length + 1, followed by the run.
        let wire = encode(b"123456789").unwrap();
        let mut expected = vec![0, 14];
        expected.extend_from_slice(b"123456789");
        expected.extend_from_slice(&[0x26, 0x39, 0xf4, 0xcb, 0]);
        assert_eq!(wire, expected);
    }

    #[test]
    fn the_largest_payload_fits_and_a_larger_one_is_refused() {
        let largest = vec![7; crate::limits::MAX_PAYLOAD_BYTES];
        let wire = encode(&largest).unwrap();
        assert_eq!(feed_all(&[&wire], MAX_STUFFED_BYTES), [Ok(largest.clone())]);
        assert!(encode(&[largest, vec![1]].concat()).is_err());
    }

    #[test]
    fn every_length_around_the_block_size_survives_a_round_trip() {
        for length in (0..=16).chain(240..=270).chain(495..=520) {
            for byte in [0, 1] {
                let payload = vec![byte; length];
                let wire = encode(&payload).unwrap();
                assert_eq!(feed_all(&[&wire], 600), [Ok(payload)], "{length}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_reported_once_and_the_next_one_is_read() {
        let noise = vec![0xff; 1_000_000];
        let good = encode(b"good").unwrap();
        let found = feed_all(&[&noise, &good], 64);
        assert_eq!(found, [Err(Discard::TooLong), Ok(b"good".to_vec())]);
    }

    proptest! {
        #[test]
        fn any_payloads_in_any_pieces_come_out_in_order(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..6),
            piece in 1usize..700,
        ) {
            let wire: Vec<u8> = payloads.iter().flat_map(|p| encode(p).unwrap()).collect();
            let pieces: Vec<&[u8]> = wire.chunks(piece).collect();
            let expected: Vec<_> = payloads.into_iter().map(Ok).collect();
            prop_assert_eq!(feed_all(&pieces, 1024), expected);
        }

        #[test]
        fn after_any_noise_the_next_frame_is_read(
            noise in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..50,
        ) {
            let wire: Vec<u8> = noise.into_iter().chain(encode(b"payload").unwrap()).collect();
            let pieces: Vec<&[u8]> = wire.chunks(piece).collect();
            let found = feed_all(&pieces, 512);
            prop_assert_eq!(found.last(), Some(&Ok(b"payload".to_vec())));
        }

        #[test]
        fn a_flipped_bit_never_changes_a_payload(
            payload in prop::collection::vec(any::<u8>(), 1..300),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut wire = encode(&payload).unwrap();
            let bit = bit.index(wire.len() * 8);
            wire[bit / 8] ^= 1 << (bit % 8);
            wire.push(0);
            for found in feed_all(&[&wire], 1024).into_iter().flatten() {
                prop_assert_eq!(&found, &payload);
            }
        }
    }
}
