//! Quality of an exported package on a labelled data set, measured through the very code that the camera runs.
//!
//! In: an [`Inspector`] and test items. Out: a [`Summary`] for machines, and what the report for people shows.

mod chart;
mod curve;
mod images;
mod pixels;
mod report;
mod rows;
mod sorter;
mod summary;

pub use images::{ImageResult, Scored, measure};
pub use pixels::{PRO_LIMIT, PixelError, PixelMetrics, PixelResult, PixelResults};
pub use report::{Report, html};
pub use summary::{KindSummary, Summary};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use edge_runtime::infer::half_is_native;
use edge_runtime::inspect::frame::Frame;
use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::verdict::Verdict;
use edge_runtime::inspector::{InspectError, Inspection, Inspector};
use edge_runtime::io::image_file::read_frame;
use edge_runtime::render::{heat_map, overlay};
use image::imageops::{FilterType, thumbnail};
use image::{GrayImage, Luma, RgbImage};

use crate::dataset::{DatasetError, TestItem, chain, file_digest, read_mask};
use rows::Shown;

/// Pixel keys of 8 bytes kept in memory: 256 MB.
const KEYS_IN_MEMORY: usize = 32 << 20;
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
    #[error("none of {count} test images can be used; the first: {first}")]
    NothingLeft {
        /// How many there are.
        count: usize,
        /// Why the first cannot.
        first: String,
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

impl Row {
    /// Whether the decision contradicts the label: a false reject or a miss.
    pub fn is_wrong(&self) -> bool {
        is_wrong(self.verdict, self.defect)
    }
}

fn is_wrong(verdict: Option<Verdict>, defect: bool) -> bool {
    match verdict {
        Some(Verdict::Ng) => !defect,
        Some(Verdict::Ok) => defect,
        None => false,
    }
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
    /// Frames, for the report: wrong decisions before right ones where there are too many.
    pub rows: Vec<Row>,
    /// Every frame's score and label.
    pub frames: Vec<Scored>,
    /// ROC curve over pixels.
    pub roc: Vec<[f64; 2]>,
    /// PRO curve.
    pub pro: Vec<[f64; 2]>,
    /// SHA-256 of every test image used.
    pub digests: Vec<[u8; 32]>,
    /// Images that could not be read or are smaller than a tile.
    pub skipped: Vec<String>,
}

/// Scores every item and measures. `rows` limits the frames kept for the report; `on_frame` sees all of them; what does
/// not fit in memory goes to the folder `scratch`. Ground truth is resized to the map by nearest neighbour, as usual at
/// a fixed input size; frames without it count for image metrics only.
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
    let number = |item: &TestItem| kinds.binary_search(&item.kind.as_str()).ok();
    let mut pixels = PixelMetrics::new(kinds.len(), KEYS_IN_MEMORY, scratch);
    let mut frames: Vec<(Option<usize>, Scored)> = Vec::new();
    let mut masks = vec![0; kinds.len()];
    let mut milliseconds = Vec::new();
    let mut shown = Shown::new(rows, items.iter().map(|item| item.kind.as_str()));
    let mut digests = Vec::new();
    let mut skipped = Vec::new();
    for (index, item) in items.iter().enumerate() {
        on_progress(index);
        let frame = match read_frame(&item.image) {
            Ok(frame) => frame,
            Err(error) => {
                skipped.push(chain(&error));
                continue;
            }
        };
        let kind = number(item);
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
            let small = resize_mask(mask, frame.width_px() as usize, map);
            pixels.add(&map.data, &small, map.width_px, kind)?;
            if let Some(kind) = kind {
                masks[kind] += 1;
            }
        }
        let scored = Scored {
            score: found.score,
            defect: kind.is_some(),
        };
        frames.push((kind, scored));
        if shown.wants(&item.kind, is_wrong(found.verdict, scored.defect)) {
            let truth = item.mask.as_ref().and(mask.as_deref());
            shown.push(draw(item, &frame, &found, truth, inspector.threshold()));
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
        kinds: pixels_of,
    } = pixels.finish()?;
    let mut per_kind = BTreeMap::new();
    for (number, (kind, pixels)) in kinds.iter().zip(&pixels_of).enumerate() {
        let of_kind: Vec<Scored> = frames
            .iter()
            .filter(|(kind, _)| kind.is_none_or(|kind| kind == number))
            .map(|(_, scored)| *scored)
            .collect();
        let summary = KindSummary {
            images: of_kind.iter().filter(|frame| frame.defect).count(),
            with_ground_truth: masks[number],
            ..KindSummary::new(pixels, &measure(&of_kind, threshold))
        };
        per_kind.insert((*kind).to_owned(), summary);
    }
    let all: Vec<Scored> = frames.into_iter().map(|(_, scored)| scored).collect();
    let total = KindSummary {
        images: all.len(),
        with_ground_truth: masks.iter().sum(),
        ..KindSummary::new(&pixels, &measure(&all, threshold))
    };
    Ok(Evaluation {
        summary: Summary {
            schema: 1,
            total,
            threshold,
            half_precision: inspector.half_precision(),
            // Emulated, it would say nothing of any camera.
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

/// The mask at the frame's size; of a good frame empty, `None` where a defect frame has no file.
fn read_truth(item: &TestItem, frame: &Frame) -> Result<Option<Vec<bool>>, DatasetError> {
    let (width_px, height_px) = (frame.width_px(), frame.height_px());
    match &item.mask {
        Some(path) => read_mask(path, width_px, height_px).map(Some),
        None if item.is_good() => Ok(Some(vec![false; width_px as usize * height_px as usize])),
        None => Ok(None),
    }
}

fn draw(
    item: &TestItem,
    frame: &Frame,
    found: &Inspection,
    truth: Option<&[bool]>,
    threshold: Option<f32>,
) -> Row {
    let scale = threshold.map_or(found.score, |threshold| 2.0 * threshold);
    let input = shrink(frame.to_rgb8());
    let name = item.image.file_name().unwrap_or_default();
    Row {
        kind: item.kind.clone(),
        name: name.to_string_lossy().into_owned(),
        score: found.score,
        verdict: found.verdict,
        regions: found.regions.len(),
        defect: !item.is_good(),
        pictures: Pictures {
            heat: shrink(heat_map(&found.map, scale)),
            overlay: threshold.map(|threshold| overlay(&input, &found.map, threshold)),
            truth: truth.map(|mask| shrink(draw_mask(mask, frame.width_px(), frame.height_px()))),
            input,
        },
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
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
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

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
