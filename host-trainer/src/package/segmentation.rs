//! Adds a segmentation network to a draft with a variation model: trained on the images of the run,
//! or taken from another package of the same images.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proto::manifest::{ColourMode, SegmentationGain};
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::package::{Verified, golden_frame};
use tch::Device;

use super::draft::Draft;
use super::error::PackagingError;
use super::training_images::{RunImage, distinct_images};
use crate::run_folder::{self, Run};
use crate::segmentation::{
    self, CHECKPOINT_EVERY, DefectKind, SegmentationOptions, SegmentationProgress,
    SegmentationTask, VALIDATION_ONE_IN,
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
    ) -> Result<SegmentationGain, PackagingError> {
        let Some(model) = &self.manifest.variation else {
            return Err(PackagingError::NoVariation);
        };
        let tile = self.manifest.golden.first();
        let tile = tile.ok_or(PackagingError::NoGolden)?;
        let run = Run::read(folder)?;
        let Split {
            images,
            training_count,
            unseen_parts,
        } = split(distinct_images(&run, MOST_FRAMES));
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
            frame_count: images.len(),
            training_count,
            unseen_parts,
            read_frame: Arc::new(move |index| {
                Ok(to_planes(
                    &images[index].prepared(&input, &reading)?,
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
        let (segmentation, gain) = match source {
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
                let gain = theirs.segmentation_gain.as_ref();
                // It was trained on the same images, but if it did not know their parts, not on the
                // same of them.
                let apart = gain.is_some_and(|gain| gain.unseen_parts == task.unseen_parts);
                let task = SegmentationTask {
                    unseen_parts: task.unseen_parts.map(|unseen| unseen && apart),
                    ..task
                };
                let unseen = gain.map_or(&[][..], |gain| &gain.unseen_kinds);
                let kinds = DefectKind::UNSEEN.into_iter();
                let kinds: Vec<DefectKind> = kinds
                    .filter(|kind| unseen.iter().any(|name| name == kind.name()))
                    .collect();
                segmentation::adopt(&task, segmentation, &kinds, on_progress)?
            }
        };
        self.manifest.segmentation = Some(segmentation);
        self.manifest.segmentation_gain = Some(gain.clone());
        Ok(gain)
    }
}

/// Images to train on and to validate with.
#[derive(Debug, PartialEq)]
struct Split {
    /// Those to train on first.
    images: Vec<RunImage>,
    /// Number of images to train on.
    training_count: usize,
    /// See [`SegmentationTask::unseen_parts`].
    unseen_parts: Option<bool>,
}

/// Keeps a fifth of the images, or a little more, for validation: whole parts where parts are
/// known, otherwise the last ones, because images of one part mostly follow each other.
fn split(images: Vec<RunImage>) -> Split {
    let wanted = images.len() / VALIDATION_ONE_IN;
    let last = |images: Vec<RunImage>, unseen_parts| Split {
        training_count: images.len() - wanted,
        images,
        unseen_parts,
    };
    if images.iter().all(|image| image.part.is_none()) {
        return last(images, None);
    }
    // An image that no group names is a part of its own.
    let mut sizes: Vec<(&Option<String>, usize)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for image in &images {
        let known = image.part.as_deref();
        match known.and_then(|part| places.get(part)) {
            Some(&at) => sizes[at].1 += 1,
            None => {
                places.extend(known.map(|part| (part, sizes.len())));
                sizes.push((&image.part, 1));
            }
        }
    }
    // From the last part on. One that would leave less than half of the images is passed over.
    let (mut kept, mut alone) = (HashSet::new(), 0);
    let mut count = 0;
    for (part, size) in sizes.into_iter().rev() {
        if count < wanted && count + size <= images.len() / 2 {
            count += size;
            match part {
                Some(part) => drop(kept.insert(part.clone())),
                None => alone += 1,
            }
        }
    }
    if count == 0 {
        return last(images, Some(false));
    }
    let mut passed = images.iter().filter(|image| image.part.is_none()).count() - alone;
    let (validation, mut training): (Vec<RunImage>, Vec<RunImage>) =
        images.into_iter().partition(|image| match &image.part {
            Some(part) => kept.contains(part),
            // The last ones of those without a group.
            None => match passed {
                0 => true,
                _ => {
                    passed -= 1;
                    false
                }
            },
        });
    let training_count = training.len();
    training.extend(validation);
    Split {
        images: training,
        training_count,
        unseen_parts: Some(true),
    }
}

/// Repeats the planes of a grey frame for a network that takes this many channels.
pub(super) fn replicated(planes: &Planes, channels: usize) -> Planes {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn images(parts: &[Option<&str>]) -> Vec<RunImage> {
        let image = |(at, part): (usize, &Option<&str>)| RunImage {
            file: format!("{at}.png").into(),
            digest: at.to_string(),
            part: part.map(str::to_owned),
        };
        parts.iter().enumerate().map(image).collect()
    }

    #[test]
    fn validation_images_show_parts_of_their_own() {
        // Ten parts whose three images do not follow each other.
        let names: Vec<String> = (0..30).map(|at| format!("part {}", at % 10)).collect();
        let parts: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let found = split(images(&parts));
        assert_eq!((found.training_count, found.unseen_parts), (24, Some(true)));
        let (train, validate) = found.images.split_at(24);
        assert!(
            validate
                .iter()
                .all(|v| train.iter().all(|t| t.part != v.part))
        );
        let mut all: Vec<&str> = found.images.iter().map(|i| i.digest.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 30);
    }

    #[test]
    fn without_parts_the_last_fifth_is_kept_and_nothing_is_claimed() {
        let found = split(images(&[None; 20]));
        assert_eq!((found.training_count, found.unseen_parts), (16, None));
        assert!(found.images == images(&[None; 20]));
    }

    #[test]
    fn one_part_alone_cannot_be_kept_apart() {
        let found = split(images(&[Some("a"); 20]));
        assert_eq!(
            (found.training_count, found.unseen_parts),
            (16, Some(false))
        );
    }

    #[test]
    fn images_in_no_group_are_parts_of_their_own() {
        let mut parts = vec![Some("a"); 14];
        parts.extend([None; 6]);
        let found = split(images(&parts));
        assert_eq!((found.training_count, found.unseen_parts), (16, Some(true)));
        let kept: Vec<&str> = found.images[16..]
            .iter()
            .map(|i| i.digest.as_str())
            .collect();
        assert_eq!(kept, ["16", "17", "18", "19"]);
    }
}
