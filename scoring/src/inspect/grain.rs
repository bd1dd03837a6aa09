//! Compares a surface's grain with that of good frames at the same place: how strongly it varies in
//! two directions at four scales, how bright it is, and what colour it has. `host-trainer` makes the
//! statistics.
//!
//! In: a frame's planes. Out: a map of deviations from good, in standard deviations.
//!
//! **Ours.** The network sees what does not belong; this sees what is missing, such as texture that
//! was smeared, and needs no training. A place is 4 × 4 pixels, and stands for the surface within
//! some 10. Scales are those of a Gaussian pyramid (Burt and Adelson 1983).

use proto::manifest::GrainStatistics;

use super::map::ScoreMap;
use super::places::{GoodPlaces, MeanOutputs, check_distances, check_means};
use super::preprocess::Planes;
use crate::infer::LayerOutput;

/// Scales at which brightness varies: differences of neighbours at 1, 2, 4 and 8 pixels.
const SCALES: usize = 4;
/// Scales at which colour varies, which cameras resolve less.
const COLOUR_SCALES: usize = 1;
/// Scale of the image that brightness and colour are read from.
const MEAN_SCALE: usize = 2;
/// Pixels of a place along a side.
const PLACE_PX: usize = 4;
/// Standard deviation of the Gaussian that smooths features, in places.
const SMOOTHING_PLACES: f32 = 0.75;
/// Added to a mean square difference before the logarithm: that of values that 8 bits hardly tell
/// apart (1/255 of the range is 0.008).
const LEAST_ENERGY: f32 = 1e-5;
/// Filter of the pyramid.
const BINOMIAL: [f32; 5] = [0.0625, 0.25, 0.375, 0.25, 0.0625];

/// Number of features of a place.
pub fn channel_count(colour: bool) -> usize {
    let of_brightness = 2 * SCALES + 1;
    match colour {
        true => of_brightness + 2 * (2 * COLOUR_SCALES + 1),
        false => of_brightness,
    }
}

/// Places along a side of so many pixels: place n is at pixel 4 n, and there is one beyond the last
/// pixel or at it.
fn place_count(side_px: usize) -> usize {
    (side_px + 1) / PLACE_PX + 1
}

/// An image of one channel.
struct Image {
    width: usize,
    height: usize,
    data: Vec<f32>,
}

impl Image {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }

    /// Every second pixel of every second row, of the image smoothed by [`BINOMIAL`]; the border is
    /// repeated.
    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let last = self.width - 1;
        let mut narrow = Vec::with_capacity(width * self.height);
        for row in self.data.chunks_exact(self.width) {
            narrow.extend((0..width).map(|column| {
                let at = |tap: usize| row[(2 * column + tap).saturating_sub(2).min(last)];
                let taps = BINOMIAL.iter().enumerate();
                taps.map(|(tap, weight)| weight * at(tap)).sum::<f32>()
            }));
        }
        let mut data = vec![0.0; width * height];
        for (row, line) in data.chunks_exact_mut(width).enumerate() {
            for (tap, weight) in BINOMIAL.iter().enumerate() {
                let from = (2 * row + tap).saturating_sub(2).min(self.height - 1);
                let from = &narrow[from * width..(from + 1) * width];
                for (sum, value) in line.iter_mut().zip(from) {
                    *sum += weight * value;
                }
            }
        }
        Self {
            width,
            height,
            data,
        }
    }
}

/// Averages of an image's pixels at the places of a frame.
struct PlaceAverages {
    /// Pixels of the frame between two of the image.
    pitch_px: usize,
    columns: usize,
    rows: usize,
    sums: Vec<f32>,
    /// Values added in each column, and rows added.
    in_column: Vec<f32>,
    in_row: Vec<f32>,
}

impl PlaceAverages {
    fn new(scale: usize, [columns, rows]: [usize; 2]) -> Self {
        Self {
            pitch_px: 1 << scale,
            columns,
            rows,
            sums: vec![0.0; columns * rows],
            in_column: vec![0.0; columns],
            in_row: vec![0.0; rows],
        }
    }

    /// The place of a pixel.
    fn place(&self, at: usize, count: usize) -> usize {
        ((at * self.pitch_px + PLACE_PX / 2) / PLACE_PX).min(count - 1)
    }

    /// Adds a row of values, of which the first is of pixel `first`.
    fn add(&mut self, row: usize, first: usize, values: impl Iterator<Item = f32>) {
        let row = self.place(row, self.rows);
        let is_first_row = self.in_row.iter().all(|count| *count == 0.0);
        self.in_row[row] += 1.0;
        for (at, value) in (first..).zip(values) {
            let column = self.place(at, self.columns);
            self.sums[row * self.columns + column] += value;
            if is_first_row {
                self.in_column[column] += 1.0;
            }
        }
    }

    /// The averages, smoothed. Places between those that have a value get the mean of the nearest on
    /// both sides.
    fn finish(mut self) -> ScoreMap {
        let columns = Filled::new(&self.in_column);
        let rows = Filled::new(&self.in_row);
        for (row, line) in self.sums.chunks_exact_mut(self.columns).enumerate() {
            let in_row = self.in_row[row].max(1.0);
            for (sum, in_column) in line.iter_mut().zip(&self.in_column) {
                *sum /= in_row * in_column.max(1.0);
            }
        }
        let at = |row: usize, column: usize| self.sums[row * self.columns + column];
        let data = (0..self.rows * self.columns).map(|index| {
            let [up, down] = rows.0[index / self.columns];
            let [left, right] = columns.0[index % self.columns];
            0.25 * (at(up, left) + at(up, right) + at(down, left) + at(down, right))
        });
        let mut map = ScoreMap {
            width_px: self.columns,
            height_px: self.rows,
            data: data.collect(),
        };
        map.smooth(SMOOTHING_PLACES);
        map
    }
}

/// For each place, the nearest ones on both sides that have a value: itself twice if it has one.
struct Filled(Vec<[usize; 2]>);

impl Filled {
    fn new(counts: &[f32]) -> Self {
        let has = |at: &usize| counts[*at] > 0.0;
        let nearest = |at: usize| {
            let before = (0..=at).rev().find(has);
            let after = (at..counts.len()).find(has);
            let before = before.or(after).unwrap_or(at);
            [before, after.unwrap_or(before)]
        };
        Self((0..counts.len()).map(nearest).collect())
    }
}

/// Logarithms of the mean square difference of neighbours in each direction, at places.
fn energies(image: &Image, scale: usize, places: [usize; 2]) -> [ScoreMap; 2] {
    let mut across = PlaceAverages::new(scale, places);
    let mut down = PlaceAverages::new(scale, places);
    let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
    for row in 0..image.height {
        let line = image.row(row);
        across.add(row, 1, line[1..].iter().zip(line).map(square));
        if let Some(above) = row.checked_sub(1) {
            down.add(row, 0, line.iter().zip(image.row(above)).map(square));
        }
    }
    [across, down].map(|averages| {
        let mut map = averages.finish();
        let energies = map.data.iter_mut();
        energies.for_each(|energy| *energy = (*energy + LEAST_ENERGY).ln());
        map
    })
}

/// Features of one channel: energies at so many scales, and its mean.
fn features_of(image: Image, scales: usize, places: [usize; 2], features: &mut Vec<f32>) {
    let mut image = image;
    for scale in 0..=MEAN_SCALE.max(scales - 1) {
        if scale > 0 {
            image = image.halved();
        }
        if scale < scales {
            for map in energies(&image, scale, places) {
                features.extend(map.data);
            }
        }
        if scale == MEAN_SCALE {
            let mut mean = PlaceAverages::new(scale, places);
            for row in 0..image.height {
                mean.add(row, 0, image.row(row).iter().copied());
            }
            features.extend(mean.finish().data);
        }
    }
}

/// The features of every place of a frame, in a fixed order.
pub fn features(planes: &Planes, colour: bool) -> LayerOutput {
    let (width, height) = (planes.width_px, planes.height_px);
    let places = [place_count(width), place_count(height)];
    let image = |value: &dyn Fn(usize) -> f32| Image {
        width,
        height,
        data: (0..width * height).map(value).collect(),
    };
    let mut values = Vec::with_capacity(channel_count(colour) * places[0] * places[1]);
    let red = planes.plane(0);
    if colour {
        let (green, blue) = (planes.plane(1), planes.plane(2));
        let brightness = image(&|at| (red[at] + green[at] + blue[at]) / 3.0);
        features_of(brightness, SCALES, places, &mut values);
        let red_green = image(&|at| red[at] - green[at]);
        features_of(red_green, COLOUR_SCALES, places, &mut values);
        let blue_yellow = image(&|at| blue[at] - 0.5 * (red[at] + green[at]));
        features_of(blue_yellow, COLOUR_SCALES, places, &mut values);
    } else {
        features_of(image(&|at| red[at]), SCALES, places, &mut values);
    }
    LayerOutput::new(channel_count(colour), places[0], 0..places[1], values)
}

/// What a row of places is off its means: channels × columns, channel by channel.
pub fn residual_row(features: &LayerOutput, means: &MeanOutputs, row: usize) -> Vec<f32> {
    let channels = 0..features.channels();
    let residuals = channels.flat_map(|channel| {
        let pairs = features.row(channel, row).iter();
        let pairs = pairs.zip(means.row(channel, row));
        pairs.map(|(value, mean)| value - mean)
    });
    residuals.collect()
}

/// The grain of good places, ready for frames of one size.
#[derive(Debug)]
pub struct GoodGrain {
    means: MeanOutputs,
    places: GoodPlaces,
}

impl GoodGrain {
    /// For frames of this size in pixels.
    pub fn new(statistics: &GrainStatistics, width_px: usize, height_px: usize) -> Self {
        let GrainStatistics {
            means, distances, ..
        } = statistics;
        let from = [means.columns, means.rows].map(usize::from);
        let [columns, rows] = [width_px, height_px].map(place_count);
        Self {
            means: MeanOutputs::new(means, columns, rows),
            places: GoodPlaces::new(distances, from, [columns, rows]),
        }
    }

    /// Whether it is for frames of this size in pixels.
    pub fn fits(&self, width_px: usize, height_px: usize) -> bool {
        self.places
            .fits(place_count(width_px), place_count(height_px))
    }

    /// Deviations of one row of places, in standard deviations.
    fn deviations_of_row(&self, features: &LayerOutput, row: usize) -> Vec<f32> {
        let residuals = residual_row(features, &self.means, row);
        self.places.deviations_of_row(&residuals, row)
    }

    /// Deviations of all places of a frame, in standard deviations.
    pub fn deviations(&self, features: &LayerOutput) -> ScoreMap {
        let rows = features.rows();
        ScoreMap {
            width_px: features.columns(),
            height_px: rows.len(),
            data: rows
                .flat_map(|row| self.deviations_of_row(features, row))
                .collect(),
        }
    }
}

/// Checks statistics of grain. The error says what is wrong with them.
pub fn check(statistics: &GrainStatistics, colour: bool) -> Result<(), String> {
    let GrainStatistics {
        means,
        distances,
        map_weight,
        ..
    } = statistics;
    let channels = channel_count(colour);
    check_means(means, channels)?;
    check_distances(distances, *map_weight, channels, means)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes(width_px: usize, height_px: usize, value: impl Fn(usize, usize) -> f32) -> Planes {
        let at = (0..width_px * height_px).map(|at| value(at % width_px, at / width_px));
        Planes {
            channels: 1,
            width_px,
            height_px,
            data: at.collect(),
        }
    }

    #[test]
    fn a_flat_frame_has_no_energy_and_its_own_brightness() {
        for (width_px, height_px) in [(65, 65), (66, 67), (68, 259), (256, 100)] {
            let found = features(&planes(width_px, height_px, |_, _| 0.5), false);
            assert_eq!(found.columns(), (width_px + 1) / 4 + 1);
            for channel in 0..channel_count(false) {
                for row in found.rows() {
                    // The brightness comes after the energies of the first three scales.
                    let expected = if channel == 6 { 0.5 } else { LEAST_ENERGY.ln() };
                    for value in found.row(channel, row) {
                        assert!((value - expected).abs() < 1e-4, "{channel} {row}: {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn stripes_have_energy_in_one_direction() {
        let found = features(&planes(96, 96, |x, _| (x % 2) as f32 * 0.2), false);
        let [across, down] = [0, 1].map(|channel| found.row(channel, 10)[10]);
        assert!(
            (across - (0.04 + LEAST_ENERGY).ln()).abs() < 1e-3,
            "{across}"
        );
        assert!((down - LEAST_ENERGY.ln()).abs() < 1e-4, "{down}");
        // The second scale no longer sees them.
        assert!(found.row(2, 10)[10] < -9.0, "{}", found.row(2, 10)[10]);
    }
}
