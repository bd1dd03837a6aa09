//! Quantises a network to 8 bits. In: its f32 weights and the training frames. Out: the
//! quantisation of the values between its layers, and what the loss of precision costs.
//!
//! The first layer stays in f32, because it has only three channels to multiply and its input is
//! the image. So does the last, because the scores of good pixels are its small outputs. At width
//! 128 these two are 2 % of the multiplications. Weights have one scale per output channel; the
//! values between two layers share one scale and one zero point.

use std::path::Path;

use scoring::infer::{Engine, InferError};
use scoring::inspect::frame::Frame;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::score::Shift;
use tch::{Device, TchError, Tensor};

use crate::dataset::Coordinates;
use crate::evaluate::{PixelError, PixelMetrics};
use crate::network::{CHANNELS, LayerWeights, Network};
use crate::noise::{NoiseBank, Tile};
use crate::onnx::Quantisation;
use crate::seed::generator;
use crate::tensor::floats;

/// Good tiles from which the ranges of values are measured, and as many corrupted ones. Corrupted
/// tiles are needed because a defect drives the layers further than a good surface does: with the
/// ranges of good tiles alone its score would be clipped.
const RANGE_TILES: usize = 96;
/// Other tiles, on which the loss of precision is measured.
const CHECK_TILES: usize = 144;
/// Largest loss of pixel AUROC that is accepted.
pub const MAX_AUROC_LOSS: f64 = 0.005;
/// Smallest change of a pixel, of values in [-1, 1], that counts as a defect. Pixels that changed
/// less are left out: they count neither as defect nor as good.
const VISIBLE_CHANGE: f32 = 0.1;

/// Why a network cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    /// The loss of quality is larger than accepted.
    #[error(
        "int8 loses {lost:.4} of pixel AUROC on corrupted good tiles ({int8:.4} instead of \
         {f32:.4}); at most {MAX_AUROC_LOSS} is allowed. Package without --int8"
    )]
    TooLossy {
        /// Loss of pixel AUROC.
        lost: f64,
        /// Pixel AUROC in f32.
        f32: f64,
        /// Pixel AUROC in int8.
        int8: f64,
    },
    /// No tile changed visibly, so there is nothing to measure on.
    #[error("no good tile could be corrupted, so what int8 costs cannot be measured")]
    Nothing,
    /// The metrics could not be computed.
    #[error(transparent)]
    Metrics(#[from] PixelError),
    /// The engine failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// A good tile and its corrupted copy.
struct TilePair {
    clean: Tile,
    noisy: Tile,
}

/// Draws tiles from the training frames, at other positions than those trained on: the seed is
/// another one.
fn draw_pairs(frames: &[Frame], count: usize, seed: u64, purpose: &str) -> Vec<TilePair> {
    let sizes = frames
        .iter()
        .map(|frame| [frame.width_px(), frame.height_px()]);
    let sizes: Vec<[u32; 2]> = sizes.collect();
    let coordinates = Coordinates::draw(&sizes, count, 1, seed.wrapping_add(1));
    let bank = NoiseBank::paper();
    let mut rng = generator(seed, purpose, 0);
    let pair = |index| {
        let clean = coordinates.tile(frames, index as u32);
        let mut noisy = clean.clone();
        bank.corrupt(&mut noisy, &mut rng);
        TilePair { clean, noisy }
    };
    (0..count).map(pair).collect()
}

/// A tile as three planes; grey is replicated.
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

/// Determines the quantisation of the outputs of all layers but the last two.
pub fn quantisations(
    layers: &[LayerWeights],
    frames: &[Frame],
    seed: u64,
) -> Result<Vec<Quantisation>, QuantiseError> {
    let network = Network::from_weights(layers, Device::Cpu)?;
    let pairs = draw_pairs(frames, RANGE_TILES, seed, "quantise");
    let mut ranges = vec![(0.0f32, 0.0f32); layers.len().saturating_sub(2)];
    for tile in pairs.iter().flat_map(|pair| [&pair.clean, &pair.noisy]) {
        let planes = planes(tile);
        let side = tile.side() as i64;
        let input = Tensor::f_from_slice(&planes.data)?.f_view([1, CHANNELS, side, side])?;
        let mut failed = None;
        let _ = tch::no_grad(|| {
            network.forward_observed(&input, &mut |layer, output| {
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
    let quantisations = ranges
        .iter()
        .map(|&(low, high)| Quantisation::covering(low, high));
    Ok(quantisations.collect())
}

/// Cost of the loss of precision, measured with the camera's engine on corrupted good tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Pixel AUROC of visibly corrupted against unchanged pixels in f32.
    pub auroc_f32: f64,
    /// The same pixel AUROC in int8.
    pub auroc_int8: f64,
    /// Pearson correlation between the scores of all pixels in f32 and in int8.
    pub correlation: f64,
}

impl Cost {
    /// Measures it from an engine of each precision.
    pub fn measure(
        f32: &Engine,
        int8: &Engine,
        frames: &[Frame],
        seed: u64,
    ) -> Result<Self, QuantiseError> {
        // All keys stay in memory, so the folder is not used.
        let mut metrics = [(); 2].map(|()| PixelMetrics::new(0, usize::MAX, Path::new("unused")));
        let (mut count, mut sums, mut products) = (0.0, [0.0; 2], [0.0; 3]);
        for TilePair { clean, noisy } in draw_pairs(frames, CHECK_TILES, seed, "int8 check") {
            let area = clean.side() * clean.side();
            let change = |at: usize| {
                let in_plane = |plane| (clean.plane(plane)[at] - noisy.plane(plane)[at]).abs();
                (0..clean.channels()).map(in_plane).fold(0.0, f32::max)
            };
            let changes: Vec<f32> = (0..area).map(change).collect();
            let counts = |change: &&f32| **change == 0.0 || **change >= VISIBLE_CHANGE;
            let mask: Vec<bool> = changes
                .iter()
                .filter(counts)
                .map(|change| *change > 0.0)
                .collect();
            let noisy = planes(&noisy);
            let maps = [f32.scores(&noisy)?, int8.scores(&noisy)?];
            for (metrics, map) in metrics.iter_mut().zip(&maps) {
                let scores = map.data.iter().zip(&changes);
                let scores = scores.filter(|(_, change)| counts(change));
                let scores: Vec<f32> = scores.map(|(score, _)| *score).collect();
                // Regions do not matter here, so the pixels form a single column.
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
        let covariance = products[2] - sums[0] * sums[1] / count;
        let variances = spread(products[0], sums[0]) * spread(products[1], sums[1]);
        Ok(Self {
            auroc_f32: auroc(first)?,
            auroc_int8: auroc(second)?,
            correlation: covariance / variances.sqrt(),
        })
    }

    /// Returns an error if the loss exceeds [`MAX_AUROC_LOSS`].
    pub fn check(&self) -> Result<(), QuantiseError> {
        let lost = self.auroc_f32 - self.auroc_int8;
        if lost <= MAX_AUROC_LOSS {
            return Ok(());
        }
        Err(QuantiseError::TooLossy {
            lost,
            f32: self.auroc_f32,
            int8: self.auroc_int8,
        })
    }
}
