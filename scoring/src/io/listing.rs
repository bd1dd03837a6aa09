//! Lists a folder of images, and what is left out of it. In: a folder. Out: its images, its
//! folders, and files that look like images and are not read.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::image_file::is_image_name;

/// Endings of pictures that are not read. Other files (texts, tables) are nobody's images and are
/// passed over.
const UNSUPPORTED: [&str; 22] = [
    "avif", "cr2", "cr3", "dib", "dng", "exr", "gif", "hdr", "heic", "heif", "jfif", "jp2", "jpe",
    "jxl", "nef", "pbm", "pgm", "pnm", "ppm", "raw", "tga", "webp",
];
/// Folders that other programs make for themselves: thumbnails of a Synology disk, resource forks
/// of macOS, Windows' bin, and what a file system check has found.
const SYSTEM: [&str; 4] = ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found"];
/// Folders below each other that are searched for images. A deeper one is a loop of links.
const MAX_DEPTH: usize = 16;

/// The content of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Images, by their ending, sorted. They need not be readable.
    pub images: Vec<PathBuf>,
    /// Folders, sorted.
    pub folders: Vec<PathBuf>,
    /// Hidden images, hidden folders, and folders that other programs made, sorted.
    pub hidden: Vec<PathBuf>,
    /// Pictures of formats that are not read, sorted.
    pub unsupported: Vec<PathBuf>,
}

impl Listing {
    /// Lists what is directly in `folder`.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(folder)? {
            found.add(entry?.path());
        }
        for paths in [
            &mut found.images,
            &mut found.folders,
            &mut found.hidden,
            &mut found.unsupported,
        ] {
            paths.sort();
        }
        Ok(found)
    }

    fn add(&mut self, path: PathBuf) {
        let is_folder = path.is_dir();
        let is_image = !is_folder && is_image_name(&path);
        if is_hidden(path.file_name().unwrap_or_default()) {
            if is_folder || is_image {
                self.hidden.push(path);
            }
        } else if is_folder {
            self.folders.push(path);
        } else if is_image {
            // A dangling link too: that it cannot be read is said when it is read.
            self.images.push(path);
        } else if is_unsupported(&path) {
            self.unsupported.push(path);
        }
    }

    /// Number of images in the folders below, at any depth, without hidden ones.
    pub fn images_below(&self) -> usize {
        self.folders
            .iter()
            .map(|folder| images_within(folder))
            .sum()
    }
}

/// Number of images in a folder and in those below it, without hidden ones. A folder that cannot be
/// read has none.
pub fn images_within(folder: &Path) -> usize {
    count(folder, MAX_DEPTH)
}

fn count(folder: &Path, depth: usize) -> usize {
    let Some(depth) = depth.checked_sub(1) else {
        return 0;
    };
    let Ok(found) = Listing::of(folder) else {
        return 0;
    };
    let below = found.folders.iter().map(|folder| count(folder, depth));
    found.images.len() + below.sum::<usize>()
}

/// Whether a file or folder of this name is hidden, or a system's own. Editors, file managers and
/// galleries keep copies and deleted pictures (`.trashed-…`) under such names.
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || SYSTEM.iter().any(|system| name == *system)
}

fn is_unsupported(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    let ending = ending.map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| UNSUPPORTED.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_of_a_folder_has_its_place() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in [".ipynb_checkpoints", "@eaDir", "batch1/deep", "z"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let files = [
            "b.PNG",
            "a.tif",
            ".trashed-17-a.png",
            ".DS_Store",
            "notes.txt",
            "c.webp",
            "D.GIF",
            "batch1/1.png",
            "batch1/deep/2.bmp",
            "batch1/.3.png",
            ".ipynb_checkpoints/4.png",
        ];
        for file in files {
            fs::write(at(file), b"").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", at("link.jpg")).unwrap();
        std::os::unix::fs::symlink("..", at("z/loop")).unwrap();
        let found = Listing::of(root.path()).unwrap();
        let all = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
        assert_eq!(found.images, all(&["a.tif", "b.PNG", "link.jpg"]));
        assert_eq!(found.folders, all(&["batch1", "z"]));
        let hidden = [".ipynb_checkpoints", ".trashed-17-a.png", "@eaDir"];
        assert_eq!(found.hidden, all(&hidden));
        assert_eq!(found.unsupported, all(&["D.GIF", "c.webp"]));
        assert_eq!(images_within(&at("batch1")), 2);
    }
}
