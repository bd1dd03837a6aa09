//! Writes the `newc` archive that Linux takes as its initial file system. Written here, it needs
//! neither the cpio program nor root for the device node.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written. The parent folders of an entry are added before it.
pub(crate) struct Archive<W> {
    out: W,
    folders: BTreeSet<String>,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An archive without entries; nothing is written yet.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            folders: BTreeSet::new(),
            inode: 0,
        }
    }

    /// Adds a folder, unless it was added before.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.folders.insert(path.to_owned());
        self.entry(path, DIRECTORY, (0, 0), &[])
    }

    /// Adds a file with the permissions `mode`.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, REGULAR | mode, (0, 0), content)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, SYMLINK, (0, 0), target.as_bytes())
    }

    /// Adds a character device with its major and minor number.
    pub(crate) fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, CHARACTER_DEVICE, number, &[])
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let too_long = |_| io::Error::other(format!("{path} is over 4 GiB"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
        self.inode += 1;
        // Inode, mode, user, group, links, time, size, the disk's device number, that of the node,
        // the length of the name, checksum.
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(path.as_bytes())?;
        // The name ends in NUL. Name and content are padded, so that what follows starts at a
        // multiple of four bytes.
        let name_end = header.len() + path.len() + 1;
        self.out.write_all(&[0; 4][..1 + padding(name_end)])?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 4][..padding(content.len())])
    }
}

/// Bytes from `length` to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_each_parent_comes_once_before_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", 0o755, b"12345").unwrap();
        archive.file("a/b/two", 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        // a, a/b, a/b/one, a/b/two, trailer
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|start| start % 4 == 0));
        assert!(text[starts[2]..].contains("000081ED"), "mode 0100755");
        assert_eq!(&text[starts[2] + 54..starts[2] + 62], "00000005");
        assert_eq!(bytes.len() % 4, 0);
    }
}
