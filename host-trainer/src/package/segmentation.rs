//! Adds a segmentation network to a draft with a variation model: trained on the images of the run,
//! or taken from another package of the same images.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proto::manifest::ColourMode;
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::package::{Verified, golden_frame};
use tch::Device;

use super::draft::Draft;
use super::error::PackagingError;
use super::training_images::{distinct_files, prepared};
use crate::run_folder::{self, Run};
use crate::segmentation::{
    self, CHECKPOINT_EVERY, Improvement, SegmentationOptions, SegmentationProgress,
    SegmentationTask,
};
use crate::variation::MOST_FRAMES;

/// Where a segmentation network comes from.
#[derive(Debug)]
pub enum SegmentationSource {
    /// It is trained.
    Train {
        /// Number of steps; the default is [`segmentation::STEPS`].
        steps: usize,
        /// Where to train.
        device: Device,
        /// Seed of the initial weights and the synthetic defects; the run's if `None`.
        seed: Option<u64>,
    },
    /// It is taken from another package of the same images, for example of another width.
    Package(Box<Verified>),
}

impl Draft {
    /// Adds a segmentation network, used as `options` say; returns what it improves.
    pub fn add_segmentation(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        source: &SegmentationSource,
        options: SegmentationOptions,
        on_progress: &mut dyn FnMut(SegmentationProgress),
    ) -> Result<Improvement, PackagingError> {
        let Some(model) = &self.manifest.variation else {
            return Err(PackagingError::NoVariation);
        };
        let tile = self.manifest.golden.first();
        let tile = tile.ok_or(PackagingError::NoGolden)?;
        let run = Run::read(folder)?;
        let files = distinct_files(&run, MOST_FRAMES);
        let colour = self.manifest.input.colour == ColourMode::Rgb;
        let network = self.manifest.network;
        // One plane of a grey frame is enough.
        let channels = if colour { 3 } else { 1 };
        let (input, reading) = (run.input, run.reading);
        let inspector = self.inspector(key)?;
        let (steps, device, seed) = match source {
            SegmentationSource::Train {
                steps,
                device,
                seed,
            } => (*steps, *device, *seed),
            SegmentationSource::Package(_) => (0, Device::Cpu, None),
        };
        let task = SegmentationTask {
            model,
            colour,
            frame_count: files.len(),
            read_frame: Arc::new(move |index| {
                Ok(to_planes(
                    &prepared(&files[index], &input, &reading)?,
                    channels,
                ))
            }),
            score: &|planes| {
                let planes = replicated(planes, usize::from(network.channels));
                Ok(inspector.scores(&planes)?)
            },
            golden_frame: &golden_frame(&tile.pixels, &network, colour),
            options,
            steps,
            seed: seed.unwrap_or(run.seed),
            device,
            checkpoint: &run_folder::segmentation_checkpoint(folder),
            checkpoint_every: CHECKPOINT_EVERY,
        };
        let (segmentation, improvement) = match source {
            SegmentationSource::Train { .. } => segmentation::train(&task, on_progress)?,
            SegmentationSource::Package(package) => {
                let (theirs, ours) = (package.manifest(), &self.manifest);
                if theirs.training.data_digest != ours.training.data_digest
                    || theirs.input != ours.input
                {
                    return Err(PackagingError::OtherImages);
                }
                let segmentation = theirs.segmentation.clone();
                let segmentation = segmentation.ok_or(PackagingError::NoSegmentation)?;
                segmentation::adopt(&task, segmentation, on_progress)?
            }
        };
        self.manifest.segmentation = Some(segmentation);
        Ok(improvement)
    }
}

/// Repeats the planes of a grey frame for a network that takes this many channels.
fn replicated(planes: &Planes, channels: usize) -> Planes {
    Planes {
        channels,
        data: planes
            .data
            .iter()
            .cycle()
            .take(channels * planes.width_px * planes.height_px)
            .copied()
            .collect(),
        ..*planes
    }
}
