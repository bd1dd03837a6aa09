//! Splits good images into those to train on and those held out, so that a threshold can be
//! calibrated on images that training never saw. All images of a physical part stay on the same
//! side; otherwise training would see held-out parts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::seq::SliceRandom;

use super::error::DatasetError;
use super::groups::Groups;
use crate::seed::generator;

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
    use std::fs;

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
}
