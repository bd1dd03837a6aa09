//! Notices on standard error about images that a command leaves out or cannot group.

use std::path::PathBuf;

use host_trainer::dataset::{DatasetError, Groups, Skipped};

/// Most skipped files to name; beyond that they are only counted.
const NAMED: usize = 10;

/// Names the skipped ones of `count` images and counts them.
pub(crate) fn report_skipped(skipped: &[&Skipped], count: usize) {
    for file in skipped.iter().take(NAMED) {
        eprintln!("skipped {}: {}", file.file.display(), file.reason);
    }
    if !skipped.is_empty() {
        eprintln!("skipped {} of {count} images", skipped.len());
    }
}

/// Counts the images that a groups file does not name. It is an error if it names none of them.
pub(crate) fn report_ungrouped(groups: &Groups, files: &[PathBuf]) -> Result<(), DatasetError> {
    let alone = groups.ungrouped(files)?;
    if alone > 0 {
        eprintln!(
            "{alone} of {} images are in no group: each counts as a part of its own",
            files.len()
        );
    }
    Ok(())
}
