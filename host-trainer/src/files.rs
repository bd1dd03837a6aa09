//! Writing files so that a power cut or a full disk never leaves half of one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file could not be written; what was there before is untouched.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: std::io::Error,
}

/// Writes under a temporary name in the same folder, syncs, then renames.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let failed = |source| WriteError {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    // Readable by others, as any output file is; the default of a temporary file is not.
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    // The rename itself must reach the disk too.
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        write_atomic(&path, b"old").unwrap();
        // Renaming over a folder fails after everything was written.
        let folder = root.path().join("taken");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), b"x").unwrap();
        assert!(write_atomic(&folder, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let names = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(names, 2, "no temporary file is left");
    }
}
