//! Packages on disk: read whole, written under a temporary name and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use proto::limits::{MAX_MANIFEST_BYTES, MAX_ONNX_BYTES};

use super::container::{Loaded, PackageError, Trust, Verified};

/// Why a package file cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read package {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It cannot be written; what was there before is untouched.
    #[error("cannot write package {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is refused.
    #[error("package {} is refused", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PackageError,
    },
}

/// Reads and verifies a package.
pub fn read(path: &Path, trust: &Trust) -> Result<Verified, FileError> {
    // Nothing larger can be a package; a wrong path should not fill the memory.
    let limit = MAX_ONNX_BYTES + MAX_MANIFEST_BYTES as u64 + 1_024;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
    Loaded::new(bytes)
        .and_then(|loaded| loaded.verify(trust))
        .map_err(|source| FileError::Package {
            path: path.to_owned(),
            source,
        })
}

/// Writes a package where there is none yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if path.exists() {
        return Err(FileError::Write {
            path: path.to_owned(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        });
    }
    write_replacing(path, bytes)
}

/// Writes a package; an existing one is replaced in one step, or kept if anything fails.
pub fn write_replacing(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".partial-{}-{name}", std::process::id()));
    let written = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        fs::remove_file(&partial).ok();
    }
    written.map_err(failed)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
