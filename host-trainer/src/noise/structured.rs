//! Corruptions that resemble faults of a surface, through masks without straight edges. **Ours**,
//! in addition to the paper's twelve. They draw nothing foreign: they move the surface's own values
//! or change their contrast.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::algorithm::Algorithm;
use super::tile::Tile;
use super::value_noise::value_noise;

/// A mask of smooth random shape, made by thresholding value noise: 1 inside, 0 outside, between
/// the two at its edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseMask {
    /// Lattice spacing of the noise in pixels, 8..40.
    pub size_px: f32,
    /// Threshold on the noise (-1..1), -0.3..0.5: the mask covers from most of a tile to a few
    /// specks.
    pub level: f32,
    /// Slope of the mask at its edge, per unit of the noise, 2..20.
    pub sharpness: f32,
    /// Seed of the noise.
    pub seed: u32,
}

impl NoiseMask {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            size_px: 8.0 * 5f32.powf(rng.random_range(0.0..=1.0)),
            level: rng.random_range(-0.3..=0.5),
            sharpness: rng.random_range(2.0..=20.0),
            seed: rng.random(),
        }
    }

    /// The mask's value at a pixel, 0..1.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        let [x, y] = [x, y].map(|at| at as f32 / self.size_px);
        ((value_noise(x, y, self.seed) - self.level) * self.sharpness).clamp(0.0, 1.0)
    }
}

/// The change inside the mask.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are parameters, with their units in their names"
)]
pub enum Change {
    /// Another part of the same tile, possibly mirrored or transposed, blended over it with an
    /// opacity of 0.3..1. This combines CutPaste (Li et al. 2021) with the blending of DRAEM
    /// (Zavrtanik et al. 2021).
    Patch {
        shift_px: [usize; 2],
        mirrored: bool,
        transposed: bool,
        opacity: f32,
    },
    /// Contrast around the local mean times 0.3..2, and brightness shifted by up to ±0.3, as on
    /// worn, greasy or rough places.
    Tone { contrast: f32, shift: f32 },
    /// Pixels displaced by up to 1.5..6 px along each axis, by value noise of spacing 6..20 px, as
    /// on stretched or wrinkled places.
    Warp {
        reach_px: f32,
        size_px: f32,
        seed: u32,
    },
}

/// Half-width of the neighbourhood for the local mean, in pixels.
const MEAN_REACH_PX: usize = 6;

/// Draws the mask and the change of one of the structured algorithms; `None` for any other
/// algorithm.
pub(super) fn draw(
    algorithm: Algorithm,
    side: usize,
    rng: &mut ChaCha8Rng,
) -> Option<(NoiseMask, Change)> {
    let mask = |rng: &mut ChaCha8Rng| NoiseMask::draw(rng);
    Some(match algorithm {
        Algorithm::Patch => (
            mask(rng),
            Change::Patch {
                shift_px: [rng.random_range(8..side - 8), rng.random_range(8..side - 8)],
                mirrored: rng.random(),
                transposed: rng.random(),
                opacity: rng.random_range(0.3..=1.0),
            },
        ),
        Algorithm::Tone => (
            mask(rng),
            Change::Tone {
                contrast: rng.random_range(0.3..=2.0),
                shift: rng.random_range(-0.3..=0.3),
            },
        ),
        Algorithm::Warp => (
            mask(rng),
            Change::Warp {
                reach_px: rng.random_range(1.5..=6.0),
                size_px: rng.random_range(6.0..=20.0),
                seed: rng.random(),
            },
        ),
        _ => return None,
    })
}

/// Changes the tile inside the mask. Values may leave [-1, 1].
pub(super) fn apply(mask: &NoiseMask, change: &Change, tile: &mut Tile) {
    let side = tile.side();
    let inside: Vec<f32> = (0..side * side)
        .map(|index| mask.at(index % side, index / side))
        .collect();
    for channel in 0..tile.channels() {
        let before = tile.plane(channel).to_vec();
        let plane = tile.plane_mut(channel);
        let mut blend = |opacity: f32, value: &dyn Fn(usize, usize) -> f32| {
            for (index, (pixel, inside)) in plane.iter_mut().zip(&inside).enumerate() {
                let weight = inside * opacity;
                if weight > 0.0 {
                    *pixel += weight * (value(index % side, index / side) - *pixel);
                }
            }
        };
        match *change {
            Change::Patch {
                shift_px,
                mirrored,
                transposed,
                opacity,
            } => blend(opacity, &|x, y| {
                // Reflected at the border, because wrapping round would make a straight seam.
                let [mut x, mut y] = [x + shift_px[0], y + shift_px[1]]
                    .map(|at| if at < side { at } else { 2 * side - 1 - at });
                if mirrored {
                    x = side - 1 - x;
                }
                if transposed {
                    std::mem::swap(&mut x, &mut y);
                }
                before[y * side + x]
            }),
            Change::Tone { contrast, shift } => {
                let means = local_means(&before, side);
                blend(1.0, &|x, y| {
                    let (value, mean) = (before[y * side + x], means[y * side + x]);
                    mean + (value - mean) * contrast + shift
                });
            }
            Change::Warp {
                reach_px,
                size_px,
                seed,
            } => blend(1.0, &|x, y| {
                let field = |axis: u32| {
                    reach_px * value_noise(x as f32 / size_px, y as f32 / size_px, seed ^ axis)
                };
                sampled(&before, side, x as f32 + field(1), y as f32 + field(2))
            }),
        }
    }
}

/// The mean over the square of neighbours within [`MEAN_REACH_PX`], which is cut off at the border.
fn local_means(plane: &[f32], side: usize) -> Vec<f32> {
    let smoothed = |values: &[f32], horizontally: bool| -> Vec<f32> {
        let at = |line: usize, place: usize| {
            let (x, y) = if horizontally {
                (place, line)
            } else {
                (line, place)
            };
            values[y * side + x]
        };
        let mut found = vec![0.0; side * side];
        for line in 0..side {
            for place in 0..side {
                let (from, to) = (
                    place.saturating_sub(MEAN_REACH_PX),
                    (place + MEAN_REACH_PX + 1).min(side),
                );
                let sum: f32 = (from..to).map(|place| at(line, place)).sum();
                let (x, y) = if horizontally {
                    (place, line)
                } else {
                    (line, place)
                };
                found[y * side + x] = sum / (to - from) as f32;
            }
        }
        found
    };
    smoothed(&smoothed(plane, true), false)
}

/// A plane's value between pixels by bilinear interpolation; the border is repeated.
fn sampled(plane: &[f32], side: usize, x: f32, y: f32) -> f32 {
    let last = side - 1;
    let [x, y] = [x, y].map(|at| at.clamp(0.0, last as f32));
    let (left, top) = (x as usize, y as usize);
    let (right, below) = ((left + 1).min(last), (top + 1).min(last));
    let (u, v) = (x - left as f32, y - top as f32);
    let row = |y: usize| {
        let (a, b) = (plane[y * side + left], plane[y * side + right]);
        a + (b - a) * u
    };
    row(top) + (row(below) - row(top)) * v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::generator;

    fn tile() -> Tile {
        let value = |index: usize| ((index % 65 * 5 + index / 65 * 3) % 19) as f32 / 19.0 - 0.5;
        Tile::new(65, 1, (0..65 * 65).map(value).collect())
    }

    const ALL_INSIDE: NoiseMask = NoiseMask {
        size_px: 20.0,
        level: -2.0,
        sharpness: 20.0,
        seed: 1,
    };

    #[test]
    fn parameters_stay_in_their_ranges_and_masks_cover_a_part() {
        let (mut covered, mut count) = (0.0, 0.0);
        for index in 0..300 {
            let mut rng = generator(4, "structured", index);
            let algorithm = Algorithm::STRUCTURED[index as usize % 3];
            let (mask, change) = draw(algorithm, 65, &mut rng).unwrap();
            assert!((8.0..=40.0).contains(&mask.size_px) && (-0.3..=0.5).contains(&mask.level));
            let in_range = match change {
                Change::Patch {
                    shift_px, opacity, ..
                } => {
                    shift_px.iter().all(|shift| (8..57).contains(shift))
                        && (0.3..=1.0).contains(&opacity)
                }
                Change::Tone { contrast, shift } => {
                    (0.3..=2.0).contains(&contrast) && shift.abs() <= 0.3
                }
                Change::Warp {
                    reach_px, size_px, ..
                } => (1.5..=6.0).contains(&reach_px) && (6.0..=20.0).contains(&size_px),
            };
            assert!(in_range, "{change:?}");
            for at in (0..65 * 65).step_by(16) {
                covered += mask.at(at % 65, at / 65);
                count += 1.0;
            }
        }
        let fraction = covered / count;
        assert!((0.2..0.6).contains(&fraction), "{fraction}");
        assert!(draw(Algorithm::Salt, 65, &mut generator(4, "structured", 0)).is_none());
    }

    #[test]
    fn each_change_has_its_effect_where_the_mask_is_full() {
        let before = tile();
        let changed = |change: Change| {
            let mut after = before.clone();
            apply(&ALL_INSIDE, &change, &mut after);
            after.into_values()
        };
        let patch = changed(Change::Patch {
            shift_px: [10, 20],
            mirrored: false,
            transposed: true,
            opacity: 1.0,
        });
        assert_eq!(patch[5 * 65 + 3], before.values()[13 * 65 + 25]);
        let tone = changed(Change::Tone {
            contrast: 0.0,
            shift: 0.25,
        });
        let mut sum = 0.0;
        for y in 24..37 {
            sum += before.values()[y * 65 + 24..y * 65 + 37]
                .iter()
                .sum::<f32>();
        }
        assert!((tone[30 * 65 + 30] - (sum / 169.0 + 0.25)).abs() < 1e-5);
        let warp = changed(Change::Warp {
            reach_px: 0.0,
            size_px: 9.0,
            seed: 3,
        });
        let off = warp.iter().zip(before.values()).map(|(a, b)| (a - b).abs());
        assert!(
            off.fold(0.0, f32::max) < 1e-6,
            "without reach nothing moves"
        );
        let warp = changed(Change::Warp {
            reach_px: 4.0,
            size_px: 9.0,
            seed: 3,
        });
        let range = before
            .values()
            .iter()
            .fold((1.0f32, -1.0f32), |(low, high), v| {
                (low.min(*v), high.max(*v))
            });
        assert!(warp.iter().all(|v| (range.0..=range.1).contains(v)));
        assert_ne!(warp, before.values());
    }
}
