//! The metrics as JSON. A metric that is undefined, because a class or the threshold is missing, is
//! `null` and never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curve::NormalScores;
use super::images::ImageResult;
use super::pixels::PixelResult;

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
    /// Fraction of good frames rejected at the package's threshold.
    pub false_reject_rate: Option<f64>,
    /// Fraction of defect frames passed at the package's threshold.
    pub miss_rate: Option<f64>,
}

impl KindSummary {
    /// The metrics, with counts of 0.
    pub(super) fn new(pixels: &PixelResult, images: &ImageResult) -> Self {
        Self {
            images: 0,
            with_ground_truth: 0,
            pixel_auroc: pixels.auroc,
            aupro: pixels.aupro,
            pixel_aupr: pixels.aupr,
            f1_max: pixels.f1_max,
            f1_max_threshold: pixels.f1_threshold,
            normal_scores: pixels.normal,
            image_auroc: images.auroc,
            image_aupr: images.aupr,
            false_reject_rate: images.false_reject_rate,
            miss_rate: images.miss_rate,
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
    /// Metrics of each kind of defect.
    pub kinds: BTreeMap<String, KindSummary>,
}
