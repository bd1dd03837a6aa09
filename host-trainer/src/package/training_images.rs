//! The images that a run was trained on, read and prepared again. They are opened by path, so an
//! image that was changed or replaced since is refused: what is fitted to it would not be what
//! calibration leaves out.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use proto::manifest::{Input, Reading};
use scoring::inspect::frame::Frame;
use scoring::inspect::preprocess::prepare;
use scoring::io::image_file::read_frame_as;

use super::error::PackagingError;
use crate::dataset::{DatasetError, file_digest, hex};
use crate::run_folder::{Identities, Run};

/// An image of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunImage {
    /// The file.
    pub(super) file: PathBuf,
    /// The SHA-256 that it had then, in hexadecimal.
    pub(super) digest: String,
    /// The part that it shows, if that is known.
    pub(super) part: Option<String>,
}

/// A run's training images.
pub(super) fn training_images(run: &Run) -> Vec<RunImage> {
    let parts = &run.identities.train_parts;
    let images = run.train_files.iter().zip(&run.train_digests);
    let image = |(at, (file, digest)): (usize, (&PathBuf, &String))| RunImage {
        file: file.clone(),
        digest: digest.clone(),
        part: parts.get(at).cloned().flatten(),
    };
    images.enumerate().map(image).collect()
}

/// The images that a run held out of training.
pub(super) fn held_out_images(run: &Run) -> Vec<RunImage> {
    let Identities {
        held_out_digests,
        held_out_parts,
        ..
    } = &run.identities;
    let images = run.held_out.iter().zip(held_out_digests).enumerate();
    let image = |(at, (file, digest)): (usize, (&PathBuf, &String))| RunImage {
        file: file.clone(),
        digest: digest.clone(),
        part: held_out_parts.get(at).cloned().flatten(),
    };
    images.map(image).collect()
}

/// At most `most` of a run's training images, evenly spread, each of several copies once.
pub(super) fn distinct_images(run: &Run, most: usize) -> Vec<RunImage> {
    let mut seen = HashSet::new();
    let mut images = training_images(run);
    images.retain(|image| seen.insert(image.digest.clone()));
    let step = images.len().div_ceil(most).max(1);
    images.into_iter().step_by(step).collect()
}

impl RunImage {
    /// Reads the image, if it is what it was.
    pub(super) fn read(&self, reading: &Reading) -> Result<Frame, PackagingError> {
        check_unchanged(&self.file, &self.digest)?;
        Ok(read_frame_as(&self.file, reading)?)
    }

    /// Reads the image, if it is what it was, and prepares it for scoring.
    pub(super) fn prepared(
        &self,
        input: &Input,
        reading: &Reading,
    ) -> Result<Frame, PackagingError> {
        prepare(&self.read(reading)?, input).map_err(|source| PackagingError::Prepare {
            path: self.file.clone(),
            source,
        })
    }
}

/// Refuses a file that is missing, or whose SHA-256 (in hexadecimal) is no longer `expected`.
pub(super) fn check_unchanged(file: &Path, expected: &str) -> Result<(), PackagingError> {
    let found = match file_digest(file) {
        Ok(digest) => hex(&digest),
        Err(DatasetError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(PackagingError::Missing(file.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if found != expected {
        return Err(PackagingError::Changed {
            path: file.to_owned(),
            expected: expected.chars().take(16).collect(),
            found: found.chars().take(16).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn a_changed_or_missing_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::GrayImage::new(70, 70).save(&path).unwrap();
        let image = RunImage {
            digest: hex(&Sha256::digest(std::fs::read(&path).unwrap())),
            file: path.clone(),
            part: None,
        };
        let reading = Reading::default();
        assert_eq!(image.read(&reading).unwrap().width_px(), 70);
        // Another picture of the same size under the same name.
        image::GrayImage::from_pixel(70, 70, image::Luma([1]))
            .save(&path)
            .unwrap();
        let error = image.read(&reading).unwrap_err().to_string();
        assert!(
            error.contains("a.png") && error.contains(&image.digest[..16]),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        let error = image.read(&reading).unwrap_err().to_string();
        assert!(error.contains("a.png") && error.contains("gone"), "{error}");
    }
}
