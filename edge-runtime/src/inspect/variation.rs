//! A variation model, as machine vision calls what it compares parts with that always lie alike: how good parts look at every
//! place, and how they vary. Whole parts differ from each other in a few ways (exposure, how they lie, their grain): these modes
//! are taken out of a frame's features ([`super::texture`]), the network's score among them, and what is left is compared with a
//! Gaussian at every cell. The map then says how far from good a place is, in standard deviations of what good parts are off.
//! **Ours**: per place as PaDiM has it (Defard et al. 2021), modes as eigenfaces have them (Turk and Pentland 1991), of features
//! that need no other network. `host-trainer` fits it; here it is applied.

use proto::manifest::{AreaNetwork, VariationGrid, VariationModel};

use super::areas::{area_deviations, less_surroundings};
use super::cells::enlarge;
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::texture::{COLOUR_FEATURES, CellFeatures, GREY_FEATURES, cell_features};

/// Cells along a side of the two grids: large uneven areas, and what is smaller.
pub const GRIDS: [usize; 2] = [16, FINEST];
/// Of the finest, which maps are made of and area networks speak of.
pub const FINEST: usize = 32;
/// Most modes of a grid.
pub const MOST_MODES: usize = 64;
/// No value of a model is larger: a feature is of the order of 1, a weight at most one over the root of the least variance that
/// `host-trainer` leaves (1e-6).
const LARGEST: f32 = 1e6;

/// A mode's squared length may be off 1 by that: rounding of thousands of squares.
const UNIT_TOLERANCE: f32 = 1e-3;

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

/// A deviation in spreads, bounded. What is no number is far off, never good.
pub(super) fn bounded(off: f32) -> f32 {
    if off.is_nan() {
        MOST
    } else {
        off.clamp(-MOST, MOST)
    }
}

/// How far a frame is from good at every pixel, by its scores and its looks, and by an area network's logits ([`super::areas`]) where there
/// is one: standard deviations above what good frames are off there, bent so that none is negative (a
/// good place has about 0.7).
pub fn deviations(
    model: &VariationModel,
    found: &[CellFeatures; GRIDS.len()],
    areas: Option<(&AreaNetwork, &[f32])>,
    [width_px, height_px]: [usize; 2],
) -> ScoreMap {
    let mut sum = vec![0.0f32; FINEST * FINEST];
    for (grid, found) in model.grids.iter().zip(found) {
        let left = left_over(&grid.mean, &grid.scale, &grid.modes, &found.values);
        let off = distances(found.count, &grid.whitening, &left);
        let normal = grid.distance_mean.iter().zip(&grid.distance_spread);
        let off: Vec<f32> = off
            .zip(normal)
            .map(|(distance, (mean, spread))| bounded((distance - mean) / spread))
            .collect();
        let side = usize::from(grid.side);
        let off = enlarge(&off, [side; 2], FINEST, FINEST);
        sum.iter_mut().zip(off).for_each(|(sum, off)| *sum += off);
    }
    let share = 1.0 / model.grids.len().max(1) as f32;
    sum.iter_mut().for_each(|sum| *sum *= share);
    if let Some((network, logits)) = areas {
        for (sum, more) in sum.iter_mut().zip(area_deviations(network, logits)) {
            *sum += more;
        }
        less_surroundings(network.surround, &mut sum);
    }
    // Above 3 as good as the deviation itself; below 0, where good places are, never negative and still in their order.
    sum.iter_mut().for_each(|sum| *sum = softplus(*sum));
    ScoreMap {
        width_px,
        height_px,
        data: enlarge(&sum, [FINEST; 2], width_px, height_px),
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
    // Of length 1, so that taking a mode out never enlarges what is left.
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
        .all(|value| value.abs() <= LARGEST);
    let divisors = grid.scale.iter().chain(&grid.distance_spread);
    let mut divisors = divisors.map(|divisor| (1.0 / LARGEST..=LARGEST).contains(divisor));
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

    /// A mode in which the chosen values change alike.
    fn unit_mode(values: usize, changes: impl Fn(usize) -> bool) -> Vec<f32> {
        let chosen = (0..values).filter(|&index| changes(index)).count();
        let value = 1.0 / (chosen as f32).sqrt();
        let mode = (0..values).map(|index| if changes(index) { value } else { 0.0 });
        mode.collect()
    }

    /// Planes of one level, and a map of nothing but `score`.
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

    /// Of good parts that look like these, without correlations, and whose distances are 2 ± 0.5.
    fn model_of(planes: &Planes, scores: &ScoreMap, modes: bool) -> VariationModel {
        let found = look(planes, false, scores);
        let grid = |(side, found): (usize, CellFeatures)| {
            let triangle = (1..=GREY_FEATURES).flat_map(|row| (1..=row).map(move |at| row == at));
            let identity: Vec<f32> = triangle.map(|on| f32::from(u8::from(on))).collect();
            VariationGrid {
                side: side as u16,
                features: GREY_FEATURES as u16,
                // The score, the first feature, changes over the whole frame.
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
    fn deviations_are_in_spreads_and_what_whole_parts_have_in_common_is_none() {
        let (planes, good) = flat(0.2, 0.5);
        let (_, louder) = flat(0.2, 0.9);
        let map = |modes: bool, scores: &ScoreMap| {
            let model = model_of(&planes, &good, modes);
            check(&model, false).unwrap();
            deviations(&model, &look(&planes, false, scores), None, [64; 2]).data
        };
        let near = |map: Vec<f32>, expected: f32| {
            let far = map.iter().map(|value| (value - expected).abs());
            let far = far.fold(0.0f32, f32::max);
            assert!(far < 1e-3, "expected {expected}, found {}", map[0]);
        };
        // Nothing is off: a distance of 0, 4 spreads below the mean; ln(1 + e^-4) = 0.01815.
        near(map(false, &good), 0.018_15);
        near(map(true, &good), 0.018_15);
        // The score's logarithm is off by ln(0.92 / 0.52) = 0.57054, 5.7054 scales; over √7 2.1565, (2.1565 - 2) / 0.5 = 0.3129 spreads;
        // ln(1 + e^0.3129) = 0.8617. It is off alike everywhere, so that a mode explains it.
        near(map(false, &louder), 0.861_7);
        near(map(true, &louder), 0.018_15);
        // In one corner it is off by itself.
        let mut corner = good.clone();
        for row in corner.data.chunks_exact_mut(64).take(8) {
            row[..8].fill(0.9);
        }
        let found = map(true, &corner);
        assert!(found[0] > 0.5, "{}", found[0]);
        assert!(found[64 * 64 - 1] < 0.05, "{}", found[64 * 64 - 1]);
    }

    #[test]
    fn what_is_no_number_is_far_off() {
        let (planes, good) = flat(0.2, 0.5);
        let mut model = model_of(&planes, &good, true);
        // No package gets so far: `check` refuses it.
        model.grids[0].modes.fill(f32::NAN);
        let found = deviations(&model, &look(&planes, false, &good), None, [64; 2]);
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
