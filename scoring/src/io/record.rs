//! Records with a checksum in a file, and recovery of the records after a damaged place.
//!
//! ```text
//! marker  4 bytes  0xed 'R' '1' 0xfa; '1' is the version of this layout
//! length  u32 LE   of the body, in bytes
//! CRC-32  u32 LE   over the record's byte offset in its file (u64 LE), the length and the body
//! body
//! ```
//! The offset is part of the checksum, so that a record inside another record's body (a copied
//! journal, for example) is not mistaken for a record of this file while searching after damage.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Start of every record. Read as a length it exceeds every limit.
const MARKER: [u8; 4] = *b"\xedR1\xfa";
/// Bytes of a record before its body.
pub const HEADER_BYTES: usize = 12;
/// Largest body in bytes.
pub const MAX_BODY_BYTES: u32 = 0x7fff_ffff;
/// Bytes read at a time when searching for a marker.
const SEARCH_BYTES: usize = 64 << 10;

/// Why there is no record at an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends within the record.
    #[error("expected {expected_bytes} bytes, found {found_bytes} before the end")]
    Cut {
        /// Bytes expected, of the header or of header and body.
        expected_bytes: u64,
        /// Bytes left in the file.
        found_bytes: u64,
    },
    /// There is no marker where a record should start.
    #[error("expected a record's marker, found {found:02x?}")]
    NoMarker {
        /// The bytes found there.
        found: [u8; 4],
    },
    /// The length in the header exceeds the limit.
    #[error("expected a body of at most {max_bytes} bytes, found {found_bytes} announced")]
    TooLong {
        /// The limit in bytes.
        max_bytes: u32,
        /// The length in the header in bytes.
        found_bytes: u32,
    },
    /// The content is not what was written.
    #[error("expected CRC-32 {expected:08x}, found {found:08x}")]
    Checksum {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the content.
        found: u32,
    },
}

/// A body is too long to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a record of at most {max_bytes} bytes, found {found_bytes}")]
pub struct BodyTooLong {
    /// The limit in bytes.
    pub max_bytes: u64,
    /// The body's length in bytes.
    pub found_bytes: u64,
}

/// The header of a record at byte `offset` of its file. `parts` are the parts of the body, to be
/// written after the header in this order.
pub fn header(offset: u64, parts: &[&[u8]]) -> Result<[u8; HEADER_BYTES], BodyTooLong> {
    let found_bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let length = u32::try_from(found_bytes).ok();
    let Some(length) = length.filter(|&length| length <= MAX_BODY_BYTES) else {
        return Err(BodyTooLong {
            max_bytes: MAX_BODY_BYTES.into(),
            found_bytes,
        });
    };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MARKER);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&checksum(offset, length, parts).to_le_bytes());
    Ok(header)
}

fn checksum(offset: u64, length: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A piece of a file. Pieces come in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A complete record.
    Record {
        /// Its first byte in the file.
        offset: u64,
        /// Its body.
        body: Vec<u8>,
    },
    /// Bytes that are not a record, followed by one.
    Damaged {
        /// Offset of the first of them.
        offset: u64,
        /// Number of bytes.
        bytes: u64,
        /// Why no record starts at `offset`.
        why: Damage,
    },
    /// Bytes that are not a record, up to the end: cut off by a power cut, or damaged.
    Rest {
        /// Offset of the first of them.
        offset: u64,
        /// Number of bytes.
        bytes: u64,
        /// Why no record starts at `offset`.
        why: Damage,
    },
}

/// Reads the records between two byte offsets of a file.
pub struct Records<R> {
    input: BufReader<R>,
    /// Offset that `input` is at.
    position: u64,
    /// Offset of the next piece.
    offset: u64,
    end: u64,
    max_body_bytes: u32,
    /// Body of the record found after damage, which is the next piece.
    found: Option<Vec<u8>>,
}

impl<R: Read + Seek> Records<R> {
    /// Reads from byte `start`, where a record should begin, to byte `end`. Bodies longer than
    /// `max_body_bytes`, or than the bytes left before `end`, are not allocated.
    pub fn new(mut input: R, start: u64, end: u64, max_body_bytes: u32) -> io::Result<Self> {
        input.seek(SeekFrom::Start(start))?;
        Ok(Self {
            input: BufReader::with_capacity(SEARCH_BYTES, input),
            position: start,
            offset: start,
            end: end.max(start),
            max_body_bytes,
            found: None,
        })
    }

    /// Offset of the next piece in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        let offset = self.offset;
        if let Some(body) = self.found.take() {
            return Ok(Some(self.give(offset, body)));
        }
        if offset == self.end {
            return Ok(None);
        }
        let why = match self.try_at(offset)? {
            Ok(body) => return Ok(Some(self.give(offset, body))),
            Err(why) => why,
        };
        let found = self.search(offset + 1)?;
        self.offset = found.as_ref().map_or(self.end, |(next, _)| *next);
        let bytes = self.offset - offset;
        Ok(Some(match found {
            Some((_, body)) => {
                self.found = Some(body);
                Piece::Damaged { offset, bytes, why }
            }
            None => Piece::Rest { offset, bytes, why },
        }))
    }

    fn give(&mut self, offset: u64, body: Vec<u8>) -> Piece {
        self.offset = offset + (HEADER_BYTES + body.len()) as u64;
        Piece::Record { offset, body }
    }

    fn try_at(&mut self, offset: u64) -> io::Result<Result<Vec<u8>, Damage>> {
        let left = self.end - offset;
        let cut = |expected_bytes| Damage::Cut {
            expected_bytes,
            found_bytes: left,
        };
        if left < HEADER_BYTES as u64 {
            return Ok(Err(cut(HEADER_BYTES as u64)));
        }
        let mut header = [0; HEADER_BYTES];
        self.read_at(offset, &mut header)?;
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let (marker, length, expected) = (word(0), word(4), word(8));
        if marker != MARKER {
            return Ok(Err(Damage::NoMarker { found: marker }));
        }
        let (length, expected) = (u32::from_le_bytes(length), u32::from_le_bytes(expected));
        if length > self.max_body_bytes {
            return Ok(Err(Damage::TooLong {
                max_bytes: self.max_body_bytes,
                found_bytes: length,
            }));
        }
        let whole = HEADER_BYTES as u64 + u64::from(length);
        if left < whole {
            return Ok(Err(cut(whole)));
        }
        let mut body = vec![0; length as usize];
        self.read_at(offset + HEADER_BYTES as u64, &mut body)?;
        let found = checksum(offset, length, &[&body]);
        Ok(if found == expected {
            Ok(body)
        } else {
            Err(Damage::Checksum { expected, found })
        })
    }

    /// The first complete record at or after `from`.
    fn search(&mut self, mut from: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut chunk = vec![0; SEARCH_BYTES];
        while self.end.saturating_sub(from) >= HEADER_BYTES as u64 {
            let size = (self.end - from).min(SEARCH_BYTES as u64) as usize;
            self.read_at(from, &mut chunk[..size])?;
            let markers = chunk[..size].windows(MARKER.len()).enumerate();
            for (at, _) in markers.filter(|(_, bytes)| *bytes == MARKER) {
                let candidate = from + at as u64;
                if let Ok(body) = self.try_at(candidate)? {
                    return Ok(Some((candidate, body)));
                }
            }
            // A marker may extend across two chunks.
            from += (size - (MARKER.len() - 1)) as u64;
        }
        Ok(None)
    }

    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        // Unlike plain seeking, this keeps the buffer.
        let step = offset as i64 - self.position as i64;
        self.input.seek_relative(step)?;
        self.position = offset;
        self.input.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn file(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in bodies {
            let header = header(bytes.len() as u64, &[body]).unwrap();
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(body);
        }
        bytes
    }

    fn pieces(bytes: &[u8]) -> Vec<Piece> {
        let mut records = Records::new(Cursor::new(bytes), 0, bytes.len() as u64, 1 << 20).unwrap();
        std::iter::from_fn(|| records.next_piece().unwrap()).collect()
    }

    fn bodies(pieces: &[Piece]) -> Vec<Vec<u8>> {
        let body = |piece: &Piece| match piece {
            Piece::Record { body, .. } => Some(body.clone()),
            _ => None,
        };
        pieces.iter().filter_map(body).collect()
    }

    proptest! {
        #[test]
        fn pieces_cover_the_file_and_a_flipped_bit_costs_one_record(
            written in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..8),
            place in any::<prop::sample::Index>(),
        ) {
            let mut bytes = file(&written);
            prop_assert_eq!(&bodies(&pieces(&bytes)), &written);
            let bit = place.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut hit = 0;
            let mut end = 0;
            for (index, body) in written.iter().enumerate() {
                if bit / 8 >= end {
                    hit = index;
                }
                end += HEADER_BYTES + body.len();
            }
            let mut left = written.clone();
            left.remove(hit);
            prop_assert_eq!(bodies(&pieces(&bytes)), left);
        }

        #[test]
        fn arbitrary_bytes_give_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(bodies(&pieces(&bytes)).is_empty());
        }
    }

    #[test]
    fn a_record_within_a_damaged_record_is_not_found() {
        let inner = file(&[b"copied".to_vec()]);
        let mut bytes = file(&[inner, b"next".to_vec()]);
        bytes[0] ^= 1;
        assert_eq!(bodies(&pieces(&bytes)), [b"next".to_vec()]);
    }

    #[test]
    fn damage_longer_than_a_search_step_is_passed() {
        for pad in SEARCH_BYTES - 20..SEARCH_BYTES + 20 {
            let mut bytes = vec![0xed; pad];
            let tail = header(pad as u64, &[b"end"]).unwrap();
            bytes.extend_from_slice(&tail);
            bytes.extend_from_slice(b"end");
            assert_eq!(bodies(&pieces(&bytes)), [b"end".to_vec()]);
        }
    }

    #[test]
    fn damage_is_described() {
        let bytes = file(&[b"one".to_vec(), b"two".to_vec()]);
        let cut = pieces(&bytes[..20]);
        assert_eq!(
            cut[1],
            Piece::Rest {
                offset: 15,
                bytes: 5,
                why: Damage::Cut {
                    expected_bytes: 12,
                    found_bytes: 5
                }
            }
        );
        let mut long = bytes.clone();
        long[7] = 0x7f;
        let Piece::Damaged { why, bytes: 15, .. } = &pieces(&long)[0] else {
            panic!("the second record follows");
        };
        assert_eq!(
            why.to_string(),
            "expected a body of at most 1048576 bytes, found 2130706435 announced"
        );
    }
}
