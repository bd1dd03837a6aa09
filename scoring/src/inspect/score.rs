//! From prepared planes to the anomaly map, in the two scoring modes.

use proto::manifest::{Network, Scoring};

use super::map::ScoreMap;
use super::preprocess::Planes;
use super::tile::origins;

/// Computes the shift A for planes whose sides are `k * align + 1`: the inference engine, or a
/// test's stand-in for it.
pub trait Shift {
    /// Why the computation failed.
    type Error;
    /// The shift A, of the same shape as its input.
    fn shift(&self, planes: &Planes) -> Result<Planes, Self::Error>;

    /// The score of every pixel.
    fn scores(&self, planes: &Planes) -> Result<ScoreMap, Self::Error> {
        Ok(sum_of_magnitudes(&self.shift(planes)?))
    }

    /// The scores of several tiles, in order.
    fn scores_of_tiles(&self, tiles: &[Planes]) -> Result<Vec<ScoreMap>, Self::Error> {
        tiles.iter().map(|tile| self.scores(tile)).collect()
    }
}

/// Tiles that are cut out at a time: enough for many threads, and 3 MB for the paper's tiles.
const TILES_AT_A_TIME: usize = 64;

/// Σ|A|: a pixel's score is the sum of magnitudes over channels (paper, IV-G).
pub fn sum_of_magnitudes(shift: &Planes) -> ScoreMap {
    let mut map = ScoreMap::zeros(shift.width_px, shift.height_px);
    for channel in 0..shift.channels {
        for (score, value) in map.data.iter_mut().zip(shift.plane(channel)) {
            *score += value.abs();
        }
    }
    map
}

/// Scores every pixel of a frame that is at least as large as a tile.
pub fn score<S: Shift>(
    engine: &S,
    planes: &Planes,
    network: &Network,
    scoring: Scoring,
) -> Result<ScoreMap, S::Error> {
    match scoring {
        Scoring::FullyConvolutional => whole(engine, planes, usize::from(network.align_px)),
        Scoring::AveragedTiles { stride_px } => averaged(
            engine,
            planes,
            usize::from(network.tile_px),
            usize::from(stride_px),
        ),
    }
}

/// Scores the frame in one pass.
fn whole<S: Shift>(engine: &S, planes: &Planes, align_px: usize) -> Result<ScoreMap, S::Error> {
    padded(planes, align_px, |padded| engine.scores(padded))
}

/// Scores a frame whose sides are padded to `k * align + 1` by repeating the right and lower edges,
/// and cuts off the scores of the padding.
pub fn padded<E>(
    planes: &Planes,
    align_px: usize,
    score: impl FnOnce(&Planes) -> Result<ScoreMap, E>,
) -> Result<ScoreMap, E> {
    let aligned = |length: usize| (length - 1).div_ceil(align_px) * align_px + 1;
    let (width, height) = (planes.width_px, planes.height_px);
    let (padded_width, padded_height) = (aligned(width), aligned(height));
    if (padded_width, padded_height) == (width, height) {
        return score(planes);
    }
    let padded = planes.crop(0, 0, padded_width, padded_height);
    let scores = score(&padded)?;
    let rows = scores.data.chunks_exact(padded_width).take(height);
    Ok(ScoreMap {
        width_px: width,
        height_px: height,
        data: rows.flat_map(|row| &row[..width]).copied().collect(),
    })
}

/// The paper's reference mode: tiles at about 50 % overlap, with overlapping scores averaged
/// (IV-G).
fn averaged<S: Shift>(
    engine: &S,
    planes: &Planes,
    tile_px: usize,
    stride_px: usize,
) -> Result<ScoreMap, S::Error> {
    let mut map = ScoreMap::zeros(planes.width_px, planes.height_px);
    let mut tiles_at = vec![0.0f32; map.data.len()];
    let columns = origins(planes.width_px, tile_px, stride_px);
    let rows = origins(planes.height_px, tile_px, stride_px).into_iter();
    let places: Vec<(usize, usize)> = rows
        .flat_map(|y| columns.iter().map(move |&x| (x, y)))
        .collect();
    for places in places.chunks(TILES_AT_A_TIME) {
        let tiles = places.iter();
        let tiles: Vec<Planes> = tiles
            .map(|&(x, y)| planes.crop(x, y, tile_px, tile_px))
            .collect();
        let scores = engine.scores_of_tiles(&tiles)?;
        for (&(x, y), scores) in places.iter().zip(&scores) {
            for (row, line) in scores.data.chunks_exact(tile_px).enumerate() {
                let start = (y + row) * planes.width_px + x;
                for (offset, score) in line.iter().enumerate() {
                    map.data[start + offset] += score;
                    tiles_at[start + offset] += 1.0;
                }
            }
        }
    }
    for (score, count) in map.data.iter_mut().zip(&tiles_at) {
        *score /= count;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A stand-in whose A is the input, so that the score is Σ|I|. Each tile's first pixel gets
    /// `border` on top, to tell the modes apart.
    struct Identity {
        border: f32,
    }

    impl Shift for Identity {
        type Error = Infallible;
        fn shift(&self, planes: &Planes) -> Result<Planes, Infallible> {
            let mut shift = planes.clone();
            for channel in 0..planes.channels {
                shift.data[channel * planes.width_px * planes.height_px] += self.border;
            }
            Ok(shift)
        }
    }

    const NETWORK: Network = Network {
        channels: 3,
        width: 4,
        tile_px: 65,
        align_px: 8,
        halo_px: 14,
    };

    fn planes(width_px: usize, height_px: usize) -> Planes {
        let data = (0..3 * width_px * height_px)
            .map(|i| (i % 17) as f32 / 8.0 - 1.0)
            .collect();
        Planes {
            channels: 3,
            width_px,
            height_px,
            data,
        }
    }

    #[test]
    fn a_score_is_the_sum_of_magnitudes_over_channels() {
        let shift = Planes {
            channels: 3,
            width_px: 2,
            height_px: 1,
            data: vec![0.5, -1.0, -0.25, 0.0, 2.0, 0.125],
        };
        assert_eq!(sum_of_magnitudes(&shift).data, [2.75, 1.125]);
    }

    #[test]
    fn both_modes_score_every_pixel_of_any_size() {
        for (width, height) in [(65, 65), (66, 72), (131, 97), (256, 80)] {
            let frame = planes(width, height);
            let expected = sum_of_magnitudes(&frame);
            for scoring in [
                Scoring::FullyConvolutional,
                Scoring::AveragedTiles { stride_px: 32 },
            ] {
                let Ok(found) = score(&Identity { border: 0.0 }, &frame, &NETWORK, scoring);
                assert_eq!((found.width_px, found.height_px), (width, height));
                for (found, expected) in found.data.iter().zip(&expected.data) {
                    assert!((found - expected).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn overlapping_scores_are_averaged_not_summed() {
        // Two tiles across (0 and 32). The first pixel of the second tile, at x = 32, is raised in
        // only one of the two tiles that contain it.
        let zeros = Planes {
            channels: 3,
            width_px: 97,
            height_px: 65,
            data: vec![0.0; 3 * 97 * 65],
        };
        let scoring = Scoring::AveragedTiles { stride_px: 32 };
        let Ok(found) = score(&Identity { border: 1.0 }, &zeros, &NETWORK, scoring);
        assert_eq!(found.data[0], 3.0);
        assert_eq!(found.data[32], 1.5);
    }
}
