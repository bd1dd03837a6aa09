//! Applies a variation model, as machine vision calls the statistics of good parts in a fixed pose:
//! how good parts look at every place, and how they vary. `host-trainer` fits it.
//!
//! In: features of a frame ([`super::texture`]), the network's score among them. Out: a map of
//! deviations from good, in standard deviations. Whole parts differ in a few ways (exposure,
//! position, grain). These modes are removed from the features, and the residuals are compared with
//! a Gaussian at every cell.
//!
//! Not in the paper (**ours**): a Gaussian per place as in PaDiM (Defard et al. 2021) and modes as
//! in eigenfaces (Turk and Pentland 1991), on features that need no other network.

use proto::manifest::{SegmentationNetwork, VariationGrid, VariationModel};

use super::cells::enlarge;
use super::grid::{FINEST, GRIDS, LARGEST_VALUE, clamp_deviation};
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::segmentation::{segmentation_deviations, subtract_surroundings};
use super::texture::{CellFeatures, cell_features, feature_count};

/// Most modes of a grid.
pub const MAX_MODES: usize = 64;
/// Deviation of a mode's squared length from 1 that rounding may cause.
const UNIT_TOLERANCE: f32 = 1e-3;

/// The features that a variation model takes, for each of [`GRIDS`], of a frame in [-1, 1] and its
/// scores.
pub fn grid_features(
    planes: &Planes,
    colour: bool,
    scores: &ScoreMap,
) -> [CellFeatures; GRIDS.len()] {
    cell_features(planes, colour, scores, GRIDS)
}

/// What remains of a frame's features after its modes are removed: deviations from the mean,
/// divided by the scale, cell after cell.
pub fn residuals(mean: &[f32], scale: &[f32], modes: &[f32], values: &[f32]) -> Vec<f32> {
    let scales = scale.iter().cycle();
    let deviations = values.iter().zip(mean).zip(scales);
    let mut left: Vec<f32> = deviations
        .map(|((value, mean), scale)| (value - mean) / scale)
        .collect();
    // Modes are orthogonal, so their order only affects rounding.
    for mode in modes.chunks_exact(values.len()) {
        let amount: f32 = left.iter().zip(mode).map(|(left, mode)| left * mode).sum();
        left.iter_mut()
            .zip(mode)
            .for_each(|(left, mode)| *left -= amount * mode);
    }
    left
}

/// Mahalanobis distance of each cell's residuals, divided by the square root of their number: about
/// 1 for good cells.
pub fn distances<'a>(
    features: usize,
    whitening: &'a [f32],
    left: &'a [f32],
) -> impl Iterator<Item = f32> + 'a {
    let triangle = features * (features + 1) / 2;
    let cells = left.chunks_exact(features);
    cells
        .zip(whitening.chunks_exact(triangle))
        .map(move |(left, whitening)| {
            let mut squares = 0.0;
            let mut start = 0;
            for row in 0..features {
                let weights = &whitening[start..=start + row];
                let sum: f32 = weights.iter().zip(left).map(|(a, b)| a * b).sum();
                squares += sum * sum;
                start += row + 1;
            }
            (squares / features as f32).sqrt()
        })
}

/// ln(1 + eˣ).
pub(super) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The deviation of every pixel from good frames, in standard deviations: the mean over the model's
/// grids, plus that of a segmentation network ([`super::segmentation`]) if there is one. It is
/// passed through softplus, so it is never negative; a good place has about 0.7.
pub fn deviations(
    model: &VariationModel,
    found: &[CellFeatures; GRIDS.len()],
    segmentation: Option<(&SegmentationNetwork, &[f32])>,
    [width_px, height_px]: [usize; 2],
) -> ScoreMap {
    let mut sum = vec![0.0f32; FINEST * FINEST];
    for (grid, found) in model.grids.iter().zip(found) {
        let left = residuals(&grid.mean, &grid.scale, &grid.modes, &found.values);
        let deviation = distances(found.count, &grid.whitening, &left);
        let normal = grid.distance_mean.iter().zip(&grid.distance_spread);
        let deviation: Vec<f32> = deviation
            .zip(normal)
            .map(|(distance, (mean, spread))| clamp_deviation((distance - mean) / spread))
            .collect();
        let side = usize::from(grid.side);
        let deviation = enlarge(&deviation, [side; 2], FINEST, FINEST);
        sum.iter_mut()
            .zip(deviation)
            .for_each(|(sum, deviation)| *sum += deviation);
    }
    let share = 1.0 / model.grids.len().max(1) as f32;
    sum.iter_mut().for_each(|sum| *sum *= share);
    if let Some((network, logits)) = segmentation {
        for (sum, more) in sum.iter_mut().zip(segmentation_deviations(network, logits)) {
            *sum += more;
        }
        subtract_surroundings(network.local_contrast, &mut sum);
    }
    // Softplus hardly changes deviations above 3 and keeps those below 0, where good places are,
    // positive and in order.
    sum.iter_mut().for_each(|sum| *sum = softplus(*sum));
    ScoreMap {
        width_px,
        height_px,
        data: enlarge(&sum, [FINEST; 2], width_px, height_px),
    }
}

/// Checks a model for frames in colour or grey. The error says what is wrong with it.
pub fn check(model: &VariationModel, colour: bool) -> Result<(), String> {
    let sides: Vec<usize> = model
        .grids
        .iter()
        .map(|grid| usize::from(grid.side))
        .collect();
    if sides != GRIDS {
        return Err(format!(
            "expected a variation model of {GRIDS:?} cells a side, found {sides:?}"
        ));
    }
    model
        .grids
        .iter()
        .try_for_each(|grid| check_grid(grid, feature_count(colour)))
}

fn check_grid(grid: &VariationGrid, features: usize) -> Result<(), String> {
    let cells = usize::from(grid.side).pow(2);
    let lengths = [
        usize::from(grid.features),
        grid.mean.len(),
        grid.scale.len(),
        grid.whitening.len(),
        grid.distance_mean.len(),
        grid.distance_spread.len(),
    ];
    let expected = [
        features,
        cells * features,
        features,
        cells * features * (features + 1) / 2,
        cells,
        cells,
    ];
    if lengths != expected {
        return Err(format!(
            "expected a variation model with features, means, scales, weights and distances of {expected:?}, found {lengths:?}"
        ));
    }
    let mode = cells * features;
    if !grid.modes.len().is_multiple_of(mode) || grid.modes.len() > MAX_MODES * mode {
        return Err(format!(
            "expected at most {MAX_MODES} modes of {mode} values in the variation model, found {} values",
            grid.modes.len()
        ));
    }
    // With modes of length 1, removing one never enlarges the residuals.
    let unit = |mode: &[f32]| {
        let length: f32 = mode.iter().map(|value| value * value).sum();
        (length - 1.0).abs() <= UNIT_TOLERANCE
    };
    if !grid.modes.chunks_exact(mode).all(unit) {
        return Err(
            "expected modes of length 1 in the variation model, found another length".to_owned(),
        );
    }
    let finite = [&grid.mean, &grid.whitening, &grid.distance_mean]
        .into_iter()
        .flatten()
        .all(|value| value.abs() <= LARGEST_VALUE);
    let divisors = grid.scale.iter().chain(&grid.distance_spread);
    let mut divisors =
        divisors.map(|divisor| (1.0 / LARGEST_VALUE..=LARGEST_VALUE).contains(divisor));
    if !finite || !divisors.all(|fits| fits) {
        return Err(
            "expected values of at most 1e6, and scales and spreads from 1e-6 to 1e6, in the variation model, found others"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::texture::GREY_FEATURES;
    use super::*;

    /// A model of two cells a side and two features.
    const MEAN: [f32; 8] = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
    const SCALE: [f32; 2] = [0.5, 5.0];

    #[test]
    fn a_mode_explains_whole_parts_and_no_single_cell() {
        // Parts are brighter or darker as a whole.
        let half = 0.5f32;
        let mode = [half, 0.0, half, 0.0, half, 0.0, half, 0.0];
        let brighter = |by: [f32; 4]| {
            let mut values = MEAN;
            (0..4).for_each(|cell| values[2 * cell] += by[cell]);
            residuals(&MEAN, &SCALE, &mode, &values)
        };
        assert_eq!(brighter([3.0; 4]), [0.0; 8]);
        // One cell deviates by 2, which is 4 scales; a quarter of that belongs to the mode.
        let left = brighter([0.0, 2.0, 0.0, 0.0]);
        assert_eq!(left, [-1.0, 0.0, 3.0, 0.0, -1.0, 0.0, -1.0, 0.0]);
        let without = residuals(
            &MEAN,
            &SCALE,
            &[],
            &[1.0, 15.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0],
        );
        assert_eq!(without, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn distances_are_mahalanobis() {
        // Covariance [[4, 2], [2, 2]] = L·Lᵀ with L = [[2, 0], [1, 1]] and L⁻¹ = [[1/2, 0], [-1/2,
        // 1]]. For (2, 3) it gives (2, 3)·[[0.5, -0.5], [-0.5, 1]]·(2, 3) = 5, over two features.
        let found: Vec<f32> = distances(2, &[0.5, -0.5, 1.0], &[2.0, 3.0]).collect();
        assert!((found[0] - 2.5f32.sqrt()).abs() < 1e-6, "{found:?}");
        assert_eq!(found.len(), 1);
    }

    /// A mode in which the chosen values change by the same amount.
    fn unit_mode(values: usize, changes: impl Fn(usize) -> bool) -> Vec<f32> {
        let chosen = (0..values).filter(|&index| changes(index)).count();
        let value = 1.0 / (chosen as f32).sqrt();
        let mode = (0..values).map(|index| if changes(index) { value } else { 0.0 });
        mode.collect()
    }

    /// Planes of one level, and a map of one score.
    fn flat(level: f32, score: f32) -> (Planes, ScoreMap) {
        let (width_px, height_px) = (64, 64);
        let planes = Planes {
            channels: 3,
            width_px,
            height_px,
            data: vec![level; 3 * width_px * height_px],
        };
        let map = ScoreMap {
            width_px,
            height_px,
            data: vec![score; width_px * height_px],
        };
        (planes, map)
    }

    /// A model of good parts like these, without correlations and with distances of 2 ± 0.5.
    fn model_of(planes: &Planes, scores: &ScoreMap, modes: bool) -> VariationModel {
        let found = grid_features(planes, false, scores);
        let grid = |(side, found): (usize, CellFeatures)| {
            let triangle = (1..=GREY_FEATURES).flat_map(|row| (1..=row).map(move |at| row == at));
            let identity: Vec<f32> = triangle.map(|on| f32::from(u8::from(on))).collect();
            VariationGrid {
                side: side as u16,
                features: GREY_FEATURES as u16,
                // The score, the first feature, varies over the whole frame.
                modes: if modes {
                    unit_mode(found.values.len(), |at| at % GREY_FEATURES == 0)
                } else {
                    Vec::new()
                },
                mean: found.values,
                scale: vec![0.1; GREY_FEATURES],
                whitening: identity.repeat(side * side),
                distance_mean: vec![2.0; side * side],
                distance_spread: vec![0.5; side * side],
            }
        };
        VariationModel {
            grids: GRIDS.into_iter().zip(found).map(grid).collect(),
            frames: 100,
        }
    }

    #[test]
    fn deviations_are_in_spreads_and_modes_are_none() {
        let (planes, good) = flat(0.2, 0.5);
        let (_, louder) = flat(0.2, 0.9);
        let map = |modes: bool, scores: &ScoreMap| {
            let model = model_of(&planes, &good, modes);
            check(&model, false).unwrap();
            deviations(
                &model,
                &grid_features(&planes, false, scores),
                None,
                [64; 2],
            )
            .data
        };
        let near = |map: Vec<f32>, expected: f32| {
            let far = map.iter().map(|value| (value - expected).abs());
            let far = far.fold(0.0f32, f32::max);
            assert!(far < 1e-3, "expected {expected}, found {}", map[0]);
        };
        // No deviation: a distance of 0 is 4 spreads below the mean, and ln(1 + e^-4) = 0.01815.
        near(map(false, &good), 0.018_15);
        near(map(true, &good), 0.018_15);
        // The score's logarithm deviates by ln(0.92 / 0.52) = 0.57054, which is 5.7054 scales; over
        // √7 that is 2.1565, (2.1565 - 2) / 0.5 = 0.3129 spreads, and ln(1 + e^0.3129) = 0.8617.
        // The deviation is the same everywhere, so a mode explains it.
        near(map(false, &louder), 0.861_7);
        near(map(true, &louder), 0.018_15);
        // A deviation of one corner only.
        let mut corner = good.clone();
        for row in corner.data.chunks_exact_mut(64).take(8) {
            row[..8].fill(0.9);
        }
        let found = map(true, &corner);
        assert!(found[0] > 0.5, "{}", found[0]);
        assert!(found[64 * 64 - 1] < 0.05, "{}", found[64 * 64 - 1]);
    }

    #[test]
    fn nan_is_far_off() {
        let (planes, good) = flat(0.2, 0.5);
        let mut model = model_of(&planes, &good, true);
        // `check` would refuse such a package.
        model.grids[0].modes.fill(f32::NAN);
        let found = deviations(&model, &grid_features(&planes, false, &good), None, [64; 2]);
        assert!(
            found.data.iter().all(|&value| value > 1e5),
            "{}",
            found.data[0]
        );
    }

    #[test]
    fn a_model_of_another_shape_or_without_bounds_is_refused() {
        let grid = |side: usize| VariationGrid {
            side: side as u16,
            features: GREY_FEATURES as u16,
            mean: vec![0.0; side * side * GREY_FEATURES],
            scale: vec![1.0; GREY_FEATURES],
            modes: unit_mode(side * side * GREY_FEATURES, |_| true).repeat(3),
            whitening: vec![0.5; side * side * GREY_FEATURES * (GREY_FEATURES + 1) / 2],
            distance_mean: vec![1.0; side * side],
            distance_spread: vec![0.3; side * side],
        };
        let model = VariationModel {
            grids: GRIDS.map(grid).to_vec(),
            frames: 100,
        };
        check(&model, false).unwrap();
        let refused = |change: fn(&mut VariationModel), word: &str| {
            let mut model = model.clone();
            change(&mut model);
            let error = check(&model, false).unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        assert!(check(&model, true).unwrap_err().contains("features"));
        refused(|model| model.grids.truncate(1), "[16, 32]");
        refused(|model| model.grids[0].scale.clear(), "scales");
        refused(
            |model| model.grids[1].distance_spread[7] = 0.0,
            "spreads from",
        );
        refused(|model| model.grids[1].scale[0] = f32::NAN, "scales");
        refused(|model| model.grids[1].modes[0] = 3.0, "modes of length 1");
        refused(
            |model| {
                model.grids[0]
                    .modes
                    .iter_mut()
                    .for_each(|value| *value *= 1.1)
            },
            "modes of length 1",
        );
        refused(
            |model| model.grids[0].modes[5] = f32::NAN,
            "modes of length 1",
        );
        refused(|model| model.grids[1].modes.truncate(9), "found 9 values");
        refused(
            |model| model.grids[0].modes = vec![0.0; 65 * 256 * GREY_FEATURES],
            "at most 64 modes",
        );
    }
}
