//! Frames kept on disk for later training: the newest NG frames and a sample of OK frames.
//!
//! A frame is three files: `ID-NG.png` (the frame at its own bit depth), `ID-NG.map.tiff` (its
//! anomaly map as 32-bit floats, readable by MVTec's evaluation tools; missing if there is no map)
//! and `ID-NG.json` (metadata). Each file is written atomically. The metadata is written last and
//! deleted first, so a frame with metadata is complete. NG and OK frames have half of the space
//! each, so that a flood of one does not evict the other.
//!
//! Reports come first: pictures leave the space that the journal may need ([`crate::disk_space`]),
//! and are evicted when something else fills the disk.
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
use std::sync::Arc;

pub use files::EncodeError;
use files::{FilePart, on_disk_bytes};
pub use item::StoredItem;
pub use sampler::Sampler;
use scoring::inspect::verdict::Verdict;
use scoring::io::atomic::{WriteError, write_atomic};

use crate::disk_space::{Space, is_full};

/// Bytes evicted at a time when the disk refuses a report.
const EVICT_BYTES: u64 = 16 << 20;

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
    /// The disk has no room for it, and nothing is left to evict.
    #[error(
        "item {id} is not stored: it takes {found_bytes} bytes, and of the {} bytes free on the disk \
         {} are kept for reports", space.free_bytes, space.reserve_bytes
    )]
    NoRoom {
        /// The item.
        id: u64,
        /// Its size in bytes.
        found_bytes: u64,
        /// Space on the disk.
        space: Space,
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

/// Bytes that the files of a folder take on disk, in whole blocks; 0 if it cannot be read.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.map(on_disk_bytes).sum()
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

/// Tells the space on the disk; `None` if it is unknown.
pub type Measure = Arc<dyn Fn() -> Option<Space> + Send + Sync>;

/// A bounded store of frames on disk.
pub struct ImageStore {
    folder: PathBuf,
    limits: Limits,
    measure: Measure,
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
            measure: Arc::new(|| None),
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

    /// From now on leaves space on the disk.
    pub fn leaving_space(mut self, measure: Measure) -> Result<Self, StoreError> {
        self.measure = measure;
        self.leave_space()?;
        Ok(self)
    }

    /// Evicts the oldest items while the disk has less space than must be left. Returns how many.
    pub fn leave_space(&mut self) -> Result<u64, StoreError> {
        let mut evicted = 0;
        if (self.measure)().is_some_and(|space| space.refuses) {
            // How much is needed is unknown.
            let enough = self.bytes().saturating_sub(EVICT_BYTES);
            while self.bytes() > enough && self.evict_oldest()? {
                evicted += 1;
            }
            return Ok(evicted);
        }
        while self.lacks_space(0).is_some() && self.evict_oldest()? {
            evicted += 1;
        }
        Ok(evicted)
    }

    /// The space on the disk, if that has no room for this number of bytes more.
    fn lacks_space(&self, bytes: u64) -> Option<Space> {
        (self.measure)().filter(|space| !space.has_room_for(bytes))
    }

    /// Evicts the oldest item of the verdict that takes more space; false if there is none.
    fn evict_oldest(&mut self) -> Result<bool, StoreError> {
        let verdict = if self.ng.bytes > self.ok.bytes {
            Verdict::Ng
        } else {
            Verdict::Ok
        };
        let Some(&oldest) = self.items(verdict).by_age.front() else {
            return Ok(false);
        };
        self.delete(oldest, verdict)?;
        Ok(true)
    }

    /// Stores an item and first evicts the oldest items of its verdict if it needs their space, and
    /// the oldest of all if the disk has no room for it.
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
        while let Some(space) = self.lacks_space(found_bytes) {
            if space.refuses || !self.evict_oldest()? {
                return Err(StoreError::NoRoom {
                    id,
                    found_bytes,
                    space,
                });
            }
        }
        for (part, bytes) in &files {
            let path = self.path(id, verdict, *part);
            if let Err(source) = write_atomic(&path, bytes) {
                // If this fails too, the remains are removed when the store is next opened.
                self.delete(id, verdict).ok();
                // The disk is fuller than it says: the next item finds room.
                if is_full(&source.source) {
                    self.evict_oldest()?;
                }
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
