//! Reads packages from disk. They are written by [`crate::io::atomic`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::limits::{MAX_MANIFEST_BYTES, MAX_ONNX_BYTES};

use super::container::{Loaded, PackageError, Trust, Verified};

/// Why a package file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read package {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The package is refused.
    #[error("package {} is refused", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: PackageError,
    },
}

/// Largest size of a package file. A wrong path or a malicious station cannot fill the memory or
/// the disk beyond it.
pub const MAX_PACKAGE_BYTES: u64 = MAX_ONNX_BYTES + MAX_MANIFEST_BYTES as u64 + 1_024;

/// Reads and verifies a package.
pub fn read(path: &Path, trust: &Trust) -> Result<Verified, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PACKAGE_BYTES).read_to_end(&mut bytes))
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
