//! The images that a run was trained on, read and prepared again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proto::manifest::{Input, Reading};
use scoring::inspect::frame::Frame;
use scoring::inspect::preprocess::prepare;
use scoring::io::image_file::read_frame_as;

use super::error::PackagingError;
use crate::run_folder::Run;

/// At most `most` of a run's training images, evenly spread, each of several copies once.
pub(super) fn distinct_files(run: &Run, most: usize) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let different = run.train_files.iter().zip(&run.train_digests);
    let files: Vec<&PathBuf> = different
        .filter(|(_, digest)| seen.insert(*digest))
        .map(|(file, _)| file)
        .collect();
    let step = files.len().div_ceil(most).max(1);
    files.into_iter().step_by(step).cloned().collect()
}

/// Reads an image and prepares it for scoring.
pub(super) fn prepared(
    file: &Path,
    input: &Input,
    reading: &Reading,
) -> Result<Frame, PackagingError> {
    prepare(&read_frame_as(file, reading)?, input).map_err(|source| PackagingError::Prepare {
        path: file.to_owned(),
        source,
    })
}
