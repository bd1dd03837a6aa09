//! A package that arrives in pieces, over links that break and through power cuts.
//!
//! In: pieces in order. Out: the whole package, once its SHA-256 is the announced one.
//! `incoming.part` holds the bytes received; `incoming.json` holds the announced length and digest
//! and the number of durable bytes. After a restart the transfer resumes at the durable bytes,
//! because those behind them may be anything after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use scoring::io::atomic::{WriteError, write_atomic};
use scoring::package::MAX_PACKAGE_BYTES;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Hasher};

use super::slots::Sha256;

/// Bytes received between two syncs to disk.
const SYNC_BYTES: u64 = 1 << 20;

/// Why a piece, or the whole package, is refused.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// A file cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The progress cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The announced length is out of range.
    #[error("expected a package of 1..={MAX_PACKAGE_BYTES} bytes, found {0}")]
    Size(u64),
    /// A piece is missing before this one.
    #[error("expected bytes from {expected} on, found {found}")]
    Offset {
        /// Offset of the next byte.
        expected: u64,
        /// Offset of the piece.
        found: u64,
    },
    /// More bytes came than were announced.
    #[error("expected {expected} bytes in all, found more")]
    TooLong {
        /// Announced length.
        expected: u64,
    },
    /// Fewer bytes came than were announced.
    #[error("expected {expected} bytes, found {found}: the transfer is not complete")]
    Short {
        /// Announced length.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// The SHA-256 differs from the announced one.
    #[error("the SHA-256 is not the announced one: the package was damaged on the way")]
    Digest,
}

/// Announced package, and how much of it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    total_bytes: u64,
    sha256: Sha256,
    durable_bytes: u64,
}

/// A transfer in progress.
#[derive(Debug)]
pub struct Incoming {
    folder: PathBuf,
    file: File,
    progress: Progress,
    written_bytes: u64,
}

fn part_path(folder: &Path) -> PathBuf {
    folder.join("incoming.part")
}

fn progress_path(folder: &Path) -> PathBuf {
    folder.join("incoming.json")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IncomingError {
    let path = path.to_owned();
    move |source| IncomingError::Io {
        action,
        path,
        source,
    }
}

impl Incoming {
    /// Begins a transfer, or resumes one of the same package.
    pub fn begin(folder: &Path, total_bytes: u64, sha256: Sha256) -> Result<Self, IncomingError> {
        if !(1..=MAX_PACKAGE_BYTES).contains(&total_bytes) {
            return Err(IncomingError::Size(total_bytes));
        }
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let path = part_path(folder);
        let earlier = fs::read(progress_path(folder)).ok();
        let earlier: Option<Progress> = earlier.and_then(|text| serde_json::from_slice(&text).ok());
        let earlier = earlier
            .filter(|earlier| earlier.total_bytes == total_bytes && earlier.sha256 == sha256);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(earlier.is_none())
            .open(&path)
            .map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("read", &path))?.len();
        let durable_bytes = earlier.map_or(0, |earlier| earlier.durable_bytes.min(length));
        file.set_len(durable_bytes)
            .and_then(|()| file.seek(SeekFrom::Start(durable_bytes)))
            .map_err(failed("write", &path))?;
        let incoming = Self {
            folder: folder.to_owned(),
            file,
            progress: Progress {
                total_bytes,
                sha256,
                durable_bytes,
            },
            written_bytes: durable_bytes,
        };
        incoming.write_progress()?;
        Ok(incoming)
    }

    /// Announced SHA-256 of the package.
    pub fn sha256(&self) -> Sha256 {
        self.progress.sha256
    }

    /// Offset of the next byte.
    pub fn offset_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Takes the next piece and returns the offset of the one after it. A piece that was taken
    /// before is no error, because its answer may have been lost.
    pub fn take(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<u64, IncomingError> {
        let end = offset_bytes.saturating_add(bytes.len() as u64);
        if end <= self.written_bytes {
            return Ok(self.written_bytes);
        }
        if offset_bytes != self.written_bytes {
            return Err(IncomingError::Offset {
                expected: self.written_bytes,
                found: offset_bytes,
            });
        }
        if end > self.progress.total_bytes {
            return Err(IncomingError::TooLong {
                expected: self.progress.total_bytes,
            });
        }
        let path = part_path(&self.folder);
        if let Err(error) = self.file.write_all(bytes) {
            // A part of the piece may have been written.
            self.file
                .seek(SeekFrom::Start(self.written_bytes))
                .map_err(failed("write", &path))?;
            return Err(failed("write", &path)(error));
        }
        self.written_bytes = end;
        if end - self.progress.durable_bytes >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(end)
    }

    fn sync(&mut self) -> Result<(), IncomingError> {
        let path = part_path(&self.folder);
        self.file.sync_data().map_err(failed("sync", &path))?;
        self.progress.durable_bytes = self.written_bytes;
        self.write_progress()
    }

    fn write_progress(&self) -> Result<(), IncomingError> {
        let text = serde_json::to_vec(&self.progress).unwrap_or_default();
        Ok(write_atomic(&progress_path(&self.folder), &text)?)
    }

    /// Syncs the whole package, reads it back from the disk and checks its digest. Its file stays
    /// until [`Self::keep`] or [`Self::discard`].
    pub fn finish(&mut self) -> Result<Vec<u8>, IncomingError> {
        let expected = self.progress.total_bytes;
        if self.written_bytes != expected {
            return Err(IncomingError::Short {
                expected,
                found: self.written_bytes,
            });
        }
        let path = part_path(&self.folder);
        self.file.sync_all().map_err(failed("sync", &path))?;
        let mut bytes = Vec::new();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&self.file).take(expected).read_to_end(&mut bytes))
            .map_err(failed("read", &path))?;
        if Sha256::from(Hasher::digest(&bytes)) != self.progress.sha256 {
            return Err(IncomingError::Digest);
        }
        Ok(bytes)
    }

    /// Renames the file to `name` in the same folder, durably.
    pub fn keep(self, name: &Path) -> Result<(), IncomingError> {
        let path = part_path(&self.folder);
        fs::rename(&path, name)
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(failed("rename", &path))?;
        fs::remove_file(progress_path(&self.folder)).ok();
        Ok(())
    }

    /// Deletes the transfer.
    pub fn discard(self) {
        fs::remove_file(progress_path(&self.folder)).ok();
        fs::remove_file(part_path(&self.folder)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 7 % 251) as u8).collect()
    }

    fn sha(bytes: &[u8]) -> Sha256 {
        Hasher::digest(bytes).into()
    }

    #[test]
    fn a_transfer_resumes_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let whole = bytes(3 << 20);
        let total = whole.len() as u64;
        let mut incoming = Incoming::begin(folder.path(), total, sha(&whole)).unwrap();
        let mut pieces = 0;
        while incoming.offset_bytes() < total {
            let at = incoming.offset_bytes() as usize;
            let end = whole.len().min(at + 50_000);
            assert_eq!(
                incoming.take(at as u64, &whole[at..end]).unwrap(),
                end as u64
            );
            assert_eq!(
                incoming.take(at as u64, &whole[at..end]).unwrap(),
                end as u64,
                "again"
            );
            pieces += 1;
            if pieces % 30 == 0 {
                // The program was killed.
                drop(incoming);
                incoming = Incoming::begin(folder.path(), total, sha(&whole)).unwrap();
                assert!(incoming.offset_bytes() <= end as u64);
                assert!(end as u64 - incoming.offset_bytes() <= SYNC_BYTES + 50_000);
            }
            assert!(pieces < 1_000);
        }
        assert_eq!(incoming.finish().unwrap(), whole);
        let name = folder.path().join("whole.awr");
        incoming.keep(&name).unwrap();
        assert_eq!(fs::read(&name).unwrap(), whole);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn bytes_behind_the_durable_ones_are_received_again() {
        let folder = tempfile::tempdir().unwrap();
        let whole = bytes(2_200_000);
        let total = whole.len() as u64;
        let mut incoming = Incoming::begin(folder.path(), total, sha(&whole)).unwrap();
        incoming.take(0, &whole[..1_100_000]).unwrap();
        incoming
            .take(1_100_000, &whole[1_100_000..1_200_000])
            .unwrap();
        drop(incoming);
        let mut file = OpenOptions::new()
            .write(true)
            .open(part_path(folder.path()))
            .unwrap();
        file.seek(SeekFrom::Start(1_100_000)).unwrap();
        file.write_all(&[0; 100_000]).unwrap();
        let mut incoming = Incoming::begin(folder.path(), total, sha(&whole)).unwrap();
        assert_eq!(incoming.offset_bytes(), 1_100_000);
        incoming.take(1_100_000, &whole[1_100_000..]).unwrap();
        assert_eq!(incoming.finish().unwrap(), whole);
    }

    #[test]
    fn another_package_starts_from_zero_and_wrong_bytes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (bytes(1_000), bytes(1_001));
        let mut incoming = Incoming::begin(folder.path(), 1_000, sha(&one)).unwrap();
        incoming.take(0, &one[..500]).unwrap();
        let mut incoming = Incoming::begin(folder.path(), 1_001, sha(&two)).unwrap();
        assert_eq!(incoming.offset_bytes(), 0);
        assert!(matches!(
            incoming.take(10, &two[10..20]),
            Err(IncomingError::Offset {
                expected: 0,
                found: 10
            })
        ));
        assert!(matches!(
            incoming.finish(),
            Err(IncomingError::Short { .. })
        ));
        incoming.take(0, &one).unwrap();
        assert!(matches!(
            incoming.take(1_000, &two[..2]),
            Err(IncomingError::TooLong { expected: 1_001 })
        ));
        incoming.take(1_000, &two[..1]).unwrap();
        assert!(matches!(incoming.finish(), Err(IncomingError::Digest)));
        incoming.discard();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for size in [0, MAX_PACKAGE_BYTES + 1, u64::MAX] {
            let refused = Incoming::begin(folder.path(), size, sha(&one));
            assert!(matches!(refused, Err(IncomingError::Size(_))));
        }
    }
}
