//! Rectangular masks.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

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
    /// Draws a random width and height, then a random position inside the tile (IV-B).
    pub(super) fn draw(side: usize, rng: &mut ChaCha8Rng) -> Self {
        let width = rng.random_range(1..=side);
        let height = rng.random_range(1..=side);
        Self {
            x: rng.random_range(0..=side - width),
            y: rng.random_range(0..=side - height),
            width,
            height,
        }
    }

    /// The index range of each of its rows in a row-major plane.
    pub(super) fn rows(self, side: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (self.y..self.y + self.height).map(move |y| {
            let start = y * side + self.x;
            start..start + self.width
        })
    }
}
