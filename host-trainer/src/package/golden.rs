//! Golden tiles and the golden frame: inputs with the scores that every camera has to reproduce
//! before it uses a package.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::manifest::{GoldenFrame, GoldenTile, Input, InputSize, TILE_PX};
use scoring::infer::Engine;
use scoring::inspect::frame::{Frame, Pixels};
use scoring::inspector::golden_cells;
use scoring::package::{GoldenScores, golden_scores};

use super::draft::Draft;
use super::error::PackagingError;
use super::training_images::training_images;
use crate::dataset::cut_tile;
use crate::noise::{Algorithm, Corruption, Tile};
use crate::run_folder::Run;
use crate::seed::generator;

/// Tolerance as a fraction of a tile's peak score: other instruction sets sum in another order.
const TOLERANCE_OF_PEAK: f32 = 1e-3;
/// The same in 8 bits, where a value between two levels may be rounded to either, and the
/// difference passes through the layers that follow.
const TOLERANCE_OF_PEAK_INT8: f32 = 2e-2;
/// Smallest tolerance, unless the loudest tile is so quiet that it would be more than
/// [`TOLERANCE_OF_PEAK`] there.
const TOLERANCE_FLOOR: f32 = 1e-4;
/// Tolerance of the golden frame as a fraction of its map's peak: a variation model divides by how
/// little good parts vary, which amplifies what the scores are off.
const FRAME_TOLERANCE_OF_PEAK: f32 = 1e-2;
/// The same in 8 bits.
const FRAME_TOLERANCE_OF_PEAK_INT8: f32 = 5e-2;
/// Size of the golden frame in pixels, and the size that it is scored at: made wider and lower, so
/// that resizing is checked both ways, and no multiple of 8 plus 1, so that padding is.
const FRAME_PX: [u16; 2] = [131, 203];
const SCORED_PX: [u16; 2] = [189, 141];

/// Makes tiles for the parity gate: the middle of two training images, as they are and with a line
/// and a rectangle drawn on them, so that low and high scores are checked.
pub(super) fn golden_tiles(
    run: &Run,
    engine: &Engine,
    int8: bool,
) -> Result<Vec<GoldenTile>, PackagingError> {
    let of_peak = if int8 {
        TOLERANCE_OF_PEAK_INT8
    } else {
        TOLERANCE_OF_PEAK
    };
    let mut measured: Vec<(Vec<u8>, GoldenScores)> = Vec::new();
    for (index, image) in training_images(run).iter().take(2).enumerate() {
        let frame = image.prepared(&run.input, &run.reading)?;
        let middle = |length: u32| (length - TILE_PX) / 2;
        let tile = cut_tile(&frame, middle(frame.width_px()), middle(frame.height_px()));
        for algorithm in [Algorithm::None, Algorithm::Line, Algorithm::Rectangle] {
            let mut rng = generator(run.seed, "golden", index as u64);
            let mut tile = tile.clone();
            Corruption::draw(algorithm, &tile, &mut rng).apply(&mut tile);
            let pixels = interleave(&tile);
            let scores = golden_scores(engine, &pixels)?;
            measured.push((pixels, scores));
        }
    }
    let peaks = measured.iter().map(|(_, scores)| scores.peak);
    let floor = TOLERANCE_FLOOR.min(of_peak * peaks.fold(0.0, f32::max));
    let golden = measured.into_iter().map(|(pixels, scores)| GoldenTile {
        pixels,
        tolerance: (scores.peak * of_peak).max(floor),
        block_means: scores.block_means,
        peak: scores.peak,
    });
    Ok(golden.collect())
}

impl Draft {
    /// Adds a golden frame: the first training image, small, with a line and a rectangle drawn on
    /// it. Everything that scores depend on must be in the draft already.
    pub fn add_golden_frame(
        &mut self,
        folder: &Path,
        key: &SigningKey,
    ) -> Result<(), PackagingError> {
        let run = Run::read(folder)?;
        let Some(image) = training_images(&run).into_iter().next() else {
            return Ok(());
        };
        let [width_px, height_px] = FRAME_PX;
        let size = InputSize::Fixed {
            width_px: width_px.into(),
            height_px: height_px.into(),
        };
        let colour = self.manifest.input.colour;
        let small = image.prepared(&Input { size, colour }, &run.reading)?;
        let [scored_width_px, scored_height_px] = SCORED_PX;
        let mut golden = GoldenFrame {
            width_px,
            height_px,
            pixels: with_drawings(&small, run.seed),
            scored_width_px,
            scored_height_px,
            cell_means: Vec::new(),
            peak: 0.0,
            tolerance: 0.0,
        };
        self.manifest.golden_frame = None;
        let map = self.inspector(key)?.golden_frame_map(&golden);
        let map = map.map_err(PackagingError::Inspector)?;
        golden.peak = map.peak();
        golden.cell_means = golden_cells(&map);
        golden.tolerance = golden.peak
            * if self.cost.is_some() {
                FRAME_TOLERANCE_OF_PEAK_INT8
            } else {
                FRAME_TOLERANCE_OF_PEAK
            };
        self.manifest.golden_frame = Some(golden);
        Ok(())
    }
}

/// A frame's values in 8 bits, with a line drawn on its upper part and a rectangle on its lower.
fn with_drawings(frame: &Frame, seed: u64) -> Vec<u8> {
    let mut values: Vec<u8> = match frame.pixels() {
        Pixels::U8(values) => values.clone(),
        Pixels::U16(values) => values.iter().map(|value| (value >> 8) as u8).collect(),
    };
    let (width, channels) = (frame.width_px() as usize, frame.channels().count());
    let left = (frame.width_px() - TILE_PX) / 2;
    let drawings = [
        (Algorithm::Line, TILE_PX / 2),
        (Algorithm::Rectangle, frame.height_px() - TILE_PX),
    ];
    for (index, (algorithm, top)) in drawings.into_iter().enumerate() {
        let mut tile = cut_tile(frame, left, top);
        let mut rng = generator(seed, "golden frame", index as u64);
        Corruption::draw(algorithm, &tile, &mut rng).apply(&mut tile);
        for at in 0..tile.side() * tile.side() {
            let (x, y) = (
                left as usize + at % tile.side(),
                top as usize + at / tile.side(),
            );
            for channel in 0..channels {
                values[(y * width + x) * channels + channel] = level(tile.plane(channel)[at]);
            }
        }
    }
    values
}

/// An 8-bit level of a value in [-1, 1].
fn level(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round() as u8
}

/// Three interleaved 8-bit channels; grey is replicated.
fn interleave(tile: &Tile) -> Vec<u8> {
    let area = tile.side() * tile.side();
    let last = tile.channels() - 1;
    (0..area)
        .flat_map(|index| [0, 1, 2].map(|channel| tile.plane(channel.min(last))[index]))
        .map(level)
        .collect()
}
