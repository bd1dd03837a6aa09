//! What exactly is done to a tile: parameters drawn from the paper's ranges, and their effect.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::filter::{self, Extreme};
use super::structured::{Change, CloudMask};
use super::{Algorithm, Tile, stroke, structured};

/// A rectangle inside a tile, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Width, at least 1.
    pub width: usize,
    /// Height, at least 1.
    pub height: usize,
}

impl Rect {
    /// Random width and height, then a random position inside the tile (IV-B).
    fn draw(side: usize, rng: &mut ChaCha8Rng) -> Self {
        let width = rng.random_range(1..=side);
        let height = rng.random_range(1..=side);
        Self {
            x: rng.random_range(0..=side - width),
            y: rng.random_range(0..=side - height),
            width,
            height,
        }
    }

    /// Ranges of a row-major plane, one a row.
    fn rows(self, side: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (self.y..self.y + self.height).map(move |y| {
            let start = y * side + self.x;
            start..start + self.width
        })
    }
}

/// One corruption with all its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Corruption {
    /// The algorithm it came from.
    pub algorithm: Algorithm,
    /// What it does.
    pub effect: Effect,
}

/// The parameters, in the ranges of IV-B. Colours hold one value in [-1, 1] a channel.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are the paper's parameters, with their units in their names"
)]
pub enum Effect {
    /// Every pixel of the mask changes with the given probability (0..0.5).
    Speckle {
        mask: Rect,
        salt: bool,
        pepper: bool,
        probability: f64,
        seed: u64,
    },
    /// Kernel sizes (odd, 3..15) and sigmas (1..100) across and down.
    Blur {
        mask: Rect,
        kernel_px: [usize; 2],
        sigma_px: [f32; 2],
    },
    /// Standard deviation 0.3..0.6.
    Noise {
        mask: Rect,
        deviation: f32,
        seed: u64,
    },
    /// A filled rectangle.
    Rectangle { mask: Rect, colour: Vec<f32> },
    /// Thickness 1..6 px.
    Line {
        from: [f32; 2],
        to: [f32; 2],
        thickness_px: u32,
        colour: Vec<f32>,
    },
    /// Half axes 1..30 px, angles 0..360°, thickness 1..6 px.
    EllipseArc {
        centre: [f32; 2],
        axes_px: [u32; 2],
        rotation_deg: f32,
        arc_deg: [f32; 2],
        thickness_px: u32,
        colour: Vec<f32>,
    },
    /// Shift -0.5..0.5.
    Shading { mask: Rect, shift: f32 },
    /// Disk diameter odd 1..7 px, 1 or 2 iterations; `dilate` false: erosion.
    Morphology {
        mask: Rect,
        size_px: usize,
        iterations: u32,
        dilate: bool,
    },
    /// Of a structured algorithm.
    Structured { mask: CloudMask, change: Change },
    /// Nothing.
    None,
}

impl Corruption {
    /// Draws the parameters of `algorithm` for a tile of this size and number of channels.
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

    /// Changes `tile` accordingly; the result is clamped to [-1, 1] (IV-B).
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
                // A deviation from the paper's range is finite and positive; nothing else can get here.
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

fn paint(tile: &mut Tile, mask: &[bool], colour: &[f32]) {
    for (channel, &value) in colour.iter().enumerate() {
        for (pixel, &inside) in tile.plane_mut(channel).iter_mut().zip(mask) {
            if inside {
                *pixel = value;
            }
        }
    }
}
