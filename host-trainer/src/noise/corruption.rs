//! One corruption of a tile: its parameters, drawn from the paper's ranges, and its effect.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::algorithm::Algorithm;
use super::filter::{self, Extreme};
use super::rect::Rect;
use super::stroke;
use super::structured::{self, Change, NoiseMask};
use super::tile::Tile;

/// A corruption with all its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Corruption {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Its effect.
    pub effect: Effect,
}

/// The effect of a corruption, with parameters in the ranges of the paper (IV-B). Colours have one
/// value in [-1, 1] per channel.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are the paper's parameters, with their units in their names"
)]
pub enum Effect {
    /// Each pixel of the mask changes with this probability, 0..0.5.
    Speckle {
        mask: Rect,
        salt: bool,
        pepper: bool,
        probability: f64,
        seed: u64,
    },
    /// Blur with kernel sizes (odd, 3..15) and sigmas (1..100) for x and y.
    Blur {
        mask: Rect,
        kernel_px: [usize; 2],
        sigma_px: [f32; 2],
    },
    /// Additive noise of standard deviation 0.3..0.6.
    Noise {
        mask: Rect,
        deviation: f32,
        seed: u64,
    },
    /// A filled rectangle.
    Rectangle { mask: Rect, colour: Vec<f32> },
    /// A straight stroke, 1..6 px thick.
    Line {
        from: [f32; 2],
        to: [f32; 2],
        thickness_px: u32,
        colour: Vec<f32>,
    },
    /// A stroke along an ellipse with half axes of 1..30 px and angles of 0..360°, 1..6 px thick.
    EllipseArc {
        centre: [f32; 2],
        axes_px: [u32; 2],
        rotation_deg: f32,
        arc_deg: [f32; 2],
        thickness_px: u32,
        colour: Vec<f32>,
    },
    /// A shift of -0.5..0.5.
    Shading { mask: Rect, shift: f32 },
    /// Dilation, or erosion where `dilate` is false, by a disk of odd diameter 1..7 px, once or
    /// twice.
    Morphology {
        mask: Rect,
        size_px: usize,
        iterations: u32,
        dilate: bool,
    },
    /// The effect of a structured algorithm.
    Structured { mask: NoiseMask, change: Change },
    /// No effect.
    None,
}

impl Corruption {
    /// Draws the parameters of `algorithm` for a tile of the size and channels of `tile`.
    pub fn draw(algorithm: Algorithm, tile: &Tile, rng: &mut ChaCha8Rng) -> Self {
        let side = tile.side();
        let speckle = |salt, pepper, rng: &mut ChaCha8Rng| Effect::Speckle {
            mask: Rect::draw(side, rng),
            salt,
            pepper,
            probability: rng.random_range(0.0..=0.5),
            seed: rng.random(),
        };
        let morphology = |dilate, rng: &mut ChaCha8Rng| Effect::Morphology {
            mask: Rect::draw(side, rng),
            size_px: 2 * rng.random_range(0..=3) + 1,
            iterations: rng.random_range(1..=2),
            dilate,
        };
        let point = |rng: &mut ChaCha8Rng| {
            [
                rng.random_range(0.0..side as f32),
                rng.random_range(0.0..side as f32),
            ]
        };
        let colour = |rng: &mut ChaCha8Rng| {
            (0..tile.channels())
                .map(|_| rng.random_range(-1.0..=1.0))
                .collect()
        };
        let effect = match algorithm {
            Algorithm::Salt => speckle(true, false, rng),
            Algorithm::Pepper => speckle(false, true, rng),
            Algorithm::SaltAndPepper => speckle(true, true, rng),
            Algorithm::GaussianBlur => Effect::Blur {
                mask: Rect::draw(side, rng),
                kernel_px: [
                    2 * rng.random_range(1..=7) + 1,
                    2 * rng.random_range(1..=7) + 1,
                ],
                sigma_px: [rng.random_range(1.0..=100.0), rng.random_range(1.0..=100.0)],
            },
            Algorithm::GaussianNoise => Effect::Noise {
                mask: Rect::draw(side, rng),
                deviation: rng.random_range(0.3..=0.6),
                seed: rng.random(),
            },
            Algorithm::Rectangle => Effect::Rectangle {
                mask: Rect::draw(side, rng),
                colour: colour(rng),
            },
            Algorithm::Line => Effect::Line {
                from: point(rng),
                to: point(rng),
                thickness_px: rng.random_range(1..=6),
                colour: colour(rng),
            },
            Algorithm::EllipseArc => Effect::EllipseArc {
                centre: point(rng),
                axes_px: [rng.random_range(1..=30), rng.random_range(1..=30)],
                rotation_deg: rng.random_range(0.0..360.0),
                arc_deg: [rng.random_range(0.0..360.0), rng.random_range(0.0..360.0)],
                thickness_px: rng.random_range(1..=6),
                colour: colour(rng),
            },
            Algorithm::Shading => Effect::Shading {
                mask: Rect::draw(side, rng),
                shift: rng.random_range(-0.5..=0.5),
            },
            Algorithm::Erosion => morphology(false, rng),
            Algorithm::Dilation => morphology(true, rng),
            Algorithm::None => Effect::None,
            Algorithm::Patch | Algorithm::Tone | Algorithm::Warp => {
                structured::draw(algorithm, side, rng).map_or(Effect::None, |(mask, change)| {
                    Effect::Structured { mask, change }
                })
            }
        };
        Self { algorithm, effect }
    }

    /// Applies the effect to `tile` and clamps the result to [-1, 1] (IV-B).
    pub fn apply(&self, tile: &mut Tile) {
        let side = tile.side();
        match &self.effect {
            &Effect::Speckle {
                mask,
                salt,
                pepper,
                probability,
                seed,
            } => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let area = side * side;
                for index in mask.rows(side).flatten() {
                    if !rng.random_bool(probability) {
                        continue;
                    }
                    let white = salt && (!pepper || rng.random());
                    let value = if white { 1.0 } else { -1.0 };
                    for channel in 0..tile.channels() {
                        tile.values_mut()[channel * area + index] = value;
                    }
                }
            }
            &Effect::Blur {
                mask,
                kernel_px,
                sigma_px,
            } => {
                let across = filter::gaussian_kernel(kernel_px[0], sigma_px[0]);
                let down = filter::gaussian_kernel(kernel_px[1], sigma_px[1]);
                for channel in 0..tile.channels() {
                    let plane = tile.plane_mut(channel);
                    let blurred = filter::blur(plane, side, mask, [&across, &down]);
                    for (row, range) in mask.rows(side).enumerate() {
                        plane[range].copy_from_slice(&blurred[row * mask.width..][..mask.width]);
                    }
                }
            }
            &Effect::Noise {
                mask,
                deviation,
                seed,
            } => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                // Deviations from the paper's range are finite and positive, so this never fails.
                if let Ok(normal) = Normal::new(0.0, deviation) {
                    for channel in 0..tile.channels() {
                        let plane = tile.plane_mut(channel);
                        for index in mask.rows(side).flatten() {
                            plane[index] += normal.sample(&mut rng);
                        }
                    }
                }
            }
            Effect::Rectangle { mask, colour } => {
                for (channel, &value) in colour.iter().enumerate() {
                    let plane = tile.plane_mut(channel);
                    for range in mask.rows(side) {
                        plane[range].fill(value);
                    }
                }
            }
            Effect::Line {
                from,
                to,
                thickness_px,
                colour,
            } => {
                paint(tile, &stroke::line(side, *from, *to, *thickness_px), colour);
            }
            Effect::EllipseArc {
                centre,
                axes_px,
                rotation_deg,
                arc_deg,
                thickness_px,
                colour,
            } => {
                let mask = stroke::ellipse_arc(
                    side,
                    *centre,
                    *axes_px,
                    *rotation_deg,
                    *arc_deg,
                    *thickness_px,
                );
                paint(tile, &mask, colour);
            }
            &Effect::Shading { mask, shift } => {
                for channel in 0..tile.channels() {
                    let plane = tile.plane_mut(channel);
                    for range in mask.rows(side) {
                        plane[range].iter_mut().for_each(|value| *value += shift);
                    }
                }
            }
            &Effect::Morphology {
                mask,
                size_px,
                iterations,
                dilate,
            } => {
                let extreme = if dilate { Extreme::Max } else { Extreme::Min };
                for channel in 0..tile.channels() {
                    let plane = tile.plane_mut(channel);
                    let changed =
                        filter::morphology(plane, side, mask, size_px, iterations, extreme);
                    for range in mask.rows(side) {
                        plane[range.clone()].copy_from_slice(&changed[range]);
                    }
                }
            }
            Effect::Structured { mask, change } => structured::apply(mask, change, tile),
            Effect::None => {}
        }
        for value in tile.values_mut() {
            *value = value.clamp(-1.0, 1.0);
        }
    }
}

/// Sets the pixels of the mask to the colour.
fn paint(tile: &mut Tile, mask: &[bool], colour: &[f32]) {
    for (channel, &value) in colour.iter().enumerate() {
        for (pixel, &inside) in tile.plane_mut(channel).iter_mut().zip(mask) {
            if inside {
                *pixel = value;
            }
        }
    }
}
