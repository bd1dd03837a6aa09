//! The parity gate: a package is used only if its golden tiles score as they did on the trainer's
//! machine.

use proto::manifest::{
    ColourMode, GoldenFrame, GoldenTile, Manifest, Network, SegmentationNetwork,
};

use crate::infer::{Engine, InferError, SegmentationEngine};
use crate::inspect::preprocess::Planes;
use crate::inspect::score::Shift;
use crate::inspect::segmentation::{self, SIDE_PX};

/// Blocks along a side of a golden tile.
pub const BLOCKS: usize = 13;
/// Side of a block in pixels: 13 × 5 = 65.
pub const BLOCK_PX: usize = 5;

/// Tolerance in half precision, as a fraction of the loudest golden tile's peak: each partial sum
/// of up to 2,304 products is rounded to 11 bits. It refers to the loudest tile, because sums are
/// about as large on quiet ones.
const HALF_PRECISION_TOLERANCE: f32 = 2e-2;
/// The same for a golden frame, as a fraction of its map's peak. A variation model and a
/// segmentation network amplify what the scores are off.
const HALF_PRECISION_FRAME_TOLERANCE: f32 = 5e-2;

/// Largest tolerance that is granted, as a fraction of the peak that it refers to. A package with a
/// larger one would accept anything.
pub const MOST_TOLERANCE: f32 = 5e-2;

/// Cells along each side of a golden frame's map.
pub const GOLDEN_CELLS: usize = 16;

/// Why a package must not be used on this machine.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A golden tile scores differently.
    #[error(
        "golden tile {tile} scores {found} where {expected} is expected: off by {off}, tolerance {tolerance}; this machine \
         does not compute what the trainer's did"
    )]
    Differs {
        /// Index of the tile, from 0.
        tile: usize,
        /// Expected score where the deviation is too large.
        expected: f32,
        /// The score found there.
        found: f32,
        /// The deviation.
        off: f32,
        /// The largest deviation accepted.
        tolerance: f32,
    },
    /// The golden frame's map differs.
    #[error(
        "the golden frame scores {found} where {expected} is expected: off by {off}, tolerance {tolerance}; this machine does \
         not compute what the trainer's did"
    )]
    Frame {
        /// Expected score where the deviation is largest.
        expected: f32,
        /// The score found there.
        found: f32,
        /// The deviation.
        off: f32,
        /// The largest deviation accepted.
        tolerance: f32,
    },
    /// The golden frame cannot be scored.
    #[error("the golden frame cannot be scored")]
    Unscored(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The segmentation network's logits differ.
    #[error(
        "the segmentation network's golden logits are off by {off}, tolerance {tolerance}; this machine does not compute what the trainer's did"
    )]
    Segmentation {
        /// The largest deviation.
        off: f32,
        /// The largest deviation accepted.
        tolerance: f32,
    },
    /// The network cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
}

/// Scores of a golden tile.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenScores {
    /// Mean score of every block, row-major.
    pub block_means: Vec<f32>,
    /// Highest score.
    pub peak: f32,
}

/// Scores a tile of interleaved 8-bit pixels.
pub fn golden_scores(engine: &Engine, pixels: &[u8]) -> Result<GoldenScores, InferError> {
    let channels = usize::from(engine.network().channels);
    let side = usize::from(engine.network().tile_px);
    let data = (0..channels)
        .flat_map(|channel| pixels.iter().skip(channel).step_by(channels))
        .map(|&value| f32::from(value) / 127.5 - 1.0)
        .collect();
    let map = engine.scores(&Planes {
        channels,
        width_px: side,
        height_px: side,
        data,
    })?;
    let block_mean = |block: usize| {
        let (x, y) = (block % BLOCKS * BLOCK_PX, block / BLOCKS * BLOCK_PX);
        let rows = (y..y + BLOCK_PX).map(|y| &map.data[y * side + x..][..BLOCK_PX]);
        rows.flatten().sum::<f32>() / (BLOCK_PX * BLOCK_PX) as f32
    };
    Ok(GoldenScores {
        block_means: (0..BLOCKS * BLOCKS).map(block_mean).collect(),
        peak: map.peak(),
    })
}

/// The frame that the segmentation network's parity check uses: a golden tile of interleaved 8-bit
/// pixels, repeated, every other time mirrored.
pub fn golden_frame(pixels: &[u8], network: &Network, colour: bool) -> Planes {
    let (side, channels) = (usize::from(network.tile_px), usize::from(network.channels));
    let mirrored = |at: usize| match at % (2 * side) {
        at if at < side => at,
        at => 2 * side - 1 - at,
    };
    let wanted = if colour { 3 } else { 1 };
    let places = (0..wanted).flat_map(|channel| {
        (0..SIDE_PX * SIDE_PX).map(move |at| (channel, at / SIDE_PX, at % SIDE_PX))
    });
    let value = |(channel, y, x): (usize, usize, usize)| {
        let at = (mirrored(y) * side + mirrored(x)) * channels + channel;
        f32::from(pixels.get(at).copied().unwrap_or_default()) / 127.5 - 1.0
    };
    Planes {
        channels: wanted,
        width_px: SIDE_PX,
        height_px: SIDE_PX,
        data: places.map(value).collect(),
    }
}

/// Compares the segmentation network's logits with the golden logits.
pub fn check_segmentation_parity(
    engine: &SegmentationEngine,
    segmentation: &SegmentationNetwork,
    manifest: &Manifest,
) -> Result<(), ParityError> {
    let Some(tile) = manifest.golden.first() else {
        return Ok(());
    };
    let colour = manifest.input.colour == ColourMode::Rgb;
    let frame = golden_frame(&tile.pixels, &manifest.network, colour);
    let texture = segmentation::texture(&frame, colour);
    let input = segmentation::input(
        &segmentation.mean,
        &segmentation.scale,
        &frame,
        &texture,
        colour,
    );
    let logits = engine.logits(&input)?;
    let pairs = logits.iter().zip(&segmentation.golden_logits);
    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let wanted = segmentation.golden_logits.iter();
    let loudest = wanted.fold(0.0f32, |loudest, logit| loudest.max(logit.abs()));
    let tolerance = segmentation.golden_tolerance.min(MOST_TOLERANCE * loudest);
    if off > tolerance {
        return Err(ParityError::Segmentation { off, tolerance });
    }
    Ok(())
}

/// Scores every golden tile and returns the largest deviation, or the tile whose deviation is too
/// large.
pub fn check_parity(engine: &Engine, golden: &[GoldenTile]) -> Result<f32, ParityError> {
    let loudest = golden.iter().map(|tile| tile.peak).fold(0.0, f32::max);
    let half = if engine.half() {
        HALF_PRECISION_TOLERANCE * loudest
    } else {
        0.0
    };
    let mut largest = 0.0f32;
    for (tile, wanted) in golden.iter().enumerate() {
        let scores = golden_scores(engine, &wanted.pixels)?;
        let pairs = wanted.block_means.iter().zip(&scores.block_means);
        let pairs = pairs.chain([(&wanted.peak, &scores.peak)]);
        let tolerance = wanted.tolerance.min(MOST_TOLERANCE * loudest).max(half);
        for (&expected, &found) in pairs {
            let off = (expected - found).abs();
            if off > tolerance {
                return Err(ParityError::Differs {
                    tile,
                    expected,
                    found,
                    off,
                    tolerance,
                });
            }
            largest = largest.max(off);
        }
    }
    Ok(largest)
}

/// Compares the map of a golden frame, as means of cells and peak, with what the package says.
pub fn check_frame_parity(
    golden: &GoldenFrame,
    cell_means: &[f32],
    peak: f32,
    half: bool,
) -> Result<(), ParityError> {
    let granted = golden.tolerance.min(MOST_TOLERANCE * golden.peak);
    let tolerance = if half {
        granted.max(HALF_PRECISION_FRAME_TOLERANCE * golden.peak)
    } else {
        granted
    };
    let pairs = golden.cell_means.iter().zip(cell_means);
    for (&expected, &found) in pairs.chain([(&golden.peak, &peak)]) {
        let off = (expected - found).abs();
        if off > tolerance || off.is_nan() {
            return Err(ParityError::Frame {
                expected,
                found,
                off,
                tolerance,
            });
        }
    }
    Ok(())
}
