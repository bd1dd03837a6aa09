//! Places of a frame, 4 × 4 pixels each, compared with good ones: means in 8 bits, distances by one
//! covariance for all places, and the distances that good frames have at each.
//!
//! In: residuals of channels at places. Out: deviations from good, in standard deviations, and a map
//! of them.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use proto::manifest::{PlaceDistances, PlaceMeans};

use super::grid::{LARGEST_VALUE, clamp_deviation};
use super::map::ScoreMap;
use super::variation::softplus;

/// Most places along a side: frames of 8,192 px.
const MAX_PLACES: u16 = 2_048;
/// Most values of means.
const MAX_LEVELS: usize = 64 << 20;
/// Largest value of the whitening matrix: one over the deviation of a channel, whatever its scale.
const LARGEST_WHITENING: f32 = 1e12;
/// Largest weight of a map.
const LARGEST_WEIGHT: f32 = 1e6;
/// Largest smoothing, in places.
const LARGEST_SIGMA_PLACES: f32 = 16.0;
/// Rows of the whitening matrix that are multiplied at a time. They need only the channels up to
/// the last of them.
const WHITENING_ROWS: usize = 64;

/// For each place of a frame of this size (columns, rows), the nearest one of another size.
fn nearest_places(from: [usize; 2], [columns, rows]: [usize; 2]) -> Vec<usize> {
    let [from_columns, from_rows] = from;
    let nearest = |at: usize, count: usize, from: usize| at * from / count.max(1);
    let places = (0..rows).flat_map(|row| {
        let row = nearest(row, rows, from_rows) * from_columns;
        (0..columns).map(move |column| row + nearest(column, columns, from_columns))
    });
    places.collect()
}

/// The means of channels at places, in the order channel, row, column.
#[derive(Debug, Clone)]
pub struct MeanOutputs {
    columns: usize,
    rows: usize,
    values: Vec<f32>,
}

impl MeanOutputs {
    /// From a package. A frame of another size than the good ones gets the means of the nearest
    /// places.
    pub(super) fn new(means: &PlaceMeans, columns: usize, rows: usize) -> Self {
        let [from_columns, from_rows] = [means.columns, means.rows].map(usize::from);
        let places = nearest_places([from_columns, from_rows], [columns, rows]);
        let planes = means.levels.chunks_exact((from_columns * from_rows).max(1));
        let scales = means.offset.iter().zip(&means.step);
        let values = planes.zip(scales).flat_map(|(levels, (offset, step))| {
            let value = |place: &usize| offset + step * f32::from(levels[*place]);
            places.iter().map(value).collect::<Vec<_>>()
        });
        Self {
            columns,
            rows,
            values: values.collect(),
        }
    }

    /// Means that are already at the layer's size.
    pub fn of_values(columns: usize, rows: usize, values: Vec<f32>) -> Self {
        Self {
            columns,
            rows,
            values,
        }
    }

    /// The means, in the order channel, row, column.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn row(&self, channel: usize, row: usize) -> &[f32] {
        let start = (channel * self.rows + row) * self.columns;
        self.values
            .get(start..start + self.columns)
            .unwrap_or_default()
    }
}

/// A whitening matrix: the inverse of a covariance's Cholesky factor.
#[derive(Debug, Clone)]
pub struct Whitening(Array2<f32>);

impl Whitening {
    /// From a lower triangle, row by row, of this many rows.
    pub fn new(channels: usize, triangle: &[f32]) -> Self {
        let mut matrix = Array2::zeros((channels, channels));
        let mut values = triangle.iter();
        for row in 0..channels {
            for (place, value) in matrix
                .row_mut(row)
                .iter_mut()
                .zip(values.by_ref().take(row + 1))
            {
                *place = *value;
            }
        }
        Self(matrix)
    }

    /// Mahalanobis distances of residuals (channels × columns), each divided by the square root of
    /// the number of channels.
    pub fn distances(&self, residuals: &[f32], columns: usize) -> Vec<f32> {
        let channels = self.0.nrows();
        let mut squares = vec![0.0f32; columns];
        let Ok(residuals) = ArrayView2::from_shape((channels, columns), residuals) else {
            return vec![f32::NAN; columns];
        };
        let mut white = Array2::zeros((WHITENING_ROWS, columns));
        for first in (0..channels).step_by(WHITENING_ROWS) {
            let end = (first + WHITENING_ROWS).min(channels);
            let mut white = white.slice_mut(s![..end - first, ..]);
            let weights = self.0.slice(s![first..end, ..end]);
            general_mat_mul(
                1.0,
                &weights,
                &residuals.slice(s![..end, ..]),
                0.0,
                &mut white,
            );
            for row in white.rows() {
                for (sum, value) in squares.iter_mut().zip(row) {
                    *sum += value * value;
                }
            }
        }
        squares
            .iter_mut()
            .for_each(|sum| *sum = (*sum / channels as f32).sqrt());
        squares
    }
}

/// Distances of good places, ready for frames of one size.
#[derive(Debug)]
pub struct GoodPlaces {
    columns: usize,
    rows: usize,
    whitening: Whitening,
    mean: Vec<f32>,
    spread: Vec<f32>,
}

impl GoodPlaces {
    /// For frames of so many columns and rows of places, from distances at `from` columns and rows.
    pub fn new(distances: &PlaceDistances, from: [usize; 2], size: [usize; 2]) -> Self {
        let places = nearest_places(from, size);
        let at_places = |values: &[f32]| places.iter().map(|place| values[*place]).collect();
        let [columns, rows] = size;
        let triangle = distances.whitening.len();
        // A triangle of n rows has n (n + 1) / 2 values.
        let channels = ((8 * triangle + 1).isqrt() - 1) / 2;
        Self {
            columns,
            rows,
            whitening: Whitening::new(channels, &distances.whitening),
            mean: at_places(&distances.mean),
            spread: at_places(&distances.spread),
        }
    }

    /// Whether it is for frames of this size.
    pub fn fits(&self, columns: usize, rows: usize) -> bool {
        (self.columns, self.rows) == (columns, rows)
    }

    /// Deviations of one row of places, in standard deviations, from its residuals (channels ×
    /// columns).
    pub fn deviations_of_row(&self, residuals: &[f32], row: usize) -> Vec<f32> {
        let mut found = self.whitening.distances(residuals, self.columns);
        let from = row * self.columns;
        let normal = self.mean[from..].iter().zip(&self.spread[from..]);
        for (distance, (mean, spread)) in found.iter_mut().zip(normal) {
            *distance = clamp_deviation((*distance - mean) / spread);
        }
        found
    }
}

/// Deviations of places as a map of a frame's pixels: smoothed, passed through softplus, and
/// interpolated. So never negative; a good place has about 0.7.
pub fn place_map(
    mut places: ScoreMap,
    smooth_sigma_places: f32,
    width_px: usize,
    height_px: usize,
) -> ScoreMap {
    if smooth_sigma_places > 0.0 {
        places.smooth(smooth_sigma_places);
    }
    places
        .data
        .iter_mut()
        .for_each(|place| *place = softplus(*place));
    ScoreMap {
        width_px,
        height_px,
        data: enlarge(&places, width_px, height_px),
    }
}

/// Interpolates places at every pixel: place n lies on pixel 4 n.
fn enlarge(places: &ScoreMap, width_px: usize, height_px: usize) -> Vec<f32> {
    let along = |at: usize, count: usize| {
        let first = (at / 4).min(count - 1);
        (first, (first + 1).min(count - 1), (at % 4) as f32 / 4.0)
    };
    let mut pixels = Vec::with_capacity(width_px * height_px);
    for y in 0..height_px {
        let (upper, lower, down) = along(y, places.height_px);
        let row = |row: usize| &places.data[row * places.width_px..(row + 1) * places.width_px];
        let (upper, lower) = (row(upper), row(lower));
        pixels.extend((0..width_px).map(|x| {
            let (left, right, across) = along(x, places.width_px);
            let of = |row: &[f32]| row[left] + (row[right] - row[left]) * across;
            let (upper, lower) = (of(upper), of(lower));
            upper + (lower - upper) * down
        }));
    }
    pixels
}

/// Puts the deviations of places into a frame's map, which keeps `map_weight` of its own.
pub fn combine(map: &mut ScoreMap, map_weight: f32, distances: &PlaceDistances, places: ScoreMap) {
    let sigma = distances.smooth_sigma_places;
    let places = place_map(places, sigma, map.width_px, map.height_px);
    for (score, place) in map.data.iter_mut().zip(&places.data) {
        *score = map_weight * *score + distances.weight * place;
    }
}

/// Checks distances over so many channels, at the places of these means, and the weight of the map
/// that they are put into. The error says what is wrong with them.
pub fn check_distances(
    distances: &PlaceDistances,
    map_weight: f32,
    channels: usize,
    means: &PlaceMeans,
) -> Result<(), String> {
    let places = usize::from(means.columns) * usize::from(means.rows);
    let expected = [channels * (channels + 1) / 2, places, places];
    let lengths = [
        distances.whitening.len(),
        distances.mean.len(),
        distances.spread.len(),
    ];
    if lengths != expected {
        return Err(format!(
            "expected weights and distances of {expected:?} in the statistics of places, found {lengths:?}"
        ));
    }
    let within = |values: &[f32], largest: f32| values.iter().all(|value| value.abs() <= largest);
    let spreads = 1.0 / LARGEST_VALUE..=LARGEST_VALUE;
    if !within(&distances.whitening, LARGEST_WHITENING)
        || !within(&distances.mean, LARGEST_VALUE)
        || !distances
            .spread
            .iter()
            .all(|spread| spreads.contains(spread))
    {
        return Err(format!(
            "expected weights of at most {LARGEST_WHITENING:e}, distances of at most 1e6, and spreads from 1e-6 to 1e6 in \
             the statistics of places, found others"
        ));
    }
    let weights = [distances.weight, map_weight];
    let sigma = distances.smooth_sigma_places;
    if !weights
        .iter()
        .all(|weight| (0.0..=LARGEST_WEIGHT).contains(weight))
        || !(0.0..=LARGEST_SIGMA_PLACES).contains(&sigma)
    {
        return Err(format!(
            "expected weights from 0 to {LARGEST_WEIGHT:e} and a smoothing of at most {LARGEST_SIGMA_PLACES} places, \
             found {weights:?} and {sigma}"
        ));
    }
    Ok(())
}

/// Checks means of so many channels. The error says what is wrong with them.
pub fn check_means(means: &PlaceMeans, channels: usize) -> Result<(), String> {
    let sides = 1..=MAX_PLACES;
    let places = usize::from(means.columns) * usize::from(means.rows);
    if !sides.contains(&means.columns)
        || !sides.contains(&means.rows)
        || means.offset.len() != channels
        || means.step.len() != channels
        || means.levels.len() != channels * places
        || means.levels.len() > MAX_LEVELS
    {
        return Err(format!(
            "expected means of {channels} channels at 1..={MAX_PLACES} places each way, found {}, {} and {} values for {}×{}",
            means.offset.len(),
            means.step.len(),
            means.levels.len(),
            means.columns,
            means.rows
        ));
    }
    let values = means.offset.iter().chain(&means.step);
    if !values.into_iter().all(|value| value.abs() <= LARGEST_VALUE) {
        return Err(
            "expected means of at most 1e6 in the statistics of places, found others".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_mahalanobis() {
        // As in variation.rs: L⁻¹ = [[1/2, 0], [-1/2, 1]], (2, 3) gives 2.5 over two channels.
        let whitening = Whitening::new(2, &[0.5, -0.5, 1.0]);
        let found = whitening.distances(&[2.0, 0.0, 3.0, 1.0], 2);
        assert!((found[0] - 2.5f32.sqrt()).abs() < 1e-6, "{found:?}");
        assert!((found[1] - 0.5f32.sqrt()).abs() < 1e-6, "{found:?}");
        // More channels than are multiplied at a time.
        let channels = WHITENING_ROWS + 3;
        let identity: Vec<f32> = (0..channels)
            .flat_map(|row| (0..=row).map(move |at| f32::from(u8::from(at == row))))
            .collect();
        let found = Whitening::new(channels, &identity).distances(&vec![2.0; channels], 1);
        assert!((found[0] - 2.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_place_lies_on_every_fourth_pixel() {
        let places = ScoreMap {
            width_px: 2,
            height_px: 2,
            data: vec![0.0, 4.0, 8.0, 12.0],
        };
        let found = enlarge(&places, 5, 5);
        assert_eq!(found[..5], [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(found[4 * 5..], [8.0, 9.0, 10.0, 11.0, 12.0]);
    }
}
