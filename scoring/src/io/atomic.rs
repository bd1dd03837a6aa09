//! Writes files so that a power cut or a full disk never leaves half a file.

use std::io;
use std::path::{Path, PathBuf};

/// A file could not be written. The file that was there before is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

/// Writes a temporary file in the same folder, syncs it and renames it. The folder is created if it
/// does not exist.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    secure::file::write(path, bytes, 0o666).map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        write_atomic(&path, b"old").unwrap();
        // Renaming over a folder fails after everything has been written.
        let folder = root.path().join("taken");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), b"x").unwrap();
        assert!(write_atomic(&folder, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(
            fs::read_dir(root.path()).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }
}
