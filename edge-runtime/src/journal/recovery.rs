//! Reads a journal's folder at start, after a clean stop or a power cut.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{JournalError, failed};
use super::segment::{self, OVERHEAD_BYTES, SEQUENCE_END, Segment};

/// What was found in the newest segment when the journal was opened. Older segments are read when
/// a station asks for their records, so that a start takes as long with a full journal as with an
/// empty one. Damage in them shows as missing records.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Number of whole records.
    pub records: u64,
    /// Bytes after the last whole record, torn by a power cut, that are removed.
    pub cut_bytes: u64,
    /// Records known to be lost to damage in front of whole records.
    pub skipped_records: u64,
    /// Damaged bytes in front of whole records.
    pub damaged_bytes: u64,
    /// The newest segment and the error, if it could not be read to its end.
    pub unreadable: Option<(PathBuf, io::Error)>,
}

/// Locks the journal against other programs for as long as the returned file is open.
pub(super) fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        // A journal on a read-only file system can still be read, and may become writable later.
        .or_else(|refused| File::open(&path).map_err(|_| refused))
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// Lists all segments and reads the newest. The last value says whether the newest file continues
/// after its last whole record.
pub(super) fn recover(folder: &Path) -> Result<(VecDeque<Segment>, Recovery, bool), JournalError> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let name = entry.map_err(failed("list", folder))?.file_name();
        firsts.extend(name.to_str().and_then(segment::first_of_name));
    }
    firsts.sort_unstable();
    let mut recovery = Recovery::default();
    let mut segments = VecDeque::new();
    let Some(newest) = firsts.last().copied() else {
        return Ok((segments, recovery, false));
    };
    for (&first, &following) in firsts.iter().zip(firsts.iter().skip(1)) {
        let path = Segment::empty(first).path(folder);
        let bytes = fs::metadata(&path).map_err(failed("read", &path))?.len();
        // A segment is durable before the next one is created, and the next one's name says where
        // this one ends.
        segments.push_back(Segment::unread(first, following, bytes));
    }
    let path = Segment::empty(newest).path(folder);
    let scan = segment::scan(&path, newest, SEQUENCE_END).map_err(failed("read", &path))?;
    recovery.records = scan.records;
    recovery.skipped_records = scan.skipped_records;
    recovery.damaged_bytes = scan.damaged_bytes;
    let mut segment = scan.segment;
    let torn = scan.rest.is_some();
    if let Some((offset, bytes)) = scan.rest {
        recovery.cut_bytes = bytes;
        segment.bytes = offset;
    }
    if let Some((offset, error)) = scan.unreadable {
        let at_most = segment.bytes.saturating_sub(offset) / OVERHEAD_BYTES as u64 + 1;
        segment.next = (segment.next + at_most).min(SEQUENCE_END - 1);
        recovery.unreadable = Some((path, error));
    }
    segments.push_back(segment);
    Ok((segments, recovery, torn))
}
