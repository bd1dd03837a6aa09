//! Evaluates an exported package on a labelled data set, by the code that the camera runs.
//!
//! In: an [`Inspector`] and test items. Out: a [`Summary`] for machines, and an [`Evaluation`] from
//! which the report for people is made.

mod bins;
mod chart;
mod curve;
mod evaluation;
mod images;
mod operating;
mod overlap;
mod pictures;
mod pixels;
mod rate;
mod report;
mod resample;
mod rows;
mod sorter;
mod summary;
mod threshold_page;
mod truth;
mod units;

pub use bins::BinnedImage;
pub use curve::NormalScores;
pub use evaluation::{Evaluation, TestImage};
pub use images::{ImageResult, ScoredFrame, image_metrics};
pub use operating::OperatingPoint;
pub use overlap::Overlap;
pub use pixels::{
    PRO_LIMIT, PixelError, PixelImage, PixelMetrics, PixelResult, PixelResults, RegionCount,
};
pub use rate::{CONFIDENCE, Rate};
pub use report::{Report, html};
pub use rows::{Pictures, ReportRow};
pub use summary::{KindSummary, OutsideFrame, Summary};
pub use threshold_page::{GoodPicture, ThresholdPage, ThresholdPageError, Tried};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use scoring::infer::half_is_native;
use scoring::inspector::{InspectError, Inspection, Inspector};
use scoring::io::image_file::read_frame_as;

use crate::dataset::{DatasetError, Groups, TestItem, chain, file_digest, pixel_digest};
use operating::operating_points;
use pictures::{draw_row, full_scale};
use resample::{Sample, intervals};
use rows::{RowSelection, is_wrong};
use truth::{read_truth, reduce_mask};
use units::{false_rejects, misses, units};

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

/// Scores all items and computes the metrics, of the inspected part of the frames only.
///
/// `groups` says which images show the same part. At most `rows` frames are kept for the report;
/// `on_frame` is called for each one. Scores that do not fit in memory go to a temporary file in
/// `scratch`. Ground truth is reduced to the map so that no region vanishes; defect frames without
/// it count for image metrics only.
pub fn evaluate(
    inspector: &Inspector,
    items: &[TestItem],
    groups: &Groups,
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
    let threshold = inspector.threshold();
    let scale = full_scale(inspector.manifest(), threshold);
    let mut pixels = PixelMetrics::new(kinds.len(), KEYS_IN_MEMORY, scratch);
    pixels = pixels.with_threshold(threshold);
    let mut collected = Collected::default();
    let mut milliseconds = Vec::new();
    let mut shown = RowSelection::new(rows, items.iter().map(|item| item.kind.as_str()));
    let mut skipped = Vec::new();
    let mut small_regions = 0;
    for (index, item) in items.iter().enumerate() {
        on_progress(index);
        let frame = match read_frame_as(&item.image, inspector.reading()) {
            Ok(frame) => frame,
            Err(error) => {
                skipped.push(chain(&error));
                continue;
            }
        };
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
        on_frame(item, &found);
        milliseconds.push(found.elapsed.as_secs_f64() * 1e3);
        let kind = kind_of(item);
        let regions = match &mask {
            Some(mask) => {
                let map = &found.map;
                let reduced = reduce_mask(mask, frame.width_px() as usize, map);
                small_regions += reduced.small_regions;
                Some(pixels.add_image(&PixelImage {
                    scores: &map.data,
                    mask: &reduced.defects,
                    inside: found.inside.as_deref().map(Vec::as_slice),
                    width_px: map.width_px,
                    kind,
                })?)
            }
            None => None,
        };
        let image = TestImage {
            file: file_digest(&item.image)?,
            pixels: pixel_digest(&frame),
            part: groups.known_part(&item.image).map(str::to_owned),
            good: item.is_good(),
        };
        let outside = collected.add(item, groups.part(&item.image), image, kind, &found, regions);
        if shown.wants(&item.kind, is_wrong(found.verdict, kind.is_some(), outside)) {
            let truth = item.mask.as_ref().and(mask.as_deref());
            let row = draw_row(item, &frame, &found, truth, threshold, scale);
            shown.push(ReportRow { outside, ..row });
        }
    }
    on_progress(items.len());
    if collected.samples.is_empty()
        && let Some(first) = skipped.first()
    {
        return Err(EvaluateError::NothingLeft {
            count: items.len(),
            first: first.clone(),
        });
    }
    let pixels = pixels.finish()?;
    // With emulated half precision the time would not be that of any camera.
    let frame_ms = (!inspector.half_precision() || half_is_native())
        .then(|| median(milliseconds))
        .flatten();
    let figures = collected.figures(&kinds, &pixels, threshold);
    let units = units(&collected.samples);
    let units: Vec<ScoredFrame> = units.into_iter().map(|unit| unit.scored).collect();
    let frames = collected.frames(&|_| true);
    let (total, kinds) = figures;
    Ok(Evaluation {
        summary: Summary {
            schema: 1,
            total,
            threshold,
            half_precision: inspector.half_precision(),
            frame_ms,
            good_images: frames.iter().filter(|frame| !frame.defect).count(),
            skipped_images: skipped.len(),
            by_part: groups.is_given(),
            inspected_fraction: mean(&collected.inspected),
            operating_points: operating_points(&units),
            overlap: Overlap::find(inspector.manifest(), &collected.images),
            outside: collected.outside,
            kinds,
        },
        rows: shown.into_rows(),
        frames,
        roc: pixels.total.roc,
        pro: pixels.total.pro,
        images: collected.images,
        skipped,
        small_regions,
    })
}

/// What is kept of each frame until all are scored.
#[derive(Debug, Default)]
struct Collected {
    samples: Vec<Sample>,
    images: Vec<TestImage>,
    /// Number of each part.
    parts: HashMap<String, usize>,
    /// Number of frames with ground truth.
    with_truth: usize,
    outside: Vec<OutsideFrame>,
    /// Fraction of each frame that is inspected.
    inspected: Vec<f64>,
}

impl Collected {
    /// Adds a frame; returns whether all of its defects lie outside of the inspected part.
    fn add(
        &mut self,
        item: &TestItem,
        part: String,
        image: TestImage,
        kind: Option<usize>,
        found: &Inspection,
        regions: Option<RegionCount>,
    ) -> bool {
        let RegionCount { inspected, outside } = regions.unwrap_or_default();
        let entirely = outside > 0 && inspected == 0;
        if outside > 0 {
            let name = item.image.file_name().unwrap_or_default();
            self.outside.push(OutsideFrame {
                kind: item.kind.clone(),
                name: name.to_string_lossy().into_owned(),
                regions: outside,
                entirely,
            });
        }
        let next = self.parts.len();
        let part = *self.parts.entry(part).or_insert(next);
        self.samples.push(Sample {
            part,
            kind,
            score: (!entirely).then_some(found.score),
            pixels: regions.map(|_| self.with_truth),
        });
        self.with_truth += usize::from(regions.is_some());
        self.images.push(image);
        self.inspected.push(match &found.inside {
            Some(inside) => inside.iter().filter(|i| **i).count() as f64 / inside.len() as f64,
            None => 1.0,
        });
        entirely
    }

    /// The frames that count for image metrics, of the kinds wanted.
    fn frames(&self, wanted: &dyn Fn(Option<usize>) -> bool) -> Vec<ScoredFrame> {
        let samples = self.samples.iter().filter(|sample| wanted(sample.kind));
        let frame = |sample: &Sample| {
            Some(ScoredFrame {
                score: sample.score?,
                defect: sample.kind.is_some(),
            })
        };
        samples.filter_map(frame).collect()
    }

    /// The figures of all frames, and of each kind.
    fn figures(
        &self,
        kinds: &[&str],
        pixels: &PixelResults,
        threshold: Option<f32>,
    ) -> (KindSummary, BTreeMap<String, KindSummary>) {
        let units = units(&self.samples);
        let (total, of_kinds) = intervals(&self.samples, &pixels.images, kinds.len());
        let rejected = threshold.and_then(|threshold| false_rejects(&units, threshold));
        let missed = |kind| threshold.and_then(|threshold| misses(&units, kind, threshold));
        // Defect frames only: without ground truth, and outside of the inspected part.
        let defects = |wanted: &dyn Fn(usize) -> bool, of: &dyn Fn(&Sample) -> bool| {
            let samples = self.samples.iter().filter(|sample| of(sample));
            samples
                .filter(|sample| sample.kind.is_some_and(wanted))
                .count()
        };
        let outside = |wanted: &dyn Fn(&str) -> bool| {
            let outside = self.outside.iter().filter(|frame| wanted(&frame.kind));
            outside.map(|frame| frame.regions).sum()
        };
        let truth = |sample: &Sample| sample.pixels.is_some();
        let unscored = |sample: &Sample| sample.score.is_none();
        let of_kind = |number: usize, name: &str| {
            let frames = self.frames(&|kind| kind.is_none_or(|kind| kind == number));
            let (result, intervals) = (&pixels.kinds[number], &of_kinds[number]);
            let rates = [rejected, missed(Some(number))];
            let this = |kind| kind == number;
            KindSummary {
                images: frames.iter().filter(|frame| frame.defect).count(),
                with_ground_truth: defects(&this, &truth),
                regions_outside: outside(&|kind| kind == name),
                frames_outside: defects(&this, &unscored),
                ..KindSummary::new(result, &image_metrics(&frames), intervals, rates)
            }
        };
        let frames = self.frames(&|_| true);
        let rates = [rejected, missed(None)];
        let all = KindSummary {
            images: frames.len(),
            with_ground_truth: defects(&|_| true, &truth),
            regions_outside: outside(&|_| true),
            frames_outside: defects(&|_| true, &unscored),
            ..KindSummary::new(&pixels.total, &image_metrics(&frames), &total, rates)
        };
        let kinds = kinds.iter().enumerate();
        let kinds = kinds.map(|(number, kind)| ((*kind).to_owned(), of_kind(number, kind)));
        (all, kinds.collect())
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
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
