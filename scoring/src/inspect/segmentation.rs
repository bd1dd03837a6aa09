//! The input of a segmentation network ([`SegmentationNetwork`]) and the meaning of its logits.
//!
//! The network takes the whole frame at once, resized to [`SIDE_PX`]: the brightness of each pixel,
//! its contrast against its surroundings, each cell's texture ([`super::texture`]) relative to good
//! frames, and the cell's position. Not in the paper (**ours**).

use proto::manifest::SegmentationNetwork;

use super::cells::{enlarge, reduce};
use super::grid::{FINEST, GRIDS, LARGEST_VALUE, clamp_deviation};
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::texture::{CellFeatures, cell_features, feature_count, grey};

/// Side of the resized frame in pixels.
pub const SIDE_PX: usize = 256;
/// Cells along a side of the input; each cell holds the values of its pixels.
pub const CELLS: usize = 64;
/// Side of such a cell in pixels.
const CELL_PX: usize = SIDE_PX / CELLS;
/// Planes of the input besides texture: two values for each pixel of a cell, and the cell's
/// distance from the middle, across and down.
const DETAIL_PLANES: usize = 2 * CELL_PX * CELL_PX + 2;
/// Added to a brightness from 0 to 1 before its logarithm is taken: darker pixels count as black.
const BLACK_LEVEL: f32 = 0.05;
/// Divides logarithms of brightness: about their standard deviation in an image.
const LOG_SCALE: f32 = 0.35;
/// Added to the contrast around a pixel, in brightness: about the noise of a sensor.
const LEAST_CONTRAST: f32 = 0.01;
/// Largest weight of a segmentation network.
pub const LARGEST_WEIGHT: f32 = 10.0;
/// Standard deviation of the Gaussian that averages a cell's surroundings, in cells of the finest
/// grid.
const SURROUNDINGS_SIGMA: f32 = 3.0;
/// Radius of that Gaussian in cells.
const SURROUNDINGS_CELLS: usize = (3.0 * SURROUNDINGS_SIGMA) as usize;

/// Planes of the input for frames in colour or grey.
pub fn plane_count(colour: bool) -> usize {
    DETAIL_PLANES + texture_count(colour)
}

/// Texture features of a cell: all features but the score, which the network does not need.
pub fn texture_count(colour: bool) -> usize {
    feature_count(colour) - 1
}

/// Resizes a frame in [-1, 1] to [`SIDE_PX`] × [`SIDE_PX`]: one plane, or three in colour.
pub fn resized(planes: &Planes, colour: bool) -> Planes {
    let size = [planes.width_px, planes.height_px];
    let channels = if colour { 3 } else { 1 };
    let resized = |channel: usize| {
        let plane = planes.plane(channel);
        match size.iter().all(|side| *side >= SIDE_PX) {
            true => reduce(plane, size, [SIDE_PX; 2]),
            false => enlarge(plane, size, SIDE_PX, SIDE_PX),
        }
    };
    Planes {
        channels,
        width_px: SIDE_PX,
        height_px: SIDE_PX,
        data: (0..channels).flat_map(resized).collect(),
    }
}

/// Texture features of [`FINEST`] × [`FINEST`] cells of a resized frame, one plane after the other.
pub fn texture(resized: &Planes, colour: bool) -> Vec<f32> {
    let nothing = ScoreMap::zeros(resized.width_px, resized.height_px);
    let [found] = cell_features(resized, colour, &nothing, [FINEST]);
    texture_planes(&found)
}

/// The same from features that were computed for the variation model
/// ([`super::variation::grid_features`]), which saves computing them again. `None` if the frame had
/// to be resized, since they then differ.
pub fn texture_of_features(
    planes: &Planes,
    found: &[CellFeatures; GRIDS.len()],
) -> Option<Vec<f32>> {
    let finest = GRIDS.iter().position(|side| *side == FINEST)?;
    let same = [planes.width_px, planes.height_px] == [SIDE_PX; 2];
    same.then(|| texture_planes(&found[finest]))
}

/// All features but the first, which is the score, one plane after the other.
fn texture_planes(found: &CellFeatures) -> Vec<f32> {
    let plane = |feature: usize| found.values.iter().skip(feature).step_by(found.count);
    (1..found.count).flat_map(plane).copied().collect()
}

/// Means over windows of 12 pixels around every pixel.
fn local_means(plane: &[f32]) -> Vec<f32> {
    let cells = reduce(plane, [SIDE_PX; 2], [CELLS; 2]);
    let sum = |values: &[f32], step: usize, at: usize, place: usize| {
        let before = if place == 0 { at } else { at - step };
        let after = if place + 1 == CELLS { at } else { at + step };
        values[before] + values[at] + values[after]
    };
    let across: Vec<f32> = (0..cells.len())
        .map(|at| sum(&cells, 1, at, at % CELLS))
        .collect();
    let means = (0..cells.len()).map(|at| sum(&across, CELLS, at, at / CELLS) / 9.0);
    enlarge(&means.collect::<Vec<f32>>(), [CELLS; 2], SIDE_PX, SIDE_PX)
}

/// Space to depth: appends one plane for each pixel of a cell.
fn space_to_depth(pixels: &[f32], out: &mut Vec<f32>) {
    for (y, x) in (0..CELL_PX).flat_map(|y| (0..CELL_PX).map(move |x| (y, x))) {
        let rows = pixels.chunks_exact(SIDE_PX).skip(y).step_by(CELL_PX);
        out.extend(rows.flat_map(|row| row.iter().skip(x).step_by(CELL_PX)));
    }
}

/// The network's input, [`plane_count`] × [`CELLS`] × [`CELLS`] values, from a resized frame and
/// its [`texture`]. `mean` (as many values as `texture`) and `scale` (one for each feature)
/// describe good frames' texture.
pub fn input(
    mean: &[f32],
    scale: &[f32],
    resized: &Planes,
    texture: &[f32],
    colour: bool,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(plane_count(colour) * CELLS * CELLS);
    let brightness: Vec<f32> = grey(resized, colour)
        .iter()
        .map(|value| (value + 1.0) / 2.0)
        .collect();
    let logarithms: Vec<f32> = brightness
        .iter()
        .map(|value| (value.max(0.0) + BLACK_LEVEL).ln())
        .collect();
    let middle = logarithms.iter().sum::<f32>() / logarithms.len() as f32;
    let exposed = logarithms.iter().map(|value| (value - middle) / LOG_SCALE);
    space_to_depth(&exposed.collect::<Vec<f32>>(), &mut out);
    let around = local_means(&brightness);
    let deviation: Vec<f32> = brightness.iter().zip(&around).map(|(a, b)| a - b).collect();
    let squares: Vec<f32> = deviation
        .iter()
        .map(|deviation| deviation * deviation)
        .collect();
    let contrast = local_means(&squares);
    let deviation = deviation.iter().zip(&contrast);
    let deviation = deviation
        .map(|(deviation, squares)| deviation / (squares.max(0.0).sqrt() + LEAST_CONTRAST));
    space_to_depth(&deviation.collect::<Vec<f32>>(), &mut out);
    // -1 in the middle and 1 at the border.
    let place = |at: usize| ((2 * at + 1) as f32 / CELLS as f32 - 1.0).abs() * 2.0 - 1.0;
    let cells = 0..CELLS * CELLS;
    out.extend(cells.clone().map(|cell| place(cell % CELLS)));
    out.extend(cells.map(|cell| place(cell / CELLS)));
    let area = FINEST * FINEST;
    let planes = texture.chunks_exact(area).zip(mean.chunks_exact(area));
    for ((found, mean), scale) in planes.zip(scale) {
        // Each cell of the coarser grid is repeated.
        let times = CELLS / FINEST;
        out.extend((0..CELLS * CELLS).map(|cell| {
            let at = cell / CELLS / times * FINEST + cell % CELLS / times;
            (found[at] - mean[at]) / scale
        }));
    }
    out
}

/// A segmentation network's logits of [`FINEST`] × [`FINEST`] cells as standard deviations above
/// good frames' logits, times the network's weight.
pub fn segmentation_deviations(network: &SegmentationNetwork, logits: &[f32]) -> Vec<f32> {
    let deviation = |logit: &f32| (logit - network.logit_mean) / network.logit_spread;
    logits
        .iter()
        .map(|logit| network.weight * clamp_deviation(deviation(logit)))
        .collect()
}

/// Local contrast: subtracts from each deviation a fraction
/// ([`SegmentationNetwork::local_contrast`]) of the smoothed deviations around it. Good parts have
/// large stains too, which differ little from place to place.
pub(super) fn subtract_surroundings(local_contrast: f32, deviation: &mut [f32]) {
    if local_contrast == 0.0 {
        return;
    }
    // The border is mirrored.
    let inside = |at: usize| match at {
        before if before < SURROUNDINGS_CELLS => SURROUNDINGS_CELLS - 1 - before,
        at if at < SURROUNDINGS_CELLS + FINEST => at - SURROUNDINGS_CELLS,
        beyond => 2 * FINEST + SURROUNDINGS_CELLS - 1 - beyond,
    };
    let side = FINEST + 2 * SURROUNDINGS_CELLS;
    let cells = (0..side).flat_map(|y| (0..side).map(move |x| inside(y) * FINEST + inside(x)));
    let mut around = ScoreMap {
        width_px: side,
        height_px: side,
        data: cells.map(|cell| deviation[cell]).collect(),
    };
    around.smooth(SURROUNDINGS_SIGMA);
    let rows = around.data.chunks_exact(side).skip(SURROUNDINGS_CELLS);
    let rows = rows.map(|row| &row[SURROUNDINGS_CELLS..SURROUNDINGS_CELLS + FINEST]);
    for (deviation, around) in deviation.iter_mut().zip(rows.flatten()) {
        *deviation -= local_contrast * around;
    }
}

/// Checks a network for frames in colour or grey. The error says what is wrong with it.
pub fn check(network: &SegmentationNetwork, colour: bool) -> Result<(), String> {
    let cells = FINEST * FINEST;
    let textures = texture_count(colour);
    let lengths = [
        network.mean.len(),
        network.scale.len(),
        network.golden_logits.len(),
    ];
    let expected = [textures * cells, textures, cells];
    if lengths != expected {
        return Err(format!(
            "expected a segmentation network with {expected:?} means, scales and golden logits, found {lengths:?}"
        ));
    }
    let values = network.mean.iter().chain(&network.golden_logits);
    let finite = values
        .chain([&network.logit_mean])
        .all(|value| value.abs() <= LARGEST_VALUE);
    let divisors = network.scale.iter().chain([&network.logit_spread]);
    let divisors = divisors
        .into_iter()
        .all(|divisor| (1.0 / LARGEST_VALUE..=LARGEST_VALUE).contains(divisor));
    let weight = (0.0..=LARGEST_WEIGHT).contains(&network.weight);
    let local_contrast = (0.0..=1.0).contains(&network.local_contrast);
    let tolerance = (0.0..=LARGEST_VALUE).contains(&network.golden_tolerance);
    if !(finite && divisors && weight && local_contrast && tolerance) {
        return Err(format!(
            "expected a segmentation network with values of at most 1e6, scales and a spread from 1e-6, a weight of 0 to {LARGEST_WEIGHT} and a local contrast of 0 to 1, found others"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::texture::tests::formula;
    use crate::inspect::variation::grid_features;

    /// The expected values come from numpy alone (tests/fixtures/make_segmentation_input.py).
    /// Another order or weight requires a new MANIFEST_FORMAT.
    #[test]
    fn the_input_is_that_of_the_manifest_format() {
        let expected = include_str!("../../tests/fixtures/segmentation_input.json");
        let expected: Vec<(usize, f32)> = serde_json::from_str(expected).unwrap();
        let seen = resized(&formula(300, 270), true);
        let textures = texture_count(true);
        let area = FINEST * FINEST;
        let mean = vec![0.0; textures * area];
        let found = input(&mean, &[1.0; 8], &seen, &texture(&seen, true), true);
        assert_eq!(
            (found.len(), textures),
            (plane_count(true) * CELLS * CELLS, 8)
        );
        for (at, expected) in expected {
            let deviation = (found[at] - expected).abs();
            assert!(
                deviation < 2e-4,
                "value {at}: {} instead of {expected}",
                found[at]
            );
        }
    }

    #[test]
    fn textures_are_deviations_from_good_ones_each_for_two_by_two_cells() {
        let seen = resized(&formula(256, 256), false);
        let found = texture(&seen, false);
        let area = FINEST * FINEST;
        assert_eq!(found.len(), 6 * area);
        let mean: Vec<f32> = found.iter().map(|value| value - 3.0).collect();
        let scale = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let of = |mean: &[f32], scale: &[f32]| {
            input(mean, scale, &seen, &found, false).split_off(34 * CELLS * CELLS)
        };
        for (plane, scale) in of(&mean, &scale).chunks_exact(CELLS * CELLS).zip(scale) {
            assert!(plane.iter().all(|value| (value - 3.0 / scale).abs() < 1e-4));
        }
        let plain = of(&vec![0.0; 6 * area], &[1.0; 6]);
        for (x, y) in [(0, 0), (1, 1), (2, 0), (63, 63), (10, 33)] {
            let expected = found[2 * area + y / 2 * FINEST + x / 2];
            assert_eq!(plain[(2 * CELLS + y) * CELLS + x], expected);
        }
    }

    #[test]
    fn texture_of_the_variation_models_features_is_the_computed_one() {
        for colour in [false, true] {
            let planes = formula(256, 256);
            let scores = ScoreMap {
                width_px: 256,
                height_px: 256,
                data: planes.plane(0).iter().map(|value| value + 1.0).collect(),
            };
            let found = texture_of_features(&planes, &grid_features(&planes, colour, &scores));
            assert_eq!(found, Some(texture(&resized(&planes, colour), colour)));
            let other = formula(256, 264);
            let scores = ScoreMap::zeros(256, 264);
            let found = texture_of_features(&other, &grid_features(&other, colour, &scores));
            assert_eq!(found, None);
        }
    }

    /// The expected values come from scipy.ndimage.gaussian_filter(off, 3, mode="reflect",
    /// truncate=3), half of it subtracted.
    #[test]
    fn a_cells_surroundings_are_subtracted() {
        let wave = |at: usize| (at as f64 * 0.7).sin() as f32 * 3.0;
        let deviation = |at: usize| wave(at) + if at == 500 { 5.0 } else { 0.0 };
        let deviation: Vec<f32> = (0..FINEST * FINEST).map(deviation).collect();
        let mut found = deviation.clone();
        subtract_surroundings(0.0, &mut found);
        assert_eq!(found, deviation);
        subtract_surroundings(0.5, &mut found);
        let expected = [
            (0, -0.07384),
            (31, 0.75937),
            (32, -1.25854),
            (500, 2.07894),
            (501, -2.79033),
            (532, 2.93594),
            (700, -0.26526),
            (992, -0.22452),
            (1023, -0.46089),
        ];
        for (at, expected) in expected {
            assert!(
                (found[at] - expected).abs() < 1e-4,
                "cell {at}: {}",
                found[at]
            );
        }
    }

    #[test]
    fn small_frames_are_enlarged_and_large_ones_reduced() {
        for side in [[65, 300], [512, 512], [300, 1000]] {
            let seen = resized(&formula(side[0], side[1]), false);
            assert_eq!((seen.channels, seen.data.len()), (1, 256 * 256));
            assert!(seen.data.iter().all(|value| (-1.0..=1.0).contains(value)));
        }
        let half = resized(&formula(512, 512), false).data[0];
        let four = formula(512, 512).data;
        assert!((half - (four[0] + four[1] + four[512] + four[513]) / 4.0).abs() < 1e-6);
    }
}
