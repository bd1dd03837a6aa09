//! The metrics as JSON. A metric that is undefined, because a class or the threshold is missing, is
//! `null` and never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curve::NormalScores;
use super::images::ImageResult;
use super::operating::OperatingPoint;
use super::overlap::Overlap;
use super::pixels::PixelResult;
use super::rate::Rate;
use super::resample::Intervals;

/// Metrics of one kind of defect together with all good frames, or of all frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindSummary {
    /// Number of frames: of a kind its defect frames, in total all frames.
    pub images: usize,
    /// Defect frames with ground truth, which therefore count for pixel metrics.
    pub with_ground_truth: usize,
    /// Area under the ROC curve over all pixels with ground truth.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve up to a false-positive rate of 30 %.
    pub aupro: Option<f64>,
    /// Average precision over pixels.
    pub pixel_aupr: Option<f64>,
    /// Highest F1 over pixels.
    pub f1_max: Option<f64>,
    /// The threshold that gives the highest F1.
    pub f1_max_threshold: Option<f32>,
    /// Percentiles of the scores of defect-free pixels.
    pub normal_scores: Option<NormalScores>,
    /// Area under the ROC curve over frames.
    pub image_auroc: Option<f64>,
    /// Average precision over frames.
    pub image_aupr: Option<f64>,
    /// Fraction of good frames or parts rejected at the package's threshold.
    pub false_reject_rate: Option<f64>,
    /// Fraction of defect frames or parts passed at the package's threshold.
    pub miss_rate: Option<f64>,
    /// `false_reject_rate` with its interval.
    #[serde(default)]
    pub false_rejects: Option<Rate>,
    /// `miss_rate` with its interval.
    #[serde(default)]
    pub misses: Option<Rate>,
    /// Interval of `pixel_auroc` at 95 % confidence.
    #[serde(default)]
    pub pixel_auroc_interval: Option<[f64; 2]>,
    /// Interval of `aupro` at 95 % confidence.
    #[serde(default)]
    pub aupro_interval: Option<[f64; 2]>,
    /// Interval of `image_auroc` at 95 % confidence.
    #[serde(default)]
    pub image_auroc_interval: Option<[f64; 2]>,
    /// F1 over pixels at the package's threshold (the SegF1 of MVTec AD 2).
    #[serde(default)]
    pub seg_f1: Option<f64>,
    /// Defect regions that lie outside of the inspected part, and count for no other figure.
    #[serde(default)]
    pub regions_outside: usize,
    /// Defect frames all of whose regions lie outside. They count for no image metric.
    #[serde(default)]
    pub frames_outside: usize,
}

impl KindSummary {
    /// The metrics, with counts of 0.
    pub(super) fn new(
        pixels: &PixelResult,
        images: &ImageResult,
        intervals: &Intervals,
        [false_rejects, misses]: [Option<Rate>; 2],
    ) -> Self {
        Self {
            images: 0,
            with_ground_truth: 0,
            regions_outside: 0,
            frames_outside: 0,
            pixel_auroc: pixels.auroc,
            aupro: pixels.aupro,
            pixel_aupr: pixels.aupr,
            f1_max: pixels.f1_max,
            f1_max_threshold: pixels.f1_threshold,
            normal_scores: pixels.normal,
            image_auroc: images.auroc,
            image_aupr: images.aupr,
            false_reject_rate: false_rejects.map(|rate| rate.rate),
            miss_rate: misses.map(|rate| rate.rate),
            false_rejects,
            misses,
            pixel_auroc_interval: intervals.pixel_auroc,
            aupro_interval: intervals.aupro,
            image_auroc_interval: intervals.image_auroc,
            seg_f1: pixels.f1_at_threshold,
        }
    }
}

/// The output of `host-trainer evaluate --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this structure.
    pub schema: u32,
    /// Metrics over all frames.
    #[serde(flatten)]
    pub total: KindSummary,
    /// The package's threshold.
    pub threshold: Option<f32>,
    /// Whether the frames were scored in half precision.
    pub half_precision: bool,
    /// Median milliseconds from frame to verdict, without reading the file; `None` if half
    /// precision was emulated.
    pub frame_ms: Option<f64>,
    /// Number of good frames.
    pub good_images: usize,
    /// Number of images that could not be used.
    pub skipped_images: usize,
    /// Whether verdicts are counted by part and intervals allow for several images of a part
    /// (`--groups`); otherwise each image counts as a part of its own.
    #[serde(default)]
    pub by_part: bool,
    /// Fraction of the pixels that are inspected; 1 without a region of interest.
    #[serde(default)]
    pub inspected_fraction: Option<f64>,
    /// Defects found at several rates of false rejects.
    #[serde(default)]
    pub operating_points: Vec<OperatingPoint>,
    /// Frames with defect regions outside of the inspected part.
    #[serde(default)]
    pub outside: Vec<OutsideFrame>,
    /// Test images that the model was made with.
    #[serde(default)]
    pub overlap: Overlap,
    /// Metrics of each kind of defect.
    pub kinds: BTreeMap<String, KindSummary>,
}

/// A frame with defect regions outside of the inspected part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideFrame {
    /// Its kind of defect.
    pub kind: String,
    /// Its file name.
    pub name: String,
    /// Number of its regions that lie outside.
    pub regions: usize,
    /// Whether all of them do.
    pub entirely: bool,
}
