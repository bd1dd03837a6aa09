//! Batches of training examples: good frames with synthetic defects, augmented; which cells these
//! changed; and the weight of each cell in the loss. Pure. **Ours**.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scoring::inspect::cells::reduce;
use scoring::inspect::grid::FINEST;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::region::label_components;
use scoring::inspect::segmentation::{SIDE_PX, input, texture, texture_count};

use super::augmentation::Augmentation;
use super::defect::DefectKind;
use super::frame::GoodFrame;

/// Examples in a batch.
pub const BATCH: usize = 16;
/// One example in this many is a good frame without defects.
const GOOD_ONE_IN: usize = 5;
/// Most kinds of local defects in an example.
const MOST_DEFECTS: usize = 3;
/// A cell counts as changed if this fraction of its pixels is. A line one pixel wide covers no more
/// and has to count as much as a large area.
const CHANGED: f32 = 0.125;
/// Changed cells of a region of this many cells weigh as much as good ones. In a region n times as
/// small each cell weighs √n times as much: success is counted by defects, and most cells of a
/// frame are good.
const REGION_CELLS: f32 = 640.0;
/// Largest weight of a cell.
const MOST_WEIGHT: f32 = 20.0;
/// Smallest scale of a texture feature.
const LEAST_SCALE: f32 = 1e-3;

/// Good frames to train on, at the size that the network sees, and the statistics of their
/// textures.
pub(super) struct TrainingFrames {
    colour: bool,
    /// 8-bit values, row by row, plane after plane.
    pub(super) frames: Vec<Vec<u8>>,
    /// See [`SegmentationNetwork::mean`](proto::manifest::SegmentationNetwork::mean).
    pub(super) mean: Vec<f32>,
    /// See [`SegmentationNetwork::scale`](proto::manifest::SegmentationNetwork::scale).
    pub(super) scale: Vec<f32>,
}

/// What a training step takes.
pub(super) struct Batch {
    /// The network's inputs (see [`input`]), example after example.
    pub(super) inputs: Vec<f32>,
    /// Which cells were changed, see [`changed_cells`].
    pub(super) masks: Vec<f32>,
    /// Weights of the cells, see [`cell_weights`].
    pub(super) weights: Vec<f32>,
}

/// Reduces the mask of a frame of this size to cells: 1 where at least [`CHANGED`] of the cell was
/// changed, proportionally less where less was.
pub(super) fn changed_cells(mask: &[f32], size: [usize; 2]) -> Vec<f32> {
    let fractions = reduce(mask, size, [FINEST; 2]).into_iter();
    fractions
        .map(|fraction| (fraction / CHANGED).min(1.0))
        .collect()
}

/// Weight of each cell in the loss, from which cells were changed.
fn cell_weights(changed: &[f32]) -> Vec<f32> {
    let mask: Vec<bool> = changed.iter().map(|changed| *changed > 0.0).collect();
    let (labels, count) = label_components(&mask, FINEST, FINEST);
    let mut sizes = vec![0.0f32; count + 1];
    let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
    labels.iter().for_each(|label| sizes[*label] += 1.0);
    // Label 0 is everything that was not changed; it weighs 1.
    sizes[0] = REGION_CELLS;
    let weight = |cells: f32| (REGION_CELLS / cells).sqrt().clamp(1.0, MOST_WEIGHT);
    labels.iter().map(|label| weight(sizes[*label])).collect()
}

/// Draws the kinds of an example, of those that a network learns from: a large area every other
/// time, and local defects. Several in one frame teach more in the same time.
fn draw_kinds(rng: &mut ChaCha8Rng) -> Vec<DefectKind> {
    let one_of = |kinds: &[DefectKind], rng: &mut ChaCha8Rng| loop {
        let kind = kinds[rng.random_range(0..kinds.len())];
        if !DefectKind::UNSEEN.contains(&kind) {
            return kind;
        }
    };
    let area = rng.random::<bool>();
    let area = area.then(|| one_of(&DefectKind::AREAS, rng));
    let defects = rng.random_range(1..=MOST_DEFECTS);
    let mut kinds = Vec::from_iter(area);
    kinds.extend((0..defects).map(|_| one_of(&DefectKind::DEFECTS, rng)));
    kinds
}

impl TrainingFrames {
    /// Takes frames of [`SIDE_PX`] × [`SIDE_PX`] pixels and their textures.
    pub(super) fn new(colour: bool, frames: Vec<Vec<u8>>, textures: &[Vec<f32>]) -> Self {
        let frame_count = frames.len();
        let values = texture_count(colour) * FINEST * FINEST;
        let mut mean = vec![0.0f32; values];
        for texture in textures {
            for (mean, value) in mean.iter_mut().zip(texture) {
                *mean += value / frame_count as f32;
            }
        }
        let mut squares = vec![0.0f64; texture_count(colour)];
        for texture in textures {
            for (at, (value, mean)) in texture.iter().zip(&mean).enumerate() {
                squares[at / (FINEST * FINEST)] += f64::from(value - mean).powi(2);
            }
        }
        let count = (frame_count * FINEST * FINEST) as f64;
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

    fn frame(&self, index: usize) -> GoodFrame {
        let bytes = &self.frames[index];
        GoodFrame::new(Planes {
            channels: bytes.len() / (SIDE_PX * SIDE_PX),
            width_px: SIDE_PX,
            height_px: SIDE_PX,
            data: bytes
                .iter()
                .map(|&value| f32::from(value) / 127.5 - 1.0)
                .collect(),
        })
    }

    /// Draws the batch of a step.
    pub(super) fn batch(&self, rng: &mut ChaCha8Rng) -> Batch {
        let [mut inputs, mut masks, mut weights] = [const { Vec::new() }; 3];
        let any = |rng: &mut ChaCha8Rng| self.frame(rng.random_range(0..self.frames.len()));
        let size = [SIDE_PX; 2];
        for number in 0..BATCH {
            let good = any(rng);
            let augmentation = Augmentation::draw(size, rng);
            let seen = if number % GOOD_ONE_IN == 0 {
                masks.extend([0.0; FINEST * FINEST]);
                weights.extend([1.0; FINEST * FINEST]);
                augmentation.apply(good.planes())
            } else {
                let defective = good.with_defects(&draw_kinds(rng), &any(rng), rng);
                let changed = changed_cells(&augmentation.apply_to_mask(&defective.mask), size);
                weights.extend(cell_weights(&changed));
                masks.extend(changed);
                augmentation.apply(&defective.planes)
            };
            let texture = texture(&seen, self.colour);
            inputs.extend(input(&self.mean, &self.scale, &seen, &texture, self.colour));
        }
        Batch {
            inputs,
            masks,
            weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_are_never_learned_from_and_all_others_are() {
        let mut rng = crate::seed::generator(1, "test", 0);
        let drawn: Vec<DefectKind> = (0..500).flat_map(|_| draw_kinds(&mut rng)).collect();
        let kinds = DefectKind::AREAS.into_iter().chain(DefectKind::DEFECTS);
        for kind in kinds {
            let unseen = DefectKind::UNSEEN.contains(&kind);
            assert_eq!(drawn.contains(&kind), !unseen, "{kind:?}");
        }
    }

    #[test]
    fn cells_of_small_regions_weigh_more() {
        let mut changed = vec![0.0; FINEST * FINEST];
        // One cell, changed a little; a line of ten; and half of the frame.
        changed[2 * FINEST + 5] = 0.1;
        changed[4 * FINEST + 3..4 * FINEST + 13].fill(1.0);
        changed[FINEST * FINEST / 2..].fill(1.0);
        let found = cell_weights(&changed);
        assert_eq!(found[2 * FINEST + 5], MOST_WEIGHT);
        assert_eq!(found[4 * FINEST + 3..4 * FINEST + 13], [8.0; 10]);
        // √(640 / 512).
        let half = &found[FINEST * FINEST / 2..];
        assert!(half.iter().all(|weight| (weight - 1.118).abs() < 1e-3));
        assert_eq!(found.iter().filter(|weight| **weight == 1.0).count(), 501);
    }

    /// A line one pixel wide across 256 × 256 pixels, and a cell that is half changed by 5 %.
    #[test]
    fn a_thin_line_counts_as_much_as_an_area() {
        let mut mask = vec![0.0; SIDE_PX * SIDE_PX];
        mask[100 * SIDE_PX..101 * SIDE_PX].fill(1.0);
        for row in 16..20 {
            mask[row * SIDE_PX..][..8].fill(0.05);
        }
        let found = changed_cells(&mask, [SIDE_PX; 2]);
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
