//! What an area network learns to find: areas of a good frame that are made to look unlike the rest of it, and small defects.
//! Pure: frames in, frames and masks out. **Ours**.

use std::f32::consts::TAU;

use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::preprocess::Planes;
use proto::manifest::PostProcessing;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::noise::clouds;

/// Lengths below are in pixels of a frame whose shorter side has so many.
const SIDE_PX: f32 = 256.0;
/// Share of the frame that an area covers.
const SHARE: std::ops::Range<f32> = 0.02..0.3;
/// What is coarser than that is an area's brightness, what is finer its texture.
const TEXTURE_PX: f32 = 6.0;

/// A good frame, taken apart.
#[derive(Debug, Clone)]
pub struct Good {
    planes: Planes,
    /// Its brightness without its texture.
    base: Vec<f32>,
    /// Pixels of the frame for one of [`SIDE_PX`].
    unit_px: f32,
}

/// A frame with something drawn into it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The frame.
    pub planes: Planes,
    /// 1 where it was changed, 0 where not, in between at an area's edge; row by row.
    pub mask: Vec<f32>,
}

/// How an area differs from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Brighter or darker.
    Brightness,
    /// More or less contrast.
    Contrast,
    /// Blurred.
    Blur,
    /// The texture of another part.
    Texture,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Brightness, Self::Contrast, Self::Blur, Self::Texture];
}

/// A number between -1 and 1 that changes smoothly over so many pixels.
fn wave(x: f32, y: f32, length_px: f32, seed: u32) -> f32 {
    clouds(x / length_px, y / length_px, seed)
}

/// A factor up to this logarithm, and at least that, either way.
fn factor(rng: &mut ChaCha8Rng, logarithm: std::ops::Range<f32>) -> f32 {
    let by = rng.random_range(logarithm);
    if rng.random() { by.exp() } else { (-by).exp() }
}

/// A value changed by a share, within the range of values.
fn towards(value: f32, changed: f32, share: f32) -> f32 {
    (value + (changed - value) * share).clamp(-1.0, 1.0)
}

impl Good {
    /// A frame in [-1, 1].
    pub fn new(planes: Planes) -> Self {
        let unit_px = planes.width_px.min(planes.height_px) as f32 / SIDE_PX;
        let base = blurred(&planes, TEXTURE_PX * unit_px);
        Self {
            planes,
            base,
            unit_px,
        }
    }

    /// The frame as it is.
    pub fn planes(&self) -> &Planes {
        &self.planes
    }

    /// With an area that differs from the rest; `other`: a good frame for [`Change::Texture`]; of another
    /// size it is of no use, and the contrast changes instead.
    pub fn with_area(&self, change: Change, other: &Self, rng: &mut ChaCha8Rng) -> Drawn {
        let size = |good: &Self| [good.planes.width_px, good.planes.height_px];
        let change = match change {
            Change::Texture if size(self) != size(other) => Change::Contrast,
            change => change,
        };
        let mask = self.area(rng);
        let Planes { channels, data, .. } = &self.planes;
        let changed: Vec<f32> = match change {
            Change::Brightness => {
                let by = factor(rng, 0.1..0.4);
                data.iter().map(|value| (value + 1.0) * by - 1.0).collect()
            }
            Change::Contrast => {
                let by = factor(rng, 0.3..0.9);
                let values = data.iter().zip(&self.base);
                values
                    .map(|(value, base)| base + (value - base) * by)
                    .collect()
            }
            // Below half a pixel a blur is none.
            Change::Blur => {
                let sigma_px = rng.random_range(0.7..2.5) * self.unit_px.max(1.0);
                blurred(&self.planes, sigma_px)
            }
            Change::Texture => {
                let mean = |values: &[f32]| 1.0 + values.iter().sum::<f32>() / values.len() as f32;
                // Texture is in proportion to brightness.
                let by = mean(&self.base) / mean(&other.base).max(0.01);
                let texture = other.planes.data.iter().zip(&other.base);
                let texture = texture.map(|(value, base)| (value - base) * by);
                let values = self.base.iter().zip(texture);
                values.map(|(base, texture)| base + texture).collect()
            }
        };
        let mut planes = self.planes.clone();
        let places = mask.iter().cycle().take(channels * mask.len());
        for ((value, changed), share) in planes.data.iter_mut().zip(changed).zip(places) {
            *value = towards(*value, changed, *share);
        }
        Drawn { planes, mask }
    }

    /// An area of any form: beside a line, an ellipse, a rectangle or a blot.
    fn area(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let [width, height] = [self.planes.width_px, self.planes.height_px].map(|side| side as f32);
        let unit = self.unit_px;
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let (x, y) = (rng.random_range(0.0..width), rng.random_range(0.0..height));
        let stretch = rng.random_range(-0.5f32..0.5).exp();
        let (form, seed, length_px) = (
            rng.random_range(0..4),
            rng.next_u32(),
            rng.random_range(60.0..180.0) * unit,
        );
        // Higher inside, by about one a pixel.
        let inside = |at_x: f32, at_y: f32| {
            let along = ((at_x - x) * cosine + (at_y - y) * sine) * stretch;
            let across = ((at_y - y) * cosine - (at_x - x) * sine) / stretch;
            let wobble = 4.0 * unit * wave(at_x, at_y, 40.0 * unit, seed);
            match form {
                0 => along / stretch + wobble,
                1 => wobble - along.hypot(across),
                2 => -((at_x - x).abs() * stretch).max((at_y - y).abs() / stretch),
                _ => wave(at_x, at_y, length_px, seed) * length_px,
            }
        };
        let (columns, rows) = (self.planes.width_px, self.planes.height_px);
        let place = |index: usize| ((index % columns) as f32, (index / columns) as f32);
        let places = (0..columns * rows).map(place);
        let mut heights: Vec<f32> = places.map(|(x, y)| inside(x, y)).collect();
        let mut sorted = heights.clone();
        let outside = (1.0 - rng.random_range(SHARE)) * sorted.len() as f32;
        let at = (outside as usize).min(sorted.len() - 1);
        let edge = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
        let softness = rng.random_range(1.0..8.0) * unit;
        for height in &mut heights {
            *height = (0.5 + (*height - edge) / softness).clamp(0.0, 1.0);
        }
        heights
    }

    /// With one to three small defects: holes, cracks, rough patches, scuffs.
    pub fn with_defects(&self, rng: &mut ChaCha8Rng) -> Drawn {
        let mut drawn = Drawn {
            planes: self.planes.clone(),
            mask: vec![0.0; self.planes.width_px * self.planes.height_px],
        };
        for _ in 0..rng.random_range(1..=3) {
            let by = rng.random_range(0.2f32..0.8);
            let noise = rng.next_u32();
            let unit = self.unit_px;
            match rng.random_range(0..4) {
                0 => {
                    let hole = self.spot(rng.random_range(2.0..8.0), rng);
                    drawn.change(&hole, |value, _, _| value - by * (value + 1.0));
                }
                1 => {
                    let crack = self.crack(rng);
                    drawn.change(&crack, |value, _, _| value - by * (value + 1.0));
                }
                2 => {
                    let patch = self.spot(rng.random_range(8.0..28.0), rng);
                    let grain_px = rng.random_range(1.0..3.0) * unit;
                    drawn.change(&patch, |value, x, y| {
                        value + 0.4 * by * wave(x, y, grain_px, noise)
                    });
                }
                _ => {
                    let scuff = self.spot(rng.random_range(8.0..28.0), rng);
                    let by = factor(rng, 0.1..0.4);
                    drawn.change(&scuff, |value, _, _| (value + 1.0) * by - 1.0);
                }
            }
        }
        drawn
    }

    /// A round or oval spot with a ragged edge.
    fn spot(&self, radius: f32, rng: &mut ChaCha8Rng) -> Vec<(usize, f32)> {
        let radius = radius * self.unit_px;
        let (columns, rows) = (self.planes.width_px, self.planes.height_px);
        let (x, y) = (
            rng.random_range(0.0..columns as f32),
            rng.random_range(0.0..rows as f32),
        );
        let (stretch, seed) = (rng.random_range(0.6f32..1.6), rng.next_u32());
        let place = |index: usize| {
            let (at_x, at_y) = ((index % columns) as f32, (index / columns) as f32);
            let ragged = 0.3 * radius * wave(at_x, at_y, radius, seed);
            let distance = (at_x - x).hypot((at_y - y) * stretch) + ragged;
            (index, (radius - distance + 0.5).clamp(0.0, 1.0))
        };
        let places = (0..columns * rows).map(place);
        places.filter(|(_, share)| *share > 0.0).collect()
    }

    /// A line that turns slowly.
    fn crack(&self, rng: &mut ChaCha8Rng) -> Vec<(usize, f32)> {
        let (columns, rows) = (self.planes.width_px, self.planes.height_px);
        let (mut x, mut y) = (
            rng.random_range(0.0..columns as f32),
            rng.random_range(0.0..rows as f32),
        );
        let mut direction = rng.random_range(0.0..TAU);
        let thickness = rng.random_range(1..=2);
        let length = rng.random_range(20.0..120.0) * self.unit_px;
        let mut places = Vec::new();
        for _ in 0..length as usize {
            direction += rng.random_range(-0.4..0.4);
            let (sine, cosine) = direction.sin_cos();
            (x, y) = (x + cosine, y + sine);
            for down in 0..thickness {
                for right in 0..thickness {
                    let [column, row] = [x + right as f32, y + down as f32];
                    let within = (0.0..columns as f32).contains(&column)
                        && (0.0..rows as f32).contains(&row);
                    if within {
                        places.push((row as usize * columns + column as usize, 1.0));
                    }
                }
            }
        }
        // Each once, for a change is by shares.
        places.sort_unstable_by_key(|(index, _)| *index);
        places.dedup_by_key(|(index, _)| *index);
        places
    }
}

impl Drawn {
    /// Changes these places, each by its share.
    fn change(&mut self, places: &[(usize, f32)], change: impl Fn(f32, f32, f32) -> f32) {
        let (columns, area) = (self.planes.width_px, self.mask.len());
        for plane in self.planes.data.chunks_exact_mut(area) {
            for &(index, share) in places {
                let (x, y) = ((index % columns) as f32, (index / columns) as f32);
                plane[index] = towards(plane[index], change(plane[index], x, y), share);
            }
        }
        for &(index, share) in places {
            self.mask[index] = self.mask[index].max(share);
        }
    }
}

/// Every plane smoothed by a Gaussian.
fn blurred(planes: &Planes, sigma_px: f32) -> Vec<f32> {
    let post = PostProcessing {
        smooth_sigma_px: sigma_px,
        ..PostProcessing::default()
    };
    let smooth = |channel: usize| {
        let mut map = ScoreMap {
            width_px: planes.width_px,
            height_px: planes.height_px,
            data: planes.plane(channel).to_vec(),
        };
        map.post_process(&post);
        map.data
    };
    (0..planes.channels).flat_map(smooth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::generator;

    fn good(seed: u32, channels: usize) -> Good {
        let (width_px, height_px) = (96, 80);
        let area = width_px * height_px;
        let value = |index: usize| {
            let (x, y) = (
                (index % area % width_px) as f32,
                (index % area / width_px) as f32,
            );
            0.4 * wave(x, y, 2.0, seed) + 0.1 * wave(x, y, 50.0, seed + 1)
        };
        Good::new(Planes {
            channels,
            width_px,
            height_px,
            data: (0..channels * area).map(value).collect(),
        })
    }

    /// Standard deviation of what is finer than an area's brightness, where the mask holds.
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
    fn an_area_is_changed_and_nothing_else() {
        let (part, other) = (good(1, 3), good(7, 3));
        for seed in 0..40 {
            let mut rng = generator(seed, "area", 0);
            let change = Change::ALL[seed as usize % 4];
            let drawn = part.with_area(change, &other, &mut rng);
            let area = drawn.mask.len();
            let share = drawn.mask.iter().sum::<f32>() / area as f32;
            assert!((0.01..0.4).contains(&share), "{change:?}: {share}");
            let mut off = [0.0f32; 2];
            for (index, (new, old)) in drawn.planes.data.iter().zip(&part.planes.data).enumerate() {
                assert!((-1.0..=1.0).contains(new));
                let inside = usize::from(drawn.mask[index % area] > 0.0);
                off[inside] = off[inside].max((new - old).abs());
            }
            assert_eq!(off[0], 0.0, "{change:?}");
            assert!(off[1] > 0.01, "{change:?}: {off:?}");
        }
    }

    #[test]
    fn a_blurred_area_has_less_contrast_and_a_brighter_one_is_brighter() {
        let (part, other) = (good(3, 1), good(9, 1));
        for seed in 0..10 {
            let drawn = part.with_area(Change::Blur, &other, &mut generator(seed, "blur", 0));
            let inside = |index: usize| drawn.mask[index] == 1.0;
            let [before, after] = [&part.planes, &drawn.planes].map(|p| contrast(p, inside));
            assert!(after < 0.95 * before, "{before} became {after}");
            let drawn =
                part.with_area(Change::Brightness, &other, &mut generator(seed, "light", 0));
            let pairs = drawn.planes.data.iter().zip(&part.planes.data);
            let changed = pairs.zip(&drawn.mask).filter(|(_, share)| **share == 1.0);
            let signs: Vec<bool> = changed.map(|((new, old), _)| new > old).collect();
            assert!(signs.iter().all(|sign| *sign == signs[0]));
        }
    }

    #[test]
    fn defects_are_small_and_lie_where_the_mask_says() {
        let part = good(5, 1);
        for seed in 0..40 {
            let drawn = part.with_defects(&mut generator(seed, "defects", 0));
            let share = drawn.mask.iter().sum::<f32>() / drawn.mask.len() as f32;
            assert!(share < 0.25, "{share}");
            let pairs = drawn.planes.data.iter().zip(&part.planes.data);
            for ((new, old), share) in pairs.zip(&drawn.mask) {
                assert!(new == old || *share > 0.0);
            }
        }
    }
}
