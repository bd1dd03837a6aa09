//! Lists stored frames and recordings and reads them for a station.
//!
//! In: a kind and a name. Out: lists, and files in pieces. Only files of these kinds that are
//! directly inside their folder can be named.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use proto::limits::MAX_LISTED;
use proto::message::{FileInfo, FileKind};
use proto::name::FileName;

/// Folder of recordings inside the state folder.
pub const RECORDINGS: &str = "recordings";
/// Folder of stored frames inside the state folder.
pub const IMAGES: &str = "images";

fn folder(state: &Path, kind: FileKind) -> PathBuf {
    state.join(match kind {
        FileKind::Ng | FileKind::Ok => IMAGES,
        FileKind::Recording => RECORDINGS,
    })
}

/// The name as one of a file of this kind; `None` if it is none.
fn of_kind(name: &str, kind: FileKind) -> Option<FileName> {
    let has_kind = match kind {
        FileKind::Ng => name.contains("-NG."),
        FileKind::Ok => name.contains("-OK."),
        FileKind::Recording => name.ends_with(".awrec"),
    };
    FileName::new(name).ok().filter(|_| has_kind)
}

fn path(state: &Path, kind: FileKind, name: &FileName) -> PathBuf {
    folder(state, kind).join(name.as_str())
}

/// Files whose names come after `after`, in order, at most [`MAX_LISTED`]. A file whose name a
/// station would refuse is left out.
pub(super) fn list(state: &Path, kind: FileKind, after: &str) -> io::Result<Vec<FileInfo>> {
    let entries = match std::fs::read_dir(folder(state, kind)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names: Vec<FileName> = entries
        .flatten()
        .filter_map(|entry| of_kind(entry.file_name().to_str()?, kind))
        .filter(|name| name.as_str() > after)
        .collect();
    names.sort_unstable();
    // Files may be evicted while the list is made.
    let infos = names.into_iter().filter_map(|name| {
        let metadata = std::fs::metadata(path(state, kind, &name)).ok()?;
        let bytes = metadata.len();
        metadata.is_file().then_some(FileInfo {
            name: name.into(),
            bytes,
        })
    });
    Ok(infos.take(MAX_LISTED).collect())
}

/// A file that is being sent.
#[derive(Debug)]
pub(super) struct OutgoingFile {
    file: File,
    offset_bytes: u64,
    /// Length of the file when it was opened; a recording may still grow.
    pub(super) bytes: u64,
}

impl OutgoingFile {
    pub(super) fn open(
        state: &Path,
        kind: FileKind,
        name: &str,
        offset_bytes: u64,
    ) -> io::Result<Self> {
        let Some(name) = of_kind(name, kind) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such file"));
        };
        let mut file = File::open(path(state, kind, &name))?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset_bytes))?;
        Ok(Self {
            file,
            offset_bytes,
            bytes,
        })
    }

    /// Whether no piece is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.offset_bytes >= self.bytes
    }

    /// The next piece of at most `max_bytes` and its offset; the piece is empty at the end.
    pub(super) fn next(&mut self, max_bytes: usize) -> io::Result<(u64, Vec<u8>)> {
        let left = self.bytes.saturating_sub(self.offset_bytes);
        let mut piece = Vec::new();
        (&mut self.file)
            .take(left.min(max_bytes as u64))
            .read_to_end(&mut piece)?;
        let offset_bytes = self.offset_bytes;
        self.offset_bytes += piece.len() as u64;
        if piece.is_empty() && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((offset_bytes, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stored_frames_and_recordings_can_be_read() {
        let state = tempfile::tempdir().unwrap();
        let images = state.path().join(IMAGES);
        std::fs::create_dir_all(&images).unwrap();
        for name in [
            "1-NG.png",
            "1-NG.json",
            "2-OK.png",
            ".partial-1-NG.",
            "x.txt",
        ] {
            std::fs::write(images.join(name), b"0123456789").unwrap();
        }
        std::fs::write(state.path().join("secret-NG.key"), b"x").unwrap();
        let names = |kind, after: &str| -> Vec<String> {
            let files = list(state.path(), kind, after).unwrap();
            files.into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(FileKind::Ng, ""), ["1-NG.json", "1-NG.png"]);
        assert_eq!(names(FileKind::Ng, "1-NG.json"), ["1-NG.png"]);
        assert_eq!(names(FileKind::Ok, ""), ["2-OK.png"]);
        assert!(names(FileKind::Recording, "").is_empty());
        for name in [
            "../secret-NG.key",
            "/etc/a-NG.b",
            "2-OK.png",
            "none-NG.png",
            "",
            "..",
            "../images/1-NG.png",
            "./1-NG.png",
            ".partial-1-NG.",
            "1-NG.png\0",
            "1-NG.\u{202e}png",
        ] {
            assert!(
                OutgoingFile::open(state.path(), FileKind::Ng, name, 0).is_err(),
                "{name}"
            );
        }
        let mut sending = OutgoingFile::open(state.path(), FileKind::Ng, "1-NG.png", 4).unwrap();
        assert_eq!(sending.next(4).unwrap(), (4, b"4567".to_vec()));
        assert_eq!(sending.next(4).unwrap(), (8, b"89".to_vec()));
        assert_eq!(sending.next(4).unwrap(), (10, Vec::new()));
    }
}
