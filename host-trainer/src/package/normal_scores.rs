//! Makes a draft's scores relative to good parts: by a normal map or by a variation model, both
//! from the images that the run was trained on. The threshold is calibrated on other images, so it
//! stays unbiased.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::manifest::{ColourMode, Roi};
use scoring::inspect::normal_map::NormalMapBuilder;
use scoring::inspect::preprocess::to_planes;
use scoring::inspector::{Inspection, Inspector};

use super::draft::Draft;
use super::error::PackagingError;
use super::threshold::{MOST_PIXELS, frame_px};
use super::training_images::{RunImage, distinct_images};
use crate::dataset::{Room, in_parallel};
use crate::run_folder::Run;
use crate::variation::{MOST_FRAMES, VariationBuilder};

/// Most images that a normal map is made of.
const NORMAL_MAP_FRAMES: usize = 400;

/// Frames whose maps are in memory at the same time.
const FRAMES_AT_A_TIME: usize = 4;

impl Draft {
    /// Adds a normal map: scores become relative to what good images score at each place.
    pub fn add_normal_map(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let mut builder = NormalMapBuilder::default();
        let mut add = |_: &Inspector, found: &Inspection| builder.add(&found.map);
        self.inspect_training_images(folder, key, NORMAL_MAP_FRAMES, &mut add, on_progress)?;
        let normal = builder.finish();
        self.manifest.normal_map = Some(normal.ok_or(PackagingError::NoScores)?);
        Ok(())
    }

    /// Adds a variation model: scores become the distance of each place from good parts, by the
    /// network's score, brightness and texture.
    pub fn add_variation_model(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let mut builder = VariationBuilder::new(self.manifest.input.colour == ColourMode::Rgb);
        let mut add = |inspector: &Inspector, found: &Inspection| {
            let channels = usize::from(inspector.manifest().network.channels);
            builder.add(&to_planes(&found.prepared, channels), &found.map);
        };
        self.inspect_training_images(folder, key, MOST_FRAMES, &mut add, on_progress)?;
        self.manifest.variation = Some(builder.finish()?);
        Ok(())
    }

    /// Inspects at most `most` of a run's training images.
    fn inspect_training_images(
        &self,
        folder: &Path,
        key: &SigningKey,
        most: usize,
        add: &mut dyn FnMut(&Inspector, &Inspection),
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let images = distinct_images(&Run::read(folder)?, most);
        // The whole frame: a camera's configuration may choose another region of interest.
        let inspector = self.inspector(key)?.with_roi(Roi::Whole);
        let room = Room::new(MOST_PIXELS);
        let inspect = |_: usize, image: &RunImage| {
            let frame = image.read(inspector.reading())?;
            let found = room.with(frame_px(&frame), || inspector.inspect(&frame));
            found.map_err(|source| PackagingError::Inspect {
                path: image.file.clone(),
                source,
            })
        };
        let mut done = 0;
        // A few at a time, because maps of large frames fill the memory.
        for some in images.chunks(FRAMES_AT_A_TIME) {
            for found in in_parallel(some, &mut |_| {}, inspect) {
                add(&inspector, &found?);
            }
            done += some.len();
            on_progress(done, images.len());
        }
        Ok(())
    }
}
