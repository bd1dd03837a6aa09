//! What an area network ([`AreaNetwork`]) sees of a frame, and what its logits mean. It sees the whole frame at once, shrunk to
//! [`SIDE_PX`]: each pixel beside its surroundings, each cell's texture ([`super::texture`]) beside what good frames have there, and
//! where the cell is. **Ours**.

use proto::manifest::AreaNetwork;

use super::cells::{enlarge, reduce};
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::texture::{CellFeatures, cell_features, grey};
use super::variation::{FINEST, GRIDS, bounded, features_of};

/// Pixels along a side of what the network sees, whatever the frame's size.
pub const SIDE_PX: usize = 256;
/// Cells along a side of what goes in, each with the values of its pixels.
pub const CELLS: usize = 64;
/// Pixels along a side of such a cell.
const CELL_PX: usize = SIDE_PX / CELLS;
/// Planes of detail: two values a pixel of a cell, and how far the cell is from the middle, across and down.
const DETAIL: usize = 2 * CELL_PX * CELL_PX + 2;
/// Added to a brightness, 0 to 1, before its logarithm is taken: what is darker is black.
const DARKEST: f32 = 0.05;
/// Logarithms of brightness are divided by that: about their standard deviation in a picture.
const LOGARITHM_SCALE: f32 = 0.35;
/// Added to the contrast around a pixel, in brightness: what a sensor's noise amounts to.
const LEAST_CONTRAST: f32 = 0.01;
/// Most that an area network's deviations are multiplied by.
pub const LARGEST_SHARE: f32 = 10.0;
/// Standard deviation, in cells of the finest grid, of the Gaussian that weighs a cell's surroundings.
const SURROUND_CELLS: f32 = 3.0;
/// Cells that it reaches.
const MARGIN: usize = (3.0 * SURROUND_CELLS) as usize;
/// No value of a network is larger.
const LARGEST: f32 = 1e6;

/// Planes that go in, of frames in colour or grey.
pub fn planes_of(colour: bool) -> usize {
    DETAIL + textures_of(colour)
}

/// Features of a cell's texture: all but the score, which the network does not need.
pub fn textures_of(colour: bool) -> usize {
    features_of(colour) - 1
}

/// A frame in [-1, 1] as the network sees it: [`SIDE_PX`] square, one plane or in colour three.
pub fn shrunk(planes: &Planes, colour: bool) -> Planes {
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

/// Texture of each of [`FINEST`] × [`FINEST`] cells of a shrunk frame, plane after plane.
pub fn texture(shrunk: &Planes, colour: bool) -> Vec<f32> {
    let nothing = ScoreMap::zeros(shrunk.width_px, shrunk.height_px);
    let [found] = cell_features(shrunk, colour, &nothing, [FINEST]);
    without_score(&found)
}

/// The same of a frame that the variation model has looked at ([`super::variation::look`]), where that is what it saw: of one that need
/// not be shrunk.
pub fn texture_seen(planes: &Planes, found: &[CellFeatures; GRIDS.len()]) -> Option<Vec<f32>> {
    let finest = GRIDS.iter().position(|side| *side == FINEST)?;
    let same = [planes.width_px, planes.height_px] == [SIDE_PX; 2];
    same.then(|| without_score(&found[finest]))
}

/// Features plane after plane but the first, which is the score.
fn without_score(found: &CellFeatures) -> Vec<f32> {
    let plane = |feature: usize| found.values.iter().skip(feature).step_by(found.count);
    (1..found.count).flat_map(plane).copied().collect()
}

/// Means over windows of 12 pixels around every pixel.
fn surroundings(plane: &[f32]) -> Vec<f32> {
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

/// The values of cells' pixels, one plane for each pixel of a cell.
fn apart(pixels: &[f32], out: &mut Vec<f32>) {
    for (y, x) in (0..CELL_PX).flat_map(|y| (0..CELL_PX).map(move |x| (y, x))) {
        let rows = pixels.chunks_exact(SIDE_PX).skip(y).step_by(CELL_PX);
        out.extend(rows.flat_map(|row| row.iter().skip(x).step_by(CELL_PX)));
    }
}

/// What goes in: [`planes_of`] × [`CELLS`] × [`CELLS`] values, of a shrunk frame and its [`texture`]; `mean` (like that) and `scale`
/// (one a feature) are what good frames' textures are.
pub fn input(
    mean: &[f32],
    scale: &[f32],
    shrunk: &Planes,
    texture: &[f32],
    colour: bool,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(planes_of(colour) * CELLS * CELLS);
    let brightness: Vec<f32> = grey(shrunk, colour)
        .iter()
        .map(|value| (value + 1.0) / 2.0)
        .collect();
    let logarithms: Vec<f32> = brightness
        .iter()
        .map(|value| (value.max(0.0) + DARKEST).ln())
        .collect();
    let middle = logarithms.iter().sum::<f32>() / logarithms.len() as f32;
    let exposed = logarithms
        .iter()
        .map(|value| (value - middle) / LOGARITHM_SCALE);
    apart(&exposed.collect::<Vec<f32>>(), &mut out);
    let around = surroundings(&brightness);
    let off: Vec<f32> = brightness.iter().zip(&around).map(|(a, b)| a - b).collect();
    let squares: Vec<f32> = off.iter().map(|off| off * off).collect();
    let contrast = surroundings(&squares);
    let off = off.iter().zip(&contrast);
    let off = off.map(|(off, squares)| off / (squares.max(0.0).sqrt() + LEAST_CONTRAST));
    apart(&off.collect::<Vec<f32>>(), &mut out);
    // -1 in the middle, 1 at the border.
    let place = |at: usize| ((2 * at + 1) as f32 / CELLS as f32 - 1.0).abs() * 2.0 - 1.0;
    let cells = 0..CELLS * CELLS;
    out.extend(cells.clone().map(|cell| place(cell % CELLS)));
    out.extend(cells.map(|cell| place(cell / CELLS)));
    let area = FINEST * FINEST;
    let planes = texture.chunks_exact(area).zip(mean.chunks_exact(area));
    for ((found, mean), scale) in planes.zip(scale) {
        // Cells of the coarser grid, each as often as it takes.
        let times = CELLS / FINEST;
        out.extend((0..CELLS * CELLS).map(|cell| {
            let at = cell / CELLS / times * FINEST + cell % CELLS / times;
            (found[at] - mean[at]) / scale
        }));
    }
    out
}

/// What a network's logits of [`FINEST`] × [`FINEST`] cells add to how far they are off: standard deviations above what good frames
/// have.
pub fn area_deviations(network: &AreaNetwork, logits: &[f32]) -> Vec<f32> {
    let off = |logit: &f32| (logit - network.logit_mean) / network.logit_spread;
    logits
        .iter()
        .map(|logit| network.share * bounded(off(logit)))
        .collect()
}

/// Takes from how far each of [`FINEST`] × [`FINEST`] cells is off a share of what its surroundings are off ([`AreaNetwork::surround`]): good
/// parts have large stains too, which differ little from place to place.
pub(super) fn less_surroundings(surround: f32, off: &mut [f32]) {
    if surround == 0.0 {
        return;
    }
    // Beyond the border lies what is before it, mirrored.
    let inside = |at: usize| match at {
        before if before < MARGIN => MARGIN - 1 - before,
        at if at < MARGIN + FINEST => at - MARGIN,
        beyond => 2 * FINEST + MARGIN - 1 - beyond,
    };
    let side = FINEST + 2 * MARGIN;
    let cells = (0..side).flat_map(|y| (0..side).map(move |x| inside(y) * FINEST + inside(x)));
    let mut around = ScoreMap {
        width_px: side,
        height_px: side,
        data: cells.map(|cell| off[cell]).collect(),
    };
    around.smooth(SURROUND_CELLS);
    let rows = around.data.chunks_exact(side).skip(MARGIN);
    let rows = rows.map(|row| &row[MARGIN..MARGIN + FINEST]);
    for (off, around) in off.iter_mut().zip(rows.flatten()) {
        *off -= surround * around;
    }
}

/// Says what is wrong with a network for frames in colour or grey, if anything is.
pub fn check(network: &AreaNetwork, colour: bool) -> Result<(), String> {
    let cells = FINEST * FINEST;
    let textures = textures_of(colour);
    let lengths = [
        network.mean.len(),
        network.scale.len(),
        network.golden_logits.len(),
    ];
    let expected = [textures * cells, textures, cells];
    if lengths != expected {
        return Err(format!(
            "expected an area network with {expected:?} means, scales and golden logits, found {lengths:?}"
        ));
    }
    let values = network.mean.iter().chain(&network.golden_logits);
    let finite = values
        .chain([&network.logit_mean])
        .all(|value| value.abs() <= LARGEST);
    let divisors = network.scale.iter().chain([&network.logit_spread]);
    let divisors = divisors
        .into_iter()
        .all(|divisor| (1.0 / LARGEST..=LARGEST).contains(divisor));
    let share = (0.0..=LARGEST_SHARE).contains(&network.share);
    let surround = (0.0..=1.0).contains(&network.surround);
    let tolerance = (0.0..=LARGEST).contains(&network.golden_tolerance);
    if !(finite && divisors && share && surround && tolerance) {
        return Err(format!(
            "expected an area network with values of at most 1e6, scales and a spread from 1e-6, a share of 0 to {LARGEST_SHARE} and of its surroundings 0 to 1, found others"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::texture::tests::formula;
    use crate::inspect::variation::look;

    /// By numpy alone: tests/fixtures/make_area_input.py. Another order or weight needs a new MANIFEST_FORMAT.
    #[test]
    fn what_goes_in_is_that_of_the_format() {
        let expected = include_str!("../../tests/fixtures/area_input.json");
        let expected: Vec<(usize, f32)> = serde_json::from_str(expected).unwrap();
        let seen = shrunk(&formula(300, 270), true);
        let textures = textures_of(true);
        let area = FINEST * FINEST;
        let mean = vec![0.0; textures * area];
        let found = input(&mean, &[1.0; 8], &seen, &texture(&seen, true), true);
        assert_eq!(
            (found.len(), textures),
            (planes_of(true) * CELLS * CELLS, 8)
        );
        for (at, expected) in expected {
            let off = (found[at] - expected).abs();
            assert!(off < 2e-4, "value {at}: {} for {expected}", found[at]);
        }
    }

    #[test]
    fn textures_follow_as_deviations_from_good_ones_for_two_by_two_cells_each() {
        let seen = shrunk(&formula(256, 256), false);
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
    fn what_the_variation_model_looked_at_is_not_looked_at_again() {
        for colour in [false, true] {
            let planes = formula(256, 256);
            let scores = ScoreMap {
                width_px: 256,
                height_px: 256,
                data: planes.plane(0).iter().map(|value| value + 1.0).collect(),
            };
            let found = texture_seen(&planes, &look(&planes, colour, &scores));
            assert_eq!(found, Some(texture(&shrunk(&planes, colour), colour)));
            let other = formula(256, 264);
            let scores = ScoreMap::zeros(256, 264);
            let found = texture_seen(&other, &look(&other, colour, &scores));
            assert_eq!(found, None);
        }
    }

    /// By scipy.ndimage.gaussian_filter(off, 3, mode="reflect", truncate=3), half of it taken off.
    #[test]
    fn what_is_around_a_cell_is_taken_from_it() {
        let wave = |at: usize| (at as f64 * 0.7).sin() as f32 * 3.0;
        let off = |at: usize| wave(at) + if at == 500 { 5.0 } else { 0.0 };
        let off: Vec<f32> = (0..FINEST * FINEST).map(off).collect();
        let mut found = off.clone();
        less_surroundings(0.0, &mut found);
        assert_eq!(found, off);
        less_surroundings(0.5, &mut found);
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
            let seen = shrunk(&formula(side[0], side[1]), false);
            assert_eq!((seen.channels, seen.data.len()), (1, 256 * 256));
            assert!(seen.data.iter().all(|value| (-1.0..=1.0).contains(value)));
        }
        let half = shrunk(&formula(512, 512), false).data[0];
        let four = formula(512, 512).data;
        assert!((half - (four[0] + four[1] + four[512] + four[513]) / 4.0).abs() < 1e-6);
    }
}
