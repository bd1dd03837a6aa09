//! A variation model, as machine vision calls what it compares parts with that always lie alike: for every place how good parts
//! look there, and how they vary. Here a Gaussian of the cell's features ([`super::texture`]), the network's score among them;
//! the map then says how far from good a place is, in standard deviations of what good parts are off. **Ours**: per place as
//! PaDiM has it (Defard et al. 2021), of features that need no other network.

use proto::manifest::{VariationGrid, VariationModel};

use super::cells::enlarge;
use super::map::ScoreMap;
use super::preprocess::Planes;
use super::texture::{COLOUR_FEATURES, GREY_FEATURES, cell_features};

/// Cells along a side of the two grids: large uneven areas, and what is smaller.
const GRIDS: [usize; 2] = [16, 32];
/// Added to the variances, as a share of each feature's mean over all places: a place that hardly varied among the good parts
/// may vary a little more.
const RIDGE: f64 = 0.01;
/// And at least so much: of a feature that never varied (differences of colours of a grey part) rounding is no measure.
const LEAST_RIDGE: f64 = 1e-6;
/// No value of a model is larger: a feature is of the order of 1, a weight at most one over the root of the least ridge.
const LARGEST: f32 = 1e6;
/// A place's spread of distances is at least this share of the mean spread, for the same reason.
const LEAST_SPREAD: f64 = 0.25;
/// Good frames for each feature: with fewer, a covariance is more chance than surface.
const FRAMES_A_FEATURE: usize = 4;

/// Deviations beyond that tell nothing more, and stay finite when they are added up.
const MOST: f32 = 1e6;

/// Why there is no variation model.
#[derive(Debug, thiserror::Error)]
pub enum VariationError {
    /// Too few good frames.
    #[error(
        "expected at least {least} good images for a variation model, found {found}: with fewer, how good parts vary at a place \
         is not known"
    )]
    Frames {
        /// How many there must be.
        least: usize,
        /// How many there are.
        found: usize,
    },
    /// Nothing varies, so that there is nothing to measure by.
    #[error("the good images are all alike: expected photographs of different parts")]
    Alike,
}

/// Features of a cell of frames in colour or grey.
fn features_of(colour: bool) -> usize {
    if colour {
        COLOUR_FEATURES
    } else {
        GREY_FEATURES
    }
}

/// Good frames in colour or grey that a model takes.
pub fn least_frames(colour: bool) -> usize {
    // Each half of them is measured by the other.
    2 * FRAMES_A_FEATURE * features_of(colour)
}

/// Good frames' features.
#[derive(Debug, Clone)]
pub struct VariationBuilder {
    colour: bool,
    /// For each grid, frame after frame.
    values: [Vec<f32>; GRIDS.len()],
    frames: usize,
}

impl VariationBuilder {
    /// Of frames in colour or grey.
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            values: Default::default(),
            frames: 0,
        }
    }

    /// Takes in a good frame and its scores.
    pub fn add(&mut self, planes: &Planes, scores: &ScoreMap) {
        let found = cell_features(planes, self.colour, scores, GRIDS);
        for (values, found) in self.values.iter_mut().zip(found) {
            values.extend(found.values);
        }
        self.frames += 1;
    }

    /// How good frames look and vary. How far good frames are off is measured on each half of them by the other, because
    /// those that a model is made of are closer to it than new ones.
    pub fn finish(&self) -> Result<VariationModel, VariationError> {
        let least = least_frames(self.colour);
        if self.frames < least {
            return Err(VariationError::Frames {
                least,
                found: self.frames,
            });
        }
        let grids = GRIDS
            .into_iter()
            .zip(&self.values)
            .map(|(side, values)| self.grid(side, values))
            .collect::<Result<_, _>>()?;
        Ok(VariationModel {
            grids,
            frames: self.frames as u32,
        })
    }

    fn grid(&self, side: usize, values: &[f32]) -> Result<VariationGrid, VariationError> {
        let cells = side * side;
        let features = features_of(self.colour);
        let frame = cells * features;
        let (first, second) = values.split_at(self.frames / 2 * frame);
        let mut sums = vec![[0.0f64; 3]; cells];
        for (fitted, measured) in [(first, second), (second, first)] {
            let model = Gaussians::fit(fitted, cells, features);
            for frame in measured.chunks_exact(frame) {
                for (sums, distance) in sums.iter_mut().zip(model.distances(frame)) {
                    let distance = f64::from(distance);
                    sums[0] += 1.0;
                    sums[1] += distance;
                    sums[2] += distance * distance;
                }
            }
        }
        let spreads: Vec<f64> = sums
            .iter()
            .map(|[count, sum, squares]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt())
            .collect();
        let usual = spreads.iter().sum::<f64>() / cells as f64;
        if usual <= 0.0 {
            return Err(VariationError::Alike);
        }
        let model = Gaussians::fit(values, cells, features);
        Ok(VariationGrid {
            side: side as u16,
            features: features as u16,
            mean: model.mean,
            whitening: model.whitening,
            distance_mean: sums
                .iter()
                .map(|[count, sum, _]| (sum / count) as f32)
                .collect(),
            distance_spread: spreads
                .into_iter()
                .map(|spread| spread.max(LEAST_SPREAD * usual) as f32)
                .collect(),
        })
    }
}

/// A Gaussian a cell: means, and the inverse of the covariance's Cholesky factor, its lower triangle row by row.
#[derive(Debug)]
struct Gaussians {
    features: usize,
    mean: Vec<f32>,
    whitening: Vec<f32>,
}

impl Gaussians {
    fn fit(values: &[f32], cells: usize, features: usize) -> Self {
        let frame = cells * features;
        let count = (values.len() / frame) as f64;
        let mut mean = vec![0.0f64; frame];
        for values in values.chunks_exact(frame) {
            mean.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
        let triangle = features * (features + 1) / 2;
        let mut covariance = vec![0.0f64; cells * triangle];
        for values in values.chunks_exact(frame) {
            for ((values, mean), products) in values
                .chunks_exact(features)
                .zip(mean.chunks_exact(features))
                .zip(covariance.chunks_exact_mut(triangle))
            {
                let off = |feature: usize| f64::from(values[feature]) - mean[feature];
                let mut products = products.iter_mut();
                for row in 0..features {
                    let row_off = off(row);
                    for (column, product) in products.by_ref().take(row + 1).enumerate() {
                        *product += row_off * off(column);
                    }
                }
            }
        }
        covariance.iter_mut().for_each(|sum| *sum /= count - 1.0);
        let diagonal = |row: usize| row * (row + 3) / 2;
        let ridge: Vec<f64> = (0..features)
            .map(|row| {
                let places = covariance.chunks_exact(triangle);
                let mean = places.map(|place| place[diagonal(row)]).sum::<f64>() / cells as f64;
                (RIDGE * mean).max(LEAST_RIDGE)
            })
            .collect();
        let mut whitening = Vec::with_capacity(covariance.len());
        for place in covariance.chunks_exact_mut(triangle) {
            for (row, ridge) in ridge.iter().enumerate() {
                place[diagonal(row)] += ridge;
            }
            cholesky(place, features);
            invert(place, features);
            whitening.extend(place.iter().map(|value| *value as f32));
        }
        Self {
            features,
            mean: mean.into_iter().map(|value| value as f32).collect(),
            whitening,
        }
    }

    fn distances<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        distances(self.features, &self.mean, &self.whitening, values)
    }
}

/// Mahalanobis distance of each cell's features over the square root of their number: about 1 for good ones.
fn distances<'a>(
    features: usize,
    mean: &'a [f32],
    whitening: &'a [f32],
    values: &'a [f32],
) -> impl Iterator<Item = f32> + 'a {
    let triangle = features * (features + 1) / 2;
    let cells = values
        .chunks_exact(features)
        .zip(mean.chunks_exact(features));
    let mut off = vec![0.0f32; features];
    cells
        .zip(whitening.chunks_exact(triangle))
        .map(move |((values, mean), whitening)| {
            for ((off, value), mean) in off.iter_mut().zip(values).zip(mean) {
                *off = value - mean;
            }
            let mut squares = 0.0;
            let mut start = 0;
            for row in 0..features {
                let weights = &whitening[start..=start + row];
                let sum: f32 = weights.iter().zip(&off).map(|(a, b)| a * b).sum();
                squares += sum * sum;
                start += row + 1;
            }
            (squares / features as f32).sqrt()
        })
}

/// Place of an element of a lower triangle that is stored row by row.
fn at(row: usize, column: usize) -> usize {
    row * (row + 1) / 2 + column
}

/// The Cholesky factor of a positive definite matrix, given and left as its lower triangle (Golub and Van Loan, 4.2).
fn cholesky(a: &mut [f64], size: usize) {
    for row in 0..size {
        for column in 0..=row {
            let sum: f64 = (0..column).map(|k| a[at(row, k)] * a[at(column, k)]).sum();
            let rest = a[at(row, column)] - sum;
            a[at(row, column)] = if row == column {
                // The ridge keeps it above 0 but for rounding.
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / a[at(column, column)]
            };
        }
    }
}

/// The inverse of a lower triangle, in its place.
fn invert(a: &mut [f64], size: usize) {
    for column in 0..size {
        a[at(column, column)] = 1.0 / a[at(column, column)];
        for row in column + 1..size {
            let sum: f64 = (column..row)
                .map(|k| a[at(row, k)] * a[at(k, column)])
                .sum();
            a[at(row, column)] = -sum / a[at(row, row)];
        }
    }
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
    let found = cell_features(planes, colour, scores, GRIDS);
    let finest = GRIDS.into_iter().max().unwrap_or(1);
    let mut sum = vec![0.0f32; finest * finest];
    for (grid, found) in model.grids.iter().zip(found) {
        let off = distances(found.count, &grid.mean, &grid.whitening, &found.values);
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
    let features = features_of(colour);
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
    for grid in &model.grids {
        let cells = usize::from(grid.side).pow(2);
        let lengths = [
            usize::from(grid.features),
            grid.mean.len(),
            grid.whitening.len(),
            grid.distance_mean.len(),
            grid.distance_spread.len(),
        ];
        let expected = [
            features,
            cells * features,
            cells * features * (features + 1) / 2,
            cells,
            cells,
        ];
        if lengths != expected {
            return Err(format!(
                "expected a variation model with features, means, weights and distances of {expected:?}, found {lengths:?}"
            ));
        }
        let finite = [&grid.mean, &grid.whitening, &grid.distance_mean]
            .into_iter()
            .flatten()
            .all(|value| value.abs() <= LARGEST);
        let spreads = &grid.distance_spread;
        if !finite
            || !spreads
                .iter()
                .all(|spread| (1.0 / LARGEST..=LARGEST).contains(spread))
        {
            return Err(
                "expected values of at most 1e6 and spreads from 1e-6 in the variation model"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Brightness and contrast of a textured part with a bright left third, which vary from part to part.
    fn part(seed: u64, worn: bool) -> Planes {
        let side = 96;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let (light, contrast) = (0.2 * random(), 0.3 + 0.1 * random());
        let mut data = Vec::new();
        for y in 0..side {
            for x in 0..side {
                let base = if x < 32 { 0.4 } else { 0.0 };
                // Worn: the texture is fainter over a quarter of the part, no pixel is out of range.
                let inside = worn && (44..92).contains(&x) && (40..88).contains(&y);
                let texture = contrast * random() * if inside { 0.25 } else { 1.0 };
                data.push(base + light + texture);
            }
        }
        Planes {
            channels: 1,
            width_px: side,
            height_px: side,
            data,
        }
    }

    fn model() -> VariationModel {
        let mut builder = VariationBuilder::new(false);
        for seed in 1..=160 {
            builder.add(&part(seed, false), &scores(seed));
        }
        builder.finish().unwrap()
    }

    fn scores(seed: u64) -> ScoreMap {
        let mut scores = ScoreMap::zeros(96, 96);
        let noise = part(seed + 1_000, false).data;
        scores
            .data
            .iter_mut()
            .zip(noise)
            .for_each(|(score, noise)| *score = 0.1 * noise.abs());
        scores
    }

    #[test]
    fn a_worn_area_is_found_that_no_pixel_gives_away() {
        let model = model();
        check(&model, false).unwrap();
        let mean = |map: &ScoreMap, inside: bool| {
            let at = (0..96 * 96).filter(|i| {
                let (x, y) = (i % 96, i / 96);
                let within = (52..84).contains(&x) && (48..80).contains(&y);
                let without = !(36..96).contains(&x) || y < 32;
                if inside { within } else { without }
            });
            let (sum, count) = at.fold((0.0, 0.0), |(s, c), i| (s + map.data[i], c + 1.0));
            sum / count
        };
        for seed in 500..505 {
            let good = deviations(&model, &part(seed, false), false, &scores(seed));
            assert!(mean(&good, true) < 2.0, "{}", mean(&good, true));
            let worn = deviations(&model, &part(seed, true), false, &scores(seed));
            assert!(mean(&worn, true) > 4.0, "{}", mean(&worn, true));
            assert!(mean(&worn, false) < 2.0, "{}", mean(&worn, false));
        }
    }

    #[test]
    fn a_speck_that_the_network_scores_is_found_too() {
        let model = model();
        let mut speck = scores(600);
        for y in 50..53 {
            speck.data[y * 96 + 70..y * 96 + 73].fill(6.0);
        }
        let map = deviations(&model, &part(600, false), false, &speck);
        let highest = map
            .data
            .iter()
            .copied()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let (place, height) = highest.unwrap();
        assert!(height > 5.0, "{height}");
        assert!((place % 96).abs_diff(71) < 5 && (place / 96).abs_diff(51) < 5);
    }

    #[test]
    fn what_never_varied_does_not_drown_what_does() {
        let mut builder = VariationBuilder::new(true);
        let grey = |seed: u64, worn: bool| {
            let Planes { data, .. } = part(seed, worn);
            Planes {
                channels: 3,
                width_px: 96,
                height_px: 96,
                data: data.repeat(3),
            }
        };
        for seed in 1..=160 {
            builder.add(&grey(seed, false), &ScoreMap::zeros(96, 96));
        }
        let model = builder.finish().unwrap();
        check(&model, true).unwrap();
        let at = |planes: &Planes| {
            deviations(&model, planes, true, &ScoreMap::zeros(96, 96)).data[64 * 96 + 66]
        };
        assert!(at(&grey(500, false)) < 3.0, "{}", at(&grey(500, false)));
        assert!(at(&grey(500, true)) > 4.0, "{}", at(&grey(500, true)));
        let mut alike = VariationBuilder::new(false);
        for _ in 0..160 {
            alike.add(&part(1, false), &ScoreMap::zeros(96, 96));
        }
        assert!(matches!(alike.finish(), Err(VariationError::Alike)));
    }

    #[test]
    fn few_frames_are_refused_and_so_is_another_shape() {
        let mut builder = VariationBuilder::new(false);
        for seed in 1..=60 {
            builder.add(&part(seed, false), &scores(seed));
        }
        let error = builder.finish().unwrap_err().to_string();
        assert!(error.contains("120") && error.contains("60"), "{error}");
        let mut model = model();
        assert!(check(&model, true).unwrap_err().contains("features"));
        model.grids[1].distance_spread[7] = 0.0;
        assert!(check(&model, false).unwrap_err().contains("spreads from"));
        model.grids.pop();
        assert!(check(&model, false).unwrap_err().contains("[16, 32]"));
    }

    proptest! {
        #[test]
        fn whitening_makes_a_covariance_the_identity(values in prop::collection::vec(-1.0f64..1.0, 25)) {
            // A = B·Bᵀ + I is positive definite.
            let size = 5;
            let full = |row: usize, column: usize| -> f64 {
                let product: f64 = (0..size).map(|k| values[row * size + k] * values[column * size + k]).sum();
                product + f64::from(u8::from(row == column))
            };
            let mut a: Vec<f64> =
                (0..size).flat_map(|row| (0..=row).map(move |column| (row, column))).map(|(r, c)| full(r, c)).collect();
            cholesky(&mut a, size);
            invert(&mut a, size);
            let w = |row: usize, column: usize| if column <= row { a[at(row, column)] } else { 0.0 };
            for row in 0..size {
                for column in 0..size {
                    let sum: f64 = (0..size)
                        .flat_map(|i| (0..size).map(move |j| (i, j)))
                        .map(|(i, j)| w(row, i) * full(i, j) * w(column, j))
                        .sum();
                    prop_assert!((sum - f64::from(u8::from(row == column))).abs() < 1e-9);
                }
            }
        }
    }
}
