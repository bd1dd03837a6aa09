//! Draws the pictures of a frame for the report.

use std::path::Path;

use image::RgbImage;
use image::imageops::{FilterType, thumbnail};
use proto::manifest::{Manifest, NormalScores};
use scoring::inspect::frame::Frame;
use scoring::inspector::Inspection;
use scoring::io::text::path_text;
use scoring::render::{heat_map, overlay};

use super::rows::{Pictures, ReportRow};
use super::truth::draw_mask;
use crate::dataset::TestItem;

/// Largest side of a picture in pixels.
const PICTURE_PX: u32 = 320;

/// A map is brightest at this multiple of what 99.9 % of good pixels stay below, so that it shows
/// what is unusual, or at twice the threshold if that is less.
const BRIGHTEST: f32 = 4.0;
/// That fraction of good pixels.
const GOOD_PIXELS: f64 = 0.999;

/// The score at which a package's maps are brightest; `None` without a threshold.
pub(super) fn full_scale(manifest: &Manifest, threshold: Option<f32>) -> Option<f32> {
    let twice = 2.0 * threshold?;
    let Some(NormalScores { pixels, .. }) = &manifest.normal_scores else {
        return Some(twice);
    };
    let all: u64 = pixels.counts.iter().sum();
    let mut below = 0;
    let bin = pixels.counts.iter().position(|count| {
        below += count;
        below as f64 >= GOOD_PIXELS * all as f64
    });
    let quantile = (bin? + 1) as f32 * pixels.bin_width;
    Some((BRIGHTEST * quantile).min(twice))
}

/// Draws a frame's pictures. The heat map is brightest at `full_scale`, or without one at the
/// frame's own score.
pub(super) fn draw(
    frame: &Frame,
    found: &Inspection,
    truth: Option<&[bool]>,
    threshold: Option<f32>,
    full_scale: Option<f32>,
) -> Pictures {
    let input = fit(frame.to_rgb8());
    Pictures {
        heat: fit(heat_map(&found.map, full_scale.unwrap_or(found.score))),
        overlay: threshold.map(|threshold| overlay(&input, &found.map, threshold)),
        truth: truth.map(|mask| fit(draw_mask(mask, frame.width_px(), frame.height_px()))),
        input,
    }
}

/// Draws a frame of a test set.
pub(super) fn draw_row(
    item: &TestItem,
    frame: &Frame,
    found: &Inspection,
    truth: Option<&[bool]>,
    threshold: Option<f32>,
    full_scale: Option<f32>,
) -> ReportRow {
    let name = item.image.file_name().unwrap_or_default();
    ReportRow {
        kind: item.kind.clone(),
        name: path_text(Path::new(name)),
        score: found.score,
        verdict: found.verdict,
        regions: found.regions.len(),
        defect: !item.is_good(),
        outside: false,
        pictures: draw(frame, found, truth, threshold, full_scale),
    }
}

/// Shrinks a large picture to the report's size, and doubles the sides of a small one.
fn fit(picture: RgbImage) -> RgbImage {
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
