//! Reads durable records while the writer appends.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::JournalError;
use super::segment::{self, Segment, SegmentItem, SegmentReader};

/// The segments of a journal, as the writer and all readers see them. All their records are
/// durable.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Oldest first, with rising numbers; the last one is being written. Empty until the folder has
    /// been read.
    pub(super) list: VecDeque<Segment>,
}

/// A journal's folder, shared by its writer and its readers.
#[derive(Debug)]
pub(super) struct JournalFolder {
    pub(super) path: PathBuf,
    pub(super) segments: Mutex<Segments>,
}

impl JournalFolder {
    pub(super) fn lock(&self) -> MutexGuard<'_, Segments> {
        // Every change to the list is a single step, so a panic elsewhere leaves it consistent.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segments {
    /// The oldest sequence number that can be read.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.list.iter().find_map(Segment::oldest)
    }

    /// One more than the last durable sequence number.
    pub(super) fn next(&self) -> u64 {
        self.list.back().map_or(0, |segment| segment.next)
    }

    /// The last durable sequence number.
    pub(super) fn durable(&self) -> Option<u64> {
        self.next().checked_sub(1).filter(|&last| last > 0)
    }

    /// Size on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.bytes).sum()
    }
}

/// Durable records from one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The number of the first record, or `next` if there is none. If it is higher than the number
    /// asked for, the records in between were evicted or are damaged.
    pub first: u64,
    /// Sequence numbers, rising, and payloads. A missing number is a damaged record.
    pub records: Vec<(u64, Vec<u8>)>,
    /// The number to ask for next.
    pub next: u64,
}

/// A handle for reading a journal's durable records from any thread.
#[derive(Debug, Clone)]
pub struct JournalReader {
    pub(super) folder: Arc<JournalFolder>,
}

/// A range of one segment to read.
pub(super) struct Span {
    path: PathBuf,
    pub(super) bytes: (u64, u64),
    /// Records with lower numbers are skipped.
    from: u64,
    next: u64,
}

impl JournalReader {
    /// The last durable sequence number: this record and all before it are on disk or were evicted.
    pub fn durable(&self) -> Option<u64> {
        self.folder.lock().durable()
    }

    /// The oldest sequence number that can be read.
    pub fn oldest(&self) -> Option<u64> {
        self.folder.lock().oldest()
    }

    /// Size on disk.
    pub fn bytes(&self) -> u64 {
        self.folder.lock().bytes()
    }

    /// Reads durable records from `sequence` on, or from the oldest if that one was evicted: at
    /// most `max_records`, with payloads of at most `max_bytes` in total. A first payload that is
    /// larger is returned alone.
    pub fn read_from(
        &self,
        sequence: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, JournalError> {
        let mut batch = Batch {
            first: sequence,
            records: Vec::new(),
            next: sequence,
        };
        let mut left_bytes = max_bytes;
        let mut missing = None;
        while batch.records.len() < max_records {
            let Some(span) = self.locate(batch.next) else {
                break;
            };
            match read(&span, max_records, &mut left_bytes, &mut batch) {
                Ok(true) => batch.next = span.next,
                Ok(false) => break,
                // Return the records read so far; the error comes with the next call.
                Err(_) if !batch.records.is_empty() => break,
                // The segment was evicted after it was located. If the same one is missing again,
                // something else has deleted it.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && missing.as_ref() != Some(&span.path) =>
                {
                    missing = Some(span.path);
                }
                Err(source) => {
                    return Err(JournalError::Unreadable {
                        path: span.path,
                        resume_at: span.next,
                        source,
                    });
                }
            }
        }
        batch.first = batch
            .records
            .first()
            .map_or(batch.next, |&(first, _)| first);
        Ok(batch)
    }

    pub(super) fn locate(&self, sequence: u64) -> Option<Span> {
        let mut segments = self.folder.lock();
        let position = |segments: &Segments| {
            let list = &segments.list;
            list.partition_point(|segment| segment.next <= sequence)
        };
        let found = segments.list.get(position(&segments))?;
        if found.is_unread() {
            let (path, first, next) = (found.path(&self.folder.path), found.first, found.next);
            // Scanning takes a while, and the writer must not wait for it.
            drop(segments);
            let scan = segment::scan(&path, first, next);
            segments = self.folder.lock();
            let segment = segments
                .list
                .iter_mut()
                .find(|segment| segment.first == first);
            // A failed scan is ignored here: reading the record reports the error.
            if let (Some(segment), Ok(scan)) = (segment, scan) {
                segment.adopt_index(scan.segment);
            }
        }
        let segment = segments.list.get(position(&segments))?;
        Some(Span {
            path: segment.path(&self.folder.path),
            bytes: (segment.offset_before(sequence), segment.bytes),
            from: sequence.max(segment.first),
            next: segment.next,
        })
    }
}

/// Adds the records of a span to the batch; returns whether the segment was read to its end.
fn read(
    span: &Span,
    max_records: usize,
    left_bytes: &mut usize,
    batch: &mut Batch,
) -> io::Result<bool> {
    let mut reader = SegmentReader::open(&span.path, span.bytes, 0, span.next)?;
    while let Some(item) = reader.next_item()? {
        let SegmentItem::Record {
            sequence, payload, ..
        } = item
        else {
            continue;
        };
        if sequence < span.from {
            continue;
        }
        let full = batch.records.len() >= max_records || payload.len() > *left_bytes;
        if full && !batch.records.is_empty() {
            return Ok(false);
        }
        *left_bytes = left_bytes.saturating_sub(payload.len());
        batch.next = sequence + 1;
        batch.records.push((sequence, payload));
    }
    Ok(true)
}
