//! Makes statistics of good places ([`scoring::inspect::places`]) from good frames, by the network's
//! layers ([`scoring::inspect::layer_statistics`]) or by the grain ([`scoring::inspect::grain`]). Three
//! passes over the frames: the mean of each place, the covariance of what remains, and the distances
//! that good frames have, each measured by statistics of other frames.

use std::ops::Range;

use nalgebra::{Cholesky, DMatrix};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};
use proto::manifest::{PlaceDistances, PlaceMeans};
use scoring::infer::{EncoderOutputs, LayerOutput};
use scoring::inspect::places::{MeanOutputs, Whitening};
use scoring::inspect::{grain, layer_statistics};

/// Most frames that statistics are made of.
pub const MOST_FRAMES: usize = 400;
/// Folds in which distances are measured: the frames of a fold by statistics of the other ones.
const FOLDS: usize = 4;
/// Added to each channel's variance of 1: a channel that hardly varies may vary a little more.
const RIDGE: f64 = 0.01;
/// Smallest variance of a channel, as a fraction of the mean variance.
const LEAST_VARIANCE: f64 = 1e-4;
/// Places this close to the frame's edge see its padding, so each row and column there has means of
/// its own.
const EDGE_PLACES: usize = 2;
/// The spread of distances at a place counts as much as that of this many frames' at all places.
const SPREAD_FRAMES: f64 = 20.0;
/// So many frames count half: what a few have in common is often one light and one batch, and not
/// what frames to come have too.
const FEW_FRAMES: f64 = 5.0;
/// Smallest spread of distances at a place, as a fraction of the usual one.
const LEAST_SPREAD: f64 = 0.25;
/// Largest level of a mean in 8 bits.
const MAX_LEVEL: f32 = 127.0;

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum PlaceStatisticsError {
    /// Frames of different sizes have no places in common.
    #[error(
        "expected images of one size, found {0}×{1} and {2}×{3} places: score at a fixed --size"
    )]
    Sizes(usize, usize, usize, usize),
    /// Nothing varies, so there is nothing to measure by.
    #[error("the good images are all alike: expected photographs of different parts")]
    Alike,
}

/// What a frame, or a strip of it, is like at its places.
pub trait PlaceOutputs {
    /// Columns and rows of places in the whole frame.
    fn size(&self) -> [usize; 2];
    /// The rows of places in this strip.
    fn rows(&self) -> Range<usize>;
    /// Grids of values: of each its values, its rows in the whole frame, and its rows that belong to
    /// this strip and to no other.
    fn grids(&self) -> Vec<(&LayerOutput, usize, Range<usize>)>;
    /// What a row of places is off the means of the grids: channels × columns.
    fn residual_row(&self, means: &[MeanOutputs], row: usize) -> Vec<f32>;
}

impl PlaceOutputs for EncoderOutputs {
    fn size(&self) -> [usize; 2] {
        [self.columns, self.height]
    }

    fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    fn grids(&self) -> Vec<(&LayerOutput, usize, Range<usize>)> {
        let halves = self.rows.start.div_ceil(2)..self.rows.end.div_ceil(2);
        vec![
            (&self.second, self.height, self.rows.clone()),
            (&self.third, self.height.div_ceil(2), halves),
        ]
    }

    fn residual_row(&self, means: &[MeanOutputs], row: usize) -> Vec<f32> {
        match means {
            [second, third] => layer_statistics::residual_row(self, [second, third], row),
            _ => Vec::new(),
        }
    }
}

/// The grain's features of a whole frame.
impl PlaceOutputs for LayerOutput {
    fn size(&self) -> [usize; 2] {
        [self.columns(), self.rows().len()]
    }

    fn rows(&self) -> Range<usize> {
        self.rows()
    }

    fn grids(&self) -> Vec<(&LayerOutput, usize, Range<usize>)> {
        vec![(self, self.rows().len(), self.rows())]
    }

    fn residual_row(&self, means: &[MeanOutputs], row: usize) -> Vec<f32> {
        match means {
            [means] => grain::residual_row(self, means, row),
            _ => Vec::new(),
        }
    }
}

/// A good frame's outputs, strip by strip, for whoever asks.
pub trait GoodFrames {
    /// What is known of a strip.
    type Outputs: PlaceOutputs;
    /// Why a frame cannot be had.
    type Error: From<PlaceStatisticsError>;
    /// Passes the outputs for a frame to `visit`, from top to bottom.
    fn outputs(
        &mut self,
        frame: usize,
        visit: &mut dyn FnMut(&Self::Outputs),
    ) -> Result<(), Self::Error>;
}

/// Statistics of good places.
#[derive(Debug)]
pub struct GoodPlaceStatistics {
    /// Means of each grid.
    pub means: Vec<PlaceMeans>,
    /// Distances from them, with a weight of 1.
    pub distances: PlaceDistances,
}

/// Sums over frames at each place of a layer.
#[derive(Debug, Clone)]
struct PlaceSums {
    channels: usize,
    columns: usize,
    rows: usize,
    /// For each fold, in the order channel, row, column.
    sums: Vec<Vec<f64>>,
    squares: Vec<f64>,
}

impl PlaceSums {
    fn new(output: &LayerOutput, rows: usize) -> Self {
        let (channels, columns) = (output.channels(), output.columns());
        let count = channels * columns * rows;
        Self {
            channels,
            columns,
            rows,
            sums: vec![vec![0.0; count]; FOLDS],
            squares: vec![0.0; count],
        }
    }

    fn add(&mut self, fold: usize, output: &LayerOutput, rows: std::ops::Range<usize>) {
        for channel in 0..self.channels {
            for row in rows.clone() {
                let from = (channel * self.rows + row) * self.columns;
                let places = from..from + self.columns;
                let sums = self.sums[fold][places.clone()].iter_mut();
                let both = sums.zip(&mut self.squares[places]);
                for ((sum, square), value) in both.zip(output.row(channel, row)) {
                    let value = f64::from(*value);
                    *sum += value;
                    *square += value * value;
                }
            }
        }
    }

    /// The means of all frames but those of a fold, drawn towards the mean of places alike as far as
    /// the frames are too few to tell places apart (empirical Bayes). `parts` is the number of
    /// different parts that the frames show.
    fn means(&self, without: Option<usize>, frames: &[usize], parts: usize) -> MeanOutputs {
        let all: usize = frames.iter().sum();
        let left = all - without.map_or(0, |fold| frames[fold]);
        let zones = Zones::new(self.columns, self.rows);
        let plane = self.columns * self.rows;
        let mut values = Vec::with_capacity(self.channels * plane);
        for channel in 0..self.channels {
            let at = channel * plane..(channel + 1) * plane;
            let sum = |place: usize, without: Option<usize>| -> f64 {
                let folds = self.sums.iter().enumerate();
                let folds = folds.filter(|(fold, _)| Some(*fold) != without);
                folds.map(|(_, sums)| sums[at.start + place]).sum()
            };
            let means = |without: Option<usize>, count: usize| -> Vec<f64> {
                (0..plane)
                    .map(|place| sum(place, without) / count as f64)
                    .collect()
            };
            let whole = means(None, all);
            let squares = self.squares[at.clone()].iter().zip(&whole);
            let within: f64 = squares
                .map(|(square, mean)| (square / all as f64 - mean * mean).max(0.0))
                .sum::<f64>()
                / plane as f64;
            let share = zones.share(&whole, within, parts) * trust(all);
            let mut found = match without {
                None => whole,
                Some(_) => means(without, left),
            };
            zones.draw_together(&mut found, share);
            values.extend(found.into_iter().map(|mean| mean as f32));
        }
        MeanOutputs::of_values(self.columns, self.rows, values)
    }
}

/// Places that are alike but for what the surface shows there: those in the middle, and those at the
/// same distance from each edge.
struct Zones {
    /// The zone of each place.
    of: Vec<usize>,
    /// Number of places in each zone.
    counts: Vec<f64>,
}

impl Zones {
    fn new(columns: usize, rows: usize) -> Self {
        let side = 2 * EDGE_PLACES + 1;
        let along = |at: usize, count: usize| {
            if at < EDGE_PLACES {
                at
            } else if count - at <= EDGE_PLACES {
                side - (count - at)
            } else {
                EDGE_PLACES
            }
        };
        let of: Vec<usize> = (0..rows * columns)
            .map(|at| along(at / columns, rows) * side + along(at % columns, columns))
            .collect();
        let mut counts = vec![0.0; side * side];
        of.iter().for_each(|zone| counts[*zone] += 1.0);
        Self { of, counts }
    }

    fn means(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.counts.len()];
        for (zone, value) in self.of.iter().zip(values) {
            sums[*zone] += value;
        }
        let counts = self.counts.iter();
        sums.iter()
            .zip(counts)
            .map(|(sum, count)| sum / count.max(1.0))
            .collect()
    }

    /// How much of a place's own value to keep: the fraction of the variance between places that
    /// `count` frames with a variance of `within` do not explain.
    fn share(&self, values: &[f64], within: f64, count: usize) -> f64 {
        if count < 2 {
            return 0.0;
        }
        let zones = self.means(values);
        let off = self.of.iter().zip(values);
        let between = off
            .map(|(zone, value)| (value - zones[*zone]).powi(2))
            .sum::<f64>()
            / values.len().max(1) as f64;
        // The variance of frames around their own mean is a little too small.
        let chance = within / (count - 1) as f64;
        if between <= chance {
            return 0.0;
        }
        1.0 - chance / between
    }

    fn draw_together(&self, values: &mut [f64], share: f64) {
        let zones = self.means(values);
        for (zone, value) in self.of.iter().zip(values) {
            *value = zones[*zone] + share * (*value - zones[*zone]);
        }
    }
}

/// How much to trust what so many frames have in common at a place.
fn trust(frames: usize) -> f64 {
    let others = frames.saturating_sub(1) as f64;
    others / (others + FEW_FRAMES)
}

/// Calls `visit` with each frame's number, fold and outputs.
fn visit_all<F: GoodFrames>(
    frames: &mut F,
    folds: &[usize],
    visit: &mut dyn FnMut(usize, &F::Outputs),
    done: &mut dyn FnMut(),
) -> Result<(), F::Error> {
    for (frame, fold) in folds.iter().enumerate() {
        frames.outputs(frame, &mut |outputs| visit(*fold, outputs))?;
        done();
    }
    Ok(())
}

/// Makes statistics of good frames. `parts` are the numbers of the parts that they show, from 0: the
/// frames of a part are measured by statistics of other parts. `on_progress` gets the passes over
/// frames that are done, and how many there are.
pub fn fit<F: GoodFrames>(
    frames: &mut F,
    parts: &[usize],
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<GoodPlaceStatistics, F::Error> {
    let folds: Vec<usize> = parts.iter().map(|part| part % FOLDS).collect();
    let mut counts = vec![0; FOLDS];
    folds.iter().for_each(|fold| counts[*fold] += 1);
    let part_count = parts.iter().max().map_or(0, |part| part + 1);
    // A single part can only be measured by itself.
    let without = |fold: usize| (part_count > 1).then_some(fold);
    let (mut done, all) = (0, 3 * folds.len());
    let mut step = || {
        done += 1;
        on_progress(done, all);
    };

    let mut sums: Vec<PlaceSums> = Vec::new();
    let mut sizes: Option<[[usize; 2]; 2]> = None;
    visit_all(
        frames,
        &folds,
        &mut |fold, outputs| {
            let size = outputs.size();
            let [first, last] = sizes.get_or_insert([size; 2]);
            if *first != size {
                *last = size;
                return;
            }
            let grids = outputs.grids();
            if sums.is_empty() {
                let new = |(output, height, _): &(&LayerOutput, usize, Range<usize>)| {
                    PlaceSums::new(output, *height)
                };
                sums.extend(grids.iter().map(new));
            }
            for (sums, (output, _, rows)) in sums.iter_mut().zip(grids) {
                sums.add(fold, output, rows);
            }
        },
        &mut step,
    )?;
    let Some([[columns, rows], [other_columns, other_rows]]) = sizes else {
        return Err(PlaceStatisticsError::Alike.into());
    };
    if (columns, rows) != (other_columns, other_rows) {
        return Err(PlaceStatisticsError::Sizes(columns, rows, other_columns, other_rows).into());
    }
    let means = |without| -> Vec<MeanOutputs> {
        sums.iter()
            .map(|sums| sums.means(without, &counts, part_count))
            .collect()
    };
    let whole = means(None);

    let channels: usize = sums.iter().map(|sums| sums.channels).sum();
    let mut products = vec![Array2::<f32>::zeros((channels, channels)); FOLDS];
    visit_all(
        frames,
        &folds,
        &mut |fold, outputs| {
            for row in outputs.rows() {
                let residuals = outputs.residual_row(&whole, row);
                if let Ok(residuals) = ArrayView2::from_shape((channels, columns), &residuals) {
                    general_mat_mul(1.0, &residuals, &residuals.t(), 1.0, &mut products[fold]);
                }
            }
        },
        &mut step,
    )?;
    let whitening = |without: Option<usize>| {
        let mut covariance = DMatrix::<f64>::zeros(channels, channels);
        let mut count = 0;
        for (fold, products) in products.iter().enumerate() {
            if Some(fold) != without {
                count += counts[fold] * columns * rows;
                for (sum, product) in covariance.iter_mut().zip(products.iter()) {
                    *sum += f64::from(*product);
                }
            }
        }
        inverse_factor(covariance / count.max(1) as f64)
    };

    let mut distances = vec![[0.0f64; 2]; columns * rows];
    for fold in 0..FOLDS {
        let Some(whitening) = whitening(without(fold)) else {
            return Err(PlaceStatisticsError::Alike.into());
        };
        let (means, whitening) = (means(without(fold)), Whitening::new(channels, &whitening));
        for (frame, _) in folds.iter().enumerate().filter(|(_, of)| **of == fold) {
            frames.outputs(frame, &mut |outputs| {
                for row in outputs.rows() {
                    let residuals = outputs.residual_row(&means, row);
                    let found = whitening.distances(&residuals, columns);
                    for (sums, distance) in distances[row * columns..].iter_mut().zip(found) {
                        let distance = f64::from(distance);
                        sums[0] += distance;
                        sums[1] += distance * distance;
                    }
                }
            })?;
            step();
        }
    }
    let Some(whitening) = whitening(None) else {
        return Err(PlaceStatisticsError::Alike.into());
    };
    let (mean, spread) = usual_distances(&distances, folds.len(), part_count, [columns, rows])?;
    let grids = whole.iter().zip(&sums);
    Ok(GoodPlaceStatistics {
        means: grids.map(|(means, sums)| in_8_bits(means, sums)).collect(),
        distances: PlaceDistances {
            whitening,
            mean,
            spread,
            smooth_sigma_places: 0.0,
            weight: 1.0,
        },
    })
}

/// The inverse of the Cholesky factor of a covariance, a lower triangle row by row; `None` if nothing
/// varies.
fn inverse_factor(mut covariance: DMatrix<f64>) -> Option<Vec<f32>> {
    let channels = covariance.nrows();
    let usual = covariance.trace() / channels.max(1) as f64;
    if usual <= 0.0 {
        return None;
    }
    let deviations: Vec<f64> = covariance
        .diagonal()
        .iter()
        .map(|variance| variance.max(LEAST_VARIANCE * usual).sqrt())
        .collect();
    for row in 0..channels {
        for column in 0..channels {
            covariance[(row, column)] /= deviations[row] * deviations[column];
        }
        covariance[(row, row)] += RIDGE;
    }
    let factor = Cholesky::new(covariance)?.l();
    let mut inverse = DMatrix::identity(channels, channels);
    factor.solve_lower_triangular_mut(&mut inverse);
    let inverse = &inverse;
    let rows = 0..channels;
    let values = rows.flat_map(|row| {
        let scales = deviations.iter().take(row + 1).enumerate();
        scales.map(move |(column, deviation)| (inverse[(row, column)] / deviation) as f32)
    });
    Some(values.collect())
}

/// Mean and spread of good distances at each place, from their sums over frames.
fn usual_distances(
    sums: &[[f64; 2]],
    frames: usize,
    parts: usize,
    [columns, rows]: [usize; 2],
) -> Result<(Vec<f32>, Vec<f32>), PlaceStatisticsError> {
    let zones = Zones::new(columns, rows);
    let count = frames.max(1) as f64;
    let mut means: Vec<f64> = sums.iter().map(|[sum, _]| sum / count).collect();
    let variances: Vec<f64> = sums
        .iter()
        .zip(&means)
        .map(|([_, squares], mean)| (squares / count - mean * mean).max(0.0))
        .collect();
    let within = variances.iter().sum::<f64>() / variances.len().max(1) as f64;
    let share = zones.share(&means, within, parts) * trust(frames);
    zones.draw_together(&mut means, share);
    // What places of a zone differ by, where their means were drawn together, is spread too.
    let squares: Vec<f64> = sums
        .iter()
        .zip(&means)
        .map(|([sum, squares], mean)| {
            (squares / count - 2.0 * mean * sum / count + mean * mean).max(0.0)
        })
        .collect();
    let of_zones = zones.means(&squares);
    let usual = (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt();
    if usual <= 0.0 {
        return Err(PlaceStatisticsError::Alike);
    }
    let spread = |(square, zone): (&f64, &usize)| {
        let together = (count * square + SPREAD_FRAMES * of_zones[*zone]) / (count + SPREAD_FRAMES);
        together.sqrt().max(LEAST_SPREAD * usual) as f32
    };
    let spreads = squares.iter().zip(&zones.of).map(spread).collect();
    Ok((means.into_iter().map(|mean| mean as f32).collect(), spreads))
}

/// Means as a package keeps them.
fn in_8_bits(means: &MeanOutputs, sums: &PlaceSums) -> PlaceMeans {
    let (mut offsets, mut steps, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    for plane in means
        .values()
        .chunks_exact((sums.columns * sums.rows).max(1))
    {
        let (least, most) = plane
            .iter()
            .fold((f32::MAX, f32::MIN), |(least, most), value| {
                (least.min(*value), most.max(*value))
            });
        let offset = 0.5 * (least + most);
        let step = (most - least) / (2.0 * MAX_LEVEL);
        let level = |value: &f32| match step > 0.0 {
            true => ((value - offset) / step)
                .round()
                .clamp(-MAX_LEVEL, MAX_LEVEL) as i8,
            false => 0,
        };
        levels.extend(plane.iter().map(level));
        offsets.push(offset);
        steps.push(step);
    }
    PlaceMeans {
        columns: sums.columns as u16,
        rows: sums.rows as u16,
        offset: offsets,
        step: steps,
        levels,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proto::manifest::LayerStatistics;
    use rand::RngExt;
    use scoring::inspect::layer_statistics::GoodLayers;

    use super::*;
    use crate::seed::generator;

    const COLUMNS: usize = 9;
    const ROWS: usize = 7;

    impl From<PlaceStatisticsError> for Infallible {
        fn from(error: PlaceStatisticsError) -> Self {
            panic!("{error}")
        }
    }

    /// Frames of two channels a layer, whose places differ by `places`. The second channel follows
    /// the first one.
    struct Surface {
        places: f32,
        defect: bool,
    }

    impl Surface {
        fn frame(&self, number: usize) -> EncoderOutputs {
            let mut rng = generator(number as u64, "surface", 0);
            let mut layer = |columns: usize, rows: usize| {
                let first: Vec<f32> = (0..rows * columns)
                    .map(|at| {
                        let noise: f32 = rng.random_range(-1.0..1.0);
                        noise + self.places * ((at * 37 % 11) as f32 - 5.0)
                    })
                    .collect();
                let mut second: Vec<f32> = first
                    .iter()
                    .map(|value| 2.0 * value + rng.random_range(-0.1..0.1))
                    .collect();
                if self.defect {
                    // Neither channel is out of range, but they do not go together.
                    let middle = rows / 2 * columns + columns / 2;
                    second[middle] -= 1.5;
                }
                LayerOutput::new(2, columns, 0..rows, [first, second].concat())
            };
            EncoderOutputs {
                second: layer(COLUMNS, ROWS),
                third: layer(COLUMNS.div_ceil(2), ROWS.div_ceil(2)),
                rows: 0..ROWS,
                columns: COLUMNS,
                height: ROWS,
            }
        }

        fn statistics(self, frames: usize) -> LayerStatistics {
            let mut surface = self;
            let parts: Vec<usize> = (0..frames).collect();
            let Ok(found) = fit(&mut surface, &parts, &mut |_, _| {});
            let Ok([second, third]) = <[PlaceMeans; 2]>::try_from(found.means) else {
                panic!("expected means of two layers");
            };
            LayerStatistics {
                second,
                third,
                distances: found.distances,
                map_weight: 0.0,
                frames: frames as u32,
            }
        }
    }

    impl GoodFrames for Surface {
        type Outputs = EncoderOutputs;
        type Error = Infallible;

        fn outputs(
            &mut self,
            frame: usize,
            visit: &mut dyn FnMut(&EncoderOutputs),
        ) -> Result<(), Infallible> {
            visit(&self.frame(frame));
            Ok(())
        }
    }

    fn deviation(statistics: &LayerStatistics, outputs: &EncoderOutputs) -> f32 {
        let good = GoodLayers::new(statistics, COLUMNS, ROWS);
        good.deviations_of_row(outputs, ROWS / 2)[COLUMNS / 2]
    }

    #[test]
    fn channels_that_do_not_go_together_deviate_and_other_good_frames_do_not() {
        for places in [0.0, 1.0] {
            let good = Surface {
                places,
                defect: false,
            };
            let statistics = Surface {
                places,
                defect: false,
            }
            .statistics(60);
            let found: Vec<f32> = (100..140)
                .map(|number| deviation(&statistics, &good.frame(number)))
                .collect();
            let mean = found.iter().sum::<f32>() / found.len() as f32;
            assert!(mean.abs() < 1.0, "{places}: {mean}");
            let bad = Surface {
                places,
                defect: true,
            };
            let worst = (100..140)
                .map(|number| deviation(&statistics, &bad.frame(number)))
                .fold(f32::MAX, f32::min);
            assert!(worst > 5.0, "{places}: {worst}");
        }
    }

    #[test]
    fn places_that_do_not_differ_share_their_mean_and_others_keep_theirs() {
        // Range of the first channel's means in the middle, where places are alike.
        let range = |places: f32, frames: usize| {
            let found = Surface {
                places,
                defect: false,
            }
            .statistics(frames);
            let PlaceMeans { step, levels, .. } = found.second;
            let inner = (EDGE_PLACES..ROWS - EDGE_PLACES).flat_map(|row| {
                (EDGE_PLACES..COLUMNS - EDGE_PLACES).map(move |at| row * COLUMNS + at)
            });
            let (least, most) = inner.fold((i8::MAX, i8::MIN), |(least, most), place| {
                (least.min(levels[place]), most.max(levels[place]))
            });
            step[0] * (f32::from(most) - f32::from(least))
        };
        // The means of 5 frames differ by about a unit, by chance.
        assert!(range(0.0, 5) < 0.4, "{}", range(0.0, 5));
        // Places differ by 10: the more frames say so, the more it counts.
        assert!((3.0..7.0).contains(&range(1.0, 5)), "{}", range(1.0, 5));
        assert!(range(1.0, 60) > 8.0, "{}", range(1.0, 60));
        // A single frame says nothing about places.
        assert!(range(1.0, 1) < 0.1, "{}", range(1.0, 1));
    }
}
