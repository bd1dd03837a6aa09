//! Packages on disk. They are written with [`crate::io::atomic`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::limits::{MAX_MANIFEST_BYTES, MAX_ONNX_BYTES};

use super::container::{Loaded, PackageError, Trust, Verified};

/// Why a package file cannot be used.
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
    /// It is refused.
    #[error("package {} is refused", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PackageError,
    },
}

/// Nothing larger can be a package; a wrong path, or a station, should not fill the memory or the disk.
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
