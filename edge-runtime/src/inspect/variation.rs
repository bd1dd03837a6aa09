//! A variation model, as machine vision calls what it compares parts with that always lie alike: how good parts look at every
//! place, and how they vary. Whole parts differ from each other in a few ways (exposure, how they lie, their grain): these modes
//! are taken out of a frame's features ([`super::texture`]), the network's score among them, and what is left is compared with a
//! Gaussian at every cell. The map then says how far from good a place is, in standard deviations of what good parts are off.
//! **Ours**: per place as PaDiM has it (Defard et al. 2021), modes as eigenfaces have them (Turk and Pentland 1991), of features
//! that need no other network. `host-trainer` fits it; here it is applied.

use proto::manifest::{VariationGrid, VariationModel};

use super::cells::enlarge;
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::texture::{COLOUR_FEATURES, CellFeatures, GREY_FEATURES, cell_features};

/// Cells along a side of the two grids: large uneven areas, and what is smaller.
pub const GRIDS: [usize; 2] = [16, 32];
/// Most modes of a grid.
pub const MOST_MODES: usize = 64;
/// No value of a model is larger: a feature is of the order of 1, a weight at most one over the root of the least variance that
/// `host-trainer` leaves (1e-6).
const LARGEST: f32 = 1e6;

/// Deviations beyond that tell nothing more, and stay finite when they are added up.
const MOST: f32 = 1e6;

/// Features of a cell of frames in colour or grey.
pub fn features_of(colour: bool) -> usize {
    if colour {
        COLOUR_FEATURES
    } else {
        GREY_FEATURES
    }
}

/// What a variation model looks at in a frame of values in [-1, 1] and its scores, one for each of [`GRIDS`].
pub fn look(planes: &Planes, colour: bool, scores: &ScoreMap) -> [CellFeatures; GRIDS.len()] {
    cell_features(planes, colour, scores, GRIDS)
}

/// What the modes of a grid leave over of a frame's features: deviations from the mean, divided by the scale, cell after cell.
pub fn left_over(mean: &[f32], scale: &[f32], modes: &[f32], values: &[f32]) -> Vec<f32> {
    let scales = scale.iter().cycle();
    let deviations = values.iter().zip(mean).zip(scales);
    let mut left: Vec<f32> = deviations
        .map(|((value, mean), scale)| (value - mean) / scale)
        .collect();
    // At right angles to each other: the order changes nothing but rounding.
    for mode in modes.chunks_exact(values.len()) {
        let amount: f32 = left.iter().zip(mode).map(|(left, mode)| left * mode).sum();
        left.iter_mut()
            .zip(mode)
            .for_each(|(left, mode)| *left -= amount * mode);
    }
    left
}

/// Mahalanobis distance of what is left of each cell's features over the square root of their number: about 1 for good ones.
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
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// How far a frame is from good at every pixel, by its scores and its looks: standard deviations above what good frames are off
/// there, bent so that none is negative (a good place has about 0.7).
pub fn deviations(
    model: &VariationModel,
    planes: &Planes,
    colour: bool,
    scores: &ScoreMap,
) -> ScoreMap {
    let found = look(planes, colour, scores);
    let finest = GRIDS.into_iter().max().unwrap_or(1);
    let mut sum = vec![0.0f32; finest * finest];
    for (grid, found) in model.grids.iter().zip(found) {
        let left = left_over(&grid.mean, &grid.scale, &grid.modes, &found.values);
        let off = distances(found.count, &grid.whitening, &left);
        let normal = grid.distance_mean.iter().zip(&grid.distance_spread);
        let off: Vec<f32> = off
            .zip(normal)
            .map(|(distance, (mean, spread))| ((distance - mean) / spread).clamp(-MOST, MOST))
            .collect();
        let side = usize::from(grid.side);
        let off = enlarge(&off, [side; 2], finest, finest);
        sum.iter_mut().zip(off).for_each(|(sum, off)| *sum += off);
    }
    let share = 1.0 / model.grids.len().max(1) as f32;
    // Above 3 as good as the deviation itself; below 0, where good places are, never negative and still in their order.
    sum.iter_mut().for_each(|sum| *sum = softplus(*sum * share));
    ScoreMap {
        width_px: scores.width_px,
        height_px: scores.height_px,
        data: enlarge(&sum, [finest; 2], scores.width_px, scores.height_px),
    }
}

/// Says what is wrong with a model for frames in colour or grey, if anything is.
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
        .try_for_each(|grid| check_grid(grid, features_of(colour)))
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
    if !grid.modes.len().is_multiple_of(mode) || grid.modes.len() > MOST_MODES * mode {
        return Err(format!(
            "expected at most {MOST_MODES} modes of {mode} values in the variation model, found {} values",
            grid.modes.len()
        ));
    }
    // 1 but for rounding; sums over a frame's features stay finite.
    let small = grid.modes.iter().all(|value| value.abs() <= 1.1);
    let finite = [&grid.mean, &grid.whitening, &grid.distance_mean]
        .into_iter()
        .flatten()
        .all(|value| value.abs() <= LARGEST);
    let divisors = grid.scale.iter().chain(&grid.distance_spread);
    let mut divisors = divisors.map(|divisor| (1.0 / LARGEST..=LARGEST).contains(divisor));
    if !small || !finite || !divisors.all(|fits| fits) {
        return Err(
            "expected values of at most 1e6, modes of at most 1, and scales and spreads from 1e-6 in the variation model"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two cells a side and two features.
    const MEAN: [f32; 8] = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
    const SCALE: [f32; 2] = [0.5, 5.0];

    #[test]
    fn a_mode_explains_what_whole_parts_have_in_common_and_no_single_cell() {
        // Parts are brighter or darker as a whole.
        let half = 0.5f32;
        let mode = [half, 0.0, half, 0.0, half, 0.0, half, 0.0];
        let brighter = |by: [f32; 4]| {
            let mut values = MEAN;
            (0..4).for_each(|cell| values[2 * cell] += by[cell]);
            left_over(&MEAN, &SCALE, &mode, &values)
        };
        assert_eq!(brighter([3.0; 4]), [0.0; 8]);
        // One cell by 2, 4 scales: a quarter of it is the mode's.
        let left = brighter([0.0, 2.0, 0.0, 0.0]);
        assert_eq!(left, [-1.0, 0.0, 3.0, 0.0, -1.0, 0.0, -1.0, 0.0]);
        let without = left_over(
            &MEAN,
            &SCALE,
            &[],
            &[1.0, 15.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0],
        );
        assert_eq!(without, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn distances_are_mahalanobis() {
        // Covariance [[4, 2], [2, 2]] = L·Lᵀ, L = [[2, 0], [1, 1]], L⁻¹ = [[1/2, 0], [-1/2, 1]]; of (2, 3) it is
        // (2, 3)·[[0.5, -0.5], [-0.5, 1]]·(2, 3) = 5, over two features.
        let found: Vec<f32> = distances(2, &[0.5, -0.5, 1.0], &[2.0, 3.0]).collect();
        assert!((found[0] - 2.5f32.sqrt()).abs() < 1e-6, "{found:?}");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_model_of_another_shape_or_without_bounds_is_refused() {
        let grid = |side: usize| VariationGrid {
            side: side as u16,
            features: GREY_FEATURES as u16,
            mean: vec![0.0; side * side * GREY_FEATURES],
            scale: vec![1.0; GREY_FEATURES],
            modes: vec![0.01; 3 * side * side * GREY_FEATURES],
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
        refused(|model| model.grids[1].modes[0] = 3.0, "modes of at most 1");
        refused(|model| model.grids[1].modes.truncate(9), "found 9 values");
        refused(
            |model| model.grids[0].modes = vec![0.0; 65 * 256 * GREY_FEATURES],
            "at most 64 modes",
        );
    }
}
