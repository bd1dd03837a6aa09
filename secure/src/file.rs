//! Files that must never be half written, some of them secret. Other crates write their files in
//! this way too.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Permission bits of a file that only its owner may read and write.
pub const PRIVATE: u32 = 0o600;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// Longest time to wait for another program that changes the same file. A change takes
/// milliseconds; a program that takes longer hangs.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// Time between two attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// From now on, gives whatever this program creates permissions for its owner only: 0600 for files
/// and 0700 for folders. A program that keeps state calls this first of all.
pub fn keep_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS));
}

/// Creates a folder that only its owner may enter, if it does not exist, and the folders above it.
/// A folder that exists keeps its permissions.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns the permission bits of a file if others than its owner have any.
pub fn exposed_mode(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & OTHERS != 0).then_some(mode))
}

/// Keeps other programs and threads from changing a file while it exists.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// Locks a file against changes by other users of this function, in this and in other programs. The
/// lock is on a file beside it, because a change replaces the file itself. A program that is killed
/// leaves no lock behind.
pub fn lock(path: &Path) -> io::Result<FileLock> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    create_private_folder(folder_of(path))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(&beside)?;
    give_to_owner_of_folder(&file, &beside);
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(FileLock { _file: file }),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let what = format!("another program changes {}", path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

/// Makes a private file belong to whom its folder belongs to. Otherwise a command that root runs
/// would leave files that a program with a user of its own cannot read. Only root can do this;
/// others own their files already.
fn give_to_owner_of_folder(file: &File, path: &Path) {
    let owners = file
        .metadata()
        .and_then(|own| Ok((own, fs::metadata(folder_of(path))?)));
    if let Ok((own, folder)) = owners
        && own.uid() != folder.uid()
    {
        // Whoever may not do this needs no help: the file is used as it is.
        fchown(file, Some(folder.uid()), Some(folder.gid())).ok();
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a file atomically: writes to a temporary file in the same folder, syncs, and renames. The
/// folder is created if it does not exist, for the owner only if the file is [`PRIVATE`]. `mode`
/// holds the permission bits before the umask; a private file has exactly these, and belongs to the
/// owner of its folder. After an error the previous file is unchanged.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Several threads may write at the same time, so each temporary file has its own number.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = folder_of(path);
    if mode == PRIVATE {
        create_private_folder(folder)?;
    } else {
        fs::create_dir_all(folder)?;
    }
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
    if mode == PRIVATE {
        // The mode above has no effect on a file that a killed program has left.
        file.set_permissions(Permissions::from_mode(mode))?;
        give_to_owner_of_folder(&file, path);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    }

    #[test]
    fn a_private_file_is_private_even_if_others_could_read_the_one_before() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state/key");
        write(&path, b"1", PRIVATE)?;
        assert_eq!(mode(&path)?, 0o600);
        assert_eq!(mode(&folder.path().join("state"))?, 0o700);
        assert_eq!(exposed_mode(&path)?, None);
        fs::set_permissions(&path, Permissions::from_mode(0o640))?;
        assert_eq!(exposed_mode(&path)?, Some(0o640));
        write(&path, b"2", PRIVATE)?;
        assert_eq!(mode(&path)?, 0o600);
        // Whatever a killed program has left under the temporary name.
        let left = folder.path().join("left");
        fs::write(&left, b"x")?;
        fs::set_permissions(&left, Permissions::from_mode(0o666))?;
        write_synced(&left, b"y", PRIVATE)?;
        assert_eq!(mode(&left)?, 0o600);
        Ok(())
    }

    #[test]
    fn what_root_writes_into_a_folder_of_another_user_belongs_to_this_user() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stations");
        if std::os::unix::fs::chown(folder.path(), Some(12_345), Some(12_346)).is_err() {
            // Only root can try this.
            return Ok(());
        }
        let held = lock(&path)?;
        write(&path, b"1", PRIVATE)?;
        drop(held);
        for name in ["stations", "stations.lock"] {
            let metadata = fs::metadata(folder.path().join(name))?;
            assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_346), "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_file_is_locked_by_one_at_a_time() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("list");
        let held = lock(&path)?;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| lock(&path).map(|_| Instant::now()));
            std::thread::sleep(Duration::from_millis(50));
            let released = Instant::now();
            drop(held);
            let locked = other.join().map_err(|_| io::Error::other("panic"))??;
            assert!(locked >= released);
            Ok(())
        })
    }
}
