//! A camera's access list: the keys that have access, and the role and name of each.
//!
//! The list is a text file with one line for each station, `awr-station-v1 BASE16 ROLE NAME`. It is
//! written whole or not at all, and read again for every handshake.

use std::io;
use std::path::{Path, PathBuf};

use proto::limits::MAX_NAME_BYTES;
use proto::message::Role;
use proto::name::{InvalidName, StationName};

use crate::file::{self, FileLock};
use crate::key::{PublicKey, from_hex, hex, key_id};

/// First word of a line: its format.
const FORMAT: &str = "awr-station-v1";
/// Most stations in a list.
const MAX_STATIONS: usize = 256;

/// A station that has access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: PublicKey,
    /// Its role.
    pub role: Role,
    /// Its name. The camera keeps the station's acknowledged position under it.
    pub name: String,
}

/// Why the access list could not be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read or written.
    #[error("cannot {action} access list {}", path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line cannot be parsed. Nobody has access until it is corrected: a list that is only partly
    /// understood could give access to a station that should have none.
    #[error("{}, line {line}: expected `{FORMAT} KEY ROLE NAME`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
    /// The name is not allowed.
    #[error("a station's name: {0}")]
    Name(InvalidName),
    /// Another station already has the name.
    #[error("another station is called {0:?}: revoke it first, or choose another name")]
    Taken(String),
    /// The list is full.
    #[error("{MAX_STATIONS} stations have access already: revoke one first")]
    Full,
}

/// The access list in its file.
///
/// The camera's program changes the list when it pairs, and its command line when it revokes. Each
/// change reads the list again under a lock that holds across programs, so that none undoes another.
/// A reader needs no lock and always sees a whole list, because a change is a rename.
#[derive(Debug)]
pub struct Access {
    path: PathBuf,
}

impl Access {
    /// Uses the list in a file. If the file does not exist, nobody has access.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Reads all stations that have access.
    pub fn read(&self) -> Result<Vec<Entry>, AccessError> {
        let text = file::read(&self.path).map_err(self.failed("read"))?;
        let text = text.unwrap_or_default();
        let lines = (1..).zip(text.lines());
        lines
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|(line, text)| {
                parse(text).ok_or_else(|| AccessError::Content {
                    path: self.path.clone(),
                    line,
                })
            })
            .collect()
    }

    /// Finds the station with this key.
    pub fn find(&self, key: &PublicKey) -> Result<Option<Entry>, AccessError> {
        Ok(self.read()?.into_iter().find(|entry| entry.key == *key))
    }

    /// Adds a station, or gives the station with this key another name and role.
    pub fn admit(&self, entry: Entry) -> Result<(), AccessError> {
        StationName::new(&entry.name).map_err(AccessError::Name)?;
        let _changing = self.lock()?;
        let mut entries = self.read()?;
        entries.retain(|other| other.key != entry.key);
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(AccessError::Taken(entry.name));
        }
        if entries.len() >= MAX_STATIONS {
            return Err(AccessError::Full);
        }
        entries.push(entry);
        self.write(&entries)
    }

    /// Removes stations by name or key id and returns those removed.
    pub fn revoke(&self, name_or_id: &str) -> Result<Vec<Entry>, AccessError> {
        let _changing = self.lock()?;
        let meant = |entry: &Entry| entry.name == name_or_id || key_id(&entry.key) == name_or_id;
        let (revoked, kept): (Vec<_>, Vec<_>) = self.read()?.into_iter().partition(meant);
        if !revoked.is_empty() {
            self.write(&kept)?;
        }
        Ok(revoked)
    }

    fn lock(&self) -> Result<FileLock, AccessError> {
        file::lock(&self.path).map_err(self.failed("lock"))
    }

    fn write(&self, entries: &[Entry]) -> Result<(), AccessError> {
        let lines: Vec<String> = entries
            .iter()
            .map(|entry| {
                format!(
                    "{FORMAT} {} {} {}\n",
                    hex(&entry.key),
                    entry.role,
                    entry.name
                )
            })
            .collect();
        file::write(&self.path, lines.concat().as_bytes(), file::PRIVATE)
            .map_err(self.failed("write"))
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> AccessError {
        let path = self.path.clone();
        move |source| AccessError::Io {
            action,
            path,
            source,
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.splitn(4, ' ');
    if words.next()? != FORMAT {
        return None;
    }
    let key = from_hex(words.next()?)?;
    let role = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    (1..=MAX_NAME_BYTES)
        .contains(&name.len())
        .then_some(Entry { key, role, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seed: u8, name: &str) -> Entry {
        Entry {
            key: [seed; 32],
            role: Role::Operate,
            name: name.to_owned(),
        }
    }

    #[test]
    fn stations_can_be_added_renamed_and_revoked() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stations");
        let access = Access::at(&path);
        assert!(access.read()?.is_empty());
        access.admit(entry(1, "line 3, left"))?;
        access.admit(entry(2, "office"))?;
        assert!(matches!(
            access.admit(entry(3, "office")),
            Err(AccessError::Taken(_))
        ));
        // The same station under another name.
        access.admit(entry(2, "Büro"))?;
        let found = access.find(&[2; 32])?.map(|entry| entry.name);
        assert_eq!(found.as_deref(), Some("Büro"));
        assert_eq!(access.revoke("line 3, left")?, [entry(1, "line 3, left")]);
        assert_eq!(access.revoke("line 3, left")?, []);
        assert_eq!(access.find(&[1; 32])?, None);
        assert_eq!(access.revoke("0202020202020202")?.len(), 1);
        for name in [
            "",
            " a",
            "a\nawr-station-v1",
            "\u{202e}a",
            "serial:office",
            &"x".repeat(65),
        ] {
            assert!(matches!(
                access.admit(entry(4, name)),
                Err(AccessError::Name(_))
            ));
        }
        Ok(())
    }

    #[test]
    fn a_list_with_an_invalid_line_gives_nobody_access() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stations");
        let access = Access::at(&path);
        access.admit(entry(1, "one"))?;
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(
            &path,
            format!("# by hand\n{text}\nawr-station-v1 12 watch x\n"),
        )?;
        let Err(AccessError::Content { line, .. }) = access.find(&[1; 32]) else {
            return Err("expected an error".into());
        };
        assert_eq!(line, 4);
        Ok(())
    }

    /// Each thread uses the list as a program of its own would: nothing is shared but the file.
    #[test]
    fn concurrent_changes_do_not_undo_each_other() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stations");
        let revoked = 100..110;
        for seed in revoked.clone() {
            Access::at(&path).admit(entry(seed, &format!("old {seed}")))?;
        }
        std::thread::scope(|scope| {
            let path = &path;
            for thread in 0..4u8 {
                scope.spawn(move || {
                    for seed in 0..10 {
                        let seed = thread * 10 + seed;
                        let admitted = Access::at(path).admit(entry(seed, &format!("new {seed}")));
                        admitted.unwrap();
                    }
                });
            }
            scope.spawn(move || {
                for seed in revoked {
                    let gone = Access::at(path).revoke(&format!("old {seed}")).unwrap();
                    assert_eq!(gone.len(), 1);
                }
            });
        });
        let entries = Access::at(&path).read()?;
        assert_eq!(entries.len(), 40, "nobody is missing");
        assert!(entries.iter().all(|entry| entry.name.starts_with("new")));
        Ok(())
    }

    #[test]
    fn each_role_includes_those_below() {
        assert!(Role::Engineer > Role::Operate && Role::Operate > Role::Watch);
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
