//! What a journal's folder holds after a restart, power cut or not.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{JournalError, failed};
use super::segment::{self, OVERHEAD_BYTES, SEQUENCE_END, Segment};

/// What was found when opening a journal.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Whole records.
    pub records: u64,
    /// Bytes behind the last record, torn by a power cut, that were removed.
    pub cut_bytes: u64,
    /// Records known to be lost to damage before others.
    pub skipped_records: u64,
    /// Bytes of damage before whole records.
    pub damaged_bytes: u64,
    /// Segments that the disk would not give whole.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// Keeps other programs from writing the journal, as long as the result lives.
pub(super) fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        // On a read-only file system there are records to read, and perhaps it can be written again later.
        .or_else(|refused| File::open(&path).map_err(|_| refused))
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// Reads all segments; also says whether the last one's file is longer than what is whole of it.
pub(super) fn recover(folder: &Path) -> Result<(VecDeque<Segment>, Recovery, bool), JournalError> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let name = entry.map_err(failed("list", folder))?.file_name();
        firsts.extend(name.to_str().and_then(segment::first_of_name));
    }
    firsts.sort_unstable();
    let mut recovery = Recovery::default();
    let mut segments = VecDeque::new();
    let mut torn = false;
    for (index, &first) in firsts.iter().enumerate() {
        let following = firsts.get(index + 1).copied();
        let path = Segment::empty(first).path(folder);
        let scan = segment::scan(&path, first, following.unwrap_or(SEQUENCE_END))
            .map_err(failed("read", &path))?;
        recovery.records += scan.records;
        recovery.skipped_records += scan.skipped_records;
        recovery.damaged_bytes += scan.damaged_bytes;
        let mut segment = scan.segment;
        match (scan.rest, following) {
            (None, _) => {}
            (Some((offset, bytes)), None) => {
                recovery.cut_bytes = bytes;
                segment.bytes = offset;
                torn = true;
            }
            // It was durable before the next segment was made: damage, and the next one's name says what is missing.
            (Some((_, bytes)), Some(following)) => {
                recovery.damaged_bytes += bytes;
                recovery.skipped_records += following - segment.next;
                segment.next = following;
            }
        }
        if let Some((offset, error)) = scan.unreadable {
            let at_most = segment.bytes.saturating_sub(offset) / OVERHEAD_BYTES as u64 + 1;
            segment.next = following.unwrap_or((segment.next + at_most).min(SEQUENCE_END - 1));
            recovery.unreadable.push((path, error));
        }
        segments.push_back(segment);
    }
    Ok((segments, recovery, torn))
}
