//! The figures as JSON. `null` is "cannot be said" (one class only, no threshold), never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::images::ImageResult;
use super::pixels::{NormalScores, PixelResult};

/// Figures of one kind of defect together with all good frames, or of everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindSummary {
    /// Frames (of a kind: its defect frames; in total: all).
    pub images: usize,
    /// Defect frames that have a ground truth and so count for pixel metrics.
    pub with_ground_truth: usize,
    /// Area under the ROC curve over all pixels with ground truth.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve to 30 % false-positive rate.
    pub aupro: Option<f64>,
    /// Average precision over pixels.
    pub pixel_aupr: Option<f64>,
    /// Highest F1 over pixels.
    pub f1_max: Option<f64>,
    /// The threshold that it is reached at.
    pub f1_max_threshold: Option<f32>,
    /// Scores of defect-free pixels: how quiet the surface is.
    pub normal_scores: Option<NormalScores>,
    /// Area under the ROC curve over frames.
    pub image_auroc: Option<f64>,
    /// Average precision over frames.
    pub image_aupr: Option<f64>,
    /// Good frames rejected at the package's threshold.
    pub false_reject_rate: Option<f64>,
    /// Defect frames passed at the package's threshold.
    pub miss_rate: Option<f64>,
}

impl KindSummary {
    /// Figures without counts.
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

/// Everything that `host-trainer evaluate --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this structure.
    pub schema: u32,
    /// Over all frames.
    #[serde(flatten)]
    pub total: KindSummary,
    /// The package's threshold.
    pub threshold: Option<f32>,
    /// Whether frames were scored in half precision.
    pub half_precision: bool,
    /// Median milliseconds from frame to decision, reading the file not counted; none where half precision was emulated.
    pub frame_ms: Option<f64>,
    /// Good frames.
    pub good_images: usize,
    /// Frames that could not be read.
    pub skipped_images: usize,
    /// Per kind of defect.
    pub kinds: BTreeMap<String, KindSummary>,
}
