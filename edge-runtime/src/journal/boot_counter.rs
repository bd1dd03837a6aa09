//! The boot counter: how often the program has been started with a state folder.
//!
//! Part numbers start again with every boot, and the counter tells such parts apart. It must
//! therefore advance on a full disk too: the file holds two copies, each a [`record`] in its own
//! block, which are overwritten in turn and in place. After a power cut at least one copy is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use scoring::io::atomic::WriteError;
use scoring::io::record::{self, HEADER_BYTES, Piece, Records};

/// Distance between the copies: the block size of common disks and file systems.
const STEP_BYTES: u64 = 4_096;
const NUMBER_BYTES: u32 = 4;
const COPY_BYTES: u64 = HEADER_BYTES as u64 + NUMBER_BYTES as u64;

/// Counts the starts of the program, this one included.
#[derive(Debug)]
pub struct BootCounter {
    path: PathBuf,
    number: u32,
    kept: bool,
}

impl BootCounter {
    /// Reads the file and counts this start. `at_least` is the highest number known from elsewhere
    /// (journal, stored images): the new number is above it, also if the file is gone or damaged.
    /// [`Self::keep`] writes the new number.
    pub fn open(path: &Path, at_least: u32) -> Self {
        let found = read(path);
        if found < at_least {
            tracing::warn!(
                found,
                at_least,
                path = %path.display(),
                "the boot counter was lost; it continues above the numbers in use"
            );
        }
        Self {
            path: path.to_owned(),
            number: found.max(at_least).saturating_add(1),
            kept: false,
        }
    }

    /// How often the program has been started, this time included.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Writes the number to disk unless it is there already. No record that carries the number may
    /// become durable before.
    pub fn keep(&mut self) -> Result<(), WriteError> {
        if !self.kept {
            write(&self.path, self.number).map_err(|source| WriteError {
                path: self.path.clone(),
                source,
            })?;
            self.kept = true;
        }
        Ok(())
    }
}

fn read(path: &Path) -> u32 {
    let mut bytes = Vec::new();
    let opened = File::open(path).map(|file| file.take(STEP_BYTES + COPY_BYTES));
    if let Err(error) = opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, path = %path.display(), "boot counter");
        }
        return 0;
    }
    let copies = [0, STEP_BYTES].map(|offset| copy_at(&bytes, offset));
    // Earlier versions wrote the number as text.
    let text = || std::str::from_utf8(&bytes).ok()?.trim().parse().ok();
    copies
        .into_iter()
        .flatten()
        .max()
        .or_else(text)
        .unwrap_or(0)
}

fn copy_at(bytes: &[u8], offset: u64) -> Option<u32> {
    let end = offset + COPY_BYTES;
    if (bytes.len() as u64) < end {
        return None;
    }
    let mut records = Records::new(Cursor::new(bytes), offset, end, NUMBER_BYTES).ok()?;
    match records.next_piece() {
        Ok(Some(Piece::Record { body, .. })) => Some(u32::from_le_bytes(body.try_into().ok()?)),
        _ => None,
    }
}

fn write(path: &Path, number: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let body = number.to_le_bytes();
    let mut write_copy = |offset: u64| {
        let header = record::header(offset, &[&body]).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&[&header[..], &body].concat())?;
        file.sync_all()
    };
    if std::fs::metadata(path)?.len() >= STEP_BYTES + COPY_BYTES {
        return write_copy(u64::from(number % 2) * STEP_BYTES);
    }
    // A new file gets both its blocks now, the second one first: an earlier version's number is at
    // the start of the file.
    write_copy(STEP_BYTES)?;
    write_copy(0)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn start(path: &Path) -> u32 {
        let mut counter = BootCounter::open(path, 0);
        counter.keep().unwrap();
        counter.number()
    }

    #[test]
    fn every_start_counts_and_needs_no_disk_space_after_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        assert_eq!(start(&path), 1);
        let before = fs::metadata(&path).unwrap();
        for expected in 2..6 {
            assert_eq!(start(&path), expected);
        }
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (after.ino(), after.blocks()),
            (before.ino(), before.blocks()),
            "in place"
        );
        assert_eq!(
            BootCounter::open(&path, 0).number(),
            6,
            "not kept, not counted"
        );
        assert_eq!(BootCounter::open(&path, 0).number(), 6);
    }

    #[test]
    fn a_torn_write_leaves_the_previous_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        for expected in 1..8u32 {
            assert_eq!(start(&path), expected);
            let whole = fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn[(expected % 2) as usize * STEP_BYTES as usize + 13] ^= 1;
            fs::write(&path, torn).unwrap();
            assert_eq!(BootCounter::open(&path, 0).number(), expected.max(2));
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn an_earlier_versions_number_is_continued_and_a_damaged_file_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        fs::write(&path, "41\n").unwrap();
        assert_eq!(start(&path), 42);
        assert_eq!(start(&path), 43);
        fs::write(&path, vec![0xed; 5_000]).unwrap();
        assert_eq!(start(&path), 1);
        assert_eq!(start(&path), 2);
    }

    #[test]
    fn a_lost_counter_continues_above_every_number_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        assert_eq!(BootCounter::open(&path, 500).number(), 501, "gone");
        fs::write(&path, vec![0xed; 5_000]).unwrap();
        let mut damaged = BootCounter::open(&path, 500);
        assert_eq!(damaged.number(), 501);
        damaged.keep().unwrap();
        assert_eq!(BootCounter::open(&path, 0).number(), 502);
        assert_eq!(BootCounter::open(&path, 7).number(), 502, "not lowered");
    }
}
