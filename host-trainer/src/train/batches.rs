//! Batches of tiles, cut and corrupted by worker threads ahead of the optimiser. In: tiles and their
//! order. Out: clean and corrupted tiles by iteration.

use std::io;
use std::sync::Arc;

use rand::RngExt;

use crate::dataset::{Coordinates, TileStore};
use crate::noise::{NoiseBank, Tile};
use crate::prefetch::Prefetch;
use crate::seed::generator;

/// The tiles of one iteration, each `count` × `channels` × 65 × 65 values.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The good tiles.
    pub clean: Vec<f32>,
    /// The same tiles, corrupted; equal to `clean` without a noise bank.
    pub noisy: Vec<f32>,
    /// Planes per tile: 1 (grey) or 3.
    pub channels: usize,
    /// Number of tiles.
    pub count: usize,
}

/// Everything that a batch depends on besides the number of its iteration.
#[derive(Debug)]
pub struct BatchSource {
    /// The tiles.
    pub tiles: TileStore,
    /// Positions of the tiles.
    pub coordinates: Coordinates,
    /// The noise bank; `None` for the reconstruction baseline.
    pub noise: Option<NoiseBank>,
    /// Brightness augmentation: each good tile is scaled by a random factor of up to 1 ± this,
    /// in 0..1. The paper has none (0).
    pub lighting: f32,
    /// Seed of the run.
    pub seed: u64,
}

/// Scales a tile's brightness by `factor`, where black is 0. All channels change alike, and white
/// is not exceeded.
fn scale_brightness(tile: &mut Tile, factor: f32) {
    for value in tile.values_mut() {
        *value = ((*value + 1.0) * factor - 1.0).min(1.0);
    }
}

impl BatchSource {
    /// Makes the batch of `iteration` from the tile order of its epoch.
    fn batch(&self, iteration: usize, order: &[u32]) -> io::Result<Batch> {
        let size = self.coordinates.batch();
        let first = iteration % self.coordinates.iterations_per_epoch() * size;
        let mut batch = Batch {
            clean: Vec::new(),
            noisy: Vec::new(),
            channels: 0,
            count: size,
        };
        let mut rng = generator(self.seed, "noise", iteration as u64);
        let mut light = generator(self.seed, "lighting", iteration as u64);
        for &index in &order[first..first + size] {
            let mut tile = self.tiles.tile(&self.coordinates, index)?;
            batch.channels = tile.channels();
            if self.lighting > 0.0 {
                let (least, most) = (1.0 - self.lighting, 1.0 + self.lighting);
                scale_brightness(&mut tile, light.random_range(least..=most));
            }
            batch.clean.extend_from_slice(tile.values());
            if let Some(noise) = &self.noise {
                noise.corrupt(&mut tile, &mut rng);
            }
            batch.noisy.extend_from_slice(tile.values());
        }
        Ok(batch)
    }

    /// Makes the batches of the iterations in `range`, in order, with `workers` threads. The result
    /// does not depend on their number. An error says that a tile cannot be read from disk.
    pub fn stream(
        self: &Arc<Self>,
        range: std::ops::Range<usize>,
        workers: usize,
    ) -> Prefetch<io::Result<Batch>> {
        let source = Arc::clone(self);
        let per_epoch = source.coordinates.iterations_per_epoch();
        let mut order = (usize::MAX, Vec::new());
        Prefetch::start(range, workers, move |iteration| {
            let epoch = iteration / per_epoch;
            if order.0 != epoch {
                order = (epoch, source.coordinates.order(epoch));
            }
            source.batch(iteration, &order.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scoring::inspect::frame::{Channels, Frame, Pixels};

    fn source(lighting: f32) -> Arc<BatchSource> {
        let pixels = (0..90 * 80).map(|i| (i * 7 % 256) as u8).collect();
        let frames = vec![Frame::new(90, 80, Channels::Grey, Pixels::U8(pixels)).unwrap()];
        let coordinates = Coordinates::draw(&[[90, 80]], 20, 4, 5);
        Arc::new(BatchSource {
            tiles: TileStore::Frames(frames),
            coordinates,
            noise: Some(NoiseBank::paper()),
            lighting,
            seed: 5,
        })
    }

    fn batches(stream: Prefetch<io::Result<Batch>>) -> Vec<Batch> {
        stream.map(Result::unwrap).collect()
    }

    #[test]
    fn a_batch_depends_neither_on_the_workers_nor_on_the_first_iteration() {
        let source = source(0.2);
        let one = batches(source.stream(0..12, 1));
        let three = batches(source.stream(0..12, 3));
        let resumed = batches(source.stream(7..12, 2));
        assert_eq!(one.len(), 12);
        assert_eq!(one, three);
        assert_eq!(one[7..], resumed);
        assert_ne!(one[0].noisy, one[5].noisy, "noise differs between epochs");
        assert!(one.iter().any(|batch| batch.noisy != batch.clean));
    }

    #[test]
    fn lighting_scales_brightness_within_its_range_and_changes_nothing_else() {
        let paper = batches(source(0.0).stream(0..60, 1));
        let relit = batches(source(0.2).stream(0..60, 1));
        let area = 65 * 65;
        let (mut least, mut most) = (f32::MAX, f32::MIN);
        for (paper, relit) in paper.iter().zip(&relit) {
            for tile in 0..paper.count {
                let brightness = |batch: &Batch, at: usize| batch.clean[tile * area + at] + 1.0;
                let dark = |&at: &usize| (0.2..1.6).contains(&brightness(paper, at));
                let at: Vec<usize> = (0..area).filter(dark).collect();
                let factor = brightness(relit, at[0]) / brightness(paper, at[0]);
                (least, most) = (least.min(factor), most.max(factor));
                for at in at {
                    let expected = brightness(paper, at) * factor;
                    assert!((brightness(relit, at) - expected).abs() < 1e-4);
                }
            }
            let values = relit.clean.iter().chain(&relit.noisy);
            assert!(values.into_iter().all(|value| (-1.0..=1.0).contains(value)));
        }
        assert!((0.799..0.82).contains(&least) && (1.18..1.201).contains(&most));
    }
}
