//! Frames kept on disk for later training: NG ones and some OK ones, the newest of each.
//!
//! Three files a frame: `ID-NG.png` (the frame at its depth), `ID-NG.map.tiff` (its anomaly map, f32, exact; the kind
//! of file that MVTec's evaluation tools read; left out where there is no map) and `ID-NG.json` (the facts). Each is
//! written whole or not at all, the facts last, and deleted first: where they are, all is. NG and OK have half of the
//! room each, so that a flood of one does not displace the other.
//!
//! An [`ImageStore`] belongs to one thread; encoding and syncing take tens of milliseconds a frame.

mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use crate::inspect::frame::Frame;
use crate::inspect::map::ScoreMap;
use crate::inspect::verdict::Verdict;
use crate::io::atomic::{WriteError, write_atomic};
pub use files::EncodeError;
use files::{Part, on_disk_bytes};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All files together, in bytes, each counted in whole blocks of 4 KiB; half of it for each verdict.
    pub max_bytes: u64,
}

/// Decides which frames are to be stored: every NG one, and OK ones at random (a hash of a random seed and a count, so
/// that no rhythm of the line decides which moulds or lanes are seen).
#[derive(Debug)]
pub struct Sampler {
    ok_one_in: u32,
    seed: u64,
    /// OK frames that it was asked about.
    asked: u64,
}

impl Sampler {
    /// Wants one in so many OK frames; 0 for none.
    pub fn new(ok_one_in: u32) -> Self {
        // The standard library seeds it from the system.
        Self::seeded(ok_one_in, RandomState::new().build_hasher().finish())
    }

    fn seeded(ok_one_in: u32, seed: u64) -> Self {
        Self {
            ok_one_in,
            seed,
            asked: 0,
        }
    }

    /// Whether the next frame, of this verdict, is to be stored.
    pub fn wants(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Ng => true,
            Verdict::Ok => {
                self.asked = self.asked.wrapping_add(1);
                let drawn = mixed(self.seed.wrapping_add(self.asked));
                self.ok_one_in > 0 && drawn.is_multiple_of(u64::from(self.ok_one_in))
            }
        }
    }
}

/// A frame and what was found on it.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Rising with time, also over restarts (the journal's sequence number is); what has the lowest is deleted first.
    /// An item of the same number and verdict is replaced.
    pub id: u64,
    /// When it was captured, in milliseconds since 1970 (UTC), by the camera's clock.
    pub unix_ms: u64,
    /// The decision.
    pub verdict: Verdict,
    /// The frame's score.
    pub score: f32,
    /// What it was compared with.
    pub threshold: f32,
    /// Identity of the model.
    pub model: &'a str,
    /// The frame as it was captured.
    pub frame: &'a Frame,
    /// The scores by pixel, at the size that the frame was scored at.
    pub map: Option<&'a ScoreMap>,
}

/// What cannot be stored. The items stored before are whole, apart from those that had to make room.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("item {id} is not stored")]
    Write {
        /// The item.
        id: u64,
        /// The system's words.
        source: WriteError,
    },
    /// A file's content cannot be made.
    #[error("item {id} is not stored")]
    Encode {
        /// The item.
        id: u64,
        /// Which file, and the encoder's words.
        source: EncodeError,
    },
    /// It would not fit even if it were alone.
    #[error("item {id} is not stored: expected at most {max_bytes} bytes, found {found_bytes}")]
    TooLarge {
        /// The item.
        id: u64,
        /// Room for its verdict, in bytes.
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

/// The items of one verdict: bytes by number, and their sum.
#[derive(Debug, Default)]
struct Kind {
    items: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Kind {
    fn insert(&mut self, id: u64, bytes: u64) {
        self.remove(id);
        self.items.insert(id, bytes);
        self.bytes += bytes;
    }

    fn remove(&mut self, id: u64) {
        self.bytes -= self.items.remove(&id).unwrap_or(0);
    }
}

/// A ring of frames on disk.
#[derive(Debug)]
pub struct ImageStore {
    folder: PathBuf,
    limits: Limits,
    ng: Kind,
    ok: Kind,
}

impl ImageStore {
    /// Opens the store in a folder, which is made if need be, and removes what a power cut left half done. Files of
    /// other names are left alone and not counted.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let mut store = Self {
            folder: folder.to_owned(),
            limits,
            ng: Kind::default(),
            ok: Kind::default(),
        };
        let mut found: BTreeMap<(bool, u64), BTreeMap<Part, u64>> = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            let entry = entry.map_err(failed("list", folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(".partial-") {
                fs::remove_file(entry.path()).map_err(failed("delete", &entry.path()))?;
            } else if let Some((id, verdict, part)) = files::parse(name) {
                let length = entry.metadata().map_err(failed("read", &entry.path()))?;
                let parts = found.entry((verdict == Verdict::Ng, id)).or_default();
                parts.insert(part, on_disk_bytes(length.len()));
            }
        }
        for ((ng, id), parts) in found {
            let verdict = if ng { Verdict::Ng } else { Verdict::Ok };
            let whole = parts.contains_key(&Part::Facts) && parts.contains_key(&Part::Frame);
            if whole {
                store.kind(verdict).insert(id, parts.values().sum());
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

    /// Stores an item, after deleting the oldest of its verdict that are in its way.
    pub fn store(&mut self, item: Item<'_>) -> Result<(), StoreError> {
        let Item { id, verdict, .. } = item;
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
        if self.kind(verdict).items.contains_key(&id) {
            self.delete(id, verdict)?;
        }
        self.make_room(verdict, found_bytes)?;
        for (part, bytes) in &files {
            let path = self.path(id, verdict, *part);
            if let Err(source) = write_atomic(&path, bytes) {
                // Should this fail too, the next opening removes what is left.
                self.delete(id, verdict).ok();
                return Err(StoreError::Write { id, source });
            }
        }
        self.kind(verdict).insert(id, found_bytes);
        Ok(())
    }

    /// Bytes on disk, counted in whole blocks.
    pub fn bytes(&self) -> u64 {
        self.ng.bytes + self.ok.bytes
    }

    /// Numbers of the items of a verdict, oldest first.
    pub fn ids(&self, verdict: Verdict) -> impl Iterator<Item = u64> {
        let kind = match verdict {
            Verdict::Ng => &self.ng,
            Verdict::Ok => &self.ok,
        };
        kind.items.keys().copied()
    }

    fn kind(&mut self, verdict: Verdict) -> &mut Kind {
        match verdict {
            Verdict::Ng => &mut self.ng,
            Verdict::Ok => &mut self.ok,
        }
    }

    fn path(&self, id: u64, verdict: Verdict, part: Part) -> PathBuf {
        self.folder.join(files::name(id, verdict, part))
    }

    fn make_room(&mut self, verdict: Verdict, bytes: u64) -> Result<(), StoreError> {
        let max_bytes = self.limits.max_bytes / 2;
        while self.kind(verdict).bytes + bytes > max_bytes {
            let Some((&oldest, _)) = self.kind(verdict).items.first_key_value() else {
                break;
            };
            self.delete(oldest, verdict)?;
        }
        Ok(())
    }

    /// The facts first, so that what a power cut leaves is seen to be incomplete.
    fn delete(&mut self, id: u64, verdict: Verdict) -> Result<(), StoreError> {
        for part in [Part::Facts, Part::Map, Part::Frame] {
            let path = self.path(id, verdict, part);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path)(error));
                }
                _ => {}
            }
        }
        self.kind(verdict).remove(id);
        Ok(())
    }
}

/// SplitMix64: every bit of the result depends on every bit of the input (Steele et al., OOPSLA 2014).
fn mixed(value: u64) -> u64 {
    let mut mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
