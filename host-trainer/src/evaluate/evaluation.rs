//! The result of an evaluation.

use super::images::ScoredFrame;
use super::rows::ReportRow;
use super::summary::Summary;

/// The result of an evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// The figures.
    pub summary: Summary,
    /// The frames that the report shows.
    pub rows: Vec<ReportRow>,
    /// Score and label of each frame that counts for image metrics.
    pub frames: Vec<ScoredFrame>,
    /// ROC curve over pixels, for drawing.
    pub roc: Vec<[f64; 2]>,
    /// Per-region-overlap curve, for drawing.
    pub pro: Vec<[f64; 2]>,
    /// Each test image used.
    pub images: Vec<TestImage>,
    /// A message for each image that cannot be read or is smaller than a tile.
    pub skipped: Vec<String>,
    /// Defect regions too small or too thin for the map's pixels; see
    /// [`MaskAccount::small_regions`](crate::dataset::MaskAccount).
    pub small_regions: usize,
}

/// What a test image is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestImage {
    /// SHA-256 of the file.
    pub file: [u8; 32],
    /// Digest of the decoded pixels ([`crate::dataset::pixel_digest`]).
    pub pixels: [u8; 32],
    /// The part that it shows, if that is known.
    pub part: Option<String>,
    /// Whether it is labelled defect-free.
    pub good: bool,
}
