//! Evaluates an exported package on a labelled data set, by the code that the camera runs.
//!
//! In: an [`Inspector`] and test items. Out: a [`Summary`] for machines, and an [`Evaluation`] from
//! which the report for people is made.

mod chart;
mod curve;
mod evaluation;
mod images;
mod pictures;
mod pixels;
mod report;
mod rows;
mod sorter;
mod summary;
mod truth;

pub use curve::NormalScores;
pub use evaluation::Evaluation;
pub use images::{ImageResult, ScoredFrame, image_metrics};
pub use pixels::{PRO_LIMIT, PixelError, PixelMetrics, PixelResult, PixelResults};
pub use report::{Report, html};
pub use rows::{Pictures, ReportRow};
pub use summary::{KindSummary, Summary};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use scoring::infer::half_is_native;
use scoring::inspector::{InspectError, Inspection, Inspector};
use scoring::io::image_file::read_frame_as;

use crate::dataset::{DatasetError, TestItem, chain, file_digest};
use pictures::draw_row;
use rows::{RowSelection, is_wrong};
use truth::{read_truth, resize_mask};

/// Keys of 8 bytes, one per pixel, that are kept in memory: 256 MiB.
const KEYS_IN_MEMORY: usize = 32 << 20;

/// Why a data set cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A file or mask cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An image cannot be inspected.
    #[error("{}", path.display())]
    Inspect {
        /// The image.
        path: PathBuf,
        /// The cause.
        source: InspectError,
    },
    /// No image can be used.
    #[error("none of {count} test images can be used; the first: {first}")]
    NothingLeft {
        /// Number of images.
        count: usize,
        /// Why the first one cannot be used.
        first: String,
    },
    /// The pixel metrics cannot be computed.
    #[error(transparent)]
    Pixels(#[from] PixelError),
}

/// Scores all items and computes the metrics.
///
/// At most `rows` frames are kept for the report; `on_frame` is called for each one. Scores that do
/// not fit in memory go to a temporary file in `scratch`. Ground truth is resized to the map by
/// nearest neighbour; defect frames without it count for image metrics only.
pub fn evaluate(
    inspector: &Inspector,
    items: &[TestItem],
    rows: usize,
    scratch: &Path,
    on_progress: &mut dyn FnMut(usize),
    on_frame: &mut dyn FnMut(&TestItem, &Inspection),
) -> Result<Evaluation, EvaluateError> {
    let kinds: BTreeSet<&str> = items
        .iter()
        .filter(|item| !item.is_good())
        .map(|item| item.kind.as_str())
        .collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let kind_of = |item: &TestItem| kinds.binary_search(&item.kind.as_str()).ok();
    let mut pixels = PixelMetrics::new(kinds.len(), KEYS_IN_MEMORY, scratch);
    let mut frames: Vec<(Option<usize>, ScoredFrame)> = Vec::new();
    let mut masks = vec![0; kinds.len()];
    let mut milliseconds = Vec::new();
    let mut shown = RowSelection::new(rows, items.iter().map(|item| item.kind.as_str()));
    let mut digests = Vec::new();
    let mut skipped = Vec::new();
    for (index, item) in items.iter().enumerate() {
        on_progress(index);
        let frame = match read_frame_as(&item.image, inspector.reading()) {
            Ok(frame) => frame,
            Err(error) => {
                skipped.push(chain(&error));
                continue;
            }
        };
        let kind = kind_of(item);
        let mask = read_truth(item, &frame)?;
        let found = match inspector.inspect(&frame) {
            Ok(found) => found,
            Err(InspectError::Preprocess(error)) => {
                skipped.push(format!("{}: {}", item.image.display(), chain(&error)));
                continue;
            }
            Err(source) => {
                return Err(EvaluateError::Inspect {
                    path: item.image.clone(),
                    source,
                });
            }
        };
        digests.push(file_digest(&item.image)?);
        on_frame(item, &found);
        milliseconds.push(found.elapsed.as_secs_f64() * 1e3);
        if let Some(mask) = &mask {
            let map = &found.map;
            let resized = resize_mask(mask, frame.width_px() as usize, map);
            pixels.add(&map.data, &resized, map.width_px, kind)?;
            if let Some(kind) = kind {
                masks[kind] += 1;
            }
        }
        let scored = ScoredFrame {
            score: found.score,
            defect: kind.is_some(),
        };
        frames.push((kind, scored));
        if shown.wants(&item.kind, is_wrong(found.verdict, scored.defect)) {
            let truth = item.mask.as_ref().and(mask.as_deref());
            shown.push(draw_row(item, &frame, &found, truth, inspector.threshold()));
        }
    }
    on_progress(items.len());
    if frames.is_empty()
        && let Some(first) = skipped.first()
    {
        return Err(EvaluateError::NothingLeft {
            count: items.len(),
            first: first.clone(),
        });
    }
    let threshold = inspector.threshold();
    let PixelResults {
        total: pixels,
        kinds: pixels_by_kind,
    } = pixels.finish()?;
    let mut per_kind = BTreeMap::new();
    for (number, (kind, pixels)) in kinds.iter().zip(&pixels_by_kind).enumerate() {
        let of_kind: Vec<ScoredFrame> = frames
            .iter()
            .filter(|(kind, _)| kind.is_none_or(|kind| kind == number))
            .map(|(_, scored)| *scored)
            .collect();
        let summary = KindSummary {
            images: of_kind.iter().filter(|frame| frame.defect).count(),
            with_ground_truth: masks[number],
            ..KindSummary::new(pixels, &image_metrics(&of_kind, threshold))
        };
        per_kind.insert((*kind).to_owned(), summary);
    }
    let all: Vec<ScoredFrame> = frames.into_iter().map(|(_, scored)| scored).collect();
    let total = KindSummary {
        images: all.len(),
        with_ground_truth: masks.iter().sum(),
        ..KindSummary::new(&pixels, &image_metrics(&all, threshold))
    };
    Ok(Evaluation {
        summary: Summary {
            schema: 1,
            total,
            threshold,
            half_precision: inspector.half_precision(),
            // With emulated half precision the time would not be that of any camera.
            frame_ms: (!inspector.half_precision() || half_is_native())
                .then(|| median(milliseconds))
                .flatten(),
            good_images: all.iter().filter(|frame| !frame.defect).count(),
            skipped_images: skipped.len(),
            kinds: per_kind,
        },
        rows: shown.into_rows(),
        frames: all,
        roc: pixels.roc,
        pro: pixels.pro,
        digests,
        skipped,
    })
}

/// The median; of an even number of values, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }
}
