//! The two packages on disk.
//!
//! A file is named after the SHA-256 of its package, and `slots.json` names the packages in the
//! slots and the active one. That file is replaced atomically once the package is durable, and
//! packages that it does not name are deleted after that. So it names whole packages after a power
//! cut at any moment.
//!
//! `slots.json` carries a checksum, and `slots.copy.json` is its copy. If both are damaged, nobody
//! knows which package was confirmed: the packages are kept, but none is active.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use scoring::io::atomic::{WriteError, write_atomic};
use scoring::package::{FileError, Trust, Verified, read};
use sha2::{Digest, Sha256 as Hasher};

use super::checked;
pub use super::checked::Unusable;
use super::slots::{Sha256, SlotId, Slots};

const ENDING: &str = ".awr";

const FILE: &str = "slots.json";
const COPY: &str = "slots.copy.json";

/// Why `slots.json` was not used.
#[derive(Debug, thiserror::Error)]
pub enum StoreWarning {
    /// The file cannot be used, and its copy was used.
    #[error("{0}; its copy is used")]
    CopyUsed(Unusable),
    /// Neither the file nor its copy can be used.
    #[error(
        "{0}, and its copy cannot be used either, so nobody knows which package was confirmed: \
         no package is active until one is configured, flashed, or activated by a roll-back"
    )]
    Unknown(Unusable),
}

/// The slots, on disk.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// The slots in force.
    slots: Slots,
    /// What the file and its copy hold; `None` where that is not known.
    saved: [Option<Slots>; 2],
    /// Whether packages in no slot may be deleted. Not if the slots could not be read: then nobody
    /// knows which packages are needed.
    may_delete: bool,
}

impl Store {
    /// Reads the slots. Writes nothing, because a disk that cannot be written must not keep a
    /// camera from starting.
    pub fn open(folder: &Path) -> (Self, Option<StoreWarning>) {
        let mut store = Self {
            folder: folder.to_owned(),
            slots: Slots::default(),
            saved: [None, None],
            may_delete: true,
        };
        let copy = checked::read::<Slots>(&folder.join(COPY));
        let warning = match checked::read::<Slots>(&folder.join(FILE)) {
            Ok(Some(slots)) => {
                store.slots = slots.clone();
                store.saved = [Some(slots), copy.ok().flatten()];
                return (store, None);
            }
            // The copy is written second, so a copy without the file means that the file was lost.
            Ok(None) if matches!(copy, Ok(None)) => return (store, None),
            Ok(None) => Unusable::Read {
                path: folder.join(FILE),
                source: io::ErrorKind::NotFound.into(),
            },
            Err(unusable) => unusable,
        };
        let warning = match copy {
            Ok(Some(slots)) => {
                store.slots = slots.clone();
                store.saved = [None, Some(slots)];
                StoreWarning::CopyUsed(warning)
            }
            _ => {
                store.slots = store.slots_from_files();
                StoreWarning::Unknown(warning)
            }
        };
        store.may_delete = false;
        (store, Some(warning))
    }

    /// The slots with the two newest files, none of them active.
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
                slots.found(slot, sha256)
            })
    }

    /// Whether it is known what is on disk. If not, nothing is written at the start, so that files
    /// that could not be read this time are still there the next time.
    pub fn is_known(&self) -> bool {
        self.may_delete || self.saved.iter().any(Option::is_some)
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

    /// Whether the package in a slot is lost: its file is gone, or holds other bytes than its name
    /// says. A file that cannot be read this time, or whose package is refused, is not lost.
    pub fn is_lost(&self, slot: SlotId) -> bool {
        let Some(sha256) = self.slots.package(slot) else {
            return true;
        };
        match fs::read(self.path(&sha256)) {
            Ok(bytes) => <[u8; 32]>::from(Hasher::digest(bytes)) != sha256,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Writes a package's bytes into the folder. The slots stay as they are.
    pub fn put(&self, sha256: &Sha256, bytes: &[u8]) -> Result<(), WriteError> {
        write_atomic(&self.path(sha256), bytes)
    }

    /// Makes `slots` durable, and then deletes packages that are in no slot.
    pub fn commit(&mut self, slots: Slots) -> Result<(), WriteError> {
        // Compared with the disk, not with the slots in force: those may be there in memory only.
        if self.saved[0].as_ref() != Some(&slots) {
            self.write(0, &slots)?;
        }
        // The file is enough; the copy only helps if the file is damaged later.
        if self.saved[1].as_ref() != Some(&slots)
            && let Err(error) = self.write(1, &slots)
        {
            tracing::warn!(%error, "the copy of slots.json is not up to date");
        }
        self.slots = slots;
        self.sweep();
        Ok(())
    }

    fn write(&mut self, which: usize, slots: &Slots) -> Result<(), WriteError> {
        let path = self.folder.join([FILE, COPY][which]);
        let text = checked::to_json(slots).map_err(|error| WriteError {
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        write_atomic(&path, &text)?;
        self.saved[which] = Some(slots.clone());
        Ok(())
    }

    /// Like [`Self::commit`], but only until the program ends: for a disk that cannot be written,
    /// and for a package that cannot be read this time.
    pub fn set_unsaved(&mut self, slots: Slots) {
        self.slots = slots;
    }

    /// Deletes packages that neither the slots in force nor those on disk name.
    fn sweep(&self) {
        if !self.may_delete {
            return;
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unused = sha_of_name(name).is_some_and(|sha256| {
                let on_disk = self.saved.iter().flatten();
                on_disk
                    .chain([&self.slots])
                    .all(|slots| slots.slot_holding(&sha256).is_none())
            });
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
        let found = names(folder.path());
        assert_eq!(
            found.len(),
            4,
            "two packages, slots.json and its copy: {found:?}"
        );
        assert!(!store.path(&[1; 32]).exists());
    }

    /// A on trial beside B, as a flash leaves them.
    fn on_trial(folder: &Path) -> (Store, Slots) {
        let (mut store, _) = Store::open(folder);
        store.put(&[1; 32], &[1]).unwrap();
        store.put(&[2; 32], &[2]).unwrap();
        let slots = Slots::default().configured_as(SlotId::A, [1; 32]);
        let slots = slots.activated(SlotId::B, [2; 32]);
        store.commit(slots.clone()).unwrap();
        (store, slots)
    }

    #[test]
    fn what_was_only_in_memory_is_written_by_the_next_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, slots) = on_trial(folder.path());
        let rolled_back = slots.restarted();
        store.set_unsaved(rolled_back.clone());
        store.commit(rolled_back.clone()).unwrap();
        assert_eq!(Store::open(folder.path()).0.slots(), &rolled_back);
    }

    #[test]
    fn a_package_that_the_disk_names_is_never_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, slots) = on_trial(folder.path());
        // Writing fails from now on: a folder cannot be replaced by a file.
        for name in [FILE, COPY] {
            let path = folder.path().join(name);
            fs::remove_file(&path).unwrap();
            fs::create_dir_all(path.join("taken")).unwrap();
        }
        let without_a = slots.cleared(SlotId::A);
        store.set_unsaved(without_a.clone());
        assert!(store.commit(without_a).is_err());
        store.sweep();
        assert!(store.path(&[1; 32]).exists(), "slots.json on disk names it");
    }

    #[test]
    fn a_damaged_file_is_replaced_by_its_copy_and_no_trial_is_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let (_, slots) = on_trial(folder.path());
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        // Every cut and every flipped bit.
        let cuts = (0..whole.len()).map(|length| whole[..length].to_vec());
        let flips = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for damaged in cuts.chain(flips) {
            fs::write(&path, &damaged).unwrap();
            let (found, _) = Store::open(folder.path());
            assert_eq!(
                found.slots(),
                &slots,
                "{}",
                String::from_utf8_lossy(&damaged)
            );
            assert!(found.slots().on_trial());
        }
        fs::write(&path, b"{\"pack").unwrap();
        let (_, warning) = Store::open(folder.path());
        assert!(matches!(warning, Some(StoreWarning::CopyUsed(_))));
        fs::remove_file(&path).unwrap();
        let (found, warning) = Store::open(folder.path());
        assert!(matches!(warning, Some(StoreWarning::CopyUsed(_))));
        assert_eq!(found.slots(), &slots);
    }

    #[test]
    fn without_file_and_copy_no_package_is_active_and_none_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        drop(on_trial(folder.path()));
        for name in [FILE, COPY] {
            fs::write(folder.path().join(name), b"{\"pack").unwrap();
        }
        let (mut found, warning) = Store::open(folder.path());
        assert!(matches!(warning, Some(StoreWarning::Unknown(_))));
        assert!(!found.is_known());
        assert_eq!(found.slots().active(), None);
        for seed in [1, 2] {
            assert!(found.slots().slot_holding(&[seed; 32]).is_some());
        }
        // A roll-back is a decision of a person.
        let chosen = found.slots().clone().rolled_back().unwrap();
        found.commit(chosen).unwrap();
        assert_eq!(
            Store::open(folder.path()).0.slots().active(),
            Some(SlotId::A)
        );
        assert!(found.path(&[1; 32]).exists() && found.path(&[2; 32]).exists());
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read_and_gets_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (_, slots) = on_trial(folder.path());
        fs::remove_file(folder.path().join(COPY)).unwrap();
        let text = serde_json::to_vec(&slots).unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        let (mut found, warning) = Store::open(folder.path());
        assert!(warning.is_none(), "{warning:?}");
        assert_eq!(found.slots(), &slots);
        found.commit(slots.clone()).unwrap();
        let copy = checked::read(&folder.path().join(COPY)).unwrap();
        assert_eq!(copy, Some(slots));
    }
}
