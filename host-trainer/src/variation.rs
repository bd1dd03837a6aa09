//! Fits a variation model ([`edge_runtime::inspect::variation`]) to good frames: principal components of whole frames' features,
//! and a Gaussian at every cell of what they leave over.

use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::variation::{GRIDS, distances, features_of, left_over, look};
use nalgebra::{Cholesky, DMatrix, DMatrixView, SymmetricEigen};
use proto::manifest::{VariationGrid, VariationModel};

/// Most modes of variation: of 8, 10, 15, 20, 30, 40 and 60 that were tried on magnetic tiles with synthetic defects, 15 to 30 were best
/// (`models/studies`).
const MODES: usize = 20;
/// And of so many frames there is one mode at most: more would describe these frames and no others.
const FRAMES_A_MODE: usize = 20;
/// A mode that explains less than this share of what the first does is rounding.
const LEAST_MODE: f64 = 1e-6;
/// Added to the variances, as a share of each feature's mean over all places: a place that hardly varied among the good parts
/// may vary a little more.
const RIDGE: f64 = 0.01;
/// And at least so much: of a feature that never varied (differences of colours of a grey part) rounding is no measure.
const LEAST_RIDGE: f64 = 1e-6;
/// A feature's scale is at least that, for the same reason.
const LEAST_SCALE: f64 = 1e-3;
/// A place's spread of distances is at least this share of the mean spread.
const LEAST_SPREAD: f64 = 0.25;
/// Good frames for each feature: with fewer, a covariance is more chance than surface.
const FRAMES_A_FEATURE: usize = 4;

/// Why there is no variation model.
#[derive(Debug, thiserror::Error)]
pub enum VariationError {
    /// Too few good frames.
    #[error(
        "expected at least {least} good images for a variation model, found {found}: with fewer, how good parts vary at a place \
         is not known"
    )]
    Frames {
        /// How many there must be.
        least: usize,
        /// How many there are.
        found: usize,
    },
    /// Nothing varies, so that there is nothing to measure by.
    #[error("the good images are all alike: expected photographs of different parts")]
    Alike,
}

/// Good frames in colour or grey that a model takes.
pub fn least_frames(colour: bool) -> usize {
    // Each half of them is measured by the other.
    2 * FRAMES_A_FEATURE * features_of(colour)
}

/// Good frames' features.
#[derive(Debug, Clone)]
pub struct VariationBuilder {
    colour: bool,
    /// For each grid, frame after frame.
    values: [Vec<f32>; GRIDS.len()],
    frames: usize,
}

impl VariationBuilder {
    /// Of frames in colour or grey.
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            values: Default::default(),
            frames: 0,
        }
    }

    /// Takes in a good frame and its scores.
    pub fn add(&mut self, planes: &Planes, scores: &ScoreMap) {
        let found = look(planes, self.colour, scores);
        for (values, found) in self.values.iter_mut().zip(found) {
            values.extend(found.values);
        }
        self.frames += 1;
    }

    /// How good frames look and vary. How far good frames are off is measured on each half of them by the other, because
    /// those that a model is made of are closer to it than new ones.
    pub fn finish(&self) -> Result<VariationModel, VariationError> {
        let least = least_frames(self.colour);
        if self.frames < least {
            return Err(VariationError::Frames {
                least,
                found: self.frames,
            });
        }
        let grids = GRIDS
            .into_iter()
            .zip(&self.values)
            .map(|(side, values)| self.grid(side, values))
            .collect::<Result<_, _>>()?;
        Ok(VariationModel {
            grids,
            frames: self.frames as u32,
        })
    }

    fn grid(&self, side: usize, values: &[f32]) -> Result<VariationGrid, VariationError> {
        let cells = side * side;
        let features = features_of(self.colour);
        let frame = cells * features;
        // The halves have as many as the whole: distances are to be those that the model will find.
        let modes = MODES.min(self.frames / FRAMES_A_MODE);
        let (first, second) = values.split_at(self.frames / 2 * frame);
        let mut sums = vec![[0.0f64; 3]; cells];
        for (fitted, measured) in [(first, second), (second, first)] {
            let look = Look::fit(fitted, cells, features, modes);
            for frame in measured.chunks_exact(frame) {
                let left = look.left_over(frame);
                for (sums, distance) in
                    sums.iter_mut()
                        .zip(distances(features, &look.whitening, &left))
                {
                    let distance = f64::from(distance);
                    sums[0] += 1.0;
                    sums[1] += distance;
                    sums[2] += distance * distance;
                }
            }
        }
        let spreads: Vec<f64> = sums
            .iter()
            .map(|[count, sum, squares]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt())
            .collect();
        let usual = spreads.iter().sum::<f64>() / cells as f64;
        if usual <= 0.0 {
            return Err(VariationError::Alike);
        }
        let look = Look::fit(values, cells, features, modes);
        Ok(VariationGrid {
            side: side as u16,
            features: features as u16,
            mean: look.mean,
            scale: look.scale,
            modes: look.modes,
            whitening: look.whitening,
            distance_mean: sums
                .iter()
                .map(|[count, sum, _]| (sum / count) as f32)
                .collect(),
            distance_spread: spreads
                .into_iter()
                .map(|spread| spread.max(LEAST_SPREAD * usual) as f32)
                .collect(),
        })
    }
}

/// How good frames look and vary at one size of cells, with the fields of [`VariationGrid`].
#[derive(Debug)]
struct Look {
    mean: Vec<f32>,
    scale: Vec<f32>,
    modes: Vec<f32>,
    whitening: Vec<f32>,
}

impl Look {
    fn fit(values: &[f32], cells: usize, features: usize, most_modes: usize) -> Self {
        let frame = cells * features;
        let frames = values.chunks_exact(frame);
        let count = frames.len() as f64;
        let mut mean = vec![0.0f64; frame];
        for values in frames.clone() {
            mean.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += f64::from(*value) / count);
        }
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let scale = scales(values, features);
        let mut left: Vec<f32> = frames
            .flat_map(|values| left_over(&mean, &scale, &[], values))
            .collect();
        let modes = modes(&left, frame, most_modes);
        let (nothing, ones) = (vec![0.0; frame], vec![1.0; features]);
        for left in left.chunks_exact_mut(frame) {
            let rest = left_over(&nothing, &ones, &modes, left);
            left.copy_from_slice(&rest);
        }
        Self {
            mean,
            scale,
            modes,
            whitening: whitening(&left, cells, features),
        }
    }

    fn left_over(&self, values: &[f32]) -> Vec<f32> {
        left_over(&self.mean, &self.scale, &self.modes, values)
    }
}

/// Standard deviation of each feature over all frames and cells.
fn scales(values: &[f32], features: usize) -> Vec<f32> {
    let count = (values.len() / features) as f64;
    let mut sums = vec![[0.0f64; 2]; features];
    for cell in values.chunks_exact(features) {
        for (sums, value) in sums.iter_mut().zip(cell) {
            let value = f64::from(*value);
            sums[0] += value;
            sums[1] += value * value;
        }
    }
    let spread =
        |[sum, squares]: [f64; 2]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt();
    sums.into_iter()
        .map(|sums| spread(sums).max(LEAST_SCALE) as f32)
        .collect()
}

/// Principal components of frames (of `frame` values each, of mean 0), at most `most`: there are far fewer frames than values, so they
/// come of the products of frames with each other.
fn modes(values: &[f32], frame: usize, most: usize) -> Vec<f32> {
    let frames = DMatrixView::from_slice(values, frame, values.len() / frame);
    let products = frames.tr_mul(&frames).cast::<f64>();
    let SymmetricEigen {
        eigenvalues,
        eigenvectors,
    } = SymmetricEigen::new(products);
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_unstable_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
    let first = order.first().map_or(0.0, |&index| eigenvalues[index]);
    let kept = order
        .into_iter()
        .take(most)
        .take_while(|&index| eigenvalues[index] > LEAST_MODE * first);
    kept.flat_map(|index| {
        let weights: DMatrix<f32> = eigenvectors.columns(index, 1).clone_owned().cast();
        let mode = (frames * weights).normalize();
        mode.iter().copied().collect::<Vec<f32>>()
    })
    .collect()
}

/// Inverses of the Cholesky factors of the cells' covariances, lower triangles row by row; `left` has mean 0 at every place.
fn whitening(left: &[f32], cells: usize, features: usize) -> Vec<f32> {
    let frame = cells * features;
    let count = (left.len() / frame) as f64;
    let mut covariances = vec![DMatrix::<f64>::zeros(features, features); cells];
    for left in left.chunks_exact(frame) {
        for (covariance, left) in covariances.iter_mut().zip(left.chunks_exact(features)) {
            for column in 0..features {
                for row in column..features {
                    covariance[(row, column)] +=
                        f64::from(left[row]) * f64::from(left[column]) / (count - 1.0);
                }
            }
        }
    }
    let ridge: Vec<f64> = (0..features)
        .map(|row| {
            let sum: f64 = covariances.iter().map(|place| place[(row, row)]).sum();
            (RIDGE * sum / cells as f64).max(LEAST_RIDGE)
        })
        .collect();
    let mut whitening = Vec::with_capacity(cells * features * (features + 1) / 2);
    for mut covariance in covariances {
        for (row, ridge) in ridge.iter().enumerate() {
            covariance[(row, row)] += ridge;
        }
        // The ridge keeps it positive definite but for rounding, which then leaves each feature on its own.
        let alone = DMatrix::from_diagonal(&covariance.map_diagonal(|variance| variance.sqrt()));
        let factor = Cholesky::new(covariance).map_or(alone, |cholesky| cholesky.l());
        let mut inverse = DMatrix::identity(features, features);
        factor.solve_lower_triangular_mut(&mut inverse);
        whitening.extend((0..features).flat_map(|row| {
            let row = inverse.row(row).columns(0, row + 1).clone_owned();
            row.iter().map(|value| *value as f32).collect::<Vec<f32>>()
        }));
    }
    whitening
}

#[cfg(test)]
mod tests {
    use edge_runtime::inspect::variation::{check, deviations};
    use proptest::prelude::*;

    use super::*;

    /// Brightness and contrast of a textured part with a bright left third, which vary from part to part.
    fn part(seed: u64, worn: bool) -> Planes {
        let side = 96;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let (light, contrast) = (0.2 * random(), 0.3 + 0.1 * random());
        let mut data = Vec::new();
        for y in 0..side {
            for x in 0..side {
                let base = if x < 32 { 0.4 } else { 0.0 };
                // Worn: the texture is fainter over a quarter of the part, no pixel is out of range.
                let inside = worn && (44..92).contains(&x) && (40..88).contains(&y);
                let texture = contrast * random() * if inside { 0.25 } else { 1.0 };
                data.push(base + light + texture);
            }
        }
        Planes {
            channels: 1,
            width_px: side,
            height_px: side,
            data,
        }
    }

    fn map(model: &VariationModel, planes: &Planes, colour: bool, scores: &ScoreMap) -> ScoreMap {
        let found = look(planes, colour, scores);
        deviations(model, &found, None, [scores.width_px, scores.height_px])
    }

    fn model() -> VariationModel {
        let mut builder = VariationBuilder::new(false);
        for seed in 1..=160 {
            builder.add(&part(seed, false), &scores(seed));
        }
        builder.finish().unwrap()
    }

    fn scores(seed: u64) -> ScoreMap {
        let mut scores = ScoreMap::zeros(96, 96);
        let noise = part(seed + 1_000, false).data;
        scores
            .data
            .iter_mut()
            .zip(noise)
            .for_each(|(score, noise)| *score = 0.1 * noise.abs());
        scores
    }

    #[test]
    fn a_worn_area_is_found_that_no_pixel_gives_away() {
        let model = model();
        check(&model, false).unwrap();
        let mean = |map: &ScoreMap, inside: bool| {
            let at = (0..96 * 96).filter(|i| {
                let (x, y) = (i % 96, i / 96);
                let within = (52..84).contains(&x) && (48..80).contains(&y);
                let without = !(36..96).contains(&x) || y < 32;
                if inside { within } else { without }
            });
            let (sum, count) = at.fold((0.0, 0.0), |(s, c), i| (s + map.data[i], c + 1.0));
            sum / count
        };
        for seed in 500..505 {
            let good = map(&model, &part(seed, false), false, &scores(seed));
            assert!(mean(&good, true) < 2.0, "{}", mean(&good, true));
            let worn = map(&model, &part(seed, true), false, &scores(seed));
            assert!(mean(&worn, true) > 4.0, "{}", mean(&worn, true));
            assert!(mean(&worn, false) < 2.0, "{}", mean(&worn, false));
        }
    }

    #[test]
    fn what_whole_parts_differ_by_is_taken_out() {
        let model = model();
        assert!(model.grids.iter().all(|grid| !grid.modes.is_empty()));
        // Of twice the contrast of any good part, alike everywhere; and of the usual one but for a quarter of the part.
        let contrast = |factor: f32, everywhere: bool| {
            let mut planes = part(700, false);
            for (at, value) in planes.data.iter_mut().enumerate() {
                let (x, y) = (at % 96, at / 96);
                let base = if x < 32 { 0.4 } else { 0.0 };
                if everywhere || (x >= 48 && y >= 48) {
                    *value = base + factor * (*value - base);
                }
            }
            planes
        };
        let mut without = model.clone();
        without.grids.iter_mut().for_each(|grid| grid.modes.clear());
        let at = |model: &VariationModel, planes: &Planes| {
            map(model, planes, false, &scores(700)).data[72 * 96 + 72]
        };
        let (whole, quarter) = (contrast(2.0, true), contrast(2.0, false));
        let (with, alone) = (at(&model, &whole), at(&without, &whole));
        assert!(with < 0.5 * alone, "{with} {alone}");
        assert!(
            at(&model, &quarter) > 1.5 * with,
            "{} {with}",
            at(&model, &quarter)
        );
    }

    #[test]
    fn a_speck_that_the_network_scores_is_found_too() {
        let model = model();
        let mut speck = scores(600);
        for y in 50..53 {
            speck.data[y * 96 + 70..y * 96 + 73].fill(6.0);
        }
        let map = map(&model, &part(600, false), false, &speck);
        let highest = map
            .data
            .iter()
            .copied()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let (place, height) = highest.unwrap();
        assert!(height > 5.0, "{height}");
        assert!((place % 96).abs_diff(71) < 5 && (place / 96).abs_diff(51) < 5);
    }

    #[test]
    fn what_never_varied_does_not_drown_what_does() {
        let mut builder = VariationBuilder::new(true);
        let grey = |seed: u64, worn: bool| {
            let Planes { data, .. } = part(seed, worn);
            Planes {
                channels: 3,
                width_px: 96,
                height_px: 96,
                data: data.repeat(3),
            }
        };
        for seed in 1..=160 {
            builder.add(&grey(seed, false), &ScoreMap::zeros(96, 96));
        }
        let model = builder.finish().unwrap();
        check(&model, true).unwrap();
        let at = |planes: &Planes| {
            map(&model, planes, true, &ScoreMap::zeros(96, 96)).data[64 * 96 + 66]
        };
        assert!(at(&grey(500, false)) < 3.0, "{}", at(&grey(500, false)));
        assert!(at(&grey(500, true)) > 4.0, "{}", at(&grey(500, true)));
        let mut alike = VariationBuilder::new(false);
        for _ in 0..160 {
            alike.add(&part(1, false), &ScoreMap::zeros(96, 96));
        }
        assert!(matches!(alike.finish(), Err(VariationError::Alike)));
    }

    #[test]
    fn few_frames_are_refused() {
        let mut builder = VariationBuilder::new(false);
        for seed in 1..=40 {
            builder.add(&part(seed, false), &scores(seed));
        }
        let error = builder.finish().unwrap_err().to_string();
        assert!(
            error.contains("at least 56") && error.contains("found 40"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn whitening_makes_what_is_left_uncorrelated(noise in prop::collection::vec(-1.0f32..1.0, 1_800)) {
            // Two cells of three features that depend on each other.
            let features = 3;
            let mut left: Vec<f32> = noise
                .chunks_exact(6)
                .flat_map(|n| [n[0], n[0] + n[1], n[2] - n[1], 1.5 * n[3], n[4] - 0.5 * n[3], n[5]])
                .collect();
            let frames = left.len() / 6;
            for place in 0..6 {
                let mean = left.iter().skip(place).step_by(6).sum::<f32>() / frames as f32;
                left.iter_mut().skip(place).step_by(6).for_each(|value| *value -= mean);
            }
            let whitening = whitening(&left, 2, features);
            for cell in 0..2 {
                let weights = &whitening[cell * 6..][..6];
                let white: Vec<[f32; 3]> = left
                    .chunks_exact(6)
                    .map(|frame| {
                        let x = &frame[cell * 3..][..3];
                        [
                            weights[0] * x[0],
                            weights[1] * x[0] + weights[2] * x[1],
                            weights[3] * x[0] + weights[4] * x[1] + weights[5] * x[2],
                        ]
                    })
                    .collect();
                for a in 0..3 {
                    for b in 0..=a {
                        let mean = white.iter().map(|w| w[a] * w[b]).sum::<f32>() / (frames - 1) as f32;
                        // Less than 1 by the ridge.
                        prop_assert!((mean - f32::from(u8::from(a == b))).abs() < 0.1, "{a} {b}: {mean}");
                    }
                }
            }
        }
    }

    /// Frames that vary in two ways, and a little everywhere.
    #[test]
    fn modes_are_the_ways_in_which_frames_vary() {
        let (frame, count) = (60, 200);
        let noise = part(9, false).data;
        let direction = |which: usize| -> Vec<f32> {
            let raw: Vec<f32> = (0..frame)
                .map(|i| if i % 2 == which { 1.0 } else { 0.0 })
                .collect();
            let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
            raw.into_iter().map(|x| x / length).collect()
        };
        let (strong, weak) = (direction(0), direction(1));
        // Signs that have nothing to do with each other.
        let sign = |bit: usize| if bit.is_multiple_of(2) { 1.0 } else { -1.0 };
        let values: Vec<f32> = (0..count)
            .flat_map(|index| {
                let (a, b) = (20.0 * sign(index), 8.0 * sign(index / 2));
                let noise = &noise[index * frame % 9_000..];
                (0..frame)
                    .map(|i| a * strong[i] + b * weak[i] + 0.05 * noise[i])
                    .collect::<Vec<f32>>()
            })
            .collect();
        let found = modes(&values, frame, 2);
        assert_eq!(found.len(), 2 * frame);
        let along =
            |mode: &[f32], way: &[f32]| mode.iter().zip(way).map(|(a, b)| a * b).sum::<f32>().abs();
        let (first, second) = found.split_at(frame);
        assert!(along(first, &strong) > 0.98, "{}", along(first, &strong));
        assert!(along(second, &weak) > 0.95, "{}", along(second, &weak));
        assert!(along(first, second) < 1e-3);
        assert!((along(first, first) - 1.0).abs() < 1e-4);
        // No more than there are.
        let one: Vec<f32> = (-1..=1)
            .flat_map(|times| strong.iter().map(move |x| times as f32 * x))
            .collect();
        assert_eq!(modes(&one, frame, 20).len(), frame);
    }
}
