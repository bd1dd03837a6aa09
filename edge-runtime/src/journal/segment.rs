//! One file of the journal: its name, its records, and where to start reading for a sequence
//! number.
//!
//! A record's body is its sequence number (u64, little-endian) and the payload. The file is named
//! after the first number that it may hold, so that even an empty file records where numbering
//! continues.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use scoring::io::record::{HEADER_BYTES, MAX_BODY_BYTES, Piece, Records};

/// The number of the first record of a new journal; 0 stands for "none".
pub const FIRST_SEQUENCE: u64 = 1;
/// Size of a record without its payload.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + SEQUENCE_BYTES;
/// Upper bound of sequence numbers, exclusive. It is far from `u64::MAX`, so adding one to a number
/// never overflows.
pub(super) const SEQUENCE_END: u64 = 1 << 63;

const SEQUENCE_BYTES: usize = 8;
/// Distance between two index entries. Finding a record reads at most about this much in vain; an
/// entry takes 16 bytes of memory.
const INDEX_STEP_BYTES: u64 = 64 << 10;

/// The durable part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The number in its name.
    pub(super) first: u64,
    /// One more than the last number in it.
    pub(super) next: u64,
    /// Size in bytes.
    pub(super) bytes: u64,
    /// Sequence number and byte offset of some records, always including the first; `None` until
    /// the segment has been read.
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

    /// A segment that another one follows, and that is read when one of its records is asked for.
    pub(super) fn unread(first: u64, next: u64, bytes: u64) -> Self {
        Self {
            first,
            next,
            bytes,
            index: None,
        }
    }

    /// Whether the segment has not been read yet.
    pub(super) fn is_unread(&self) -> bool {
        self.index.is_none()
    }

    /// Takes the index of a segment that was read.
    pub(super) fn adopt_index(&mut self, read: Self) {
        self.index = read.index;
    }

    /// Adds a record, and an index entry if one is due.
    pub(super) fn add_record(&mut self, sequence: u64, offset: u64) {
        let index = self.index.get_or_insert_default();
        let due = index
            .last()
            .is_none_or(|&(_, last)| offset >= last + INDEX_STEP_BYTES);
        if due {
            index.push((sequence, offset));
        }
        self.next = sequence + 1;
    }

    /// The first sequence number in the segment; until it has been read, the number in its name.
    pub(super) fn oldest(&self) -> Option<u64> {
        match &self.index {
            Some(index) => index.first().map(|&(sequence, _)| sequence),
            None => (self.bytes > 0).then_some(self.first),
        }
    }

    /// The byte offset to start from to read `sequence` and all later records.
    pub(super) fn offset_before(&self, sequence: u64) -> u64 {
        let index = self.index.as_deref().unwrap_or_default();
        let after = index.partition_point(|&(known, _)| known <= sequence);
        index
            .get(after.saturating_sub(1))
            .map_or(0, |&(_, offset)| offset)
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.log", self.first))
    }
}

/// The number in a segment's file name; `None` if the file is not a segment.
pub(super) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let valid = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let first = valid.then(|| digits.parse().ok())??;
    (FIRST_SEQUENCE..SEQUENCE_END)
        .contains(&first)
        .then_some(first)
}

/// The parts of a record's body.
pub(super) fn body<'a>(sequence: &'a [u8; SEQUENCE_BYTES], payload: &'a [u8]) -> [&'a [u8]; 2] {
    [sequence, payload]
}

/// Reads the records of a segment. Their numbers must rise within `from..to`; everything else is
/// damage.
pub(super) struct SegmentReader {
    records: Records<File>,
    from: u64,
    to: u64,
}

/// What a segment holds at one offset.
pub(super) enum SegmentItem {
    Record {
        offset: u64,
        sequence: u64,
        payload: Vec<u8>,
    },
    /// Damaged bytes in front of another item.
    Damaged { bytes: u64 },
    /// Damaged bytes up to the end.
    Rest { offset: u64, bytes: u64 },
}

impl SegmentReader {
    pub(super) fn open(path: &Path, bytes: (u64, u64), from: u64, to: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let records = Records::new(file, bytes.0, bytes.1, MAX_BODY_BYTES)?;
        Ok(Self { records, from, to })
    }

    /// Byte offset of the next item.
    pub(super) fn offset(&self) -> u64 {
        self.records.offset()
    }

    pub(super) fn next_item(&mut self) -> io::Result<Option<SegmentItem>> {
        let Some(piece) = self.records.next_piece()? else {
            return Ok(None);
        };
        Ok(Some(match piece {
            Piece::Damaged { bytes, .. } => SegmentItem::Damaged { bytes },
            Piece::Rest { offset, bytes, .. } => SegmentItem::Rest { offset, bytes },
            Piece::Record { offset, mut body } => {
                let sequence = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                match sequence.filter(|found| (self.from..self.to).contains(found)) {
                    Some(sequence) => {
                        self.from = sequence + 1;
                        body.drain(..SEQUENCE_BYTES);
                        SegmentItem::Record {
                            offset,
                            sequence,
                            payload: body,
                        }
                    }
                    None => SegmentItem::Damaged {
                        bytes: (HEADER_BYTES + body.len()) as u64,
                    },
                }
            }
        }))
    }
}

/// The contents of a segment.
pub(super) struct Scan {
    pub(super) segment: Segment,
    pub(super) records: u64,
    /// Numbers missing between records.
    pub(super) skipped_records: u64,
    pub(super) damaged_bytes: u64,
    /// Offset and number of the bytes after the last record.
    pub(super) rest: Option<(u64, u64)>,
    /// Offset and error, if reading failed before the end.
    pub(super) unreadable: Option<(u64, io::Error)>,
}

/// Reads a whole segment whose numbers are below `to`. If reading fails on the way, the rest is
/// left out.
pub(super) fn scan(path: &Path, first: u64, to: u64) -> io::Result<Scan> {
    let bytes = std::fs::metadata(path)?.len();
    let mut reader = SegmentReader::open(path, (0, bytes), first, to)?;
    let mut scan = Scan {
        segment: Segment::empty(first),
        records: 0,
        skipped_records: 0,
        damaged_bytes: 0,
        rest: None,
        unreadable: None,
    };
    loop {
        match reader.next_item() {
            Ok(Some(SegmentItem::Record {
                offset, sequence, ..
            })) => {
                scan.records += 1;
                scan.skipped_records += sequence - scan.segment.next;
                scan.segment.add_record(sequence, offset);
            }
            Ok(Some(SegmentItem::Damaged { bytes })) => scan.damaged_bytes += bytes,
            Ok(Some(SegmentItem::Rest { offset, bytes })) => scan.rest = Some((offset, bytes)),
            Ok(None) => break,
            Err(error) => {
                scan.unreadable = Some((reader.offset(), error));
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
            segment.add_record(10 + record, record * 1_000);
        }
        assert_eq!(segment.index.as_ref().map(Vec::len), Some(16));
        for record in 0..1_000 {
            let offset = segment.offset_before(10 + record);
            assert!(offset <= record * 1_000);
            assert!(record * 1_000 - offset < 2 * INDEX_STEP_BYTES);
        }
    }
}
