//! Draws the pictures of a frame for the report.

use std::path::Path;

use image::RgbImage;
use image::imageops::{FilterType, thumbnail};
use scoring::inspect::frame::Frame;
use scoring::inspector::Inspection;
use scoring::io::text::path_text;
use scoring::render::{heat_map, overlay};

use super::rows::{Pictures, ReportRow};
use super::truth::draw_mask;
use crate::dataset::TestItem;

/// Largest side of a picture in pixels.
const PICTURE_PX: u32 = 320;

/// Draws a frame's pictures. The heat map is brightest at twice the threshold, or without a
/// threshold at the frame's own score.
pub(super) fn draw_row(
    item: &TestItem,
    frame: &Frame,
    found: &Inspection,
    truth: Option<&[bool]>,
    threshold: Option<f32>,
) -> ReportRow {
    let scale = threshold.map_or(found.score, |threshold| 2.0 * threshold);
    let input = fit(frame.to_rgb8());
    let name = item.image.file_name().unwrap_or_default();
    ReportRow {
        kind: item.kind.clone(),
        name: path_text(Path::new(name)),
        score: found.score,
        verdict: found.verdict,
        regions: found.regions.len(),
        defect: !item.is_good(),
        outside: false,
        pictures: Pictures {
            heat: fit(heat_map(&found.map, scale)),
            overlay: threshold.map(|threshold| overlay(&input, &found.map, threshold)),
            truth: truth.map(|mask| fit(draw_mask(mask, frame.width_px(), frame.height_px()))),
            input,
        },
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
