//! Adds statistics of good places to a draft, from the images that the run was trained on: by the
//! network's own layers, and by the surface's grain.

use std::collections::HashMap;
use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::manifest::{ColourMode, GrainStatistics, LayerStatistics, PlaceMeans};
use scoring::infer::{EncoderOutputs, LayerOutput};
use scoring::inspect::grain;
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::inspector::{InspectError, Inspector};

use super::draft::Draft;
use super::error::PackagingError;
use super::training_images::{RunImage, distinct_images};
use crate::place_statistics::{self, GoodFrames, GoodPlaceStatistics, MOST_FRAMES};
use crate::run_folder::Run;

/// A run's images, read again for each pass.
struct Images<'a> {
    inspector: &'a Inspector,
    images: &'a [RunImage],
}

impl Images<'_> {
    fn planes(&self, frame: usize) -> Result<Planes, PackagingError> {
        let image = &self.images[frame];
        let manifest = self.inspector.manifest();
        let frame = image.read(self.inspector.reading())?;
        let prepared = self.inspector.prepare(&frame);
        let prepared = prepared.map_err(|source| self.failed(image, source))?;
        Ok(to_planes(&prepared, usize::from(manifest.network.channels)))
    }

    fn failed(&self, image: &RunImage, source: InspectError) -> PackagingError {
        PackagingError::Inspect {
            path: image.file.clone(),
            source,
        }
    }
}

/// The network's layers for a run's images.
struct Layers<'a>(Images<'a>);

impl GoodFrames for Layers<'_> {
    type Outputs = EncoderOutputs;
    type Error = PackagingError;

    fn outputs(
        &mut self,
        frame: usize,
        visit: &mut dyn FnMut(&EncoderOutputs),
    ) -> Result<(), PackagingError> {
        let planes = self.0.planes(frame)?;
        let mut visit = |outputs: &EncoderOutputs| {
            visit(outputs);
            Ok(())
        };
        let scored = self.0.inspector.scores_with_features(&planes, &mut visit);
        let failed = |source| self.0.failed(&self.0.images[frame], source);
        scored.map(drop).map_err(failed)
    }
}

/// The grain of a run's images.
struct Grain<'a>(Images<'a>);

impl GoodFrames for Grain<'_> {
    type Outputs = LayerOutput;
    type Error = PackagingError;

    fn outputs(
        &mut self,
        frame: usize,
        visit: &mut dyn FnMut(&LayerOutput),
    ) -> Result<(), PackagingError> {
        let planes = self.0.planes(frame)?;
        let colour = self.0.inspector.manifest().input.colour == ColourMode::Rgb;
        visit(&grain::features(&planes, colour));
        Ok(())
    }
}

/// Numbers of the parts that images show; images whose part is not known are parts of their own.
fn parts(images: &[RunImage]) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let parts = images.iter().enumerate().map(|(index, image)| {
        let part = image.part.clone();
        let part = part.unwrap_or_else(|| format!("image {index}"));
        let next = numbers.len();
        *numbers.entry(part).or_insert(next)
    });
    parts.collect()
}

impl Draft {
    /// Adds statistics of the network's layers and of the grain, each with a weight of 1.
    pub fn add_place_statistics(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let images = distinct_images(&Run::read(folder)?, MOST_FRAMES);
        self.add_statistics_of(&images, key, on_progress)
    }

    /// Adds statistics of these images.
    pub(super) fn add_statistics_of(
        &mut self,
        images: &[RunImage],
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let inspector = self.inspector(key)?;
        let (layers, grain) = statistics_of(&inspector, images, on_progress)?;
        self.manifest.layers = Some(layers);
        self.manifest.grain = Some(grain);
        Ok(())
    }
}

/// Statistics of good places by the network's layers and by the grain, each with a weight of 1.
fn statistics_of(
    inspector: &Inspector,
    images: &[RunImage],
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<(LayerStatistics, GrainStatistics), PackagingError> {
    let parts = parts(images);
    let frames = images.len() as u32;
    let images = || Images { inspector, images };
    let mut of_layers = |done: usize, all: usize| on_progress(done, 2 * all);
    let GoodPlaceStatistics { means, distances } =
        place_statistics::fit(&mut Layers(images()), &parts, &mut of_layers)?;
    let layers = <[PlaceMeans; 2]>::try_from(means);
    let mut of_grain = |done: usize, all: usize| on_progress(all + done, 2 * all);
    let grain = place_statistics::fit(&mut Grain(images()), &parts, &mut of_grain)?;
    let means = <[PlaceMeans; 1]>::try_from(grain.means);
    match (layers, means) {
        (Ok([second, third]), Ok([means])) => Ok((
            LayerStatistics {
                second,
                third,
                distances,
                map_weight: 0.0,
                frames,
            },
            GrainStatistics {
                means,
                distances: grain.distances,
                map_weight: 1.0,
                frames,
            },
        )),
        _ => Err(PackagingError::NoScores),
    }
}
