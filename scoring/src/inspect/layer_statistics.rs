//! Compares the outputs of the network's own layers with those of good frames at the same place.
//! `host-trainer` makes the statistics.
//!
//! In: outputs of the encoder's second and third layer ([`EncoderOutputs`]). Out: a map of
//! deviations from good, in standard deviations.
//!
//! A place is a cell of the second layer. Its residuals are the outputs less their mean over good
//! frames there, averaged over 3 × 3 places; those of the third layer are interpolated to the second
//! layer's grid first. Their Mahalanobis distance, with one covariance for all places, is compared
//! with the distances that good frames have at the place.
//!
//! Not in the paper (**ours**): a Gaussian at each place as in PaDiM (Defard et al. 2021), on the
//! layers of the network that learned to repair this surface instead of another one's, and with one
//! covariance, which fits into a package.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use proto::manifest::{LayerMeans, LayerStatistics, Network};

use super::grid::{LARGEST_VALUE, clamp_deviation};
use super::map::ScoreMap;
use super::variation::softplus;
use crate::infer::{EncoderOutputs, LayerOutput};

/// Most places along a side: frames of 8,192 px.
const MAX_PLACES: u16 = 2_048;
/// Most values of a layer's means.
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

/// Channels of the second and third layer of a network.
pub fn channel_counts(network: &Network) -> [usize; 2] {
    [2, 4].map(|factor| factor * usize::from(network.width))
}

/// The mean outputs of a layer, in the order channel, row, column.
#[derive(Debug, Clone)]
pub struct MeanOutputs {
    columns: usize,
    rows: usize,
    values: Vec<f32>,
}

impl MeanOutputs {
    /// From a package. A frame of another size than the good ones gets the means of the nearest
    /// places.
    fn new(means: &LayerMeans, columns: usize, rows: usize) -> Self {
        let [from_columns, from_rows] = [means.columns, means.rows].map(usize::from);
        let nearest = |at: usize, count: usize, from: usize| at * from / count.max(1);
        let places: Vec<usize> = (0..rows)
            .flat_map(|row| {
                let row = nearest(row, rows, from_rows);
                (0..columns)
                    .map(move |column| row * from_columns + nearest(column, columns, from_columns))
            })
            .collect();
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

    fn row(&self, channel: usize, row: usize) -> &[f32] {
        let start = (channel * self.rows + row) * self.columns;
        self.values
            .get(start..start + self.columns)
            .unwrap_or_default()
    }
}

/// Adds `weight` times what a row of a layer's output is off its mean.
fn add_residual(
    sum: &mut [f32],
    weight: f32,
    output: &LayerOutput,
    mean: &MeanOutputs,
    channel: usize,
    row: usize,
) {
    let pairs = output.row(channel, row).iter().zip(mean.row(channel, row));
    for (sum, (value, mean)) in sum.iter_mut().zip(pairs) {
        *sum += weight * (value - mean);
    }
}

/// Averages over three neighbours of a row; at the ends over two.
fn average_of_three(values: &[f32], out: &mut [f32]) {
    let last = values.len().saturating_sub(1);
    for (at, out) in out.iter_mut().enumerate() {
        let near = &values[at.saturating_sub(1)..=(at + 1).min(last)];
        *out = near.iter().sum::<f32>() / near.len() as f32;
    }
}

/// The residuals of one row of places: channels × columns, channel by channel.
pub fn residual_row(outputs: &EncoderOutputs, means: [&MeanOutputs; 2], row: usize) -> Vec<f32> {
    let (columns, height) = (outputs.columns, outputs.height);
    let [second, third] = [&outputs.second, &outputs.third];
    let near = row.saturating_sub(1)..(row + 2).min(height);
    let share = 1.0 / near.len() as f32;
    let mut all = vec![0.0; (second.channels() + third.channels()) * columns];
    let mut lines = all.chunks_exact_mut(columns);
    let mut sum = vec![0.0; columns];
    for (channel, line) in lines.by_ref().take(second.channels()).enumerate() {
        sum.fill(0.0);
        for near in near.clone() {
            add_residual(&mut sum, share, second, means[0], channel, near);
        }
        average_of_three(&sum, line);
    }
    // A row between two of the third layer's is their mean.
    let mut weights: Vec<(usize, f32)> = Vec::new();
    for near in near {
        for (at, weight) in [(near / 2, 0.5), (near.div_ceil(2), 0.5)] {
            match weights.iter_mut().find(|(row, _)| *row == at) {
                Some((_, sum)) => *sum += weight * share,
                None => weights.push((at, weight * share)),
            }
        }
    }
    let mut narrow = vec![0.0; third.columns()];
    for (channel, line) in lines.enumerate() {
        narrow.fill(0.0);
        for &(row, weight) in &weights {
            add_residual(&mut narrow, weight, third, means[1], channel, row);
        }
        for (at, sum) in sum.iter_mut().enumerate() {
            *sum = 0.5 * (narrow[at / 2] + narrow[at.div_ceil(2)]);
        }
        average_of_three(&sum, line);
    }
    all
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

/// Statistics of good places, ready for frames of one size.
#[derive(Debug)]
pub struct GoodPlaces {
    columns: usize,
    rows: usize,
    means: [MeanOutputs; 2],
    whitening: Whitening,
    distance_mean: Vec<f32>,
    distance_spread: Vec<f32>,
}

impl GoodPlaces {
    /// For frames with so many columns and rows of the second layer's output.
    pub fn new(statistics: &LayerStatistics, columns: usize, rows: usize) -> Self {
        let LayerStatistics { second, third, .. } = statistics;
        let channels = second.offset.len() + third.offset.len();
        let [from_columns, from_rows] = [second.columns, second.rows].map(usize::from);
        let at_places = |values: &[f32]| -> Vec<f32> {
            let place = |index: usize| {
                let (row, column) = (index / columns.max(1), index % columns.max(1));
                row * from_rows / rows.max(1) * from_columns
                    + column * from_columns / columns.max(1)
            };
            (0..rows * columns)
                .map(|index| values[place(index)])
                .collect()
        };
        Self {
            columns,
            rows,
            means: [
                MeanOutputs::new(second, columns, rows),
                MeanOutputs::new(third, columns.div_ceil(2), rows.div_ceil(2)),
            ],
            whitening: Whitening::new(channels, &statistics.whitening),
            distance_mean: at_places(&statistics.distance_mean),
            distance_spread: at_places(&statistics.distance_spread),
        }
    }

    /// Whether it is for frames of this size.
    pub fn fits(&self, columns: usize, rows: usize) -> bool {
        (self.columns, self.rows) == (columns, rows)
    }

    /// Deviations of one row of places, in standard deviations.
    pub fn deviations_of_row(&self, outputs: &EncoderOutputs, row: usize) -> Vec<f32> {
        let [second, third] = &self.means;
        let residuals = residual_row(outputs, [second, third], row);
        let mut found = self.whitening.distances(&residuals, self.columns);
        let from = row * self.columns;
        let normal = self.distance_mean[from..]
            .iter()
            .zip(&self.distance_spread[from..]);
        for (distance, (mean, spread)) in found.iter_mut().zip(normal) {
            *distance = clamp_deviation((*distance - mean) / spread);
        }
        found
    }
}

/// Deviations of places as a map of a frame's pixels: smoothed, interpolated and passed through
/// softplus, so never negative; a good place has about 0.7.
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

/// Adds the deviations of places to the map of all other stages, by their weights.
pub fn combine(statistics: &LayerStatistics, map: &mut ScoreMap, places: ScoreMap) {
    let sigma = statistics.smooth_sigma_places;
    let places = place_map(places, sigma, map.width_px, map.height_px);
    for (score, place) in map.data.iter_mut().zip(&places.data) {
        *score = statistics.map_weight * *score + statistics.weight * place;
    }
}

/// Checks statistics for a network. The error says what is wrong with them.
pub fn check(statistics: &LayerStatistics, network: &Network) -> Result<(), String> {
    let LayerStatistics { second, third, .. } = statistics;
    let [of_second, of_third] = channel_counts(network);
    check_means(second, of_second)?;
    check_means(third, of_third)?;
    let halves = [second.columns, second.rows].map(|side| side.div_ceil(2));
    if halves != [third.columns, third.rows] {
        return Err(format!(
            "expected statistics of the third layer of {}×{} places, found {}×{}",
            halves[0], halves[1], third.columns, third.rows
        ));
    }
    let channels = of_second + of_third;
    let places = usize::from(second.columns) * usize::from(second.rows);
    let expected = [channels * (channels + 1) / 2, places, places];
    let lengths = [
        statistics.whitening.len(),
        statistics.distance_mean.len(),
        statistics.distance_spread.len(),
    ];
    if lengths != expected {
        return Err(format!(
            "expected weights and distances of {expected:?} in the statistics of layers, found {lengths:?}"
        ));
    }
    let within = |values: &[f32], largest: f32| values.iter().all(|value| value.abs() <= largest);
    let spreads = 1.0 / LARGEST_VALUE..=LARGEST_VALUE;
    if !within(&statistics.whitening, LARGEST_WHITENING)
        || !within(&statistics.distance_mean, LARGEST_VALUE)
        || !statistics
            .distance_spread
            .iter()
            .all(|spread| spreads.contains(spread))
    {
        return Err(format!(
            "expected weights of at most {LARGEST_WHITENING:e}, distances of at most 1e6, and spreads from 1e-6 to 1e6 in \
             the statistics of layers, found others"
        ));
    }
    let weights = [statistics.weight, statistics.map_weight];
    let sigma = statistics.smooth_sigma_places;
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

fn check_means(means: &LayerMeans, channels: usize) -> Result<(), String> {
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
            "expected means of at most 1e6 in the statistics of layers, found others".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs of `channels` channels a layer, of a frame of 5 × 5 places.
    fn outputs(value: impl Fn(usize, usize, usize, usize) -> f32) -> EncoderOutputs {
        let layer = |layer: usize, side: usize| {
            let values = (0..2 * side * side)
                .map(|at| value(layer, at / (side * side), at / side % side, at % side));
            LayerOutput::new(2, side, 0..side, values.collect())
        };
        EncoderOutputs {
            second: layer(0, 5),
            third: layer(1, 3),
            rows: 0..5,
            columns: 5,
            height: 5,
        }
    }

    fn zeros() -> [MeanOutputs; 2] {
        [5, 3].map(|side| MeanOutputs::of_values(side, side, vec![0.0; 2 * side * side]))
    }

    #[test]
    fn residuals_are_averaged_over_neighbours_and_interpolated() {
        // A ramp survives averaging and interpolation inside of the frame: 10 a column and 1 a row.
        let found = outputs(|layer, channel, row, column| {
            let step = [1.0, 2.0][layer];
            100.0 * channel as f32 + step * (10.0 * column as f32 + row as f32)
        });
        let means = zeros();
        for row in 1..4 {
            let line = residual_row(&found, [&means[0], &means[1]], row);
            for channel in 0..4 {
                for column in 1..4 {
                    let expected = 100.0 * (channel % 2) as f32 + 10.0 * column as f32 + row as f32;
                    let value = line[channel * 5 + column];
                    assert!(
                        (value - expected).abs() < 1e-4,
                        "{channel} {row} {column}: {value}"
                    );
                }
            }
        }
        // At the corner only four places are averaged: columns 0 and 1, rows 0 and 1.
        let corner = residual_row(&found, [&means[0], &means[1]], 0)[0];
        assert!((corner - 5.5).abs() < 1e-4, "{corner}");
    }

    #[test]
    fn a_frame_that_is_as_the_mean_has_no_residuals() {
        let value = |layer: usize, channel: usize, row: usize, column: usize| {
            (layer + 3 * channel + row * row + 7 * column) as f32
        };
        let found = outputs(value);
        let means = [(0, 5), (1, 3)].map(|(layer, side)| {
            let at = |at: usize| value(layer, at / (side * side), at / side % side, at % side);
            MeanOutputs::of_values(side, side, (0..2 * side * side).map(at).collect())
        });
        for row in 0..5 {
            assert_eq!(residual_row(&found, [&means[0], &means[1]], row), [0.0; 20]);
        }
    }

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
