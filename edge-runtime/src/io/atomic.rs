//! Writing a file so that a power cut or a full disk never leaves half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file could not be written; what was there before is untouched.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Writes under a temporary name in the same folder, which is made if need be, syncs, then renames.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    // Several threads may write at once.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let partial = folder.join(format!(".partial-{}-{count}", std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| write_synced(&partial, bytes))
        .and_then(|()| fs::rename(&partial, path))
        // The rename itself must reach the disk too.
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        fs::remove_file(&partial).ok();
    }
    written.map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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
        assert_eq!(
            fs::read_dir(root.path()).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }
}
