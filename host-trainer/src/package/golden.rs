//! Golden tiles: inputs with the scores that every camera has to reproduce before it uses a
//! package.

use proto::manifest::{GoldenTile, TILE_PX};
use scoring::infer::Engine;
use scoring::package::golden_scores;

use super::error::PackagingError;
use super::training_images::prepared;
use crate::dataset::cut_tile;
use crate::noise::{Algorithm, Corruption, Tile};
use crate::run_folder::Run;
use crate::seed::generator;

/// Tolerance as a fraction of a tile's peak score: other instruction sets sum in another order.
const TOLERANCE_OF_PEAK: f32 = 1e-3;
/// The same in 8 bits, where a value between two levels may be rounded to either, and the
/// difference passes through the layers that follow.
const TOLERANCE_OF_PEAK_INT8: f32 = 2e-2;
/// Smallest tolerance.
const TOLERANCE_FLOOR: f32 = 1e-4;

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
    let mut golden = Vec::new();
    for (index, file) in run.train_files.iter().take(2).enumerate() {
        let frame = prepared(file, &run.input, &run.reading)?;
        let middle = |length: u32| (length - TILE_PX) / 2;
        let tile = cut_tile(&frame, middle(frame.width_px()), middle(frame.height_px()));
        for algorithm in [Algorithm::None, Algorithm::Line, Algorithm::Rectangle] {
            let mut rng = generator(run.seed, "golden", index as u64);
            let mut tile = tile.clone();
            Corruption::draw(algorithm, &tile, &mut rng).apply(&mut tile);
            let pixels = interleave(&tile);
            let scores = golden_scores(engine, &pixels)?;
            golden.push(GoldenTile {
                pixels,
                tolerance: (scores.peak * of_peak).max(TOLERANCE_FLOOR),
                block_means: scores.block_means,
                peak: scores.peak,
            });
        }
    }
    Ok(golden)
}

/// Three interleaved 8-bit channels; grey is replicated.
fn interleave(tile: &Tile) -> Vec<u8> {
    let area = tile.side() * tile.side();
    let last = tile.channels() - 1;
    (0..area)
        .flat_map(|index| [0, 1, 2].map(|channel| tile.plane(channel.min(last))[index]))
        .map(|value| ((value + 1.0) * 127.5).round() as u8)
        .collect()
}
