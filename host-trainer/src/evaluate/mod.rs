//! Quality of an exported package on a labelled data set, measured through the very code that the camera runs.
//!
//! In: an [`Inspector`] and test items. Out: a [`Summary`] for machines, and what the report for people shows.

mod chart;
mod curve;
mod images;
mod pixels;
mod report;
mod sorter;
mod summary;

pub use images::{ImageResult, Scored, measure};
pub use pixels::{PRO_LIMIT, PixelError, PixelMetrics, PixelResult};
pub use report::{Report, html};
pub use summary::{KindSummary, Summary};

use std::collections::BTreeMap;
use std::path::PathBuf;

use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::verdict::Verdict;
use edge_runtime::inspector::{InspectError, Inspector};
use edge_runtime::io::image_file::{ImageFileError, read_frame};
use edge_runtime::render::{heat_map, overlay};
use image::imageops::{FilterType, thumbnail};
use image::{GrayImage, Luma, RgbImage};

use crate::dataset::{DatasetError, TestItem, file_digest, read_mask};

/// Keys of 8 bytes in memory over all metrics together: 512 MB.
const KEYS_IN_MEMORY: usize = 64 << 20;
/// Largest side of a picture in the report.
const PICTURE_PX: u32 = 320;

/// Why a data set cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A file or mask.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An image cannot be inspected.
    #[error("{}", path.display())]
    Inspect {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: InspectError,
    },
    /// No image could be read.
    #[error("none of {count} test images can be read; the first")]
    NothingLeft {
        /// How many there are.
        count: usize,
        /// Why the first cannot.
        source: ImageFileError,
    },
    /// Pixels cannot be counted.
    #[error(transparent)]
    Pixels(#[from] PixelError),
}

/// One frame in the report.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its kind.
    pub kind: String,
    /// Its file name.
    pub name: String,
    /// Its score.
    pub score: f32,
    /// The decision, if the package has a threshold.
    pub verdict: Option<Verdict>,
    /// Regions above the threshold.
    pub regions: usize,
    /// Whether it is labelled defective.
    pub defect: bool,
    /// Input, heat map, overlay; ground truth where there is one.
    pub pictures: Pictures,
}

/// A frame's pictures at the report's size.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// As captured.
    pub input: RgbImage,
    /// The anomaly map.
    pub heat: RgbImage,
    /// What lies above the threshold, in red.
    pub overlay: Option<RgbImage>,
    /// The labelled defect, white.
    pub truth: Option<RgbImage>,
}

/// Everything measured.
#[derive(Debug)]
pub struct Evaluation {
    /// The figures.
    pub summary: Summary,
    /// Frames, for the report.
    pub rows: Vec<Row>,
    /// ROC curve over pixels.
    pub roc: Vec<[f64; 2]>,
    /// PRO curve.
    pub pro: Vec<[f64; 2]>,
    /// SHA-256 of every test image used.
    pub digests: Vec<[u8; 32]>,
    /// Images that could not be read.
    pub skipped: Vec<String>,
}

/// Scores every item and measures. `rows` limits the frames kept for the report. Ground truth is resized to the map by
/// nearest neighbour, as usual at a fixed input size; frames without it count for image metrics only.
pub fn evaluate(
    inspector: &Inspector,
    items: &[TestItem],
    rows: usize,
    on_progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvaluateError> {
    let kinds: Vec<String> = {
        let mut kinds: Vec<String> = items
            .iter()
            .filter(|item| !item.is_good())
            .map(|item| item.kind.clone())
            .collect();
        kinds.dedup();
        kinds
    };
    let memory = KEYS_IN_MEMORY / (kinds.len() + 1);
    let mut total = PixelMetrics::with_memory(memory);
    let mut by_kind: BTreeMap<String, PixelMetrics> = kinds
        .iter()
        .map(|kind| (kind.clone(), PixelMetrics::with_memory(memory)))
        .collect();
    let mut frames: Vec<(String, Scored)> = Vec::new();
    let mut masks: BTreeMap<String, usize> = BTreeMap::new();
    let mut milliseconds = Vec::new();
    let mut kept = Vec::new();
    let mut digests = Vec::new();
    let mut skipped = Vec::new();
    let mut first_error = None;
    for (index, item) in items.iter().enumerate() {
        on_progress(index);
        let frame = match read_frame(&item.image) {
            Ok(frame) => frame,
            Err(error) => {
                skipped.push(error.to_string());
                first_error.get_or_insert(error);
                continue;
            }
        };
        digests.push(file_digest(&item.image)?);
        let mask = match &item.mask {
            Some(path) => Some(read_mask(path, frame.width_px(), frame.height_px())?),
            None if item.is_good() => Some(vec![
                false;
                frame.width_px() as usize
                    * frame.height_px() as usize
            ]),
            None => None,
        };
        let found = inspector
            .inspect(&frame)
            .map_err(|source| EvaluateError::Inspect {
                path: item.image.clone(),
                source,
            })?;
        milliseconds.push(found.elapsed.as_secs_f64() * 1e3);
        let map = &found.map;
        if let Some(mask) = &mask {
            let small = resize_mask(mask, frame.width_px() as usize, map);
            total.add(&map.data, &small, map.width_px)?;
            if item.is_good() {
                for metrics in by_kind.values_mut() {
                    metrics.add(&map.data, &small, map.width_px)?;
                }
            } else if let Some(metrics) = by_kind.get_mut(&item.kind) {
                metrics.add(&map.data, &small, map.width_px)?;
                *masks.entry(item.kind.clone()).or_default() += 1;
            }
        }
        let defect = !item.is_good();
        frames.push((
            item.kind.clone(),
            Scored {
                score: found.score,
                defect,
            },
        ));
        if kept.len() < rows {
            let threshold = inspector.threshold();
            let scale = threshold.map_or(found.score, |threshold| 2.0 * threshold);
            let picture = shrink(frame.to_rgb8());
            kept.push(Row {
                kind: item.kind.clone(),
                name: item
                    .image
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                score: found.score,
                verdict: found.verdict,
                regions: found.regions.len(),
                defect,
                pictures: Pictures {
                    heat: shrink(heat_map(map, scale)),
                    overlay: threshold.map(|threshold| overlay(&picture, map, threshold)),
                    truth: item
                        .mask
                        .as_ref()
                        .and(mask.as_ref())
                        .map(|mask| shrink(draw_mask(mask, frame.width_px(), frame.height_px()))),
                    input: picture,
                },
            });
        }
    }
    on_progress(items.len());
    if frames.is_empty()
        && let Some(source) = first_error
    {
        return Err(EvaluateError::NothingLeft {
            count: items.len(),
            source,
        });
    }
    let threshold = inspector.threshold();
    let of_kind = |wanted: &str| -> Vec<Scored> {
        frames
            .iter()
            .filter(|(kind, scored)| kind == wanted || !scored.defect)
            .map(|(_, scored)| *scored)
            .collect()
    };
    let all: Vec<Scored> = frames.iter().map(|(_, scored)| *scored).collect();
    let pixels = total.finish()?;
    let mut per_kind = BTreeMap::new();
    for (kind, metrics) in by_kind {
        let images = of_kind(&kind);
        let pixels = metrics.finish()?;
        let summary = KindSummary {
            images: frames.iter().filter(|(of, _)| *of == kind).count(),
            with_ground_truth: masks.get(&kind).copied().unwrap_or(0),
            ..KindSummary::new(&pixels, &measure(&images, threshold))
        };
        per_kind.insert(kind, summary);
    }
    milliseconds.sort_by(f64::total_cmp);
    let total = KindSummary {
        images: frames.len(),
        with_ground_truth: masks.values().sum(),
        ..KindSummary::new(&pixels, &measure(&all, threshold))
    };
    Ok(Evaluation {
        summary: Summary {
            schema: 1,
            total,
            threshold,
            frame_ms: milliseconds.get(milliseconds.len() / 2).copied(),
            good_images: all.iter().filter(|frame| !frame.defect).count(),
            skipped_images: skipped.len(),
            kinds: per_kind,
        },
        rows: kept,
        roc: pixels.roc,
        pro: pixels.pro,
        digests,
        skipped,
    })
}

/// Nearest neighbour, at pixel centres.
fn resize_mask(mask: &[bool], width_px: usize, map: &ScoreMap) -> Vec<bool> {
    let height_px = mask.len() / width_px;
    let nearest = |index: usize, from: usize, to: usize| (2 * index + 1) * from / (2 * to);
    (0..map.height_px)
        .flat_map(|y| {
            let row = nearest(y, height_px, map.height_px) * width_px;
            (0..map.width_px).map(move |x| mask[row + nearest(x, width_px, map.width_px)])
        })
        .collect()
}

fn draw_mask(mask: &[bool], width_px: u32, height_px: u32) -> RgbImage {
    let grey = GrayImage::from_fn(width_px, height_px, |x, y| {
        Luma([if mask[(y * width_px + x) as usize] {
            255
        } else {
            0
        }])
    });
    image::DynamicImage::ImageLuma8(grey).into_rgb8()
}

fn shrink(picture: RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let largest = width.max(height);
    if largest > PICTURE_PX {
        let side = |length: u32| (length * PICTURE_PX / largest).max(1);
        thumbnail(&picture, side(width), side(height))
    } else if largest * 2 <= PICTURE_PX {
        image::imageops::resize(&picture, width * 2, height * 2, FilterType::Nearest)
    } else {
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_resized_at_pixel_centres() {
        // 4 → 2: the centres of the small pixels fall on columns 1 and 3.
        let mask = [false, true, true, false];
        let found = resize_mask(&mask, 4, &ScoreMap::zeros(2, 1));
        assert_eq!(found, [true, false]);
        let same = resize_mask(&mask, 2, &ScoreMap::zeros(2, 2));
        assert_eq!(same, mask);
    }
}
