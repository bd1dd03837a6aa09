//! Synthetic defects for a segmentation network to learn from: areas of a good frame that are made
//! to look unlike the rest of it, and defects of many shapes. Pure: frames in, frames and masks
//! out. **Ours**, after the synthetic defects of CutPaste (Li et al. 2021) and DRAEM (Zavrtanik et
//! al. 2021) and the paper's noise (IV-B).

use std::ops::Range;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use scoring::inspect::preprocess::Planes;

use super::frame::{GoodFrame, blurred};
use super::sampling::{log_uniform, random_factor, smooth_noise};
use super::shape::Coverage;

/// Fraction of the frame that a large area covers.
const AREA: Range<f32> = 0.02..0.35;
/// Fraction of the frame that a smudge covers.
const SMUDGE: Range<f32> = 0.002..0.08;
/// Probability that one more defect of the same kind follows a small one.
const ANOTHER: f64 = 0.35;
/// Most defects of one kind in a frame.
const MOST_DEFECTS: usize = 3;
/// Smallest change of a value in [-1, 1] that counts as one: just below one of 255 grey levels.
const LEAST_CHANGE: f32 = 0.006;
/// A pixel stays in the mask if one changed within this distance, in reference pixels.
const NEAR_PX: f32 = 4.0;

/// A frame with synthetic defects.
#[derive(Debug, Clone)]
pub struct DefectiveFrame {
    /// The frame.
    pub planes: Planes,
    /// Row by row: 1 where the frame was changed, 0 where it was not, in between at soft edges.
    pub mask: Vec<f32>,
}

/// Kinds of synthetic defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefectKind {
    /// An area that is brighter or darker.
    Brightness,
    /// An area with less or more contrast.
    Contrast,
    /// A blurred area.
    Blur,
    /// An area with the texture of another part.
    Texture,
    /// Dark spots.
    Hole,
    /// Dark lines that turn slowly.
    Crack,
    /// Spots with a grain of their own.
    Rough,
    /// Brighter or darker spots.
    Scuff,
    /// A piece of another part, or of another place.
    Paste,
    /// A translucent patch of smooth texture.
    Smudge,
    /// Straight lines, bright or dark.
    Scratch,
    /// Material broken off at the border, or a chip of it.
    Break,
}

impl DefectKind {
    /// Kinds that change large areas.
    pub const AREAS: [Self; 4] = [Self::Brightness, Self::Contrast, Self::Blur, Self::Texture];
    /// Kinds of local defects.
    pub const DEFECTS: [Self; 8] = [
        Self::Hole,
        Self::Crack,
        Self::Rough,
        Self::Scuff,
        Self::Paste,
        Self::Smudge,
        Self::Scratch,
        Self::Break,
    ];
    /// Kinds that no network learns from, one of areas and one of local defects: what a network
    /// finds of these says more about real defects than what it finds of kinds that it was shown.
    /// Others are somewhat alike (less contrast; pieces of another texture).
    pub const UNSEEN: [Self; 2] = [Self::Blur, Self::Rough];

    /// The kind as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Blur => "blur",
            Self::Texture => "texture",
            Self::Hole => "hole",
            Self::Crack => "crack",
            Self::Rough => "rough",
            Self::Scuff => "scuff",
            Self::Paste => "paste",
            Self::Smudge => "smudge",
            Self::Scratch => "scratch",
            Self::Break => "break",
        }
    }

    /// Whether a frame may have several of this kind.
    fn repeats(self) -> bool {
        matches!(
            self,
            Self::Hole | Self::Crack | Self::Rough | Self::Scuff | Self::Scratch
        )
    }
}

/// Mixes a value with its changed one, within the range of values.
fn blended(value: f32, changed: f32, weight: f32) -> f32 {
    (value + (changed - value) * weight).clamp(-1.0, 1.0)
}

impl GoodFrame {
    /// Draws a defect of each kind into the frame, one over the other. `other` is a good frame of
    /// the same size that [`DefectKind::Texture`] and [`DefectKind::Paste`] take from; if its size
    /// differs, they take from this frame instead.
    pub fn with_defects(
        &self,
        kinds: &[DefectKind],
        other: &Self,
        rng: &mut ChaCha8Rng,
    ) -> DefectiveFrame {
        let other = if self.size() == other.size() {
            other
        } else {
            self
        };
        let mut frame = DefectiveFrame {
            planes: self.planes.clone(),
            mask: vec![0.0; self.planes.width_px * self.planes.height_px],
        };
        for &kind in kinds {
            for _ in 0..MOST_DEFECTS {
                self.draw_defect(&mut frame, kind, other, rng);
                if !kind.repeats() || !rng.random_bool(ANOTHER) {
                    break;
                }
            }
        }
        frame.unmask_unchanged(&self.planes, (NEAR_PX * self.unit_px) as usize);
        frame
    }

    fn draw_defect(
        &self,
        frame: &mut DefectiveFrame,
        kind: DefectKind,
        other: &Self,
        rng: &mut ChaCha8Rng,
    ) {
        let unit = self.unit_px;
        let seed = rng.next_u32();
        match kind {
            DefectKind::Brightness => {
                let by = random_factor(rng, 0.08..0.4);
                let area = self.area(AREA, 1.0..8.0, rng);
                frame.change(&area, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            DefectKind::Contrast => {
                let by = random_factor(rng, 0.25..0.9);
                let area = self.area(AREA, 1.0..8.0, rng);
                let base = self.without_texture();
                frame.change(&area, |value, at, _, _| base[at] + (value - base[at]) * by);
            }
            DefectKind::Blur => {
                // A blur of less than half a pixel would change nothing.
                let sigma_px = rng.random_range(0.6..2.5) * unit.max(1.0);
                let area = self.area(AREA, 1.0..8.0, rng);
                let smooth = blurred(&self.planes, sigma_px);
                frame.change(&area, |_, at, _, _| smooth[at]);
            }
            DefectKind::Texture => {
                // Texture is proportional to brightness.
                let by = self.brightness() / other.brightness().max(0.05);
                let area = self.area(AREA, 1.0..8.0, rng);
                let (base, other_base) = (self.without_texture(), other.without_texture());
                let texture = &other.planes.data;
                frame.change(&area, |_, at, _, _| {
                    base[at] + (texture[at] - other_base[at]) * by
                });
            }
            DefectKind::Hole => {
                let by = rng.random_range(0.15..0.8);
                let hole = self.spot(2.0..9.0, rng);
                frame.change(&hole, |value, _, _, _| value - by * (value + 1.0));
            }
            DefectKind::Crack => {
                let by = rng.random_range(0.1..0.6);
                let crack = self.crack(rng);
                frame.change(&crack, |value, _, _, _| value - by * (value + 1.0));
            }
            DefectKind::Rough => {
                let by = rng.random_range(0.08..0.5) * self.brightness();
                let grain_px = log_uniform(rng, 1.0..4.0) * unit;
                let patch = self.spot(5.0..40.0, rng);
                frame.change(&patch, |value, _, x, y| {
                    value + by * smooth_noise(x, y, grain_px, seed)
                });
            }
            DefectKind::Scuff => {
                let by = random_factor(rng, 0.08..0.5);
                let scuff = self.spot(5.0..40.0, rng);
                frame.change(&scuff, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            DefectKind::Paste => self.paste(frame, other, rng),
            DefectKind::Smudge => {
                let grain = log_uniform(rng, 1.0..16.0) * unit;
                let stretch = rng.random_range(-1.0f32..1.0).exp();
                let (opacity, shift) = (rng.random_range(0.1..0.8), rng.random_range(-0.3..0.3));
                let smudge = self.area(SMUDGE, 1.0..4.0, rng);
                frame.change(&smudge, |value, _, x, y| {
                    let texture = 0.8 * smooth_noise(x, y * stretch, grain, seed);
                    value + (texture - value) * opacity + shift
                });
            }
            DefectKind::Scratch => {
                let by = random_factor(rng, 0.1..0.7);
                let scratch = self.scratch(rng);
                frame.change(&scratch, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            DefectKind::Break => {
                let level = self.brightness() * rng.random_range(-1.2f32..0.6).exp() - 1.0;
                let (grain, amplitude) = (
                    log_uniform(rng, 1.0..16.0) * unit,
                    rng.random_range(0.04..0.4),
                );
                let left = rng.random_range(0.0..0.5);
                let broken = if rng.random() {
                    self.broken_border(rng)
                } else {
                    let (at, _) = self.border_point(rng);
                    self.spot_at(at, log_uniform(rng, 3.0..16.0), rng)
                };
                frame.change(&broken, |value, _, x, y| {
                    let texture = level + amplitude * smooth_noise(x, y, grain, seed);
                    texture + (value - texture) * left
                });
            }
        }
    }

    /// Pastes a spot or a strip of the other frame, shifted, mirrored or turned, at its own
    /// brightness or at this frame's.
    fn paste(&self, frame: &mut DefectiveFrame, other: &Self, rng: &mut ChaCha8Rng) {
        let [columns, rows] = [self.planes.width_px, self.planes.height_px];
        let (right, down) = (rng.random_range(0..columns), rng.random_range(0..rows));
        let [mirrored, upended, turned] = [(); 3].map(|()| rng.random::<bool>());
        let turned = turned && columns == rows;
        let lift = if rng.random() {
            self.brightness() - other.brightness()
        } else {
            0.0
        };
        let opacity = rng.random_range(0.4..1.0);
        let source = |index: usize| {
            let (x, y) = (index % columns, index / columns);
            let (x, y) = if turned { (y, x) } else { (x, y) };
            let x = if mirrored { columns - 1 - x } else { x };
            let y = if upended { rows - 1 - y } else { y };
            (y + down) % rows * columns + (x + right) % columns
        };
        let area = columns * rows;
        let what = rng.random_range(0..3);
        let mut pieces: Vec<Coverage> = Vec::new();
        if what != 0 {
            pieces.push(self.spot(4.0..30.0, rng));
        }
        if what != 1 {
            pieces.push(self.scratch(rng));
        }
        for piece in pieces {
            frame.change(&piece, |value, at, _, _| {
                let from = at / area * area + source(at % area);
                value + (other.planes.data[from] + lift - value) * opacity
            });
        }
    }
}

impl DefectiveFrame {
    /// Changes each pixel in proportion to its coverage. `change` gets the value, its index among
    /// the values of all planes, and its column and row.
    fn change(&mut self, pixels: &[(usize, f32)], change: impl Fn(f32, usize, f32, f32) -> f32) {
        let (columns, area) = (self.planes.width_px, self.mask.len());
        for (channel, plane) in self.planes.data.chunks_exact_mut(area).enumerate() {
            for &(index, covered) in pixels {
                let (x, y) = ((index % columns) as f32, (index / columns) as f32);
                let changed = change(plane[index], channel * area + index, x, y);
                plane[index] = blended(plane[index], changed, covered);
            }
        }
        for &(index, covered) in pixels {
            self.mask[index] = self.mask[index].max(covered);
        }
    }

    /// Clears the mask where no pixel within `near_px` (along rows, then along columns) differs
    /// from the original.
    fn unmask_unchanged(&mut self, original: &Planes, near_px: usize) {
        let (columns, area) = (self.planes.width_px, self.mask.len());
        let mut differs = vec![false; area];
        let planes = self.planes.data.chunks_exact(area);
        for (new, old) in planes.zip(original.data.chunks_exact(area)) {
            for (differs, (new, old)) in differs.iter_mut().zip(new.iter().zip(old)) {
                *differs |= (new - old).abs() > LEAST_CHANGE;
            }
        }
        // A dilation by a square, separable: along rows, then along columns.
        for (step, length) in [(1, columns), (columns, area / columns)] {
            let lines =
                (0..area / length).map(|line| if step == 1 { line * columns } else { line });
            for start in lines {
                let at = |place: usize| start + place * step;
                let line: Vec<bool> = (0..length).map(|place| differs[at(place)]).collect();
                let mut last = None;
                for place in 0..length {
                    last = if line[place] { Some(place) } else { last };
                    differs[at(place)] |= last.is_some_and(|last| place - last <= near_px);
                }
                let mut next = None;
                for place in (0..length).rev() {
                    next = if line[place] { Some(place) } else { next };
                    differs[at(place)] |= next.is_some_and(|next| next - place <= near_px);
                }
            }
        }
        for (masked, differs) in self.mask.iter_mut().zip(differs) {
            if !differs {
                *masked = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::good_frame;
    use super::*;
    use crate::seed::generator;

    /// Standard deviation of what is finer than an area's brightness, where `holds`.
    fn contrast(planes: &Planes, holds: impl Fn(usize) -> bool) -> f32 {
        let base = blurred(planes, 4.0);
        let off = planes.data.iter().zip(&base).enumerate();
        let off: Vec<f32> = off
            .filter(|(index, _)| holds(*index))
            .map(|(_, (value, base))| (value - base).powi(2))
            .collect();
        (off.iter().sum::<f32>() / off.len() as f32).sqrt()
    }

    #[test]
    fn a_frame_changes_only_inside_the_mask() {
        let (part, other) = (good_frame(1, 3), good_frame(7, 3));
        for (number, &kind) in DefectKind::AREAS
            .iter()
            .chain(&DefectKind::DEFECTS)
            .cycle()
            .take(60)
            .enumerate()
        {
            let mut rng = generator(number as u64, "drawn", 0);
            let found = part.with_defects(&[kind], &other, &mut rng);
            let area = found.mask.len();
            let fraction = found.mask.iter().sum::<f32>() / area as f32;
            assert!(fraction < 0.5, "{kind:?}: {fraction}");
            assert!(found.mask.iter().all(|masked| (0.0..=1.0).contains(masked)));
            for (index, (new, old)) in found.planes.data.iter().zip(&part.planes.data).enumerate() {
                assert!((-1.0..=1.0).contains(new));
                // Outside the mask nothing changes by a grey level.
                let outside = found.mask[index % area] == 0.0;
                assert!(!outside || (new - old).abs() <= LEAST_CHANGE, "{kind:?}");
            }
        }
    }

    /// Not every drawing of a kind is seen: it may be faint, or beside the frame.
    #[test]
    fn most_drawings_of_each_kind_change_the_frame() {
        let (part, other) = (good_frame(1, 1), good_frame(7, 1));
        for kind in DefectKind::AREAS.into_iter().chain(DefectKind::DEFECTS) {
            let seen = (0..20).filter(|&seed| {
                let found = part.with_defects(&[kind], &other, &mut generator(seed, "seen", 0));
                found.mask.iter().any(|masked| *masked > 0.3)
            });
            assert!(seen.count() > 12, "{kind:?}");
        }
    }

    #[test]
    fn unchanged_pixels_leave_the_mask() {
        let part = good_frame(2, 1);
        let mut frame = DefectiveFrame {
            planes: part.planes.clone(),
            mask: vec![1.0; 96 * 80],
        };
        frame.planes.data[40 * 96 + 50] += 0.1;
        frame.unmask_unchanged(&part.planes, 2);
        for (index, masked) in frame.mask.iter().enumerate() {
            let (x, y) = (index % 96, index / 96);
            let near = x.abs_diff(50) <= 2 && y.abs_diff(40) <= 2;
            assert_eq!(*masked == 1.0, near, "{x}, {y}");
        }
    }

    #[test]
    fn a_blurred_area_has_less_contrast_and_a_brighter_one_is_brighter() {
        let (part, other) = (good_frame(3, 1), good_frame(9, 1));
        for seed in 0..10 {
            let found =
                part.with_defects(&[DefectKind::Blur], &other, &mut generator(seed, "blur", 0));
            let inside = |index: usize| found.mask[index] == 1.0;
            let [before, after] = [&part.planes, &found.planes].map(|p| contrast(p, inside));
            assert!(after < 0.95 * before, "{before} became {after}");
            let found = part.with_defects(
                &[DefectKind::Brightness],
                &other,
                &mut generator(seed, "light", 0),
            );
            let pairs = found.planes.data.iter().zip(&part.planes.data);
            let changed = pairs.zip(&found.mask).filter(|(_, masked)| **masked == 1.0);
            let signs: Vec<bool> = changed.map(|((new, old), _)| new > old).collect();
            assert!(signs.iter().all(|sign| *sign == signs[0]));
        }
    }
}
