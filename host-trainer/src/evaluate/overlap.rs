//! Test images that the model was made with: figures on them flatter it.

use std::collections::HashSet;

use proto::manifest::Manifest;
use serde::{Deserialize, Serialize};

use super::evaluation::TestImage;
use crate::dataset::digest_of_files;
use crate::package::{file_id, part_id};

/// Numbers of test images that the model was made with, or that show the same parts. An image
/// counts once, for the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overlap {
    /// It was trained on these.
    pub training: usize,
    /// Its threshold was calibrated on these.
    pub calibration: usize,
    /// They were held out of its training for calibration.
    pub held_out: usize,
    /// They are other images, but of parts that it was trained or calibrated on.
    pub parts: usize,
}

impl Overlap {
    /// Compares files, decoded pixels and, where they are known, parts.
    pub(super) fn find(manifest: &Manifest, images: &[TestImage]) -> Self {
        let seen = &manifest.seen;
        let set = |lists: &[&[[u8; 8]]]| lists.concat().into_iter().collect::<HashSet<_>>();
        let files = &manifest.training.file_ids;
        let training = [set(&[files]), set(&[&seen.training_pixels])];
        let of = |ids: &proto::manifest::ImageIds| [set(&[&ids.files]), set(&[&ids.pixels])];
        let (calibration, held_out) = (of(&seen.calibration), of(&seen.held_out));
        let parts = set(&[
            &seen.training_parts,
            &seen.calibration.parts,
            &seen.held_out.parts,
        ]);
        // Packages made before calibration images were listed have one digest of all of them.
        let good = images.iter().filter(|image| image.good);
        let good: Vec<[u8; 32]> = good.map(|image| image.file).collect();
        let threshold = manifest.threshold.as_ref();
        let all_good = threshold.is_some_and(|t| t.calibration_digest == digest_of_files(&good));
        let mut found = Self::default();
        for image in images {
            let [file, pixels] = [&image.file, &image.pixels].map(file_id);
            let among =
                |ids: &[HashSet<[u8; 8]>; 2]| ids[0].contains(&file) || ids[1].contains(&pixels);
            let part = image.part.as_deref().map(part_id);
            if among(&training) {
                found.training += 1;
            } else if among(&calibration) || (image.good && all_good) {
                found.calibration += 1;
            } else if among(&held_out) {
                found.held_out += 1;
            } else if part.is_some_and(|part| parts.contains(&part)) {
                found.parts += 1;
            }
        }
        found
    }

    /// What it means, a sentence for each kind that there is, for `of` test images.
    pub fn warnings(&self, of: usize) -> Vec<String> {
        let sentences = [
            (
                self.training,
                "the model was trained on {}; the figures flatter it",
            ),
            (
                self.calibration,
                "the threshold was calibrated on {}; their false rejects say nothing",
            ),
            (
                self.held_out,
                "{} were held out of training; if threshold or settings were chosen by them, the figures flatter the model",
            ),
            (
                self.parts,
                "{} show parts that the model was trained or calibrated on; the figures flatter it",
            ),
        ];
        let sentences = sentences.into_iter().filter(|(count, _)| *count > 0);
        sentences
            .map(|(count, text)| text.replace("{}", &format!("{count} of the {of} test images")))
            .collect()
    }
}
