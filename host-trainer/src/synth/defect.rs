//! Draws defects on clean images. In: a clean image. Out: the image with the defect, and a mask of
//! exactly the pixels that changed.

use image::imageops::blur;
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A kind of defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A thin bright or dark line.
    Scratch,
    /// A dark round hole.
    Hole,
    /// A translucent patch of oil.
    Stain,
    /// A foreign fibre: a curved thread of another colour.
    Fibre,
    /// A patch that has been rubbed smooth.
    Smear,
}

impl Defect {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Scratch,
        Self::Hole,
        Self::Stain,
        Self::Fibre,
        Self::Smear,
    ];

    /// Name of its folder under `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Hole => "hole",
            Self::Stain => "stain",
            Self::Fibre => "fibre",
            Self::Smear => "smear",
        }
    }
}

/// Draws a defect at a random position. Returns the image and its row-major mask.
pub fn apply(defect: Defect, clean: &RgbImage, rng: &mut ChaCha8Rng) -> (RgbImage, Vec<bool>) {
    let (width, height) = clean.dimensions();
    let centre = [
        rng.random_range(0.25..0.75f32) * width as f32,
        rng.random_range(0.25..0.75f32) * height as f32,
    ];
    let mut image = clean.clone();
    match defect {
        Defect::Scratch => {
            let value = if rng.random() { 235 } else { 25 };
            let angle = rng.random_range(0.0..std::f32::consts::TAU);
            let reach = rng.random_range(0.1..0.22f32) * width as f32;
            let half = [angle.cos() * reach, angle.sin() * reach];
            let thickness = rng.random_range(1.0..2.2f32);
            edit(&mut image, |x, y, pixel| {
                let along =
                    ((x - centre[0]) * half[0] + (y - centre[1]) * half[1]) / (reach * reach);
                let t = along.clamp(-1.0, 1.0);
                let distance = (x - centre[0] - t * half[0]).hypot(y - centre[1] - t * half[1]);
                (distance < thickness).then(|| mix(pixel, [value; 3], 0.85))
            });
        }
        Defect::Hole => {
            let radius = rng.random_range(0.018..0.045f32) * width as f32;
            let squeeze = rng.random_range(0.7..1.4f32);
            edit(&mut image, |x, y, pixel| {
                let distance = ((x - centre[0]) * squeeze).hypot(y - centre[1]) / radius;
                (distance < 1.0).then(|| mix(pixel, [12, 10, 9], 0.95))
            });
        }
        Defect::Stain => {
            let radius = rng.random_range(0.05..0.11f32) * width as f32;
            let lobes = rng.random_range(0.0..std::f32::consts::TAU);
            // Oil makes the surface darker and slightly warmer.
            let colour = [38, 24, 12];
            let opacity = rng.random_range(0.5..0.65f32);
            edit(&mut image, |x, y, pixel| {
                let (dx, dy) = (x - centre[0], y - centre[1]);
                let wobble = 1.0 + 0.2 * (3.0 * dy.atan2(dx) + lobes).sin();
                (dx.hypot(dy) < radius * wobble).then(|| mix(pixel, colour, opacity))
            });
        }
        Defect::Fibre => {
            let colour = [
                rng.random_range(150..250),
                rng.random_range(150..250),
                rng.random_range(180..255),
            ];
            let radius = rng.random_range(0.06..0.14f32) * width as f32;
            let start = rng.random_range(0.0..std::f32::consts::TAU);
            let thickness = rng.random_range(1.0..1.8f32);
            edit(&mut image, |x, y, pixel| {
                let (dx, dy) = (x - centre[0], y - centre[1]);
                let turn = (dy.atan2(dx) - start).rem_euclid(std::f32::consts::TAU);
                let path = radius * (1.0 + 0.15 * (5.0 * turn).sin());
                (turn < 4.0 && (dx.hypot(dy) - path).abs() < thickness)
                    .then(|| mix(pixel, colour, 0.9))
            });
        }
        Defect::Smear => {
            let smooth = blur(clean, 5.0);
            let half = [
                rng.random_range(0.06..0.12f32) * width as f32,
                rng.random_range(0.06..0.12f32) * height as f32,
            ];
            edit(&mut image, |x, y, _| {
                let inside =
                    ((x - centre[0]) / half[0]).powi(2) + ((y - centre[1]) / half[1]).powi(2) < 1.0;
                inside.then(|| *smooth.get_pixel(x as u32, y as u32))
            });
        }
    }
    let mask = clean
        .pixels()
        .zip(image.pixels())
        .map(|(before, after)| before != after)
        .collect();
    (image, mask)
}

/// Replaces the pixels for which `change` returns a colour. It gets the pixel's centre.
fn edit(image: &mut RgbImage, mut change: impl FnMut(f32, f32, Rgb<u8>) -> Option<Rgb<u8>>) {
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if let Some(changed) = change(x as f32 + 0.5, y as f32 + 0.5, *pixel) {
            *pixel = changed;
        }
    }
}

/// Blends a colour over a pixel.
fn mix(pixel: Rgb<u8>, colour: [u8; 3], opacity: f32) -> Rgb<u8> {
    let channel = |index: usize| {
        let (from, to) = (f32::from(pixel.0[index]), f32::from(colour[index]));
        (from + (to - from) * opacity).round() as u8
    };
    Rgb([channel(0), channel(1), channel(2)])
}
