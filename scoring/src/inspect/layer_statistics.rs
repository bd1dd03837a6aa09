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

use proto::manifest::{LayerStatistics, Network};

use super::places::{GoodPlaces, MeanOutputs, check_distances, check_means};
use crate::infer::{EncoderOutputs, LayerOutput};

/// Channels of the second and third layer of a network.
pub fn channel_counts(network: &Network) -> [usize; 2] {
    [2, 4].map(|factor| factor * usize::from(network.width))
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

/// Statistics of the layers, ready for frames of one size.
#[derive(Debug)]
pub struct GoodLayers {
    means: [MeanOutputs; 2],
    places: GoodPlaces,
}

impl GoodLayers {
    /// For frames with so many columns and rows of the second layer's output.
    pub fn new(statistics: &LayerStatistics, columns: usize, rows: usize) -> Self {
        let LayerStatistics {
            second,
            third,
            distances,
            ..
        } = statistics;
        let from = [second.columns, second.rows].map(usize::from);
        Self {
            means: [
                MeanOutputs::new(second, columns, rows),
                MeanOutputs::new(third, columns.div_ceil(2), rows.div_ceil(2)),
            ],
            places: GoodPlaces::new(distances, from, [columns, rows]),
        }
    }

    /// Whether it is for frames of this size.
    pub fn fits(&self, columns: usize, rows: usize) -> bool {
        self.places.fits(columns, rows)
    }

    /// Deviations of one row of places, in standard deviations.
    pub fn deviations_of_row(&self, outputs: &EncoderOutputs, row: usize) -> Vec<f32> {
        let [second, third] = &self.means;
        let residuals = residual_row(outputs, [second, third], row);
        self.places.deviations_of_row(&residuals, row)
    }
}

/// Checks statistics for a network. The error says what is wrong with them.
pub fn check(statistics: &LayerStatistics, network: &Network) -> Result<(), String> {
    let LayerStatistics {
        second,
        third,
        distances,
        map_weight,
        ..
    } = statistics;
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
    check_distances(distances, *map_weight, of_second + of_third, second)
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
}
