//! The last report that each station has acknowledged.
//!
//! Kept in one small file, which is rewritten as a whole and only once per interval. After a power
//! cut a station may therefore receive reports a second time; it recognises them by their numbers.
//! A damaged file only costs such repetition and never stops the camera.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
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

    /// Writes the file if something has changed and the last attempt is at least an interval ago.
    /// Returns whether it wrote.
    pub fn flush(&mut self, now: Instant) -> Result<bool, WriteError> {
        let too_soon = self
            .written_at
            .is_some_and(|at| now.saturating_duration_since(at) < self.interval);
        if too_soon {
            return Ok(false);
        }
        let due = self.changed;
        if due {
            self.written_at = Some(now);
            self.flush_now()?;
        }
        Ok(due)
    }

    /// Writes the file if something has changed, regardless of the interval. Called at the end of
    /// the program.
    pub fn flush_now(&mut self) -> Result<(), WriteError> {
        if self.changed {
            write_atomic(&self.path, &self.encode()?)?;
            self.changed = false;
        }
        Ok(())
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

    #[test]
    fn positions_only_rise_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = open(&path);
        positions.acknowledge("line 4", 7).unwrap();
        positions.acknowledge("line 4", 3).unwrap();
        positions.acknowledge("office", 2).unwrap();
        positions.flush_now().unwrap();
        let again = open(&path);
        assert_eq!(again.get("line 4"), Some(7));
        assert_eq!(again.get("office"), Some(2));
        assert_eq!(again.get("other"), None);
        assert_eq!(again.highest(), Some(7));
        assert!(positions.acknowledge(&"x".repeat(72), 1).is_err());
        assert!(positions.acknowledge("", 1).is_err());
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
        positions.flush_now().unwrap();
        let again = open(&path);
        assert_eq!(again.get(&name(0)), Some(u64::MAX));
        assert_eq!(again.get(&name(1)), None);
        assert_eq!(again.get("new"), Some(6));
    }

    #[test]
    fn writing_waits_for_changes_and_for_the_interval() {
        let folder = tempfile::tempdir().unwrap();
        let mut positions = open(&folder.path().join("positions"));
        let start = Instant::now();
        assert!(!positions.flush(start).unwrap());
        positions.acknowledge("a", 1).unwrap();
        assert!(positions.flush(start).unwrap());
        positions.acknowledge("a", 2).unwrap();
        assert!(!positions.flush(start + INTERVAL / 2).unwrap());
        assert!(positions.flush(start + INTERVAL).unwrap());
        positions.acknowledge("a", 1).unwrap();
        assert!(!positions.flush(start + INTERVAL * 3).unwrap());
    }

    #[test]
    fn any_damage_is_a_warning_and_leaves_no_positions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions");
        let mut positions = open(&path);
        positions.acknowledge("line 4", 70_000).unwrap();
        positions.flush_now().unwrap();
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
