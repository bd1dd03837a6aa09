//! The journal: reports are kept on disk, in order and numbered, until they are displaced by newer ones.
//!
//! Payloads are opaque bytes. [`Journal::append`] numbers them and keeps them in memory, [`Journal::sync`] brings them
//! to the disk; only then are they visible to a [`JournalReader`]. So a number whose payload was lost with the power
//! before it was durable has been seen by nobody, and is given again. What stations have received is not known here
//! ([`positions`]); one that knows a later number than this journal, because the disk lost what it had promised to
//! keep, is answered with [`Journal::skip_to`].
//!
//! A disk that refuses to write costs nothing at first: the payloads wait, within a limit, and the next `sync` tries
//! again from the last durable byte. Everything is written anew then, because Linux forgets what a failed fsync could
//! not write ("fsyncgate").
//!
//! A folder that cannot be read, or not be written yet (a read-only file system), is like a disk that refuses to write
//! ([`Journal::open_or_wait`]): inspection does not depend on it.
//!
//! One thread writes; a lock on the folder keeps other programs out.

pub mod boots;
mod disk;
mod error;
pub mod positions;
mod reader;
pub mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use disk::{Disk, FileSystem, SegmentFile};
pub use error::JournalError;
use error::failed;
pub use reader::{Batch, JournalReader};
use reader::{Shared, State};
use record::{BodyTooLong, MAX_BODY_BYTES};
pub use recovery::Recovery;
use recovery::{lock, recover};
use segment::{OVERHEAD_BYTES, SEQUENCE_END, Segment};

/// The number of the first record of a new journal; 0 can stand for "none".
pub const FIRST_SEQUENCE: u64 = 1;
/// At most so much is handed to the disk in one call.
const WRITE_BYTES: usize = 1 << 20;
/// A folder that could not be read is tried again after so long: a segment may have been read in vain.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How large a journal may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All segments together, in bytes; the oldest segment goes when it would be exceeded.
    pub max_bytes: u64,
    /// A segment is closed at this size, in bytes; no record may be larger.
    pub segment_bytes: u64,
    /// Payloads not yet durable, in bytes of memory; beyond it they are refused.
    pub max_pending_bytes: usize,
}

impl Limits {
    /// Eight segments or more, of at most 8 MiB because one is read at every start, and 4 MiB in memory.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            segment_bytes: (max_bytes / 8).min(8 << 20),
            max_pending_bytes: 4 << 20,
        }
    }
}

/// An append-only journal of numbered payloads.
pub struct Journal {
    shared: Arc<Shared>,
    limits: Limits,
    disk: Box<dyn Disk>,
    /// Locked while this lives; `None` until the folder was read.
    lock: Option<File>,
    /// When reading the folder failed last.
    failed_at: Option<Instant>,
    /// The last segment's file, once it is needed.
    file: Option<Box<dyn SegmentFile>>,
    /// Behind the last durable byte there may be others.
    tail_is_dirty: bool,
    /// Accepted, not yet durable; the first one has the number `State::next`.
    pending: VecDeque<Vec<u8>>,
    pending_bytes: usize,
    displaced: Range<u64>,
    /// Lower numbers are not given ([`Self::skip_to`]).
    least_next: u64,
}

impl Journal {
    /// Opens the journal in a folder, which is made if need be. The newest segment is read; a torn end is removed;
    /// numbers go on behind the last whole record.
    pub fn open(folder: &Path, limits: Limits) -> Result<(Self, Recovery), JournalError> {
        Self::open_on(Box::new(FileSystem), folder, limits)
    }

    /// Like [`Self::open`], but what the system refuses is no obstacle (its words come second): the journal takes
    /// payloads, and every [`Self::sync`] tries again. Numbers that are given until then are provisional.
    pub fn open_or_wait(
        folder: &Path,
        limits: Limits,
    ) -> Result<(Self, Result<Recovery, JournalError>), JournalError> {
        Self::open_or_wait_on(Box::new(FileSystem), folder, limits)
    }

    fn open_on(
        disk: Box<dyn Disk>,
        folder: &Path,
        limits: Limits,
    ) -> Result<(Self, Recovery), JournalError> {
        let (journal, recovery) = Self::open_or_wait_on(disk, folder, limits)?;
        Ok((journal, recovery?))
    }

    fn open_or_wait_on(
        disk: Box<dyn Disk>,
        folder: &Path,
        limits: Limits,
    ) -> Result<(Self, Result<Recovery, JournalError>), JournalError> {
        let sizes = OVERHEAD_BYTES as u64 + 1..=limits.max_bytes / 2;
        if !sizes.contains(&limits.segment_bytes) {
            return Err(JournalError::Limits(limits));
        }
        let mut journal = Self {
            shared: Arc::new(Shared {
                folder: folder.to_owned(),
                state: Mutex::default(),
            }),
            limits,
            disk,
            lock: None,
            failed_at: None,
            file: None,
            tail_is_dirty: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            displaced: FIRST_SEQUENCE..FIRST_SEQUENCE,
            least_next: FIRST_SEQUENCE,
        };
        match journal.read_folder() {
            Err(error @ JournalError::InUse(_)) => Err(error),
            Err(error) => Ok((journal, Err(error))),
            Ok(recovery) => {
                let opened = journal.open_file();
                Ok((journal, opened.map(|()| recovery)))
            }
        }
    }

    /// Locks the folder and reads what is in it.
    fn read_folder(&mut self) -> Result<Recovery, JournalError> {
        let folder = &self.shared.folder;
        // Until all went well.
        self.failed_at = Some(Instant::now());
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let lock = lock(folder)?;
        let (mut segments, recovery, torn) = recover(folder)?;
        if segments.is_empty() {
            segments.push_back(Segment::empty(FIRST_SEQUENCE));
        }
        self.tail_is_dirty = torn;
        self.shared.lock().segments = segments;
        self.lock = Some(lock);
        self.failed_at = None;
        let (_, next) = self.current();
        // What the disk will not give may hold later numbers than were found: none of those is given twice.
        if recovery.unreadable.is_some() {
            self.roll(next);
        }
        if self.least_next > next {
            self.roll(self.least_next);
        }
        Ok(recovery)
    }

    /// Opens the last segment for writing, cut to what is known to be whole.
    fn open_file(&mut self) -> Result<(), JournalError> {
        if self.file.is_some() {
            return Ok(());
        }
        let (used, _) = self.current();
        let path = self.current_path();
        let mut file = self
            .disk
            .open(&path)
            .map_err(failed("open journal segment", &path))?;
        if self.tail_is_dirty {
            file.truncate(used)
                .and_then(|()| file.sync())
                .map_err(failed("cut the torn end of", &path))?;
            self.tail_is_dirty = false;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Accepts a payload and gives its number. It is kept in memory until [`Self::sync`]; refused payloads get no
    /// number.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, JournalError> {
        let max_bytes =
            self.limits.segment_bytes.min(u64::from(MAX_BODY_BYTES)) - OVERHEAD_BYTES as u64;
        if payload.len() as u64 > max_bytes {
            return Err(JournalError::TooLong(BodyTooLong {
                max_bytes,
                found_bytes: payload.len() as u64,
            }));
        }
        let bytes = payload.len() + OVERHEAD_BYTES;
        if self.pending_bytes + bytes > self.limits.max_pending_bytes {
            return Err(JournalError::Backlog {
                pending_bytes: self.pending_bytes,
                max_bytes: self.limits.max_pending_bytes,
            });
        }
        let sequence = self.next();
        if sequence >= SEQUENCE_END {
            return Err(JournalError::Sequence(sequence));
        }
        self.pending.push_back(payload.to_vec());
        self.pending_bytes += bytes;
        Ok(sequence)
    }

    /// Brings everything accepted to the disk and gives the last durable number ([`Self::durable`]). After an error
    /// what was not written still waits, and the next call tries again.
    pub fn sync(&mut self) -> Result<Option<u64>, JournalError> {
        if self.lock.is_none() {
            let soon = |at: Instant| at.elapsed() < READ_AGAIN_AFTER;
            if self.failed_at.is_some_and(soon) {
                return Err(JournalError::NotOpen(self.shared.folder.clone()));
            }
            self.read_folder()?;
        }
        while let Some(payload) = self.pending.front() {
            let bytes = (payload.len() + OVERHEAD_BYTES) as u64;
            let (used, next) = self.current();
            if used > 0 && used + bytes > self.limits.segment_bytes {
                self.roll(next);
            }
            self.open_file()?;
            self.write()?;
        }
        Ok(self.durable())
    }

    /// The last durable number: it and all before it are on the disk or were displaced.
    pub fn durable(&self) -> Option<u64> {
        reader::durable(&self.shared.lock())
    }

    /// The oldest number that can be read.
    pub fn oldest(&self) -> Option<u64> {
        self.shared.lock().oldest()
    }

    /// The number that the next payload will have.
    pub fn next(&self) -> u64 {
        self.shared.lock().next() + self.pending.len() as u64
    }

    /// Payloads that wait for the disk.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        total_bytes(&self.shared.lock())
    }

    /// The numbers that were deleted for want of room since this was last asked; those beyond the acknowledged one
    /// are lost. (After a restart, so is all between the acknowledged one and [`Self::oldest`].)
    pub fn take_displaced(&mut self) -> Range<u64> {
        let next = self.displaced.end..self.displaced.end;
        std::mem::replace(&mut self.displaced, next)
    }

    /// Numbers below `next` are not given any more; for a station that has received a later one than this journal
    /// knows. Syncs before; after an error it is done as soon as the folder can be read.
    pub fn skip_to(&mut self, next: u64) -> Result<(), JournalError> {
        if next >= SEQUENCE_END {
            return Err(JournalError::Sequence(next));
        }
        self.least_next = self.least_next.max(next);
        self.sync()?;
        if next > self.next() {
            self.roll(next);
            // Its name is what holds the place.
            self.open_file()?;
        }
        Ok(())
    }

    /// A handle for other threads.
    pub fn reader(&self) -> JournalReader {
        JournalReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Bytes and next number of the segment being written.
    fn current(&self) -> (u64, u64) {
        let state = self.shared.lock();
        state
            .segments
            .back()
            .map_or((0, FIRST_SEQUENCE), |last| (last.bytes, last.next))
    }

    fn current_path(&self) -> PathBuf {
        let folder = &self.shared.folder;
        let state = self.shared.lock();
        let last = state.segments.back().map(|last| last.path(folder));
        last.unwrap_or_else(|| Segment::empty(FIRST_SEQUENCE).path(folder))
    }

    /// Starts a segment; its file is made when it is needed.
    fn roll(&mut self, first: u64) {
        self.file = None;
        // Should an earlier try have got as far as writing.
        self.tail_is_dirty = true;
        let mut state = self.shared.lock();
        let unused = state.segments.pop_back_if(|last| last.bytes == 0);
        state.segments.push_back(Segment::empty(first));
        if let Some(unused) = unused.filter(|unused| unused.first < first) {
            // An empty file does no harm; the next opening passes it over.
            self.disk.remove(&unused.path(&self.shared.folder)).ok();
        }
    }

    /// Writes as many of the pending payloads as fit the segment and a buffer, at least one.
    fn write(&mut self) -> Result<(), JournalError> {
        let (used, first) = self.current();
        let mut buffer = Vec::new();
        let mut written = Vec::new();
        for (sequence, payload) in (first..).zip(&self.pending) {
            let offset = used + buffer.len() as u64;
            let bytes = payload.len() + OVERHEAD_BYTES;
            let full = offset + bytes as u64 > self.limits.segment_bytes
                || buffer.len() + bytes > WRITE_BYTES;
            if full && !written.is_empty() {
                break;
            }
            let number = sequence.to_le_bytes();
            let parts = segment::body(&number, payload);
            buffer.extend_from_slice(&record::header(offset, &parts)?);
            buffer.extend(parts.into_iter().flatten());
            written.push((sequence, offset));
        }
        self.make_room(buffer.len() as u64)?;
        self.put(used, &buffer)
            .map_err(|source| failed("write", &self.current_path())(source))?;
        let mut state = self.shared.lock();
        if let Some(last) = state.segments.back_mut() {
            for &(sequence, offset) in &written {
                last.note(sequence, offset);
            }
            last.bytes = used + buffer.len() as u64;
        }
        drop(state);
        for payload in self.pending.drain(..written.len()) {
            self.pending_bytes -= payload.len() + OVERHEAD_BYTES;
        }
        Ok(())
    }

    /// Bytes behind the first `used` of the segment's file.
    fn put(&mut self, used: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the segment is not open"));
        };
        if self.tail_is_dirty {
            file.truncate(used)?;
        }
        self.tail_is_dirty = true;
        let put = file.append(bytes).and_then(|()| file.sync());
        if put.is_ok() {
            self.tail_is_dirty = false;
        } else {
            // At once, to leave a full disk to others and no half record to a restart; if it fails, before the next try.
            file.truncate(used).ok();
        }
        put
    }

    /// Deletes the oldest segments until so many bytes more are within the limit.
    fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        // Readers wait meanwhile, so that none of them takes the deletion for damage.
        let mut state = self.shared.lock();
        while total_bytes(&state) + bytes > self.limits.max_bytes && state.segments.len() > 1 {
            let Some(oldest) = state.segments.front() else {
                break;
            };
            let path = oldest.path(&self.shared.folder);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path)(error));
                }
                _ => {}
            }
            if self.displaced.is_empty() {
                self.displaced.start = oldest.first;
            }
            self.displaced.end = oldest.next;
            state.segments.pop_front();
        }
        Ok(())
    }
}

fn total_bytes(state: &State) -> u64 {
    state.segments.iter().map(|segment| segment.bytes).sum()
}
