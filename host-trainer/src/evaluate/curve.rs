//! Curves over all thresholds: ROC, precision-recall, F1 and per-region overlap. In: counts by
//! score, from the highest score down. Out: areas, maxima and points to draw.
//!
//! Equal scores are counted in one step, because a threshold is either above or below all of them.

use serde::{Deserialize, Serialize};

/// Counts while the threshold sweeps from the highest score down. Scores are not stored.
#[derive(Debug)]
pub(super) struct ThresholdSweep {
    positives: f64,
    negatives: f64,
    true_positives: f64,
    false_positives: f64,
    area: f64,
    average_precision: f64,
    best_f1: f64,
    best_threshold: f32,
    roc: Vec<[f64; 2]>,
    quantiles: [Option<f32>; 3],
}

/// 50th, 99th and 99.9th percentiles of the scores of defect-free items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NormalScores {
    /// Median.
    pub median: f32,
    /// 99th percentile.
    pub p99: f32,
    /// 99.9th percentile.
    pub p99_9: f32,
}

/// Fractions of defect-free items above the percentiles of [`NormalScores`].
const FRACTIONS_ABOVE: [f64; 3] = [0.5, 0.01, 0.001];

/// Number of points that a curve is thinned to for drawing.
const DRAWN_POINTS: f64 = 800.0;

/// Metrics of a completed sweep.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SweepResult {
    pub(super) auroc: f64,
    pub(super) average_precision: f64,
    pub(super) f1_max: f64,
    /// The highest threshold that gives F1-max, where scores ≥ threshold are rejected.
    pub(super) f1_threshold: f32,
    pub(super) roc: Vec<[f64; 2]>,
    pub(super) normal: Option<NormalScores>,
}

impl ThresholdSweep {
    /// Begins a sweep over this many defect and defect-free items.
    pub(super) fn new(positives: u64, negatives: u64) -> Self {
        Self {
            positives: positives as f64,
            negatives: negatives as f64,
            true_positives: 0.0,
            false_positives: 0.0,
            area: 0.0,
            average_precision: 0.0,
            best_f1: 0.0,
            best_threshold: f32::INFINITY,
            roc: vec![[0.0, 0.0]],
            quantiles: [None; 3],
        }
    }

    /// Counts all items of the next lower score.
    pub(super) fn step(&mut self, score: f32, positives: u64, negatives: u64) {
        let (positives, negatives) = (positives as f64, negatives as f64);
        self.area += negatives * (self.true_positives + positives / 2.0);
        self.true_positives += positives;
        self.false_positives += negatives;
        for (quantile, above) in self.quantiles.iter_mut().zip(FRACTIONS_ABOVE) {
            if quantile.is_none() && self.false_positives > above * self.negatives {
                *quantile = Some(score);
            }
        }
        let precision = self.true_positives / (self.true_positives + self.false_positives);
        self.average_precision += positives * precision;
        let f1 = 2.0 * self.true_positives
            / (self.true_positives + self.false_positives + self.positives);
        if f1 > self.best_f1 {
            self.best_f1 = f1;
            self.best_threshold = score;
        }
        let point = [
            self.false_positives / self.negatives,
            self.true_positives / self.positives,
        ];
        push_thinned(&mut self.roc, point);
    }

    /// Completes the sweep; `None` if there is only one class.
    pub(super) fn finish(mut self) -> Option<SweepResult> {
        if self.positives == 0.0 || self.negatives == 0.0 {
            return None;
        }
        self.roc.push([1.0, 1.0]);
        Some(SweepResult {
            auroc: self.area / (self.positives * self.negatives),
            average_precision: self.average_precision / self.positives,
            f1_max: self.best_f1,
            f1_threshold: self.best_threshold,
            roc: self.roc,
            normal: match self.quantiles {
                [Some(median), Some(p99), Some(p99_9)] => Some(NormalScores { median, p99, p99_9 }),
                _ => None,
            },
        })
    }
}

/// The per-region-overlap (PRO) curve: mean overlap of regions over the false-positive rate
/// (Bergmann et al. 2021).
#[derive(Debug)]
pub(super) struct OverlapCurve {
    regions: f64,
    negatives: f64,
    limit: f64,
    false_positives: f64,
    overlap: f64,
    area: f64,
    curve: Vec<[f64; 2]>,
}

impl OverlapCurve {
    /// Begins a curve that is integrated up to the false-positive rate `limit`.
    pub(super) fn new(regions: usize, negatives: u64, limit: f64) -> Self {
        Self {
            regions: regions as f64,
            negatives: negatives as f64,
            limit,
            false_positives: 0.0,
            overlap: 0.0,
            area: 0.0,
            curve: vec![[0.0, 0.0]],
        }
    }

    /// Counts all pixels of the next lower score. `covered` is the sum of 1 / (area of the pixel's
    /// region) over the defect pixels.
    pub(super) fn step(&mut self, covered: f64, negatives: u64) {
        let (x0, y0) = (
            self.false_positives / self.negatives,
            self.overlap / self.regions,
        );
        self.false_positives += negatives as f64;
        self.overlap += covered;
        let (x1, y1) = (
            self.false_positives / self.negatives,
            self.overlap / self.regions,
        );
        if x0 < self.limit {
            // The last trapezoid ends at the limit, where its height is interpolated.
            let end = x1.min(self.limit);
            let height = if x1 > x0 {
                y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            } else {
                y1
            };
            self.area += (end - x0) * (y0 + height) / 2.0;
            let point = [end, height];
            if x1 >= self.limit {
                self.curve.push(point);
            } else {
                push_thinned(&mut self.curve, point);
            }
        }
    }

    /// Returns the area divided by the limit, and the curve; `None` without regions or without
    /// defect-free pixels.
    pub(super) fn finish(self) -> Option<(f64, Vec<[f64; 2]>)> {
        if self.regions == 0.0 || self.negatives == 0.0 {
            return None;
        }
        Some((self.area / self.limit, self.curve))
    }
}

/// Adds a point unless it is too close to the last one to be seen.
fn push_thinned(curve: &mut Vec<[f64; 2]>, point: [f64; 2]) {
    let far = curve.last().is_none_or(|last| {
        (point[0] - last[0]).abs() + (point[1] - last[1]).abs() >= 2.0 / DRAWN_POINTS
    });
    if far {
        curve.push(point);
    }
}
