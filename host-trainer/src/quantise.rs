//! From a network in f32 to one in 8 bits: the ranges of what passes between its layers, from good tiles and corrupted
//! ones, and what the loss of precision costs.
//!
//! The first layer stays in f32 (it has three channels to multiply, and its input is the image), and so does the last,
//! whose small outputs are the scores of good pixels: together they are a fiftieth of the work. Weights have one
//! scale for each output channel, values between layers one scale and one zero point for all.

use std::path::Path;

use edge_runtime::infer::{Engine, InferError};
use edge_runtime::inspect::frame::Frame;
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::score::Shift;
use tch::{Device, TchError, Tensor};

use crate::dataset::Coordinates;
use crate::evaluate::{PixelError, PixelMetrics};
use crate::network::{CHANNELS, Network};
use crate::noise::{NoiseBank, Tile};
use crate::onnx::LayerWeights;
use crate::seed::generator;
use crate::train::floats;

/// Good tiles, and as many corrupted ones, that ranges are taken from. Corrupted ones are among them because a defect
/// drives the layers further than a good surface does: ranges of good tiles alone would cut its score short.
const TILES: usize = 96;
/// Other tiles that the loss of precision is measured on.
const CHECKED: usize = 144;
/// No more than this much pixel AUROC may be lost.
pub const MOST_LOST: f64 = 0.005;
/// A change of a pixel, of values in [-1, 1], that a defect would be called for; less than that is counted neither as a
/// defect nor as a good pixel.
const VISIBLE: f32 = 0.1;
/// Levels of 8 bits.
const LEVELS: f32 = 255.0;

/// Why a network cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    /// Quality is lost.
    #[error(
        "int8 loses {lost:.4} of pixel AUROC on corrupted good tiles ({int8:.4} for {f32:.4}); at most {MOST_LOST} is \
         allowed. Package without --int8"
    )]
    TooLossy {
        /// How much.
        lost: f64,
        /// AUROC without.
        f32: f64,
        /// AUROC with.
        int8: f64,
    },
    /// There is nothing to measure on.
    #[error("no good tile could be corrupted, so what int8 costs cannot be measured")]
    Nothing,
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] PixelError),
    /// The engine.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// How the values between two layers are quantised: value = scale · (level - zero point), levels from -128 to 127.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What a level is worth.
    pub scale: f32,
    /// The level of 0.
    pub zero_point: i8,
}

impl Step {
    /// The one that covers a range, widened to hold 0.
    fn covering(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / LEVELS).max(f32::MIN_POSITIVE);
        Self {
            scale,
            zero_point: (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i8,
        }
    }
}

/// A good tile and what the noise bank makes of it.
struct Pair {
    clean: Tile,
    noisy: Tile,
}

/// Tiles of the frames that a network was trained on, cut elsewhere than it was trained on by another seed.
fn pairs(frames: &[Frame], count: usize, seed: u64, purpose: &str) -> Vec<Pair> {
    let coordinates = Coordinates::draw(frames, count, 1, seed.wrapping_add(1));
    let bank = NoiseBank::paper();
    let mut rng = generator(seed, purpose, 0);
    let pair = |index| {
        let clean = coordinates.tile(frames, index as u32);
        let mut noisy = clean.clone();
        bank.corrupt(&mut noisy, &mut rng);
        Pair { clean, noisy }
    };
    (0..count).map(pair).collect()
}

/// Three planes of a tile; grey is replicated.
fn planes(tile: &Tile) -> Planes {
    let channels = CHANNELS as usize;
    let last = tile.channels() - 1;
    let planes = (0..channels).flat_map(|channel| tile.plane(channel.min(last)));
    Planes {
        channels,
        width_px: tile.side(),
        height_px: tile.side(),
        data: planes.copied().collect(),
    }
}

/// How to quantise what comes out of every layer but the last two.
pub fn steps(
    layers: &[LayerWeights],
    frames: &[Frame],
    seed: u64,
) -> Result<Vec<Step>, QuantiseError> {
    let network = Network::of(layers, Device::Cpu)?;
    let pairs = pairs(frames, TILES, seed, "quantise");
    let mut ranges = vec![(0.0f32, 0.0f32); layers.len().saturating_sub(2)];
    for tile in pairs.iter().flat_map(|pair| [&pair.clean, &pair.noisy]) {
        let planes = planes(tile);
        let side = tile.side() as i64;
        let input = Tensor::f_from_slice(&planes.data)?.f_view([1, CHANNELS, side, side])?;
        let mut failed = None;
        let _ = tch::no_grad(|| {
            network.forward_through(&input, &mut |layer, output| {
                let Some((low, high)) = ranges.get_mut(layer) else {
                    return;
                };
                match floats(output) {
                    Ok(values) => {
                        *low = values.iter().copied().fold(*low, f32::min);
                        *high = values.iter().copied().fold(*high, f32::max);
                    }
                    Err(error) => failed = Some(error),
                }
            })
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    let steps = ranges.iter().map(|&(low, high)| Step::covering(low, high));
    Ok(steps.collect())
}

/// What the loss of precision costs, measured with the camera's engine on corrupted good tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Pixel AUROC of visibly corrupted against untouched pixels, in f32.
    pub auroc_f32: f64,
    /// The same in int8.
    pub auroc_int8: f64,
    /// Pearson's correlation of the pixels' scores.
    pub correlation: f64,
}

impl Cost {
    /// Compares two engines.
    pub fn measure(
        f32: &Engine,
        int8: &Engine,
        frames: &[Frame],
        seed: u64,
    ) -> Result<Self, QuantiseError> {
        let mut metrics =
            [(); 2].map(|()| PixelMetrics::new(0, usize::MAX, Path::new("nothing is put there")));
        let (mut count, mut sums, mut products) = (0.0, [0.0; 2], [0.0; 3]);
        for Pair { clean, noisy } in pairs(frames, CHECKED, seed, "int8 check") {
            let area = clean.side() * clean.side();
            let change = |at: usize| {
                let by = |plane| (clean.plane(plane)[at] - noisy.plane(plane)[at]).abs();
                (0..clean.channels()).map(by).fold(0.0, f32::max)
            };
            let changes: Vec<f32> = (0..area).map(change).collect();
            let told_apart = |change: &&f32| **change == 0.0 || **change >= VISIBLE;
            let mask: Vec<bool> = changes
                .iter()
                .filter(told_apart)
                .map(|change| *change > 0.0)
                .collect();
            let noisy = planes(&noisy);
            let maps = [f32.scores(&noisy)?, int8.scores(&noisy)?];
            for (metrics, map) in metrics.iter_mut().zip(&maps) {
                let scores = map.data.iter().zip(&changes);
                let scores = scores.filter(|(_, change)| told_apart(change));
                let scores: Vec<f32> = scores.map(|(score, _)| *score).collect();
                // Regions are of no interest: a column of pixels.
                metrics.add(&scores, &mask, 1, None)?;
            }
            for (a, b) in maps[0].data.iter().zip(&maps[1].data) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                count += 1.0;
                sums = [sums[0] + a, sums[1] + b];
                products = [
                    products[0] + a * a,
                    products[1] + b * b,
                    products[2] + a * b,
                ];
            }
        }
        let [first, second] = metrics;
        let auroc = |metrics: PixelMetrics| -> Result<f64, QuantiseError> {
            metrics.finish()?.total.auroc.ok_or(QuantiseError::Nothing)
        };
        let spread = |square: f64, sum: f64| square - sum * sum / count;
        let together = products[2] - sums[0] * sums[1] / count;
        let apart = spread(products[0], sums[0]) * spread(products[1], sums[1]);
        Ok(Self {
            auroc_f32: auroc(first)?,
            auroc_int8: auroc(second)?,
            correlation: together / apart.sqrt(),
        })
    }

    /// An error if more than [`MOST_LOST`] is.
    pub fn check(&self) -> Result<(), QuantiseError> {
        let lost = self.auroc_f32 - self.auroc_int8;
        if lost <= MOST_LOST {
            return Ok(());
        }
        Err(QuantiseError::TooLossy {
            lost,
            f32: self.auroc_f32,
            int8: self.auroc_int8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_covers_its_range_and_zero_is_a_level() {
        for (low, high) in [(-0.1, 7.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)] {
            let Step { scale, zero_point } = Step::covering(low, high);
            for value in [low, high, 0.0] {
                let level = (value / scale).round() + f32::from(zero_point);
                assert!(
                    (-128.5..=127.5).contains(&level),
                    "{value} is level {level}"
                );
            }
        }
    }
}
