//! The journal's writes to the file system, behind traits so that tests can simulate a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A segment open for appending.
pub(super) trait SegmentFile: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything appended is on disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Truncates the file to this many bytes.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// The folder of segments.
pub(super) trait Disk: Send {
    /// Opens a file for appending and creates it if it does not exist. Its directory entry is
    /// durable when this returns.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Deletes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// The real file system.
pub(super) struct FileSystem;

impl Disk for FileSystem {
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        sync_folder_of(path)?;
        Ok(Box::new(file))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_folder_of(path)
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
