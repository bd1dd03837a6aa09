//! How often the program was started with a state folder.
//!
//! The number tells two parts of the same number apart, so it must rise on a full disk too: the file holds two copies,
//! each a [`record`] in a block of its own, which are overwritten in turn and in place. A power cut leaves one whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{self, HEADER_BYTES, Piece, Records};
use crate::io::atomic::WriteError;

/// From one copy to the other: a block of common disks and file systems.
const STEP_BYTES: u64 = 4_096;
const NUMBER_BYTES: u32 = 4;
const COPY_BYTES: u64 = HEADER_BYTES as u64 + NUMBER_BYTES as u64;

/// The count of starts, this one included.
#[derive(Debug)]
pub struct Boots {
    path: PathBuf,
    number: u32,
    kept: bool,
}

impl Boots {
    /// Reads the file and counts this start; what cannot be read counts as never started. [`Self::keep`] writes it.
    pub fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            number: read(path).saturating_add(1),
            kept: false,
        }
    }

    /// How often the program was started.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Brings the number to the disk, unless it is there. Nothing that carries it may become durable before.
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
            tracing::warn!(%error, path = %path.display(), "number of starts");
        }
        return 0;
    }
    let copies = [0, STEP_BYTES].map(|offset| copy_at(&bytes, offset));
    // Earlier versions wrote the number in words.
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
    let mut put = |offset: u64| {
        let header = record::header(offset, &[&body]).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&[&header[..], &body].concat())?;
        file.sync_all()
    };
    if std::fs::metadata(path)?.len() >= STEP_BYTES + COPY_BYTES {
        return put(u64::from(number % 2) * STEP_BYTES);
    }
    // A new file gets its blocks now. The further one first: an earlier version's number is at the start.
    put(STEP_BYTES)?;
    put(0)?;
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
        let mut boots = Boots::open(path);
        boots.keep().unwrap();
        boots.number()
    }

    #[test]
    fn every_start_counts_and_needs_no_room_after_the_first() {
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
        assert_eq!(Boots::open(&path).number(), 6, "not kept, not counted");
        assert_eq!(Boots::open(&path).number(), 6);
    }

    #[test]
    fn a_torn_write_leaves_the_number_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        for expected in 1..8u32 {
            assert_eq!(start(&path), expected);
            let whole = fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn[(expected % 2) as usize * STEP_BYTES as usize + 13] ^= 1;
            fs::write(&path, torn).unwrap();
            assert_eq!(Boots::open(&path).number(), expected.max(2));
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn an_earlier_versions_number_is_taken_over_and_damage_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        fs::write(&path, "41\n").unwrap();
        assert_eq!(start(&path), 42);
        assert_eq!(start(&path), 43);
        fs::write(&path, vec![0xed; 5_000]).unwrap();
        assert_eq!(start(&path), 1);
        assert_eq!(start(&path), 2);
    }
}
