//! Files that must never be half written, some of them secret. Other crates write their files in
//! this way too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file atomically: writes to a temporary file in the same folder, syncs, and renames. The
/// folder is created if it does not exist. `mode` holds the permission bits before the umask. After
/// an error the previous file is unchanged.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Several threads may write at the same time, so each temporary file has its own number.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let partial = folder.join(format!(".partial-{}-{count}", std::process::id()));
    let written = write_synced(&partial, bytes, mode)
        .and_then(|()| fs::rename(&partial, path))
        // The rename must reach the disk too.
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        fs::remove_file(&partial).ok();
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        // A killed program may have left a file of the same name.
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a text file; `None` if it does not exist.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
