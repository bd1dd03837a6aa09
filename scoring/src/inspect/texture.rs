//! The appearance of the surface in each cell of a frame, in a few features: score, brightness, and
//! energy and orientation of the texture at two scales. Cells are much coarser than what the
//! network sees: a worn or uneven area is large, and nothing within 29 × 29 pixels of it gives it
//! away. Not in the paper (**ours**).
//!
//! Orientation is that of the structure tensor (Förstner and Gülch 1987): means of the products of
//! both derivatives.

use super::cells::reduce;
use super::map::ScoreMap;
use super::preprocess::Planes;

/// Levels of the image pyramid at which derivatives are taken: full and half resolution.
const LEVELS: usize = 2;
/// Added to a root mean square before its logarithm is taken, in units of [-1, 1]: about the noise
/// of a sensor.
const ENERGY_FLOOR: f32 = 0.01;
/// Added to a score (Σ|A|) before its logarithm is taken: of the order of good pixels' scores.
const SCORE_FLOOR: f32 = 0.02;
/// Features of a cell of a grey frame, in this order: logarithm of the score; level; logarithms of
/// the gradient energies across and down; then, at half resolution, orientation and both gradient
/// energies. The order is part of the package format.
pub const GREY_FEATURES: usize = 2 + 2 * LEVELS + 1;
/// Features of a cell of a colour frame: those of a grey one, then red minus grey and blue minus
/// grey.
pub const COLOUR_FEATURES: usize = GREY_FEATURES + 2;

/// Features of a cell of frames in colour or grey.
pub fn feature_count(colour: bool) -> usize {
    if colour {
        COLOUR_FEATURES
    } else {
        GREY_FEATURES
    }
}

/// Features of all cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CellFeatures {
    /// Features per cell: [`GREY_FEATURES`] or [`COLOUR_FEATURES`].
    pub count: usize,
    /// Features cell after cell, cells row by row.
    pub values: Vec<f32>,
}

/// A plane with its width and height.
struct Plane {
    size: [usize; 2],
    data: Vec<f32>,
}

impl Plane {
    /// The structure tensor at every pixel: squares of the derivatives across and down, and their
    /// product. The border is repeated.
    fn structure(&self) -> [Self; 3] {
        let [width, height] = self.size;
        let mut planes = [0; 3].map(|_| Self {
            size: self.size,
            data: vec![0.0; width * height],
        });
        // Rows with the border repeated, so that no pixel is a special case.
        let mut padded = [0; 3].map(|_| vec![0.0f32; width + 2]);
        for y in 0..height {
            let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
            for (padded, row) in padded.iter_mut().zip(rows) {
                let row = &self.data[row * width..(row + 1) * width];
                padded[1..=width].copy_from_slice(row);
                (padded[0], padded[width + 1]) = (row[0], row[width - 1]);
            }
            let [above, here, below] = padded.each_ref().map(|row| &row[..width + 2]);
            let mut out = planes
                .each_mut()
                .map(|plane| &mut plane.data[y * width..(y + 1) * width]);
            for x in 0..width {
                let three = |row: &[f32]| [row[x], row[x + 1], row[x + 2]];
                let [across, down] = derivatives([three(above), three(here), three(below)]);
                let products = [across * across, down * down, across * down];
                for (out, value) in out.iter_mut().zip(products) {
                    out[x] = value;
                }
            }
        }
        planes
    }

    fn halved(&self) -> Self {
        let size = self.size.map(|side| (side / 2).max(1));
        Self {
            data: reduce(&self.data, self.size, size),
            size,
        }
    }

    fn reduced(&self, cells: usize) -> Vec<f32> {
        reduce(&self.data, self.size, [cells; 2])
    }
}

/// Sobel's derivatives across and down, in grey values per pixel.
fn derivatives([above, here, below]: [[f32; 3]; 3]) -> [f32; 2] {
    let column = |x: usize| above[x] + 2.0 * here[x] + below[x];
    let row = |[left, x, right]: [f32; 3]| left + 2.0 * x + right;
    [
        (column(2) - column(0)) / 8.0,
        (row(below) - row(above)) / 8.0,
    ]
}

/// Weighted mean around each of cells × cells cells, over windows of two cells' width, from cells
/// of half the size. The weights 1, 3, 3, 1 are nearly Gaussian. Windows are cut off at the border.
fn weighted_means(halves: &[f32], cells: usize) -> Vec<f32> {
    const WEIGHTS: [f32; 4] = [1.0, 3.0, 3.0, 1.0];
    let side = 2 * cells;
    let taps = |cell: usize| {
        WEIGHTS
            .into_iter()
            .enumerate()
            .filter_map(move |(tap, weight)| {
                let at = (2 * cell + tap).checked_sub(1)?;
                (at < side).then_some((at, weight))
            })
    };
    let total = |cell: usize| taps(cell).map(|(_, weight)| weight).sum::<f32>();
    let totals: Vec<f32> = (0..cells).map(total).collect();
    // The cells before this one, except the first, have complete windows.
    let last = (cells - 1).max(1);
    let mut means = vec![0.0; cells * cells];
    for (row, sums) in means.chunks_exact_mut(cells).enumerate() {
        for (y, down) in taps(row) {
            let line = &halves[y * side..(y + 1) * side];
            let weights = WEIGHTS.map(|across| down * across);
            let middle = sums[1..last].iter_mut();
            for (sum, four) in middle.zip(line[1..].windows(4).step_by(2)) {
                for (weight, value) in weights.iter().zip(four) {
                    *sum += weight * value;
                }
            }
            for cell in (0..1).chain(last..cells) {
                for (x, across) in taps(cell) {
                    sums[cell] += down * across * line[x];
                }
            }
        }
        let over = totals.iter().map(|across| totals[row] * across);
        sums.iter_mut()
            .zip(over)
            .for_each(|(sum, over)| *sum /= over);
    }
    means
}

/// A frame's brightness; of colours with the weights of ITU-R BT.601, as in [`super::preprocess`].
pub fn grey(planes: &Planes, colour: bool) -> Vec<f32> {
    if !colour {
        return planes.plane(0).to_vec();
    }
    let (red, green, blue) = (planes.plane(0), planes.plane(1), planes.plane(2));
    let pixels = red.iter().zip(green).zip(blue);
    pixels
        .map(|((red, green), blue)| 0.299 * red + 0.587 * green + 0.114 * blue)
        .collect()
}

/// Features of a frame in [-1, 1] and its scores, in cells × cells cells for each number in
/// `grids`, which must all divide the largest. Only the first plane is used unless `colour`.
pub fn cell_features<const N: usize>(
    planes: &Planes,
    colour: bool,
    scores: &ScoreMap,
    grids: [usize; N],
) -> [CellFeatures; N] {
    let size = [planes.width_px, planes.height_px];
    let grey = Plane {
        size,
        data: grey(planes, colour),
    };
    // Everything is averaged once over cells of half the finest grid's size. Coarser grids are
    // means of these.
    let finest = grids.into_iter().max().unwrap_or(1) * 2;
    let level = grey.reduced(finest);
    let score = reduce(
        &scores.data,
        [scores.width_px, scores.height_px],
        [finest; 2],
    );
    let mut colours = Vec::new();
    if colour {
        for channel in [0, 2] {
            let plane = reduce(planes.plane(channel), size, [finest; 2]);
            let difference = plane.iter().zip(&level);
            colours.push(
                difference
                    .map(|(value, grey)| value - grey)
                    .collect::<Vec<f32>>(),
            );
        }
    }
    let mut energies = Vec::new();
    let mut image = grey;
    for step in 0..LEVELS {
        if step > 0 {
            image = image.halved();
        }
        energies.push(image.structure().map(|plane| plane.reduced(finest)));
    }
    grids.map(|cells| {
        let at_cells =
            |fine: &[f32]| weighted_means(&reduce(fine, [finest; 2], [2 * cells; 2]), cells);
        let logarithm = |squares: f32| (squares.max(0.0).sqrt() + ENERGY_FLOOR).ln();
        let score = at_cells(&score).into_iter();
        let mut features = vec![
            score
                .map(|score| (score + SCORE_FLOOR).ln())
                .collect::<Vec<f32>>(),
        ];
        let level = at_cells(&level);
        // Relative to the frame's median brightness, which differs with the exposure.
        let mut sorted = level.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let middle = sorted[sorted.len() / 2];
        features.push(level.iter().map(|value| value - middle).collect());
        for (step, squares) in energies.iter().enumerate() {
            let [across, down, product] = squares.each_ref().map(|plane| at_cells(plane));
            if step + 1 == LEVELS {
                let sums = across
                    .iter()
                    .zip(&down)
                    .map(|(a, b)| a + b + ENERGY_FLOOR * ENERGY_FLOOR);
                features.push(product.iter().zip(sums).map(|(p, sum)| p / sum).collect());
            }
            features.push(across.into_iter().map(logarithm).collect());
            features.push(down.into_iter().map(logarithm).collect());
        }
        features.extend(colours.iter().map(|plane| at_cells(plane)));
        let values = (0..cells * cells)
            .flat_map(|cell| features.iter().map(move |feature| feature[cell]))
            .collect();
        CellFeatures {
            count: features.len(),
            values,
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The colour frame that the scripts in tests/fixtures draw.
    pub(in crate::inspect) fn formula(width_px: usize, height_px: usize) -> Planes {
        let area = width_px * height_px;
        let value = |index: usize| {
            let (channel, x, y) = (
                index / area,
                index % area % width_px,
                index % area / width_px,
            );
            let grey = (x * 31 + y * 17 + channel * 57 + x * y % 13 * 9) % 256;
            grey as f32 / 127.5 - 1.0
        };
        Planes {
            channels: 3,
            width_px,
            height_px,
            data: (0..3 * area).map(value).collect(),
        }
    }

    fn planes(side: usize, value: impl Fn(usize, usize, usize) -> f32) -> Planes {
        let area = side * side;
        let data = (0..3 * area).map(|i| value(i / area, i % area % side, i % area / side));
        Planes {
            channels: 3,
            width_px: side,
            height_px: side,
            data: data.collect(),
        }
    }

    /// Features of a cell in the middle of 8 × 8.
    fn middle(planes: &Planes, colour: bool) -> Vec<f32> {
        let scores = ScoreMap::zeros(planes.width_px, planes.height_px);
        let [found] = cell_features(planes, colour, &scores, [8]);
        let at = (4 * 8 + 4) * found.count;
        found.values[at..at + found.count].to_vec()
    }

    #[test]
    fn stripes_show_their_direction_and_scale() {
        let stripes = |period: f32, down: bool| {
            planes(128, |_, x, y| {
                let at = if down { y } else { x } as f32;
                0.5 * (std::f32::consts::TAU * at / period).sin()
            })
        };
        // Score, level, energies across and down; then orientation and energies at half resolution.
        let fine = middle(&stripes(4.0, false), false);
        assert_eq!(fine.len(), GREY_FEATURES);
        assert!(fine[2] > fine[3] + 3.0, "energy across only: {fine:?}");
        let turned = middle(&stripes(4.0, true), false);
        assert!((turned[3] - fine[2]).abs() < 0.02 && (turned[2] - fine[3]).abs() < 0.02);
        let coarse = middle(&stripes(16.0, false), false);
        assert!(
            fine[2] > fine[5] + 0.5 && coarse[5] > coarse[2] + 0.3,
            "each of its scale: {fine:?} {coarse:?}"
        );
        let diagonal = planes(128, |_, x, y| {
            0.5 * (std::f32::consts::TAU * (x + y) as f32 / 12.0).sin()
        });
        let diagonal = middle(&diagonal, false);
        assert!(
            diagonal[4] > 0.45,
            "both derivatives rise together: {diagonal:?}"
        );
    }

    #[test]
    fn exposure_leaves_the_level_and_colour_is_seen() {
        let ramp = |exposure: f32| planes(96, move |_, x, _| x as f32 / 96.0 - 0.5 + exposure);
        let (dark, bright) = (middle(&ramp(-0.2), false), middle(&ramp(0.3), false));
        for (dark, bright) in dark.iter().zip(&bright) {
            assert!((dark - bright).abs() < 1e-3);
        }
        let red = planes(96, |channel, _, _| if channel == 0 { 0.5 } else { 0.0 });
        let found = middle(&red, true);
        assert_eq!(found.len(), COLOUR_FEATURES);
        // 0.5 - 0.299 · 0.5, and 0 - 0.299 · 0.5.
        assert!((found[GREY_FEATURES] - 0.3505).abs() < 1e-4);
        assert!((found[GREY_FEATURES + 1] + 0.1495).abs() < 1e-4);
    }

    #[test]
    fn features_are_those_of_the_manifest_format() {
        // The expected values come from numpy alone (tests/fixtures/make_texture.py). Another order
        // or weight requires a new MANIFEST_FORMAT, because packages contain good parts' features.
        let expected = include_str!("../../tests/fixtures/texture.json");
        let expected: std::collections::BTreeMap<usize, Vec<f32>> =
            serde_json::from_str(expected).unwrap();
        let (width_px, height_px) = (61, 50);
        let planes = formula(width_px, height_px);
        let score = |index: usize| {
            let (x, y) = (index % width_px, index / width_px);
            ((x * 5 + y * 3) % 23) as f32 / 46.0
        };
        let scores = ScoreMap {
            width_px,
            height_px,
            data: (0..width_px * height_px).map(score).collect(),
        };
        for (cells, found) in [4, 8]
            .into_iter()
            .zip(cell_features(&planes, true, &scores, [4, 8]))
        {
            assert_eq!(found.count, COLOUR_FEATURES);
            let expected = &expected[&cells];
            assert_eq!(found.values.len(), expected.len());
            for (at, (found, expected)) in found.values.iter().zip(expected).enumerate() {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{cells} cells, value {at}: {found} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn coarser_grids_come_from_the_same_values() {
        let texture = planes(100, |_, x, y| ((x * 7 + y * 13) % 17) as f32 / 17.0 - 0.5);
        let mut scores = ScoreMap::zeros(100, 100);
        scores.data[50 * 100 + 50] = 7.0;
        let [fine, coarse] = cell_features(&texture, false, &scores, [16, 8]);
        let [alone] = cell_features(&texture, false, &scores, [16]);
        assert_eq!(fine, alone);
        assert_eq!(coarse.values.len(), 64 * GREY_FEATURES);
        assert!(coarse.values.iter().all(|value| value.is_finite()));
        let score = |cell: usize| coarse.values[cell * GREY_FEATURES];
        assert!(score(4 * 8 + 4) > score(4) + 0.5, "the scored pixel's cell");
        assert!((score(4) - SCORE_FLOOR.ln()).abs() < 1e-5);
    }
}
