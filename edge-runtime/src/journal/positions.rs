//! The last report that each station has acknowledged.
//!
//! Kept in one small file, which is rewritten as a whole and only once per interval. After a power
//! cut a station may therefore receive reports a second time; it recognises them by their numbers.
//! A damaged file only costs such repetition and never stops the camera.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::limits::MAX_NAME_BYTES;
use proto::name::SERIAL_PREFIX;

use scoring::io::atomic::{WriteError, write_atomic};
use scoring::io::record::{self, Damage, HEADER_BYTES, Piece, Records};

/// Most stations remembered. One more evicts the station whose last acknowledgement is oldest.
pub const MAX_STATIONS: usize = 32;

/// Longest name in bytes. Names of stations on a serial line have a prefix.
const MAX_KNOWN_AS_BYTES: usize = SERIAL_PREFIX.len() + MAX_NAME_BYTES;

/// Longest body: a count, then per station a length byte, a name and a number of at most ten bytes.
const MAX_BODY_BYTES: u32 = (1 + MAX_STATIONS * (1 + MAX_KNOWN_AS_BYTES + 10)) as u32;

/// Why the file was ignored, so that no positions are known.
#[derive(Debug, thiserror::Error)]
pub enum PositionsWarning {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The kind of damage.
        source: Damage,
    },
    /// The file is intact but does not hold positions.
    #[error("expected positions in {}, found something else", .0.display())]
    Content(PathBuf),
}

/// A station's name is empty or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a station's name of 1..={MAX_KNOWN_AS_BYTES} bytes, found {found_bytes}")]
pub struct NameError {
    /// Its length in bytes.
    pub found_bytes: usize,
}

/// The last acknowledged sequence number of each station.
#[derive(Debug)]
pub struct Positions {
    path: PathBuf,
    interval: Duration,
    /// Ordered by the time of the last acknowledgement, the most recent at the end.
    stations: Vec<(String, u64)>,
    changed: bool,
    written_at: Option<Instant>,
}

impl Positions {
    /// Reads the file if it exists. It will be written at most once per `interval`.
    pub fn open(path: &Path, interval: Duration) -> (Self, Option<PositionsWarning>) {
        let (stations, warning) = match read(path) {
            Ok(stations) => (stations, None),
            Err(warning) => (Vec::new(), Some(warning)),
        };
        let positions = Self {
            path: path.to_owned(),
            interval,
            stations,
            changed: false,
            written_at: None,
        };
        (positions, warning)
    }

    /// The last sequence number that a station has acknowledged.
    pub fn get(&self, station: &str) -> Option<u64> {
        let known = self.stations.iter().find(|(name, _)| name == station);
        known.map(|&(_, sequence)| sequence)
    }

    /// The highest number that any station has acknowledged. If it is higher than the journal's
    /// last, the journal's disk has lost data that it had confirmed (see `Journal::skip_to`).
    pub fn highest(&self) -> Option<u64> {
        self.stations.iter().map(|&(_, sequence)| sequence).max()
    }

    /// Records that a station has every report up to `sequence`. A lower number than before changes
    /// nothing.
    pub fn acknowledge(&mut self, station: &str, sequence: u64) -> Result<(), NameError> {
        if !(1..=MAX_KNOWN_AS_BYTES).contains(&station.len()) {
            return Err(NameError {
                found_bytes: station.len(),
            });
        }
        let known = self.stations.iter().position(|(name, _)| name == station);
        let entry = match known {
            Some(index) => {
                let (name, before) = self.stations.remove(index);
                self.changed |= sequence > before;
                (name, sequence.max(before))
            }
            None => {
                if self.stations.len() >= MAX_STATIONS {
                    self.stations.remove(0);
                }
                self.changed = true;
                (station.to_owned(), sequence)
            }
        };
        self.stations.push(entry);
        Ok(())
    }

    /// The file's new content, if something has changed and the last attempt is at least an
    /// interval ago, or with `all` at once.
    fn due(&mut self, now: Instant, all: bool) -> Result<Option<Vec<u8>>, WriteError> {
        let too_soon = self
            .written_at
            .is_some_and(|at| now.saturating_duration_since(at) < self.interval);
        if !self.changed || (too_soon && !all) {
            return Ok(None);
        }
        self.written_at = Some(now);
        let bytes = self.encode()?;
        self.changed = false;
        Ok(Some(bytes))
    }

    fn encode(&self) -> Result<Vec<u8>, WriteError> {
        // MAX_STATIONS and MAX_KNOWN_AS_BYTES bound the size, so neither step fails in practice.
        let failed = |source| WriteError {
            path: self.path.clone(),
            source,
        };
        let body = postcard::to_allocvec(&self.stations)
            .map_err(|error| failed(io::Error::other(error)))?;
        let header =
            record::header(0, &[&body]).map_err(|error| failed(io::Error::other(error)))?;
        Ok([&header[..], &body].concat())
    }
}

/// Writes the positions if they have changed and the last attempt is at least an interval ago, or
/// with `all` at once. Returns whether it wrote. Stations do not wait for the disk: the lock is not
/// held while the file is written. Only one thread may call this.
pub fn flush(positions: &Mutex<Positions>, now: Instant, all: bool) -> Result<bool, WriteError> {
    flush_by(positions, now, all, write_atomic)
}

fn flush_by(
    positions: &Mutex<Positions>,
    now: Instant,
    all: bool,
    write: impl FnOnce(&Path, &[u8]) -> Result<(), WriteError>,
) -> Result<bool, WriteError> {
    let lock = || positions.lock().unwrap_or_else(PoisonError::into_inner);
    let mut locked = lock();
    let Some(bytes) = locked.due(now, all)? else {
        return Ok(false);
    };
    let path = locked.path.clone();
    drop(locked);
    let written = write(&path, &bytes);
    if written.is_err() {
        lock().changed = true;
    }
    written.map(|()| true)
}

fn read(path: &Path) -> Result<Vec<(String, u64)>, PositionsWarning> {
    let cannot = |source| PositionsWarning::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let limit = HEADER_BYTES as u64 + u64::from(MAX_BODY_BYTES);
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    }
    let length = bytes.len() as u64;
    let mut records =
        Records::new(Cursor::new(bytes), 0, length, MAX_BODY_BYTES).map_err(cannot)?;
    let body = match records.next_piece().map_err(cannot)? {
        Some(Piece::Record { body, .. }) => body,
        Some(Piece::Damaged { why, .. } | Piece::Rest { why, .. }) => {
            return Err(PositionsWarning::Damaged {
                path: path.to_owned(),
                source: why,
            });
        }
        None => {
            return Err(PositionsWarning::Damaged {
                path: path.to_owned(),
                source: Damage::Cut {
                    expected_bytes: HEADER_BYTES as u64,
                    found_bytes: 0,
                },
            });
        }
    };
    let fits = |stations: &Vec<(String, u64)>| {
        let names = stations.iter().map(|(name, _)| name.len());
        stations.len() <= MAX_STATIONS && names.into_iter().all(|bytes| bytes <= MAX_KNOWN_AS_BYTES)
    };
    postcard::from_bytes(&body)
        .ok()
        .filter(fits)
        .ok_or_else(|| PositionsWarning::Content(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn open(path: &Path) -> Positions {
        let (positions, warning) = Positions::open(path, INTERVAL);
        assert!(warning.is_none(), "{warning:?}");
        positions
    }

    fn flush_now(positions: Positions) {
        assert!(flush(&Mutex::new(positions), Instant::now(), true).unwrap());
    }

    #[test]
    fn positions_only_rise_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = open(&path);
        positions.acknowledge("line 4", 7).unwrap();
        positions.acknowledge("line 4", 3).unwrap();
        positions.acknowledge("office", 2).unwrap();
        flush_now(positions);
        let again = open(&path);
        assert_eq!(again.get("line 4"), Some(7));
        assert_eq!(again.get("office"), Some(2));
        assert_eq!(again.get("other"), None);
        assert_eq!(again.highest(), Some(7));
        let mut again = again;
        assert!(again.acknowledge(&"x".repeat(72), 1).is_err());
        assert!(again.acknowledge("", 1).is_err());
    }

    #[test]
    fn the_station_with_the_oldest_acknowledgement_is_evicted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = open(&path);
        let name = |station: usize| format!("serial:{station:064}");
        for station in 0..MAX_STATIONS {
            positions.acknowledge(&name(station), u64::MAX).unwrap();
        }
        positions.acknowledge(&name(0), 5).unwrap();
        positions.acknowledge("new", 6).unwrap();
        flush_now(positions);
        let again = open(&path);
        assert_eq!(again.get(&name(0)), Some(u64::MAX));
        assert_eq!(again.get(&name(1)), None);
        assert_eq!(again.get("new"), Some(6));
    }

    #[test]
    fn writing_waits_for_changes_and_for_the_interval() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Mutex::new(open(&folder.path().join("positions")));
        let acknowledge = |sequence| {
            let mut positions = positions.lock().unwrap();
            positions.acknowledge("a", sequence).unwrap();
        };
        let flush = |now| super::flush(&positions, now, false).unwrap();
        let start = Instant::now();
        assert!(!flush(start));
        acknowledge(1);
        assert!(flush(start));
        acknowledge(2);
        assert!(!flush(start + INTERVAL / 2));
        assert!(flush(start + INTERVAL));
        acknowledge(1);
        assert!(!flush(start + INTERVAL * 3));
    }

    #[test]
    fn nobody_waits_for_the_disk_and_a_failed_write_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let positions = Mutex::new(open(&path));
        positions.lock().unwrap().acknowledge("a", 1).unwrap();
        let start = Instant::now();
        let failed = flush_by(&positions, start, false, |path, _| {
            // A station acknowledges while the disk is slow.
            let mut positions = positions.try_lock().expect("the lock is free");
            positions.acknowledge("a", 2).unwrap();
            Err(WriteError {
                path: path.to_owned(),
                source: io::Error::other("the disk fails"),
            })
        });
        assert!(failed.is_err());
        assert!(!flush(&positions, start, false).unwrap(), "not at once");
        assert!(flush(&positions, start + INTERVAL, false).unwrap());
        assert_eq!(open(&path).get("a"), Some(2));
    }

    #[test]
    fn any_damage_is_a_warning_and_leaves_no_positions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = open(&path);
        positions.acknowledge("line 4", 70_000).unwrap();
        flush_now(positions);
        let whole = fs::read(&path).unwrap();
        let damaged = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let (positions, warning) = Positions::open(&path, INTERVAL);
            assert!(warning.is_some());
            assert_eq!(positions.highest(), None);
        };
        for length in 0..whole.len() {
            damaged(&whole[..length]);
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            damaged(&bytes);
        }
        let header = record::header(0, &[b"\xff"]).unwrap();
        damaged(&[&header[..], b"\xff"].concat());
    }
}
