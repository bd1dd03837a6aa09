//! Makes a variation model ([`scoring::inspect::variation`]) from good frames: collects their
//! features, fits each grid ([`fit`]) and measures how far good frames are off.

mod fit;
#[cfg(test)]
mod fixtures;

use proto::manifest::{VariationGrid, VariationModel};
use scoring::inspect::grid::GRIDS;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::texture::feature_count;
use scoring::inspect::variation::{distances, grid_features};

use fit::GridFit;

/// Most frames that a model is made of: memory grows with them.
pub const MOST_FRAMES: usize = 1_000;
/// Most modes of variation (`models/studies`).
const MODES: usize = 20;
/// Frames needed for each mode: with fewer, modes would describe these frames and no others.
const FRAMES_A_MODE: usize = 20;
/// Smallest spread of distances in a cell, as a fraction of the mean spread.
const LEAST_SPREAD: f64 = 0.25;
/// Good frames needed for each feature: with fewer, a covariance is more chance than surface.
const FRAMES_A_FEATURE: usize = 4;

/// Why there is no variation model.
#[derive(Debug, thiserror::Error)]
pub enum VariationError {
    /// Too few good frames.
    #[error(
        "expected at least {least} good images for a variation model, found {found}: with fewer, how good parts vary at a place \
         is not known"
    )]
    Frames {
        /// Number needed.
        least: usize,
        /// Number given.
        found: usize,
    },
    /// Nothing varies, so there is nothing to measure by.
    #[error("the good images are all alike: expected photographs of different parts")]
    Alike,
}

/// Fewest good frames, in colour or grey, that a model is made of.
pub fn least_frames(colour: bool) -> usize {
    // Each half of them is measured by a model of the other.
    2 * FRAMES_A_FEATURE * feature_count(colour)
}

/// Collects the features of good frames.
#[derive(Debug, Clone)]
pub struct VariationBuilder {
    colour: bool,
    /// For each grid, frame after frame.
    values: [Vec<f32>; GRIDS.len()],
    frames: usize,
}

impl VariationBuilder {
    /// Starts a model of frames in colour or grey.
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            values: Default::default(),
            frames: 0,
        }
    }

    /// Adds a good frame and its scores.
    pub fn add(&mut self, planes: &Planes, scores: &ScoreMap) {
        let found = grid_features(planes, self.colour, scores);
        for (values, found) in self.values.iter_mut().zip(found) {
            values.extend(found.values);
        }
        self.frames += 1;
    }

    /// Fits the model. How far good frames are off is measured by cross-validation, each half of
    /// the frames by a model of the other: frames are closer to their own model than new ones.
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
        let features = feature_count(self.colour);
        let frame = cells * features;
        // Models of the halves have as many modes as that of the whole, so that the distances are
        // those that it will find.
        let modes = MODES.min(self.frames / FRAMES_A_MODE);
        let (first, second) = values.split_at(self.frames / 2 * frame);
        let mut sums = vec![[0.0f64; 3]; cells];
        for (fitted, measured) in [(first, second), (second, first)] {
            let fit = GridFit::new(fitted, cells, features, modes);
            for frame in measured.chunks_exact(frame) {
                let left = fit.residuals(frame);
                for (sums, distance) in
                    sums.iter_mut()
                        .zip(distances(features, &fit.whitening, &left))
                {
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
        let fit = GridFit::new(values, cells, features, modes);
        Ok(VariationGrid {
            side: side as u16,
            features: features as u16,
            mean: fit.mean,
            scale: fit.scale,
            modes: fit.modes,
            whitening: fit.whitening,
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

#[cfg(test)]
mod tests {
    use scoring::inspect::variation::{check, deviations};

    use super::fixtures::part;
    use super::*;

    fn map(model: &VariationModel, planes: &Planes, colour: bool, scores: &ScoreMap) -> ScoreMap {
        let found = grid_features(planes, colour, scores);
        deviations(model, &found, None, [scores.width_px, scores.height_px])
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
    fn a_worn_area_is_found_although_no_pixel_is_out_of_range() {
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
            let good = map(&model, &part(seed, false), false, &scores(seed));
            assert!(mean(&good, true) < 2.0, "{}", mean(&good, true));
            let worn = map(&model, &part(seed, true), false, &scores(seed));
            assert!(mean(&worn, true) > 4.0, "{}", mean(&worn, true));
            assert!(mean(&worn, false) < 2.0, "{}", mean(&worn, false));
        }
    }

    #[test]
    fn modes_remove_what_whole_parts_differ_by() {
        let model = model();
        assert!(model.grids.iter().all(|grid| !grid.modes.is_empty()));
        // Twice the contrast of any good part: everywhere, or only in a quarter of the part.
        let contrast = |factor: f32, everywhere: bool| {
            let mut planes = part(700, false);
            for (at, value) in planes.data.iter_mut().enumerate() {
                let (x, y) = (at % 96, at / 96);
                let base = if x < 32 { 0.4 } else { 0.0 };
                if everywhere || (x >= 48 && y >= 48) {
                    *value = base + factor * (*value - base);
                }
            }
            planes
        };
        let mut without = model.clone();
        without.grids.iter_mut().for_each(|grid| grid.modes.clear());
        let at = |model: &VariationModel, planes: &Planes| {
            map(model, planes, false, &scores(700)).data[72 * 96 + 72]
        };
        let (whole, quarter) = (contrast(2.0, true), contrast(2.0, false));
        let (with, alone) = (at(&model, &whole), at(&without, &whole));
        assert!(with < 0.5 * alone, "{with} {alone}");
        assert!(
            at(&model, &quarter) > 1.5 * with,
            "{} {with}",
            at(&model, &quarter)
        );
    }

    #[test]
    fn a_speck_that_the_network_scores_is_found_too() {
        let model = model();
        let mut speck = scores(600);
        for y in 50..53 {
            speck.data[y * 96 + 70..y * 96 + 73].fill(6.0);
        }
        let map = map(&model, &part(600, false), false, &speck);
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
    fn features_that_never_varied_do_not_drown_the_others() {
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
            map(&model, planes, true, &ScoreMap::zeros(96, 96)).data[64 * 96 + 66]
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
    fn few_frames_are_refused() {
        let mut builder = VariationBuilder::new(false);
        for seed in 1..=40 {
            builder.add(&part(seed, false), &scores(seed));
        }
        let error = builder.finish().unwrap_err().to_string();
        assert!(
            error.contains("at least 56") && error.contains("found 40"),
            "{error}"
        );
    }
}
