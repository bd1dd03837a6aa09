//! Strokes as pixel masks, drawn by tiny-skia.

use tiny_skia::{FillRule, LineCap, Mask, Path, PathBuilder, Stroke, Transform};

/// Chords that approximate a full ellipse. At a radius of 30 px each is shorter than 3 px.
const CHORDS_PER_TURN: f32 = 72.0;

/// The mask of a straight stroke between two points, where pixel centres are at .5.
pub(super) fn line(side: usize, from: [f32; 2], to: [f32; 2], thickness_px: u32) -> Vec<bool> {
    let mut path = PathBuilder::new();
    path.move_to(from[0], from[1]);
    path.line_to(to[0], to[1]);
    fill(side, path.finish(), thickness_px)
}

/// The mask of a stroke along an ellipse with half axes `axes_px` that is rotated by
/// `rotation_deg`. The arc covers the angles between the two values of `arc_deg`.
pub(super) fn ellipse_arc(
    side: usize,
    centre: [f32; 2],
    axes_px: [u32; 2],
    rotation_deg: f32,
    arc_deg: [f32; 2],
    thickness_px: u32,
) -> Vec<bool> {
    let (sin, cos) = rotation_deg.to_radians().sin_cos();
    let point = |angle_deg: f32| {
        let (y, x) = angle_deg.to_radians().sin_cos();
        let (x, y) = (x * axes_px[0] as f32, y * axes_px[1] as f32);
        (centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos)
    };
    let (start, end) = (arc_deg[0].min(arc_deg[1]), arc_deg[0].max(arc_deg[1]));
    let chords = ((end - start) / 360.0 * CHORDS_PER_TURN).ceil().max(1.0) as usize;
    let mut path = PathBuilder::new();
    let (x, y) = point(start);
    path.move_to(x, y);
    for chord in 1..=chords {
        let (x, y) = point(start + (end - start) * chord as f32 / chords as f32);
        path.line_to(x, y);
    }
    fill(side, path.finish(), thickness_px)
}

/// The mask of a stroked path, without anti-aliasing (**ours**): a pixel that the stroke touches
/// has the stroke's colour, and all others are unchanged.
fn fill(side: usize, path: Option<Path>, thickness_px: u32) -> Vec<bool> {
    let stroke = Stroke {
        width: thickness_px as f32,
        line_cap: LineCap::Round,
        ..Stroke::default()
    };
    let outline = path.and_then(|path| path.stroke(&stroke, 1.0));
    let mask = Mask::new(side as u32, side as u32);
    let (Some(outline), Some(mut mask)) = (outline, mask) else {
        return vec![false; side * side];
    };
    mask.fill_path(&outline, FillRule::Winding, false, Transform::identity());
    mask.data().iter().map(|&coverage| coverage > 0).collect()
}
