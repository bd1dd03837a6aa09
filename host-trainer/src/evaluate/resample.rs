//! Intervals of areas under curves by bootstrap (Efron 1979): the images, or the parts where it is
//! known which images show the same one, are drawn again with replacement, and the middle 95 % of
//! the areas so found are the interval. Images of one part are no independent evidence, and drawn
//! together they are not counted as such.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::bins::BinnedImage;
use super::curve::{OverlapCurve, ThresholdSweep};
use super::pixels::PRO_LIMIT;
use super::rate::CONFIDENCE;
use crate::seed::generator;

/// Number of times that images are drawn again.
const REPLICATES: usize = 1_000;
/// Seed of the draws: the same data give the same intervals.
const SEED: u64 = 1;

/// An image as it is drawn again.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Number of the part that it shows, or its own.
    pub(super) part: usize,
    /// Number of its kind of defect; `None` for a good image.
    pub(super) kind: Option<usize>,
    /// Its score; `None` if it does not count for image metrics.
    pub(super) score: Option<f32>,
    /// Index of its pixels among the binned images; `None` if it has no ground truth.
    pub(super) pixels: Option<usize>,
}

/// Intervals at [`CONFIDENCE`]; `None` where fewer than two images or parts of a class vary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Intervals {
    pub(super) pixel_auroc: Option<[f64; 2]>,
    pub(super) aupro: Option<[f64; 2]>,
    pub(super) image_auroc: Option<[f64; 2]>,
}

/// Counts over images drawn, by bin.
#[derive(Debug, Clone)]
struct Sums {
    normal: Vec<u64>,
    defect: Vec<u64>,
    covered: Vec<f64>,
    regions: u64,
}

impl Sums {
    fn new(bins: usize) -> Self {
        Self {
            normal: vec![0; bins],
            defect: vec![0; bins],
            covered: vec![0.0; bins],
            regions: 0,
        }
    }

    fn clear(&mut self) {
        self.normal.fill(0);
        self.defect.fill(0);
        self.covered.fill(0.0);
        self.regions = 0;
    }

    fn add(&mut self, image: &BinnedImage, times: u32) {
        for (sum, count) in self.normal.iter_mut().zip(&image.normal) {
            *sum += u64::from(count * times);
        }
        for (sum, count) in self.defect.iter_mut().zip(&image.defect) {
            *sum += u64::from(count * times);
        }
        for (sum, covered) in self.covered.iter_mut().zip(&image.covered) {
            *sum += f64::from(covered * times as f32);
        }
        self.regions += image.regions as u64 * u64::from(times);
    }

    fn add_all(&mut self, other: &Self) {
        for (sum, count) in self.normal.iter_mut().zip(&other.normal) {
            *sum += count;
        }
        for (sum, count) in self.defect.iter_mut().zip(&other.defect) {
            *sum += count;
        }
        for (sum, covered) in self.covered.iter_mut().zip(&other.covered) {
            *sum += covered;
        }
        self.regions += other.regions;
    }

    /// Pixel AUROC and AUPRO.
    fn areas(&self) -> [Option<f64>; 2] {
        let [normal, defect] = [&self.normal, &self.defect].map(|counts| counts.iter().sum());
        let mut sweep = ThresholdSweep::new(defect, normal);
        let mut overlap = OverlapCurve::new(self.regions as usize, normal, PRO_LIMIT);
        for ((&normal, &defect), &covered) in
            self.normal.iter().zip(&self.defect).zip(&self.covered)
        {
            if normal + defect > 0 {
                sweep.step(0.0, defect, normal);
                overlap.step(covered, normal);
            }
        }
        [
            sweep.finish().map(|swept| swept.auroc),
            overlap.finish().map(|(area, _)| area),
        ]
    }
}

/// The areas found in all replicates, for all images or one kind.
#[derive(Debug, Clone, Default)]
struct Found {
    pixel_auroc: Vec<f64>,
    aupro: Vec<f64>,
    image_auroc: Vec<f64>,
}

/// Intervals over all images, and for each of `kinds` kinds over its images and the good ones.
pub(super) fn intervals(
    samples: &[Sample],
    binned: &[BinnedImage],
    kinds: usize,
) -> (Intervals, Vec<Intervals>) {
    let parts = samples.iter().map(|sample| sample.part + 1).max();
    let parts = parts.unwrap_or_default();
    let strata = strata(samples);
    let sorted = by_score(samples);
    let bins = binned.first().map_or(0, |image| image.normal.len());
    // The good images are the last.
    let mut sums = vec![Sums::new(bins); kinds + 1];
    let mut found = vec![Found::default(); kinds + 1];
    let mut times = vec![0; parts];
    let mut one = Sums::new(bins);
    for replicate in 0..REPLICATES {
        let mut rng = generator(SEED, "bootstrap", replicate as u64);
        times.fill(0u32);
        for stratum in &strata {
            for _ in 0..stratum.len() {
                times[stratum[rng.random_range(0..stratum.len())]] += 1;
            }
        }
        sums.iter_mut().for_each(Sums::clear);
        for sample in samples {
            if let (Some(pixels), 1..) = (sample.pixels, times[sample.part]) {
                sums[sample.kind.unwrap_or(kinds)].add(&binned[pixels], times[sample.part]);
            }
        }
        let mut total = sums[kinds].clone();
        for kind in 0..=kinds {
            // The last is for all images.
            let areas = if kind < kinds {
                one.clone_from(&sums[kind]);
                total.add_all(&one);
                one.add_all(&sums[kinds]);
                one.areas()
            } else {
                total.areas()
            };
            let found = &mut found[kind];
            found.pixel_auroc.extend(areas[0]);
            found.aupro.extend(areas[1]);
            let of = (kind < kinds).then_some(kind);
            found
                .image_auroc
                .extend(image_auroc(samples, &sorted, &times, of));
        }
    }
    let mut all: Vec<Intervals> = found
        .iter_mut()
        .enumerate()
        .map(|(kind, found)| {
            let of = (kind < kinds).then_some(kind);
            found.intervals(samples, binned, of)
        })
        .collect();
    (all.pop().unwrap_or_default(), all)
}

impl Found {
    fn intervals(
        &mut self,
        samples: &[Sample],
        binned: &[BinnedImage],
        kind: Option<usize>,
    ) -> Intervals {
        let counts =
            |sample: &&Sample| kind.is_none() || sample.kind.is_none_or(|k| Some(k) == kind);
        let parts = |with: &dyn Fn(&Sample) -> bool| {
            let those = samples.iter().filter(counts).filter(|sample| with(sample));
            those
                .map(|sample| sample.part)
                .collect::<BTreeSet<_>>()
                .len()
        };
        let pixels = |sample: &Sample, of: &dyn Fn(&BinnedImage) -> bool| {
            sample.pixels.is_some_and(|at| of(&binned[at]))
        };
        let regions = parts(&|sample| pixels(sample, &|image| image.regions > 0));
        let normal = parts(&|sample| pixels(sample, &|_| true));
        let enough = regions.min(normal) >= 2;
        let good = parts(&|sample| sample.kind.is_none() && sample.score.is_some());
        let defect = parts(&|sample| sample.kind.is_some() && sample.score.is_some());
        let pairs = good.min(defect);
        Intervals {
            pixel_auroc: middle(&mut self.pixel_auroc).filter(|_| enough),
            aupro: middle(&mut self.aupro).filter(|_| enough),
            image_auroc: middle(&mut self.image_auroc)
                .filter(|found| pairs >= 2 || is_certain(*found))
                .map(|found| widened(found, pairs)),
        }
    }
}

/// The parts in groups that are drawn from separately, so that every replicate has as many good
/// parts, and as many of each kind, as there are: those with images of the same kinds.
fn strata(samples: &[Sample]) -> Vec<Vec<usize>> {
    let mut kinds: BTreeMap<usize, BTreeSet<Option<usize>>> = BTreeMap::new();
    for sample in samples {
        kinds.entry(sample.part).or_default().insert(sample.kind);
    }
    let mut strata: BTreeMap<BTreeSet<Option<usize>>, Vec<usize>> = BTreeMap::new();
    for (part, kinds) in kinds {
        strata.entry(kinds).or_default().push(part);
    }
    strata.into_values().collect()
}

/// Indices of the images with a score, in runs of equal ones from the highest down.
fn by_score(samples: &[Sample]) -> Vec<Vec<usize>> {
    let scored = samples.iter().enumerate();
    let mut scored: Vec<(f32, usize)> = scored
        .filter_map(|(at, sample)| Some((sample.score?, at)))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let runs = scored.chunk_by(|a, b| a.0 == b.0);
    runs.map(|run| run.iter().map(|(_, at)| *at).collect())
        .collect()
}

/// AUROC over the images drawn: of all, or of one kind and the good ones.
fn image_auroc(
    samples: &[Sample],
    sorted: &[Vec<usize>],
    times: &[u32],
    kind: Option<usize>,
) -> Option<f64> {
    let count = |at: usize, defect: bool| {
        let sample = &samples[at];
        let wanted = match sample.kind {
            Some(of) => defect && kind.is_none_or(|kind| kind == of),
            None => !defect,
        };
        if wanted {
            u64::from(times[sample.part])
        } else {
            0
        }
    };
    let sum = |run: &[usize], defect: bool| run.iter().map(|&at| count(at, defect)).sum::<u64>();
    let [defects, good] =
        [true, false].map(|defect| sorted.iter().map(|run| sum(run, defect)).sum());
    let mut sweep = ThresholdSweep::new(defects, good);
    for run in sorted {
        let [positives, negatives] = [true, false].map(|defect| sum(run, defect));
        if positives + negatives > 0 {
            sweep.step(0.0, positives, negatives);
        }
    }
    sweep.finish().map(|swept| swept.auroc)
}

/// The middle [`CONFIDENCE`] of the values.
fn middle(values: &mut [f64]) -> Option<[f64; 2]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)? as f64;
    let below = (1.0 - CONFIDENCE) / 2.0;
    Some([below, 1.0 - below].map(|share| values[(share * last).round() as usize]))
}

/// Whether every replicate gives the same area because the classes do not overlap.
fn is_certain([low, high]: [f64; 2]) -> bool {
    low >= 1.0 || high <= 0.0
}

/// Where the classes do not overlap at all, every replicate gives the same area, and the interval
/// would claim certainty. Of `pairs` independent pairs of a defective and a good part all were then
/// ordered alike, which Clopper and Pearson's bound is taken for: an area below α/2 to the power of
/// 1 / `pairs` would give that too seldom.
fn widened([low, high]: [f64; 2], pairs: usize) -> [f64; 2] {
    let bound = ((1.0 - CONFIDENCE) / 2.0).powf(1.0 / pairs.max(1) as f64);
    if low >= 1.0 {
        [bound, 1.0]
    } else if high <= 0.0 {
        [0.0, 1.0 - bound]
    } else {
        [low, high]
    }
}

#[cfg(test)]
mod tests;
