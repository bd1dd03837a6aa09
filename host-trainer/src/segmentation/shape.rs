//! Shapes of synthetic defects: which pixels of a frame they cover, and how much of each. Pure.
//! **Ours**.

use std::f32::consts::{FRAC_PI_2, PI, TAU};
use std::ops::Range;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::frame::{GoodFrame, REFERENCE_SIDE_PX};
use super::sampling::{log_uniform, smooth_noise};

/// Largest angle between a line that follows the grain and the grain, in radians.
const MOST_OFF_GRAIN: f32 = 0.3;
/// Largest distance from the border of a line that starts there, in reference pixels. It is above 0
/// because a part's own edge may lie inside the frame.
const BORDER_PX: f32 = 12.0;
/// One crack in this many starts at the border.
const CRACK_AT_BORDER_ONE_IN: u32 = 3;

/// Indices of pixels, each with the fraction of it that a shape covers (above 0, at most 1).
pub(super) type Coverage = Vec<(usize, f32)>;

/// A rectangle of pixels.
struct PixelRect {
    columns: Range<usize>,
    rows: Range<usize>,
}

impl GoodFrame {
    /// Covers a `fraction` of the frame with a large shape: a half-plane, an ellipse, a rectangle
    /// or a cloud. Its edge is `softness` reference pixels wide.
    pub(super) fn area(
        &self,
        fraction: Range<f32>,
        softness: Range<f32>,
        rng: &mut ChaCha8Rng,
    ) -> Coverage {
        let unit = self.unit_px;
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let (x, y) = self.random_point(rng);
        let stretch = rng.random_range(-0.5f32..0.5).exp();
        let (form, seed, length_px) = (
            rng.random_range(0..4),
            rng.next_u32(),
            rng.random_range(60.0..180.0) * unit,
        );
        // A height field that rises towards the inside by about 1 per pixel.
        let inside = |at_x: f32, at_y: f32| {
            let along = ((at_x - x) * cosine + (at_y - y) * sine) * stretch;
            let across = ((at_y - y) * cosine - (at_x - x) * sine) / stretch;
            let wobble = 8.0 * unit * smooth_noise(at_x, at_y, 30.0 * unit, seed);
            match form {
                0 => along / stretch + wobble,
                1 => wobble - along.hypot(across),
                2 => -((at_x - x).abs() * stretch).max((at_y - y).abs() / stretch),
                _ => smooth_noise(at_x, at_y, length_px, seed) * length_px,
            }
        };
        let (columns, rows) = (self.planes.width_px, self.planes.height_px);
        let place = |index: usize| ((index % columns) as f32, (index / columns) as f32);
        let places = (0..columns * rows).map(place);
        let heights: Vec<f32> = places.map(|(x, y)| inside(x, y)).collect();
        let mut sorted = heights.clone();
        let outside = (1.0 - log_uniform(rng, fraction)) * sorted.len() as f32;
        let at = (outside as usize).min(sorted.len() - 1);
        let edge = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
        let softness = rng.random_range(softness) * unit;
        let heights = heights.into_iter().enumerate();
        heights
            .map(|(index, height)| (index, (0.5 + (height - edge) / softness).clamp(0.0, 1.0)))
            .filter(|(_, covered)| *covered > 0.0)
            .collect()
    }

    /// The rectangle of pixels no farther than `radius` from a point in either direction.
    fn around(&self, (x, y): (f32, f32), radius: f32) -> PixelRect {
        let range = |at: f32, side: usize| {
            let low = (at - radius).max(0.0) as usize;
            low.min(side)..(((at + radius).max(0.0) as usize).saturating_add(2)).min(side)
        };
        PixelRect {
            columns: range(x, self.planes.width_px),
            rows: range(y, self.planes.height_px),
        }
    }

    /// The pixels of a rectangle that `covered` gives more than 0 for.
    fn coverage(&self, within: PixelRect, covered: impl Fn(f32, f32) -> f32) -> Coverage {
        let width = self.planes.width_px;
        let PixelRect { columns, rows } = within;
        rows.flat_map(|y| columns.clone().map(move |x| (x, y)))
            .map(|(x, y)| (y * width + x, covered(x as f32, y as f32).clamp(0.0, 1.0)))
            .filter(|(_, covered)| *covered > 0.0)
            .collect()
    }

    /// A round or oval spot with a ragged edge, anywhere; its radius is in reference pixels.
    pub(super) fn spot(&self, radius: Range<f32>, rng: &mut ChaCha8Rng) -> Coverage {
        let at = self.random_point(rng);
        self.spot_at(at, log_uniform(rng, radius), rng)
    }

    /// A spot around a point.
    pub(super) fn spot_at(
        &self,
        (x, y): (f32, f32),
        radius: f32,
        rng: &mut ChaCha8Rng,
    ) -> Coverage {
        let radius = radius * self.unit_px;
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let stretch = rng.random_range(-0.5f32..0.5).exp();
        let (ragged, seed) = (rng.random_range(0.2..0.8) * radius, rng.next_u32());
        let softness = rng.random_range(1.0..3.0);
        let farthest = (radius + ragged) * stretch.max(1.0 / stretch) + softness;
        self.coverage(self.around((x, y), farthest), |at_x, at_y| {
            let along = ((at_x - x) * cosine + (at_y - y) * sine) * stretch;
            let across = ((at_y - y) * cosine - (at_x - x) * sine) / stretch;
            let edge = radius + ragged * smooth_noise(at_x, at_y, radius, seed);
            0.5 + (edge - along.hypot(across)) / softness
        })
    }

    /// Draws the direction of a line. Every other one follows the grain, where lines are hardest to
    /// see.
    fn line_direction(&self, rng: &mut ChaCha8Rng) -> f32 {
        if rng.random() {
            return rng.random_range(0.0..TAU);
        }
        let back = if rng.random() { PI } else { 0.0 };
        self.grain() + back + rng.random_range(-MOST_OFF_GRAIN..MOST_OFF_GRAIN)
    }

    /// Draws a point near the border, and the direction from there to the inside, in radians from
    /// a row.
    pub(super) fn border_point(&self, rng: &mut ChaCha8Rng) -> ((f32, f32), f32) {
        let [width, height] = self.size();
        let deep = rng.random_range(0.0..BORDER_PX) * self.unit_px;
        let along = rng.random_range(0.0..2.0 * (width + height));
        if along < 2.0 * width {
            let x = along / 2.0;
            match rng.random() {
                true => ((x, deep), FRAC_PI_2),
                false => ((x, height - deep), -FRAC_PI_2),
            }
        } else {
            let y = along / 2.0 - width;
            match rng.random() {
                true => ((deep, y), 0.0),
                false => ((width - deep, y), PI),
            }
        }
    }

    /// A straight line of even width.
    pub(super) fn scratch(&self, rng: &mut ChaCha8Rng) -> Coverage {
        let unit = self.unit_px;
        let (x, y) = self.random_point(rng);
        let (sine, cosine) = (self.line_direction(rng) + FRAC_PI_2).sin_cos();
        let (half_width, half_length) = (
            log_uniform(rng, 0.6..4.0) * unit.max(1.0),
            log_uniform(rng, 10.0..90.0) * unit,
        );
        let (bend, seed) = (rng.random_range(0.0..2.0) * unit, rng.next_u32());
        let softness = rng.random_range(1.0..2.5) * unit.max(1.0);
        let farthest = half_length + half_width + bend + softness + 1.0;
        self.coverage(self.around((x, y), farthest), |at_x, at_y| {
            let across = (at_x - x) * cosine + (at_y - y) * sine;
            let along = (at_y - y) * cosine - (at_x - x) * sine;
            let off = (across + bend * smooth_noise(at_x, at_y, 40.0 * unit, seed)).abs();
            let covered = |inside: f32| (0.5 + inside).clamp(0.0, 1.0);
            covered((half_width - off) / softness) * covered((half_length - along.abs()) / 4.0)
        })
    }

    /// What lies beyond a ragged line near the border, within a spot.
    pub(super) fn broken_border(&self, rng: &mut ChaCha8Rng) -> Coverage {
        let unit = self.unit_px;
        let [width, height] = self.size();
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let out = rng.random_range(60.0..118.0) / REFERENCE_SIDE_PX;
        let (x, y) = (width * (0.5 + out * cosine), height * (0.5 + out * sine));
        let aside = rng.random_range(-80.0..80.0) * unit;
        let (ragged_px, seed) = (log_uniform(rng, 6.0..28.0) * unit, rng.next_u32());
        let ragged = rng.random_range(4.0..16.0) * unit;
        let middle = (x - aside * sine, y + aside * cosine);
        let radius = log_uniform(rng, 20.0..90.0);
        let mut pixels = self.spot_at(middle, radius, rng);
        let columns = self.planes.width_px;
        for (index, covered) in &mut pixels {
            let (at_x, at_y) = ((*index % columns) as f32, (*index / columns) as f32);
            let beyond = (at_x - x) * cosine + (at_y - y) * sine;
            let beyond = beyond + ragged * smooth_noise(at_x, at_y, ragged_px, seed);
            *covered *= (0.5 + beyond / 2.0).clamp(0.0, 1.0);
        }
        pixels.retain(|(_, covered)| *covered > 0.0);
        pixels
    }

    /// A line that turns slowly. Its edges are as soft as a camera's optics make them: a network
    /// would learn to recognise hard ones.
    pub(super) fn crack(&self, rng: &mut ChaCha8Rng) -> Coverage {
        let unit = self.unit_px.max(1.0);
        // Brittle parts crack from their edges.
        let ((mut x, mut y), mut direction) = if rng.random_ratio(1, CRACK_AT_BORDER_ONE_IN) {
            let (at, inwards) = self.border_point(rng);
            (at, inwards + rng.random_range(-1.2..1.2))
        } else {
            (self.random_point(rng), self.line_direction(rng))
        };
        let turn = log_uniform(rng, 0.05..0.5);
        let (half_width, softness) = (
            log_uniform(rng, 0.4..1.5) * unit,
            rng.random_range(1.0..2.5) * unit,
        );
        let faint = rng.random_range(0.5..1.0);
        let length = log_uniform(rng, 8.0..120.0) * self.unit_px;
        let mut pixels = Vec::new();
        for _ in 0..length as usize {
            direction += rng.random_range(-turn..turn);
            let (sine, cosine) = direction.sin_cos();
            (x, y) = (x + cosine, y + sine);
            pixels.extend(self.coverage(
                self.around((x, y), half_width + softness),
                |at_x, at_y| {
                    let off = (at_x - x).hypot(at_y - y);
                    faint * (0.5 + (half_width - off) / softness).clamp(0.0, 1.0)
                },
            ));
        }
        // Each pixel once, with its largest coverage: a pixel is changed in proportion to it.
        pixels.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then(other.total_cmp(one)));
        pixels.dedup_by_key(|(index, _)| *index);
        pixels
    }
}

#[cfg(test)]
mod tests {
    use scoring::inspect::preprocess::Planes;

    use super::super::fixtures::good_frame;
    use super::*;
    use crate::seed::generator;

    #[test]
    fn every_other_line_runs_along_the_grain() {
        let (width_px, height_px) = (96, 80);
        for angle in [-1.2f32, -0.4, 0.0, 0.7, 1.5] {
            let (sine, cosine) = angle.sin_cos();
            let value = |index: usize| {
                let (x, y) = ((index % width_px) as f32, (index / width_px) as f32);
                0.5 * ((y * cosine - x * sine) * 0.9).sin()
            };
            let part = GoodFrame::new(Planes {
                channels: 1,
                width_px,
                height_px,
                data: (0..width_px * height_px).map(value).collect(),
            });
            let off = |direction: f32| (direction - angle).sin().abs().asin();
            assert!(off(part.grain()) < 0.05, "{angle}: {}", part.grain());
            let rng = &mut generator(3, "grain", 0);
            let along = (0..400).filter(|_| off(part.line_direction(rng)) <= MOST_OFF_GRAIN + 0.05);
            // Half of them, and 0.7 of 3.14 rad of the others.
            assert!((210..280).contains(&along.count()), "{angle}");
        }
    }

    #[test]
    fn border_points_lie_near_the_border_and_point_inwards() {
        let part = good_frame(1, 1);
        let [width, height] = part.size();
        let rng = &mut generator(5, "border", 0);
        let mut sides = [0; 4];
        for _ in 0..400 {
            let ((x, y), inwards) = part.border_point(rng);
            let off = [x, width - x, y, height - y];
            // The reference side has 256 pixels, this frame's shorter one 80.
            let deepest = BORDER_PX * height / REFERENCE_SIDE_PX;
            let (sine, cosine) = inwards.sin_cos();
            let inner = [cosine, -cosine, sine, -sine];
            let side = (0..4).find(|&side| inner[side] > 0.9).unwrap();
            assert!((0.0..=deepest).contains(&off[side]), "{x}, {y}");
            assert!(off.iter().all(|off| *off >= 0.0), "{x}, {y}");
            sides[side] += 1;
        }
        // Each side as often as it is long: 96 or 80 of 352, within four standard deviations.
        assert!(
            sides.iter().all(|count| (57..145).contains(count)),
            "{sides:?}"
        );
    }

    /// Lines drawn pixel by pixel would have no partly covered pixels at their edges.
    #[test]
    fn lines_have_soft_edges_and_cover_each_pixel_once() {
        let part = good_frame(1, 1);
        let mut seen = 0;
        for seed in 0..20 {
            let rng = &mut generator(seed, "lines", 0);
            for line in [part.crack(rng), part.scratch(rng)] {
                // A line that leaves the frame at once covers a pixel or so and has no edge.
                if line.len() < 5 {
                    continue;
                }
                seen += 1;
                let most = line.iter().map(|(_, covered)| *covered).fold(0.0, f32::max);
                let between = line.iter().filter(|(_, covered)| *covered < 0.7 * most);
                assert!(5 * between.count() >= line.len(), "{line:?}");
                let pixels = line.iter().map(|(index, _)| index);
                let once = pixels.collect::<std::collections::HashSet<_>>();
                assert_eq!(once.len(), line.len());
            }
        }
        assert!(seen > 35, "{seen}");
    }
}
