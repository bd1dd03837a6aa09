//! Reading durable records while the writer goes on.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::JournalError;
use super::segment::{self, Entries, Found, Segment};

/// What writer and readers know of the folder. Everything in it is durable.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first, rising numbers; the last one is being written. Empty until the folder was read.
    pub(super) segments: VecDeque<Segment>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) state: Mutex<State>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change to the state is a single step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.iter().find_map(Segment::oldest)
    }

    /// One more than the last durable sequence number.
    pub(super) fn next(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.next)
    }
}

/// Some durable records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The number of the first record, or `next` if there is none. Where it is beyond the number asked for, the
    /// records between were displaced or are damaged.
    pub first: u64,
    /// Sequence numbers, rising, and payloads. A hole is a damaged record.
    pub records: Vec<(u64, Vec<u8>)>,
    /// What to ask for next.
    pub next: u64,
}

/// A handle on a journal's durable records for other threads than the writer's.
#[derive(Debug, Clone)]
pub struct JournalReader {
    pub(super) shared: Arc<Shared>,
}

/// A stretch of one segment to read.
pub(super) struct Span {
    path: PathBuf,
    pub(super) bytes: (u64, u64),
    /// Below it are only numbers that are no more there.
    from: u64,
    next: u64,
}

impl JournalReader {
    /// The last durable sequence number: it and all before it are on the disk or were displaced.
    pub fn durable(&self) -> Option<u64> {
        durable(&self.shared.lock())
    }

    /// The oldest sequence number that can be read.
    pub fn oldest(&self) -> Option<u64> {
        self.shared.lock().oldest()
    }

    /// Durable records from `sequence` on, or from the oldest if that one was displaced: at most `max_records`, and
    /// payloads of at most `max_bytes` together, except that a first one beyond that is given alone.
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
                // What was read before is given first.
                Err(_) if !batch.records.is_empty() => break,
                // Displaced since it was located; the second time, it is not the journal that deleted it.
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
        let mut state = self.shared.lock();
        let at = |state: &State| {
            let segments = &state.segments;
            segments.partition_point(|segment| segment.next <= sequence)
        };
        let found = state.segments.get(at(&state))?;
        if found.is_unread() {
            let (path, first, next) = (found.path(&self.shared.folder), found.first, found.next);
            // It takes a while, and the writer must not wait.
            drop(state);
            let scan = segment::scan(&path, first, next);
            state = self.shared.lock();
            let segment = state
                .segments
                .iter_mut()
                .find(|segment| segment.first == first);
            // What the disk refuses is said by who reads the record.
            if let (Some(segment), Ok(scan)) = (segment, scan) {
                segment.adopt_index(scan.segment);
            }
        }
        let segment = state.segments.get(at(&state))?;
        Some(Span {
            path: segment.path(&self.shared.folder),
            bytes: (segment.offset_before(sequence), segment.bytes),
            from: sequence.max(segment.first),
            next: segment.next,
        })
    }
}

pub(super) fn durable(state: &State) -> Option<u64> {
    state.next().checked_sub(1).filter(|&last| last > 0)
}

/// Whether the segment was read to its end.
fn read(
    span: &Span,
    max_records: usize,
    left_bytes: &mut usize,
    batch: &mut Batch,
) -> io::Result<bool> {
    let mut entries = Entries::open(&span.path, span.bytes, 0, span.next)?;
    while let Some(found) = entries.next_found()? {
        let Found::Entry {
            sequence, payload, ..
        } = found
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
