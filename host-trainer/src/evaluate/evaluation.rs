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
    /// Score and label of each frame.
    pub frames: Vec<ScoredFrame>,
    /// ROC curve over pixels, for drawing.
    pub roc: Vec<[f64; 2]>,
    /// Per-region-overlap curve, for drawing.
    pub pro: Vec<[f64; 2]>,
    /// SHA-256 of each test image used.
    pub digests: Vec<[u8; 32]>,
    /// A message for each image that cannot be read or is smaller than a tile.
    pub skipped: Vec<String>,
    /// Defect regions too small or too thin for the map's pixels; see
    /// [`MaskAccount::small_regions`](crate::dataset::MaskAccount).
    pub small_regions: usize,
}
