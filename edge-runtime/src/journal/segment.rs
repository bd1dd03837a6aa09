//! One file of the journal: its name, what is in it, and where to start reading for a sequence number.
//!
//! A record's body is its sequence number (u64 LE) and the payload. The file is named after the first number that it
//! may hold, so an empty one still says where counting goes on.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::FIRST_SEQUENCE;
use super::record::{HEADER_BYTES, MAX_BODY_BYTES, Piece, Records};

/// Bytes of a record beside its payload.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + SEQUENCE_BYTES;
/// Numbers from here on are never given, so that one more can always be counted.
pub(super) const SEQUENCE_END: u64 = 1 << 63;

const SEQUENCE_BYTES: usize = 8;
/// A record is looked up by reading at most this much more than itself; costs 16 bytes of memory each.
const INDEX_STEP_BYTES: u64 = 64 << 10;

/// A segment as far as it may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The number in its name.
    pub(super) first: u64,
    /// One more than the last number in it.
    pub(super) next: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// Sequence number and byte offset of some records, always of the first; `None` until the segment was read.
    index: Option<Vec<(u64, u64)>>,
}

impl Segment {
    pub(super) fn empty(first: u64) -> Self {
        Self {
            first,
            next: first,
            bytes: 0,
            index: Some(Vec::new()),
        }
    }

    /// One that another follows, and which is read when somebody asks for what is in it.
    pub(super) fn unread(first: u64, next: u64, bytes: u64) -> Self {
        Self {
            first,
            next,
            bytes,
            index: None,
        }
    }

    /// Whether it is still to be read.
    pub(super) fn is_unread(&self) -> bool {
        self.index.is_none()
    }

    /// Takes over where records are from one that was read.
    pub(super) fn adopt_index(&mut self, read: Self) {
        self.index = read.index;
    }

    /// Takes note of a record.
    pub(super) fn note(&mut self, sequence: u64, offset: u64) {
        let index = self.index.get_or_insert_default();
        let due = index
            .last()
            .is_none_or(|&(_, last)| offset >= last + INDEX_STEP_BYTES);
        if due {
            index.push((sequence, offset));
        }
        self.next = sequence + 1;
    }

    /// The first sequence number in it; of one that was not read yet, the number in its name.
    pub(super) fn oldest(&self) -> Option<u64> {
        match &self.index {
            Some(index) => index.first().map(|&(sequence, _)| sequence),
            None => (self.bytes > 0).then_some(self.first),
        }
    }

    /// The byte offset to read from in order to meet `sequence` and all behind it.
    pub(super) fn offset_before(&self, sequence: u64) -> u64 {
        let index = self.index.as_deref().unwrap_or_default();
        let behind = index.partition_point(|&(known, _)| known <= sequence);
        let known = behind.saturating_sub(1);
        index.get(known).map_or(0, |&(_, offset)| offset)
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.log", self.first))
    }
}

/// The number that a file is named after; `None` if it is no segment.
pub(super) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let right = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let first = right.then(|| digits.parse().ok())??;
    (FIRST_SEQUENCE..SEQUENCE_END)
        .contains(&first)
        .then_some(first)
}

/// What the record with this sequence number is made of.
pub(super) fn body<'a>(sequence: &'a [u8; SEQUENCE_BYTES], payload: &'a [u8]) -> [&'a [u8]; 2] {
    [sequence, payload]
}

/// Records of a segment with numbers in `from..to`, rising; all else is damage.
pub(super) struct Entries {
    records: Records<File>,
    from: u64,
    to: u64,
}

/// What was found next in a segment.
pub(super) enum Found {
    Entry {
        offset: u64,
        sequence: u64,
        payload: Vec<u8>,
    },
    /// Bytes before another piece.
    Damaged { bytes: u64 },
    /// Bytes up to the end.
    Rest { offset: u64, bytes: u64 },
}

impl Entries {
    pub(super) fn open(path: &Path, bytes: (u64, u64), from: u64, to: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let records = Records::new(file, bytes.0, bytes.1, MAX_BODY_BYTES)?;
        Ok(Self { records, from, to })
    }

    /// Where the next piece starts, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.records.offset()
    }

    pub(super) fn next_found(&mut self) -> io::Result<Option<Found>> {
        let Some(piece) = self.records.next_piece()? else {
            return Ok(None);
        };
        Ok(Some(match piece {
            Piece::Damaged { bytes, .. } => Found::Damaged { bytes },
            Piece::Rest { offset, bytes, .. } => Found::Rest { offset, bytes },
            Piece::Record { offset, mut body } => {
                let sequence = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                match sequence.filter(|found| (self.from..self.to).contains(found)) {
                    Some(sequence) => {
                        self.from = sequence + 1;
                        body.drain(..SEQUENCE_BYTES);
                        Found::Entry {
                            offset,
                            sequence,
                            payload: body,
                        }
                    }
                    None => Found::Damaged {
                        bytes: (HEADER_BYTES + body.len()) as u64,
                    },
                }
            }
        }))
    }
}

/// What a segment holds.
pub(super) struct Scan {
    pub(super) segment: Segment,
    pub(super) records: u64,
    /// Numbers missing between records.
    pub(super) skipped_records: u64,
    pub(super) damaged_bytes: u64,
    /// Where the bytes behind the last record start, and how many they are.
    pub(super) rest: Option<(u64, u64)>,
    /// Reading ended here, before the end.
    pub(super) unreadable: Option<(u64, io::Error)>,
}

/// Reads a whole segment; numbers in it are below `to`. Where the disk refuses to read on, the rest is left out.
pub(super) fn scan(path: &Path, first: u64, to: u64) -> io::Result<Scan> {
    let bytes = std::fs::metadata(path)?.len();
    let mut entries = Entries::open(path, (0, bytes), first, to)?;
    let mut scan = Scan {
        segment: Segment::empty(first),
        records: 0,
        skipped_records: 0,
        damaged_bytes: 0,
        rest: None,
        unreadable: None,
    };
    loop {
        match entries.next_found() {
            Ok(Some(Found::Entry {
                offset, sequence, ..
            })) => {
                scan.records += 1;
                scan.skipped_records += sequence - scan.segment.next;
                scan.segment.note(sequence, offset);
            }
            Ok(Some(Found::Damaged { bytes })) => scan.damaged_bytes += bytes,
            Ok(Some(Found::Rest { offset, bytes })) => scan.rest = Some((offset, bytes)),
            Ok(None) => break,
            Err(error) => {
                scan.unreadable = Some((entries.offset(), error));
                break;
            }
        }
    }
    scan.segment.bytes = bytes;
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let path = Segment::empty(47).path(Path::new("a"));
        assert_eq!(path, Path::new("a/00000000000000000047.log"));
        assert_eq!(first_of_name("00000000000000000047.log"), Some(47));
        for other in [
            "47.log",
            "00000000000000000000.log",
            "+0000000000000000047.log",
            "00000000000000000047.tmp",
            "99999999999999999999.log",
            "18446744073709551615.log",
        ] {
            assert_eq!(first_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_index_is_sparse_and_never_leads_too_far() {
        let mut segment = Segment::empty(10);
        assert_eq!(segment.offset_before(10), 0);
        for record in 0..1_000 {
            segment.note(10 + record, record * 1_000);
        }
        assert_eq!(segment.index.as_ref().map(Vec::len), Some(16));
        for record in 0..1_000 {
            let offset = segment.offset_before(10 + record);
            assert!(offset <= record * 1_000);
            assert!(record * 1_000 - offset < 2 * INDEX_STEP_BYTES);
        }
    }
}
