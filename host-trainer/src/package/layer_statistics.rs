//! Adds statistics of the network's own layers to a draft, from the images that the run was trained
//! on.

use std::collections::HashMap;
use std::path::Path;

use ed25519_dalek::SigningKey;
use scoring::infer::EncoderOutputs;
use scoring::inspect::preprocess::to_planes;
use scoring::inspector::Inspector;

use super::draft::Draft;
use super::error::PackagingError;
use super::training_images::{RunImage, distinct_images};
use crate::layer_statistics::{self, GoodFrames, MOST_FRAMES};
use crate::run_folder::Run;

/// A run's images, read again for each pass.
struct Images<'a> {
    inspector: &'a Inspector,
    images: &'a [RunImage],
}

impl GoodFrames for Images<'_> {
    type Error = PackagingError;

    fn outputs(
        &mut self,
        frame: usize,
        visit: &mut dyn FnMut(&EncoderOutputs),
    ) -> Result<(), PackagingError> {
        let image = &self.images[frame];
        let inspect = |source| PackagingError::Inspect {
            path: image.file.clone(),
            source,
        };
        let manifest = self.inspector.manifest();
        let frame = image.read(self.inspector.reading())?;
        let prepared = self.inspector.prepare(&frame).map_err(inspect)?;
        let planes = to_planes(&prepared, usize::from(manifest.network.channels));
        let scored = self
            .inspector
            .scores_with_features(&planes, &mut |outputs| {
                visit(outputs);
                Ok(())
            });
        scored.map(drop).map_err(inspect)
    }
}

impl Draft {
    /// Adds statistics of the network's layers. Their weights are those of an even share of both
    /// maps.
    pub fn add_layer_statistics(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let images = distinct_images(&Run::read(folder)?, MOST_FRAMES);
        let inspector = self.inspector(key)?;
        let mut numbers = HashMap::new();
        let parts: Vec<usize> = images
            .iter()
            .enumerate()
            .map(|(index, image)| {
                // Images whose part is not known are parts of their own.
                let part = image
                    .part
                    .clone()
                    .unwrap_or_else(|| format!("image {index}"));
                let next = numbers.len();
                *numbers.entry(part).or_insert(next)
            })
            .collect();
        let mut frames = Images {
            inspector: &inspector,
            images: &images,
        };
        let found = layer_statistics::fit(&mut frames, &parts, on_progress)?;
        self.manifest.layers = Some(found);
        Ok(())
    }
}
