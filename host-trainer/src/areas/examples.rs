//! What each step of an area network's learning looks at: good frames with areas and defects drawn into them, which cells these changed,
//! and what each cell counts for. Pure. **Ours**.

use edge_runtime::inspect::areas::{SIDE_PX, input, texture, textures_of};
use edge_runtime::inspect::cells::reduce;
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::region::label_components;
use edge_runtime::inspect::variation::FINEST;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::defect::{Good, Kind};
use super::view::View;

/// Examples a step.
pub const BATCH: usize = 16;
/// One in so many examples of a step is a good frame with nothing drawn into it.
const GOOD_ONE_IN: usize = 5;
/// Most kinds of defects in one of them.
const MOST_DEFECTS: usize = 3;
/// A cell is changed where that share of it is: a line one pixel wide covers no more, and counts as much as an area.
const CHANGED: f32 = 0.125;
/// A changed cell counts as much as a good one where its region has so many; of a smaller one each counts more, by the root of how many
/// times as small, up to that: what is found is counted by defects, and most cells of a frame are good.
const REGION_CELLS: f32 = 640.0;
const MOST_WEIGHT: f32 = 20.0;
/// A spread of textures is at least that.
const LEAST_SCALE: f32 = 1e-3;

/// Good frames as an area network sees them, in 8 bits, and what their textures are.
pub(super) struct GoodFrames {
    colour: bool,
    /// Row by row, one plane after the other.
    pub(super) frames: Vec<Vec<u8>>,
    /// As [`AreaNetwork::mean`](proto::manifest::AreaNetwork::mean).
    pub(super) mean: Vec<f32>,
    /// As [`AreaNetwork::scale`](proto::manifest::AreaNetwork::scale).
    pub(super) scale: Vec<f32>,
}

/// What a step learns from.
pub(super) struct Batch {
    /// What goes in, see [`input`], example after example.
    pub(super) inputs: Vec<f32>,
    /// Which cells were changed, see [`cells`].
    pub(super) masks: Vec<f32>,
    /// What each counts for, see [`weights`].
    pub(super) weights: Vec<f32>,
}

/// Whether each cell was changed, of a frame of this size: 1 where [`CHANGED`] of it was or more, in proportion where less.
pub(super) fn cells(mask: &[f32], size: [usize; 2]) -> Vec<f32> {
    let shares = reduce(mask, size, [FINEST; 2]).into_iter();
    shares.map(|share| (share / CHANGED).min(1.0)).collect()
}

/// What each cell counts for when it is learned from, given which were changed.
fn weights(changed: &[f32]) -> Vec<f32> {
    let mask: Vec<bool> = changed.iter().map(|share| *share > 0.0).collect();
    let (labels, count) = label_components(&mask, FINEST, FINEST);
    let mut sizes = vec![0.0f32; count + 1];
    let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
    labels.iter().for_each(|label| sizes[*label] += 1.0);
    // The first is all that was not changed.
    sizes[0] = REGION_CELLS;
    let weight = |cells: f32| (REGION_CELLS / cells).sqrt().clamp(1.0, MOST_WEIGHT);
    labels.iter().map(|label| weight(sizes[*label])).collect()
}

/// What is drawn into a frame to be learned from: an area every other time, and some defects. A frame with several teaches more in the same
/// time.
fn kinds(rng: &mut ChaCha8Rng) -> Vec<Kind> {
    let area = rng.random::<bool>();
    let area = area.then(|| Kind::AREAS[rng.random_range(0..Kind::AREAS.len())]);
    let defects = rng.random_range(1..=MOST_DEFECTS);
    let mut kinds = Vec::from_iter(area);
    kinds.extend((0..defects).map(|_| Kind::DEFECTS[rng.random_range(0..Kind::DEFECTS.len())]));
    kinds
}

impl GoodFrames {
    /// Of these frames, [`SIDE_PX`] square, whose textures are these.
    pub(super) fn new(colour: bool, frames: Vec<Vec<u8>>, textures: &[Vec<f32>]) -> Self {
        let learned = frames.len();
        let values = textures_of(colour) * FINEST * FINEST;
        let mut mean = vec![0.0f32; values];
        for texture in textures {
            for (mean, value) in mean.iter_mut().zip(texture) {
                *mean += value / learned as f32;
            }
        }
        let mut squares = vec![0.0f64; textures_of(colour)];
        for texture in textures {
            for (at, (value, mean)) in texture.iter().zip(&mean).enumerate() {
                squares[at / (FINEST * FINEST)] += f64::from(value - mean).powi(2);
            }
        }
        let count = (learned * FINEST * FINEST) as f64;
        let scale = squares
            .iter()
            .map(|squares| ((squares / count).sqrt() as f32).max(LEAST_SCALE));
        Self {
            colour,
            frames,
            mean,
            scale: scale.collect(),
        }
    }

    fn frame(&self, index: usize) -> Good {
        let bytes = &self.frames[index];
        Good::new(Planes {
            channels: bytes.len() / (SIDE_PX * SIDE_PX),
            width_px: SIDE_PX,
            height_px: SIDE_PX,
            data: bytes
                .iter()
                .map(|&value| f32::from(value) / 127.5 - 1.0)
                .collect(),
        })
    }

    /// Draws what a step learns from.
    pub(super) fn batch(&self, rng: &mut ChaCha8Rng) -> Batch {
        let [mut inputs, mut masks, mut worth] = [const { Vec::new() }; 3];
        let any = |rng: &mut ChaCha8Rng| self.frame(rng.random_range(0..self.frames.len()));
        let size = [SIDE_PX; 2];
        for number in 0..BATCH {
            let good = any(rng);
            let view = View::any(size, rng);
            let seen = if number % GOOD_ONE_IN == 0 {
                masks.extend([0.0; FINEST * FINEST]);
                worth.extend([1.0; FINEST * FINEST]);
                view.of_frame(good.planes())
            } else {
                let drawn = good.drawn(&kinds(rng), &any(rng), rng);
                let changed = cells(&view.of(&drawn.mask), size);
                worth.extend(weights(&changed));
                masks.extend(changed);
                view.of_frame(&drawn.planes)
            };
            let texture = texture(&seen, self.colour);
            inputs.extend(input(&self.mean, &self.scale, &seen, &texture, self.colour));
        }
        Batch {
            inputs,
            masks,
            weights: worth,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_small_regions_count_more() {
        let mut changed = vec![0.0; FINEST * FINEST];
        // Faint or not, one cell; a line of ten; and half of the frame.
        changed[2 * FINEST + 5] = 0.1;
        changed[4 * FINEST + 3..4 * FINEST + 13].fill(1.0);
        changed[FINEST * FINEST / 2..].fill(1.0);
        let found = weights(&changed);
        assert_eq!(found[2 * FINEST + 5], MOST_WEIGHT);
        assert_eq!(found[4 * FINEST + 3..4 * FINEST + 13], [8.0; 10]);
        // 512 of 640.
        let half = &found[FINEST * FINEST / 2..];
        assert!(half.iter().all(|weight| (weight - 1.118).abs() < 1e-3));
        assert_eq!(found.iter().filter(|weight| **weight == 1.0).count(), 501);
    }

    /// A line one pixel wide through 256 × 256 of them, and half a cell.
    #[test]
    fn a_thin_line_counts_as_much_as_an_area() {
        let mut mask = vec![0.0; SIDE_PX * SIDE_PX];
        mask[100 * SIDE_PX..101 * SIDE_PX].fill(1.0);
        for row in 16..20 {
            mask[row * SIDE_PX..][..8].fill(0.05);
        }
        let found = cells(&mask, [SIDE_PX; 2]);
        for (cell, found) in found.into_iter().enumerate() {
            let expected = match (cell / FINEST, cell % FINEST) {
                (12, _) => 1.0,
                (2, 0) => 0.2,
                _ => 0.0,
            };
            assert!((found - expected).abs() < 1e-5, "cell {cell}: {found}");
        }
    }
}
