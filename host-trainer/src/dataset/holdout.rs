//! Which good images are held out of training, so that a threshold can be calibrated on images never seen. Images
//! of the same physical part stay on one side: otherwise the split leaks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::DatasetError;
use crate::seed::generator;

/// Which part every image shows, from a CSV file with the header `file,group` and paths relative to the data set.
#[derive(Debug, Default)]
pub struct Groups {
    of: HashMap<PathBuf, String>,
}

impl Groups {
    /// Reads a groups file; `root` is what its paths are relative to.
    pub fn read(path: &Path, root: &Path) -> Result<Self, DatasetError> {
        let text = fs::read_to_string(path).map_err(|source| DatasetError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut of = HashMap::new();
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
            of.insert(root.join(file.trim()), group.trim().to_owned());
        }
        Ok(Self { of })
    }

    /// The part that `file` shows; a file that no line names is a part of its own.
    pub fn part(&self, file: &Path) -> String {
        match self.of.get(file) {
            Some(group) => format!("group {group}"),
            None => file.display().to_string(),
        }
    }
}

/// Files to train on and files held out, each sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To train on.
    pub train: Vec<PathBuf>,
    /// Held out for calibration.
    pub held_out: Vec<PathBuf>,
}

/// Holds out whole parts, chosen at random by `seed`, until at least `fraction` of the files are.
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
    fn a_bad_line_is_named() {
        let root = tempfile::tempdir().unwrap();
        let csv = root.path().join("g.csv");
        fs::write(&csv, "file,group\na.png,1\nnonsense\n").unwrap();
        let error = Groups::read(&csv, root.path()).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
