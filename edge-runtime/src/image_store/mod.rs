//! Frames kept on disk for later training: the newest NG frames and a sample of OK frames.
//!
//! A frame is three files: `ID-NG.png` (the frame at its own bit depth), `ID-NG.map.tiff` (its
//! anomaly map as 32-bit floats, readable by MVTec's evaluation tools; missing if there is no map)
//! and `ID-NG.json` (metadata). Each file is written atomically. The metadata is written last and
//! deleted first, so a frame with metadata is complete. NG and OK frames have half of the space
//! each, so that a flood of one does not evict the other.
//!
//! An [`ImageStore`] belongs to one thread of its own, because encoding and syncing a frame takes
//! tens of milliseconds.

mod files;
mod item;
mod sampler;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use files::EncodeError;
use files::{FilePart, on_disk_bytes};
pub use item::StoredItem;
pub use sampler::Sampler;
use scoring::inspect::verdict::Verdict;
use scoring::io::atomic::{WriteError, write_atomic};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes on disk, each file rounded up to whole blocks of 4 KiB. Each verdict gets half.
    pub max_bytes: u64,
}

/// Why an item was not stored. Items stored before are intact, except for those that were evicted
/// to make room.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An I/O operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("item {id} is not stored")]
    Write {
        /// The item.
        id: u64,
        /// The system's error.
        source: WriteError,
    },
    /// A file's content cannot be encoded.
    #[error("item {id} is not stored")]
    Encode {
        /// The item.
        id: u64,
        /// The encoder's error.
        source: EncodeError,
    },
    /// The item would not fit even into an empty store.
    #[error("item {id} is not stored: expected at most {max_bytes} bytes, found {found_bytes}")]
    TooLarge {
        /// The item.
        id: u64,
        /// Space for its verdict in bytes.
        max_bytes: u64,
        /// Its size in bytes.
        found_bytes: u64,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// The stored items of one verdict: size by id, the order of eviction, and the total.
#[derive(Debug, Default)]
struct VerdictItems {
    sizes: BTreeMap<u64, u64>,
    /// Ids, oldest first: those found at the start by their numbers, then in the order of storing.
    /// So a new item is never the oldest, whatever its number is.
    by_age: VecDeque<u64>,
    bytes: u64,
}

impl VerdictItems {
    fn insert(&mut self, id: u64, bytes: u64) {
        self.remove(id);
        self.sizes.insert(id, bytes);
        self.by_age.push_back(id);
        self.bytes += bytes;
    }

    fn remove(&mut self, id: u64) {
        if let Some(bytes) = self.sizes.remove(&id) {
            self.bytes -= bytes;
            self.by_age.retain(|other| *other != id);
        }
    }
}

/// Bits of an item's id that hold the number of the part; the bits above hold the boot counter.
const PART_BITS: u32 = 40;

/// The id of a part's item.
pub fn item_id(boot: u32, part: u64) -> u64 {
    u64::from(boot) << PART_BITS | part
}

/// The highest boot counter in the ids of a folder's items; 0 if there is none. Items of later
/// starts must have higher ones, because after a restart the lowest ids are evicted first.
pub fn highest_boot(folder: &Path) -> u32 {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let ids = names.filter_map(|entry| Some(files::parse(entry.file_name().to_str()?)?.0));
    ids.max()
        .map_or(0, |id| u32::try_from(id >> PART_BITS).unwrap_or(0))
}

/// A bounded store of frames on disk.
#[derive(Debug)]
pub struct ImageStore {
    folder: PathBuf,
    limits: Limits,
    ng: VerdictItems,
    ok: VerdictItems,
}

impl ImageStore {
    /// Opens the store in a folder, which is created if it does not exist, and removes incomplete
    /// items that a power cut has left. Files with other names are left alone and not counted.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let mut store = Self {
            folder: folder.to_owned(),
            limits,
            ng: VerdictItems::default(),
            ok: VerdictItems::default(),
        };
        let mut found: BTreeMap<(bool, u64), BTreeMap<FilePart, u64>> = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            let entry = entry.map_err(failed("list", folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(".partial-") {
                fs::remove_file(entry.path()).map_err(failed("delete", &entry.path()))?;
            } else if let Some((id, verdict, part)) = files::parse(name) {
                let metadata = entry.metadata().map_err(failed("read", &entry.path()))?;
                let parts = found.entry((verdict == Verdict::Ng, id)).or_default();
                parts.insert(part, on_disk_bytes(metadata.len()));
            }
        }
        for ((ng, id), parts) in found {
            let verdict = if ng { Verdict::Ng } else { Verdict::Ok };
            let complete =
                parts.contains_key(&FilePart::Metadata) && parts.contains_key(&FilePart::Frame);
            if complete {
                store.items(verdict).insert(id, parts.values().sum());
            } else {
                store.delete(id, verdict)?;
            }
        }
        // The limit may have been lowered.
        for verdict in [Verdict::Ng, Verdict::Ok] {
            store.make_room(verdict, 0)?;
        }
        Ok(store)
    }

    /// Stores an item and first evicts the oldest items of its verdict if it needs their space.
    pub fn store(&mut self, item: StoredItem<'_>) -> Result<(), StoreError> {
        let StoredItem { id, verdict, .. } = item;
        let files = files::encode(&item).map_err(|source| StoreError::Encode { id, source })?;
        let found_bytes = files
            .iter()
            .map(|(_, bytes)| on_disk_bytes(bytes.len() as u64))
            .sum();
        let max_bytes = self.limits.max_bytes / 2;
        if found_bytes > max_bytes {
            return Err(StoreError::TooLarge {
                id,
                max_bytes,
                found_bytes,
            });
        }
        if self.items(verdict).sizes.contains_key(&id) {
            self.delete(id, verdict)?;
        }
        self.make_room(verdict, found_bytes)?;
        for (part, bytes) in &files {
            let path = self.path(id, verdict, *part);
            if let Err(source) = write_atomic(&path, bytes) {
                // If this fails too, the remains are removed when the store is next opened.
                self.delete(id, verdict).ok();
                return Err(StoreError::Write { id, source });
            }
        }
        self.items(verdict).insert(id, found_bytes);
        Ok(())
    }

    /// Bytes on disk, in whole blocks.
    pub fn bytes(&self) -> u64 {
        self.ng.bytes + self.ok.bytes
    }

    /// Ids of the items with a verdict, oldest first.
    pub fn ids(&self, verdict: Verdict) -> impl Iterator<Item = u64> {
        let items = match verdict {
            Verdict::Ng => &self.ng,
            Verdict::Ok => &self.ok,
        };
        items.sizes.keys().copied()
    }

    fn items(&mut self, verdict: Verdict) -> &mut VerdictItems {
        match verdict {
            Verdict::Ng => &mut self.ng,
            Verdict::Ok => &mut self.ok,
        }
    }

    fn path(&self, id: u64, verdict: Verdict, part: FilePart) -> PathBuf {
        self.folder.join(files::name(id, verdict, part))
    }

    /// Deletes the oldest items of a verdict until `bytes` more fit its half of the space.
    fn make_room(&mut self, verdict: Verdict, bytes: u64) -> Result<(), StoreError> {
        let max_bytes = self.limits.max_bytes / 2;
        while self.items(verdict).bytes + bytes > max_bytes {
            let Some(&oldest) = self.items(verdict).by_age.front() else {
                break;
            };
            self.delete(oldest, verdict)?;
        }
        Ok(())
    }

    /// Deletes an item, the metadata first, so that the remains after a power cut are recognised as
    /// incomplete.
    fn delete(&mut self, id: u64, verdict: Verdict) -> Result<(), StoreError> {
        for part in [FilePart::Metadata, FilePart::Map, FilePart::Frame] {
            let path = self.path(id, verdict, part);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path)(error));
                }
                _ => {}
            }
        }
        self.items(verdict).remove(id);
        Ok(())
    }
}
