//! Procedural materials.

use image::{Rgb, RgbImage};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::noise::interpolate;

/// A material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Texture {
    /// Plain weave of threads in two colours.
    Woven,
    /// Cells separated by dark creases.
    Leather,
    /// Grey metal with fine parallel scratches.
    Metal,
    /// Wavy growth rings and fibres.
    Wood,
}

impl Texture {
    /// All materials.
    pub const ALL: [Self; 4] = [Self::Woven, Self::Leather, Self::Metal, Self::Wood];
}

/// Paints a square image of the material. Scale, phase, lighting and hue vary between images.
pub fn paint(texture: Texture, size_px: u32, rng: &mut ChaCha8Rng) -> RgbImage {
    let shade: Box<dyn Fn(f32, f32) -> [f32; 3]> = match texture {
        Texture::Woven => woven(rng),
        Texture::Leather => leather(size_px, rng),
        Texture::Metal => metal(size_px, rng),
        Texture::Wood => wood(rng),
    };
    // The light varies slightly across the image, and the sensor adds noise.
    let light = [
        rng.random_range(-0.06..0.06f32),
        rng.random_range(-0.06..0.06f32),
    ];
    let level = rng.random_range(0.95..1.05f32);
    let side = size_px as f32;
    let mut image = RgbImage::new(size_px, size_px);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (x, y) = (x as f32, y as f32);
        let bright = level + light[0] * (x / side - 0.5) + light[1] * (y / side - 0.5);
        let noise = rng.random_range(-3.0..3.0f32);
        *pixel =
            Rgb(shade(x, y).map(|value| (255.0 * value * bright + noise).clamp(0.0, 255.0) as u8));
    }
    image
}

fn woven(rng: &mut ChaCha8Rng) -> Box<dyn Fn(f32, f32) -> [f32; 3]> {
    let pitch = rng.random_range(7.6..8.4f32);
    let phase = [
        rng.random_range(0.0..16.0f32),
        rng.random_range(0.0..16.0f32),
    ];
    let (warp, weft) = ([0.62, 0.55, 0.42], [0.42, 0.38, 0.33]);
    let grain = Grain::new(rng);
    Box::new(move |x, y| {
        // Threads are not perfectly straight.
        let wander = 0.6 * grain.at(x / 40.0, y / 40.0);
        let (u, v) = (
            (x + phase[0] + wander) / pitch,
            (y + phase[1] + wander) / pitch,
        );
        let over = (u.floor() as i64 + v.floor() as i64).rem_euclid(2) == 0;
        let (across, along, colour) = if over { (u, v, warp) } else { (v, u, weft) };
        let round = |position: f32| (std::f32::consts::PI * position.fract()).sin().max(0.0);
        let height = 0.45 + 0.55 * round(across).sqrt() * (0.6 + 0.4 * round(along));
        let fibre = 1.0 + 0.08 * grain.at(x / 1.7, y / 1.7);
        colour.map(|value| value * height * fibre)
    })
}

fn leather(size_px: u32, rng: &mut ChaCha8Rng) -> Box<dyn Fn(f32, f32) -> [f32; 3]> {
    let cell = rng.random_range(8.5..10.5f32);
    let count = (size_px as f32 / cell).ceil() as i64 + 3;
    let points: Vec<[f32; 2]> = (0..count * count)
        .map(|index| {
            let (column, row) = (index % count - 1, index / count - 1);
            [
                (column as f32 + rng.random_range(0.1..0.9)) * cell,
                (row as f32 + rng.random_range(0.1..0.9)) * cell,
            ]
        })
        .collect();
    let grain = Grain::new(rng);
    let hue = rng.random_range(-0.02..0.02f32);
    Box::new(move |x, y| {
        let (column, row) = ((x / cell) as i64 + 1, (y / cell) as i64 + 1);
        let (mut first, mut second) = (f32::MAX, f32::MAX);
        for r in (row - 2).max(0)..=(row + 2).min(count - 1) {
            for c in (column - 2).max(0)..=(column + 2).min(count - 1) {
                let point = points[(r * count + c) as usize];
                let distance = (point[0] - x).hypot(point[1] - y);
                if distance < first {
                    (first, second) = (distance, first);
                } else {
                    second = second.min(distance);
                }
            }
        }
        let crease = ((second - first) / 2.5).clamp(0.0, 1.0);
        let bright = (0.55 + 0.45 * crease)
            * (1.0 + 0.06 * grain.at(x / 2.0, y / 2.0) + 0.05 * grain.at(x / 30.0, y / 30.0));
        [(0.52 + hue) * bright, 0.33 * bright, (0.22 - hue) * bright]
    })
}

fn metal(size_px: u32, rng: &mut ChaCha8Rng) -> Box<dyn Fn(f32, f32) -> [f32; 3]> {
    // Each row has its own tone, which depends partly on that of the row before it.
    let mut rows = vec![0.0f32; size_px as usize];
    let mut tone = 0.0f32;
    for row in &mut rows {
        tone = 0.5 * tone + rng.random_range(-0.07..0.07f32);
        *row = tone;
    }
    let grain = Grain::new(rng);
    Box::new(move |x, y| {
        let value = 0.58 + rows[y as usize] + 0.05 * grain.at(x / 60.0, y * 0.9);
        [value; 3]
    })
}

fn wood(rng: &mut ChaCha8Rng) -> Box<dyn Fn(f32, f32) -> [f32; 3]> {
    let spacing = rng.random_range(15.0..19.0f32);
    let phase = rng.random_range(0.0..100.0f32);
    let grain = Grain::new(rng);
    Box::new(move |x, y| {
        let bend = 9.0 * grain.at(x / 90.0, y / 35.0);
        let ring = ((y + bend + phase) / spacing).fract().abs();
        let late = ring.powi(3);
        let fibre = 0.06 * grain.at(x / 25.0, y * 0.8) + 0.03 * grain.at(x / 6.0, y * 1.3);
        let bright = 1.0 - 0.32 * late + fibre;
        [0.74 * bright, 0.56 * bright, 0.38 * bright]
    })
}

/// Value noise in -1..1 on a periodic lattice of random values.
struct Grain {
    lattice: Vec<f32>,
}

impl Grain {
    /// Side of the lattice.
    const SIDE: usize = 256;

    fn new(rng: &mut ChaCha8Rng) -> Self {
        Self {
            lattice: (0..Self::SIDE * Self::SIDE)
                .map(|_| rng.random_range(-1.0..1.0))
                .collect(),
        }
    }

    /// The noise at a position, with a lattice spacing of 1.
    fn at(&self, x: f32, y: f32) -> f32 {
        interpolate(x, y, |x, y| {
            let wrap = |at: i32| at.rem_euclid(Self::SIDE as i32) as usize;
            self.lattice[wrap(y) * Self::SIDE + wrap(x)]
        })
    }
}
