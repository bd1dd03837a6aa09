//! The two packages on disk.
//!
//! A file is named after the SHA-256 of its package, and `slots.json` names the packages in the
//! slots and the active one. That file is replaced atomically once the package is durable, and
//! packages that it does not name are deleted after that. So it names whole packages after a power
//! cut at any moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use scoring::io::atomic::{WriteError, write_atomic};
use scoring::package::{FileError, Trust, Verified, read};

use super::slots::{Sha256, SlotId, Slots};

const ENDING: &str = ".awr";

/// Why `slots.json` was not used; the packages were found by their files instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreWarning {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is damaged.
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
    /// Reads the slots. Writes nothing, because a disk that cannot be written must not keep a
    /// camera from starting.
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
            store.slots = store.slots_from_files();
        }
        (store, warning)
    }

    /// The slots with the two newest files, the newest one active.
    fn slots_from_files(&self) -> Slots {
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

    /// Contents of the slots.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The folder with the packages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a package.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(secure::hex(sha256) + ENDING)
    }

    /// Reads and verifies the package in a slot; `None` if the slot is empty.
    pub fn read(&self, slot: SlotId, trust: &Trust) -> Option<Result<Verified, FileError>> {
        let sha256 = self.slots.package(slot)?;
        let package = read(&self.path(&sha256), trust);
        Some(package.and_then(|package| {
            // A valid package under another's name is damage too.
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

    /// Writes a package's bytes into the folder. The slots stay as they are.
    pub fn put(&self, sha256: &Sha256, bytes: &[u8]) -> Result<(), WriteError> {
        write_atomic(&self.path(sha256), bytes)
    }

    /// Makes `slots` durable, and then deletes packages that are in no slot.
    pub fn commit(&mut self, slots: Slots) -> Result<(), WriteError> {
        if slots != self.slots || !self.folder.join("slots.json").exists() {
            let text = serde_json::to_vec(&slots).unwrap_or_default();
            write_atomic(&self.folder.join("slots.json"), &text)?;
            self.slots = slots;
        }
        self.sweep();
        Ok(())
    }

    /// Like [`Self::commit`], but only until the program ends, for a disk that cannot be written.
    pub fn set_unsaved(&mut self, slots: Slots) {
        self.slots = slots;
    }

    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unused =
                sha_of_name(name).is_some_and(|sha256| self.slots.slot_holding(&sha256).is_none());
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
    fn packages_in_the_slots_are_kept_and_others_are_deleted() {
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
        assert_eq!(names(folder.path()).len(), 3, "two packages and slots.json");
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
        assert!(found.slots().slot_holding(&[1; 32]).is_some());
    }
}
