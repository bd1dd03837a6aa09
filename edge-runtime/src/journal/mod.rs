//! The journal: numbered reports on disk, in order, kept until newer ones evict them.
//!
//! Payloads are opaque bytes. [`Journal::append`] numbers them and keeps them in memory;
//! [`Journal::sync`] writes them to disk. Only then does a [`JournalReader`] see them, so a number
//! whose payload was lost in a power cut before it was durable has been seen by nobody and can be
//! assigned again. The journal does not know what stations have received ([`positions`]). If a
//! station has a higher number than the journal, because the disk lost data that it had confirmed,
//! [`Journal::skip_to`] keeps the numbers apart.
//!
//! While the disk refuses writes, payloads wait in memory, within a limit, and every `sync` tries
//! again from the last durable byte. It rewrites everything, because Linux drops dirty pages after
//! a failed fsync ("fsyncgate").
//!
//! A folder that cannot be read or written yet (a read-only file system) is treated like a disk
//! that refuses writes ([`Journal::open_or_wait`]): inspection does not depend on it.
//!
//! One thread writes. A lock on the folder keeps other programs out.

pub mod boot_counter;
mod disk;
mod error;
pub mod events;
mod limits;
pub mod positions;
mod reader;
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
pub use limits::Limits;
use reader::JournalFolder;
pub use reader::{Batch, JournalReader};
pub use recovery::Recovery;
use recovery::{lock, recover};
use scoring::io::record::{self, BodyTooLong, MAX_BODY_BYTES};
pub use segment::FIRST_SEQUENCE;
use segment::{OVERHEAD_BYTES, SEQUENCE_END, Segment};

/// Largest single write to the disk.
const WRITE_BYTES: usize = 1 << 20;
/// Pause before an unreadable folder is read again, because every attempt may read a whole segment.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// An append-only journal of numbered payloads.
pub struct Journal {
    folder: Arc<JournalFolder>,
    limits: Limits,
    disk: Box<dyn Disk>,
    /// The lock on the folder; `None` until the folder has been read.
    lock: Option<File>,
    /// When reading the folder last failed.
    failed_at: Option<Instant>,
    /// The last segment's file; opened when it is needed.
    file: Option<Box<dyn SegmentFile>>,
    /// Whether the file may hold bytes after the last durable one.
    tail_is_dirty: bool,
    /// Accepted but not yet durable payloads; the first has the number after the last
    /// durable one.
    pending: VecDeque<Vec<u8>>,
    pending_bytes: usize,
    evicted: Range<u64>,
    /// The lowest number that may be assigned ([`Self::skip_to`]).
    min_next: u64,
}

impl Journal {
    /// Opens the journal in a folder, which is created if it does not exist. Reads the newest
    /// segment, removes a torn end, and continues numbering after the last whole record.
    pub fn open(folder: &Path, limits: Limits) -> Result<(Self, Recovery), JournalError> {
        Self::open_on(Box::new(FileSystem), folder, limits)
    }

    /// Like [`Self::open`], but I/O errors do not prevent opening (they are returned in the second
    /// value): the journal accepts payloads, and every [`Self::sync`] tries again. Numbers assigned
    /// until then are provisional.
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
            folder: Arc::new(JournalFolder {
                path: folder.to_owned(),
                segments: Mutex::default(),
            }),
            limits,
            disk,
            lock: None,
            failed_at: None,
            file: None,
            tail_is_dirty: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            evicted: FIRST_SEQUENCE..FIRST_SEQUENCE,
            min_next: FIRST_SEQUENCE,
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
        let folder = &self.folder.path;
        // Cleared below when everything has succeeded.
        self.failed_at = Some(Instant::now());
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let lock = lock(folder)?;
        let (mut segments, recovery, torn) = recover(folder)?;
        if segments.is_empty() {
            segments.push_back(Segment::empty(FIRST_SEQUENCE));
        }
        self.tail_is_dirty = torn;
        self.folder.lock().list = segments;
        self.lock = Some(lock);
        self.failed_at = None;
        let (_, next) = self.current();
        // Bytes that the disk does not return may hold higher numbers than were found. None of
        // these may be assigned twice.
        if recovery.unreadable.is_some() {
            self.roll(next);
        }
        if self.min_next > next {
            self.roll(self.min_next);
        }
        Ok(recovery)
    }

    /// Opens the last segment for writing and truncates it to its whole records.
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
                .map_err(failed("remove the torn end of", &path))?;
            self.tail_is_dirty = false;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Accepts a payload and returns its number. The payload stays in memory until [`Self::sync`].
    /// A refused payload gets no number.
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

    /// Writes every accepted payload to disk and returns the last durable number
    /// ([`Self::durable`]). After an error, unwritten payloads stay in memory and the next call
    /// tries again.
    pub fn sync(&mut self) -> Result<Option<u64>, JournalError> {
        if self.lock.is_none() {
            let too_soon = |at: Instant| at.elapsed() < READ_AGAIN_AFTER;
            if self.failed_at.is_some_and(too_soon) {
                return Err(JournalError::NotOpen(self.folder.path.clone()));
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

    /// The last durable number: this record and all before it are on disk or were evicted.
    pub fn durable(&self) -> Option<u64> {
        self.folder.lock().durable()
    }

    /// The oldest number that can be read.
    pub fn oldest(&self) -> Option<u64> {
        self.folder.lock().oldest()
    }

    /// The number of the next payload.
    pub fn next(&self) -> u64 {
        self.folder.lock().next() + self.pending.len() as u64
    }

    /// Number of payloads that are not durable yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether payloads that are not durable yet fill most of the memory for them. The rest is
    /// left to events.
    pub fn is_nearly_full(&self) -> bool {
        self.pending_bytes > self.limits.max_pending_bytes / 4 * 3
    }

    /// Size on disk.
    pub fn bytes(&self) -> u64 {
        self.folder.lock().bytes()
    }

    /// The records evicted since the last call. Those after the last acknowledged record are lost.
    /// (After a restart, so are the records between the last acknowledged one and
    /// [`Self::oldest`].)
    pub fn take_evicted(&mut self) -> Range<u64> {
        let next = self.evicted.end..self.evicted.end;
        std::mem::replace(&mut self.evicted, next)
    }

    /// Assigns no number below `next` from now on; used when a station has received a higher
    /// number than this journal has. Syncs first. After an error, the skip takes effect as soon as
    /// the folder can be read.
    pub fn skip_to(&mut self, next: u64) -> Result<(), JournalError> {
        if next >= SEQUENCE_END {
            return Err(JournalError::Sequence(next));
        }
        self.min_next = self.min_next.max(next);
        self.sync()?;
        if next > self.next() {
            self.roll(next);
            // The file's name records where numbering continues.
            self.open_file()?;
        }
        Ok(())
    }

    /// Creates a handle for reading durable records from other threads.
    pub fn reader(&self) -> JournalReader {
        JournalReader {
            folder: Arc::clone(&self.folder),
        }
    }

    /// Size and next number of the segment being written.
    fn current(&self) -> (u64, u64) {
        let segments = self.folder.lock();
        segments
            .list
            .back()
            .map_or((0, FIRST_SEQUENCE), |last| (last.bytes, last.next))
    }

    fn current_path(&self) -> PathBuf {
        let folder = &self.folder.path;
        let segments = self.folder.lock();
        let last = segments.list.back().map(|last| last.path(folder));
        last.unwrap_or_else(|| Segment::empty(FIRST_SEQUENCE).path(folder))
    }

    /// Starts a new segment. Its file is created when it is needed.
    fn roll(&mut self, first: u64) {
        self.file = None;
        // An earlier attempt may have written to a file of this name.
        self.tail_is_dirty = true;
        let mut segments = self.folder.lock();
        let unused = segments.list.pop_back_if(|last| last.bytes == 0);
        segments.list.push_back(Segment::empty(first));
        if let Some(unused) = unused.filter(|unused| unused.first < first) {
            // If this fails, an empty file remains; it is skipped when the journal is next opened.
            self.disk.remove(&unused.path(&self.folder.path)).ok();
        }
    }

    /// Writes as many pending payloads as fit the segment and [`WRITE_BYTES`], but at least one.
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
        self.append_durably(used, &buffer)
            .map_err(|source| failed("write", &self.current_path())(source))?;
        let mut segments = self.folder.lock();
        if let Some(last) = segments.list.back_mut() {
            for &(sequence, offset) in &written {
                last.add_record(sequence, offset);
            }
            last.bytes = used + buffer.len() as u64;
        }
        drop(segments);
        for payload in self.pending.drain(..written.len()) {
            self.pending_bytes -= payload.len() + OVERHEAD_BYTES;
        }
        Ok(())
    }

    /// Appends bytes after the first `used` bytes of the segment's file and syncs it.
    fn append_durably(&mut self, used: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the segment is not open"));
        };
        if self.tail_is_dirty {
            file.truncate(used)?;
        }
        self.tail_is_dirty = true;
        let appended = file.append(bytes).and_then(|()| file.sync());
        if appended.is_ok() {
            self.tail_is_dirty = false;
        } else {
            // Truncate at once: this frees space on a full disk and leaves no partial record for a
            // restart. If it fails, the next attempt truncates again before it writes.
            file.truncate(used).ok();
        }
        appended
    }

    /// Deletes the oldest segments until `bytes` more fit the limit.
    fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        // The lock makes readers wait, so that none of them takes the deletion for damage.
        let mut segments = self.folder.lock();
        while segments.bytes() + bytes > self.limits.max_bytes && segments.list.len() > 1 {
            let Some(oldest) = segments.list.front() else {
                break;
            };
            let path = oldest.path(&self.folder.path);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path)(error));
                }
                _ => {}
            }
            if self.evicted.is_empty() {
                self.evicted.start = oldest.first;
            }
            self.evicted.end = oldest.next;
            segments.list.pop_front();
        }
        Ok(())
    }
}
