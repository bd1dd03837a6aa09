//! Fits one grid of a variation model: principal components of whole frames' features, and a
//! Gaussian at every cell of what they leave over. Pure arithmetic on features.

use nalgebra::{Cholesky, DMatrix, DMatrixView, SymmetricEigen};
use scoring::inspect::variation::residuals;

/// A mode that explains less than this fraction of what the first one does is rounding.
const LEAST_MODE: f64 = 1e-6;
/// Added to each feature's variances, as a fraction of their mean over all cells: a cell that
/// hardly varied among the good parts may vary a little more.
const RIDGE: f64 = 0.01;
/// Smallest value to be added. It matters for a feature that never varied (differences of colours
/// of a grey part), whose variance is rounding.
const LEAST_RIDGE: f64 = 1e-6;
/// Smallest scale of a feature, for the same reason.
const LEAST_SCALE: f64 = 1e-3;

/// How good frames look and vary at one size of cells. The fields are those of
/// [`VariationGrid`](proto::manifest::VariationGrid).
#[derive(Debug)]
pub(super) struct GridFit {
    pub(super) mean: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) modes: Vec<f32>,
    pub(super) whitening: Vec<f32>,
}

impl GridFit {
    /// Fits frames of `cells` × `features` values each, one after the other.
    pub(super) fn new(values: &[f32], cells: usize, features: usize, most_modes: usize) -> Self {
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
            .flat_map(|values| residuals(&mean, &scale, &[], values))
            .collect();
        let modes = modes(&left, frame, most_modes);
        let (nothing, ones) = (vec![0.0; frame], vec![1.0; features]);
        for left in left.chunks_exact_mut(frame) {
            let rest = residuals(&nothing, &ones, &modes, left);
            left.copy_from_slice(&rest);
        }
        Self {
            mean,
            scale,
            modes,
            whitening: whitening(&left, cells, features),
        }
    }

    /// What the modes leave over of a frame's features.
    pub(super) fn residuals(&self, values: &[f32]) -> Vec<f32> {
        residuals(&self.mean, &self.scale, &self.modes, values)
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

/// At most `most` principal components of frames of `frame` values each, of mean 0. There are far
/// fewer frames than values, so they are computed from the products of frames with each other.
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

/// Inverses of the Cholesky factors of the cells' covariances, lower triangles row by row. `left`
/// has mean 0 in every cell.
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
        // The ridge keeps the matrix positive definite except for rounding; if that makes the
        // factorisation fail, each feature is taken on its own.
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
    use proptest::prelude::*;

    use super::super::fixtures::part;
    use super::*;

    proptest! {
        #[test]
        fn whitening_removes_correlation(noise in prop::collection::vec(-1.0f32..1.0, 1_800)) {
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
                        // The ridge makes it less than 1.
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
        // Uncorrelated signs.
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
        // No more modes than there are ways to vary.
        let one: Vec<f32> = (-1..=1)
            .flat_map(|times| strong.iter().map(move |x| times as f32 * x))
            .collect();
        assert_eq!(modes(&one, frame, 20).len(), frame);
    }
}
