//! Splits good images into those to train on and those held out, so that a threshold can be
//! calibrated on images that training never saw. All images of a physical part stay on the same
//! side; otherwise training would see held-out parts.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::digest::file_digest;
use super::error::DatasetError;
use crate::seed::generator;

/// The part that each image shows, read from a CSV file with the header `file,group` and paths
/// relative to the data set.
#[derive(Debug, Default)]
pub struct Groups {
    /// The groups file and the folder that its paths are relative to.
    source: Option<(PathBuf, PathBuf)>,
    /// The part of each file.
    parts: HashMap<PathBuf, String>,
}

impl Groups {
    /// Reads a groups file whose paths are relative to `root`.
    pub fn read(path: &Path, root: &Path) -> Result<Self, DatasetError> {
        let text = fs::read_to_string(path).map_err(|source| DatasetError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut parts = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |reason: &str| DatasetError::Groups {
                path: path.to_owned(),
                line: index + 1,
                reason: reason.to_owned(),
            };
            if index == 0 {
                if line.trim() != "file,group" {
                    return Err(wrong("expected the header `file,group`"));
                }
                continue;
            }
            if line.trim().is_empty() {
                continue;
            }
            let (file, group) = line
                .rsplit_once(',')
                .ok_or_else(|| wrong("expected `path,group`"))?;
            parts.insert(root.join(file.trim()), format!("group {}", group.trim()));
        }
        Ok(Self {
            source: Some((path.to_owned(), root.to_owned())),
            parts,
        })
    }

    /// Counts the files that the groups file does not name; without a groups file there are none.
    /// It is an error if it names no file at all: its paths are then relative to another folder,
    /// and the images of a part would be split up unnoticed.
    pub fn ungrouped(&self, files: &[PathBuf]) -> Result<usize, DatasetError> {
        let Some((path, root)) = &self.source else {
            return Ok(0);
        };
        let unnamed = files.iter().filter(|file| !self.parts.contains_key(*file));
        let unnamed = unnamed.count();
        match files.first() {
            Some(example) if unnamed == files.len() => Err(DatasetError::OtherImages {
                path: path.clone(),
                count: files.len(),
                example: example.clone(),
                root: root.clone(),
            }),
            _ => Ok(unnamed),
        }
    }

    /// Merges the parts of files with the same content, because a copy shows the same part as its
    /// original.
    pub fn join_copies(&mut self, files: &[PathBuf]) {
        let mut originals: HashMap<[u8; 32], &PathBuf> = HashMap::new();
        for file in files {
            // A file that cannot be read is reported when it is loaded.
            let Ok(digest) = file_digest(file) else {
                continue;
            };
            let original = *originals.entry(digest).or_insert(file);
            let (from, to) = (self.part(file), self.part(original));
            if from != to {
                let merged = self.parts.values_mut().filter(|part| **part == from);
                merged.for_each(|part| part.clone_from(&to));
                self.parts.insert(file.clone(), to);
            }
        }
    }

    /// Whether there is a groups file.
    pub fn is_given(&self) -> bool {
        self.source.is_some()
    }

    /// The part that the groups file names for `file`.
    pub fn known_part(&self, file: &Path) -> Option<&str> {
        self.parts.get(file).map(String::as_str)
    }

    /// The part that `file` shows. A file that the groups file does not name is a part of its own.
    pub fn part(&self, file: &Path) -> String {
        match self.parts.get(file) {
            Some(part) => part.clone(),
            None => file.display().to_string(),
        }
    }
}

/// The two sides of a split, each sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Files to train on.
    pub train: Vec<PathBuf>,
    /// Files held out for calibration.
    pub held_out: Vec<PathBuf>,
}

/// Holds out whole parts, in a random order given by `seed`, until at least `fraction` of the files
/// are held out.
pub fn split(
    files: &[PathBuf],
    groups: &Groups,
    fraction: f64,
    seed: u64,
) -> Result<Split, DatasetError> {
    let mut parts: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        parts
            .entry(groups.part(file))
            .or_default()
            .push(file.clone());
    }
    let count = parts.len();
    let mut parts: Vec<Vec<PathBuf>> = parts.into_values().collect();
    parts.shuffle(&mut generator(seed, "hold-out", 0));
    let wanted = (files.len() as f64 * fraction).ceil() as usize;
    let mut split = Split {
        train: Vec::new(),
        held_out: Vec::new(),
    };
    for part in parts {
        if split.held_out.len() < wanted {
            split.held_out.extend(part);
        } else {
            split.train.extend(part);
        }
    }
    if split.train.is_empty() {
        return Err(DatasetError::HoldOut {
            fraction,
            parts: count,
        });
    }
    split.train.sort();
    split.held_out.sort();
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_together() {
        let root = tempfile::tempdir().unwrap();
        let csv = root.path().join("groups.csv");
        let lines: String = (0..60).map(|i| format!("{i}.png,{}\n", i / 6)).collect();
        fs::write(&csv, format!("file,group\n{lines}")).unwrap();
        let groups = Groups::read(&csv, root.path()).unwrap();
        let files: Vec<PathBuf> = (0..60)
            .map(|i| root.path().join(format!("{i}.png")))
            .collect();
        let split = split(&files, &groups, 0.25, 7).unwrap();
        assert_eq!(split.train.len() + split.held_out.len(), 60);
        assert!(split.held_out.len() >= 15 && split.held_out.len() < 21);
        for held in &split.held_out {
            assert!(
                split
                    .train
                    .iter()
                    .all(|file| groups.part(file) != groups.part(held))
            );
        }
        assert_eq!(split, super::split(&files, &groups, 0.25, 7).unwrap());
        assert_ne!(split, super::split(&files, &groups, 0.25, 8).unwrap());
    }

    #[test]
    fn holding_out_everything_is_an_error() {
        let files = [PathBuf::from("a")];
        assert!(split(&files, &Groups::default(), 0.5, 0).is_err());
        assert_eq!(
            split(&files, &Groups::default(), 0.0, 0)
                .unwrap()
                .train
                .len(),
            1
        );
    }

    #[test]
    fn copies_merge_their_parts() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, content) in [("a", "1"), ("b", "2"), ("c", "1"), ("d", "3"), ("e", "4")] {
            fs::write(at(name), content).unwrap();
        }
        fs::write(at("g.csv"), "file,group\nb,x\nc,x\n").unwrap();
        let mut groups = Groups::read(&at("g.csv"), root.path()).unwrap();
        let files = ["a", "b", "c", "d", "e", "missing"].map(at);
        groups.join_copies(&files);
        let parts = files.each_ref().map(|file| groups.part(file));
        assert!(parts[0] == parts[2] && parts[0] == parts[1], "{parts:?}");
        assert!(parts[3] != parts[4] && parts[0] != parts[3], "{parts:?}");
    }

    #[test]
    fn a_groups_file_for_other_images_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let csv = root.path().join("g.csv");
        fs::write(&csv, "file,group\ntest/good/a.png,1\n").unwrap();
        let groups = Groups::read(&csv, root.path()).unwrap();
        let at = |name: &str| root.path().join(name);
        let both = [at("test/good/a.png"), at("b.png")];
        assert_eq!(groups.ungrouped(&both).unwrap(), 1);
        let error = groups.ungrouped(&[at("a.png")]).unwrap_err().to_string();
        assert!(error.contains("names none of the 1 images"), "{error}");
        assert_eq!(Groups::default().ungrouped(&both).unwrap(), 0);
    }

    #[test]
    fn the_error_names_a_malformed_line() {
        let root = tempfile::tempdir().unwrap();
        let csv = root.path().join("g.csv");
        fs::write(&csv, "file,group\na.png,1\nnonsense\n").unwrap();
        let error = Groups::read(&csv, root.path()).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
