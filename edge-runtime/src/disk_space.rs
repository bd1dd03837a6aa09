//! The disk with the state folder: how much of it is free, and how much stored pictures must leave
//! free for reports.
//!
//! In: the journal's limit and size, and whether the disk refused a report. Out: [`Space`], for the
//! image store, and a warning if the configured limits exceed the disk.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::statvfs;

use crate::config::Config;
use crate::journal::JournalReader;

/// Room for everything in the state folder besides journal and pictures: positions, settings,
/// copies of events, a package that is being flashed.
const OTHERS_BYTES: u64 = 64 << 20;
/// Files that the journal may still have to make.
const OTHER_FILES: u64 = 64;

/// Space on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes of them that pictures must leave.
    pub reserve_bytes: u64,
    /// Whether the disk has refused a report, whatever it says of its free space (a quota, for
    /// example).
    pub refuses: bool,
}

impl Space {
    /// Whether a picture of this size may be stored.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        !self.refuses && self.free_bytes >= self.reserve_bytes.saturating_add(bytes)
    }
}

/// The disk with the state folder.
#[derive(Debug)]
pub struct DiskSpace {
    folder: PathBuf,
    journal: JournalReader,
    journal_max_bytes: u64,
    refuses: AtomicBool,
}

impl DiskSpace {
    /// `journal_max_bytes` is the journal's limit.
    pub fn new(folder: &Path, journal: JournalReader, journal_max_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            journal,
            journal_max_bytes,
            refuses: AtomicBool::new(false),
        }
    }

    /// Records whether the last report could be written.
    pub fn report_written<T, E: Error + 'static>(&self, result: &Result<T, E>) {
        let full = result.as_ref().is_err_and(|error| is_full(error));
        self.refuses.store(full, Ordering::Relaxed);
    }

    /// The space now; `None` if the system does not say.
    pub fn measure(&self) -> Option<Space> {
        let free = free(&self.folder).ok()?;
        let journal_grows = self.journal_max_bytes.saturating_sub(self.journal.bytes());
        Some(Space {
            free_bytes: free,
            reserve_bytes: journal_grows + OTHERS_BYTES,
            refuses: self.refuses.load(Ordering::Relaxed),
        })
    }
}

/// Free bytes of a folder's disk; none if it can take no more files.
fn free(folder: &Path) -> io::Result<u64> {
    let found = statvfs(folder)?;
    // Some file systems do not count files.
    let no_more_files = found.f_files > 0 && found.f_favail < OTHER_FILES;
    Ok(if no_more_files {
        0
    } else {
        found.f_bavail.saturating_mul(found.f_frsize)
    })
}

/// Whether an error says that the disk is full.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A warning if journal and pictures cannot both grow to their limits. `used_bytes` is what they
/// have taken already.
pub fn limits_warning(config: &Config, used_bytes: u64) -> Option<String> {
    let there = free(&config.state).ok()?.saturating_add(used_bytes);
    exceeds(config.journal.max_mb, config.images.max_mb, there)
}

/// See [`limits_warning`]. `there_bytes` is what is free or used by them.
fn exceeds(journal_mb: u64, images_mb: u64, there_bytes: u64) -> Option<String> {
    let there_mb = there_bytes >> 20;
    let others_mb = OTHERS_BYTES >> 20;
    let wanted_mb = journal_mb
        .saturating_add(images_mb)
        .saturating_add(others_mb);
    if wanted_mb <= there_mb {
        return None;
    }
    let for_images = there_mb.saturating_sub(journal_mb + others_mb);
    let hint = if journal_mb + others_mb <= there_mb {
        format!("pictures will be evicted early; set images.max_mb to at most {for_images}")
    } else {
        let for_journal = there_mb.saturating_sub(others_mb);
        format!(
            "no pictures will be kept, and reports may find no room; set journal.max_mb to at most \
             {for_journal}"
        )
    };
    Some(format!(
        "the limits exceed the disk: journal.max_mb = {journal_mb}, images.max_mb = {images_mb} and \
         {others_mb} MB for the rest need {wanted_mb} MB, and there are {there_mb} MB: {hint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Limits};

    #[test]
    fn a_warning_names_what_fits() {
        assert_eq!(exceeds(256, 1_024, 1_344 << 20), None);
        let pictures = exceeds(256, 1_024, 1_000 << 20).unwrap();
        assert!(
            pictures.contains("images.max_mb to at most 680"),
            "{pictures}"
        );
        let reports = exceeds(256, 0, 200 << 20).unwrap();
        assert!(
            reports.contains("journal.max_mb to at most 136"),
            "{reports}"
        );
    }

    #[test]
    fn the_reserve_is_what_the_journal_may_still_grow_and_a_refusal_is_seen_through_its_causes() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::new(8 << 20);
        let (mut journal, _) = Journal::open(&folder.path().join("journal"), limits).unwrap();
        let space = DiskSpace::new(folder.path(), journal.reader(), 8 << 20);
        let before = space.measure().unwrap();
        assert_eq!(before.reserve_bytes, (8 << 20) + OTHERS_BYTES);
        assert!(before.free_bytes > 0 && !before.refuses);
        journal.append(&[7; 100_000]).unwrap();
        journal.sync().unwrap();
        let grown = before.reserve_bytes - space.measure().unwrap().reserve_bytes;
        assert!((100_000..101_000).contains(&grown), "{grown}");

        let failed = |kind: ErrorKind| {
            Err::<(), _>(crate::journal::JournalError::Io {
                action: "write",
                path: PathBuf::new(),
                source: kind.into(),
            })
        };
        for (kind, refuses) in [
            (ErrorKind::StorageFull, true),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::QuotaExceeded, true),
        ] {
            space.report_written(&failed(kind));
            assert_eq!(space.measure().unwrap().refuses, refuses, "{kind}");
        }
        space.report_written(&Ok::<_, io::Error>(()));
        assert!(!space.measure().unwrap().refuses);
    }
}
