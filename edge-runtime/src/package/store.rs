//! The two packages on disk. A file is named after the SHA-256 of its package, and `slots.json` says which two count and
//! which of them is active. That file is replaced in one step after the package is durable, and what it no longer names
//! is deleted after that: wherever the power goes, it names whole packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::container::{Trust, Verified};
use super::file::{FileError, read};
use super::slots::{Sha256, SlotId, Slots};
use crate::io::atomic::{WriteError, write_atomic};

const ENDING: &str = ".awr";

/// The file that says what counts was not used.
#[derive(Debug, thiserror::Error)]
pub enum StoreWarning {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is damaged; the packages were found by themselves.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

/// The slots, on disk.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    slots: Slots,
}

impl Store {
    /// Reads what counts. Nothing is written: a disk that refuses it must not keep a camera from starting.
    pub fn open(folder: &Path) -> (Self, Option<StoreWarning>) {
        let path = folder.join("slots.json");
        let mut store = Self {
            folder: folder.to_owned(),
            slots: Slots::default(),
        };
        let warning = match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(slots) => {
                    store.slots = slots;
                    None
                }
                Err(_) => Some(StoreWarning::Damaged(path)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => Some(StoreWarning::Read { path, source }),
        };
        if warning.is_some() {
            store.slots = store.found();
        }
        (store, warning)
    }

    /// What can be told from the files alone: the newest is active.
    fn found(&self) -> Slots {
        let mut files: Vec<_> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let sha256 = sha_of_name(entry.file_name().to_str()?)?;
                Some((entry.metadata().ok()?.modified().ok()?, sha256))
            })
            .collect();
        files.sort_unstable();
        let newest = files.iter().rev().take(2).rev();
        newest
            .zip(SlotId::BOTH)
            .fold(Slots::default(), |slots, (&(_, sha256), slot)| {
                let slots = slots.activated(slot, sha256);
                slots.clone().confirmed().unwrap_or(slots)
            })
    }

    /// What counts.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Where packages are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A package's file.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(secure::hex(sha256) + ENDING)
    }

    /// Reads and verifies what is in a slot; `None`: nothing is.
    pub fn read(&self, slot: SlotId, trust: &Trust) -> Option<Result<Verified, FileError>> {
        let sha256 = self.slots.package(slot)?;
        let package = read(&self.path(&sha256), trust);
        Some(package.and_then(|package| {
            // The file's name is a promise too.
            if *package.sha256() == sha256 {
                Ok(package)
            } else {
                Err(FileError::Read {
                    path: self.path(&sha256),
                    source: io::Error::other("it is another package than its name says"),
                })
            }
        }))
    }

    /// Puts a package's bytes into the folder, without making it count.
    pub fn put(&self, sha256: &Sha256, bytes: &[u8]) -> Result<(), WriteError> {
        write_atomic(&self.path(sha256), bytes)
    }

    /// From now on this counts, power cut or not; what does not is deleted.
    pub fn commit(&mut self, slots: Slots) -> Result<(), WriteError> {
        if slots != self.slots || !self.folder.join("slots.json").exists() {
            let text = serde_json::to_vec(&slots).unwrap_or_default();
            write_atomic(&self.folder.join("slots.json"), &text)?;
            self.slots = slots;
        }
        self.sweep();
        Ok(())
    }

    /// Like [`Self::commit`], until the program ends: for a disk that refuses to be written.
    pub fn pretend(&mut self, slots: Slots) {
        self.slots = slots;
    }

    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unused =
                sha_of_name(name).is_some_and(|sha256| self.slots.holding(&sha256).is_none());
            // Half-written files of a program that was killed.
            if unused || name.starts_with(".partial-") {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

fn sha_of_name(name: &str) -> Option<Sha256> {
    secure::from_hex(name.strip_suffix(ENDING)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_counts_is_kept_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, warning) = Store::open(folder.path());
        assert!(warning.is_none());
        let mut slots = Slots::default();
        for seed in 1..=3 {
            store.put(&[seed; 32], &[seed]).unwrap();
            slots = slots.clone().activated(slots.free(), [seed; 32]);
            slots = slots.clone().confirmed().unwrap_or(slots);
            store.commit(slots.clone()).unwrap();
        }
        let (again, _) = Store::open(folder.path());
        assert_eq!(again.slots(), &slots);
        assert_eq!(
            names(folder.path()).len(),
            3,
            "two packages and the file that says so"
        );
        assert!(!store.path(&[1; 32]).exists());
    }

    #[test]
    fn packages_are_found_when_the_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(folder.path());
        store.put(&[1; 32], &[1]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        store.put(&[2; 32], &[2]).unwrap();
        let slots = Slots::default().configured_as(SlotId::A, [1; 32]);
        store.commit(slots.activated(SlotId::B, [2; 32])).unwrap();
        fs::write(folder.path().join("slots.json"), b"{\"pack").unwrap();
        let (found, warning) = Store::open(folder.path());
        assert!(matches!(warning, Some(StoreWarning::Damaged(_))));
        let active = found
            .slots()
            .active()
            .and_then(|slot| found.slots().package(slot));
        assert_eq!(active, Some([2; 32]));
        assert!(found.slots().holding(&[1; 32]).is_some());
    }
}
