//! Augmentation of frames for training: mirroring, zoom, shift and brightness, all of which leave a
//! good frame good. Pure.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scoring::inspect::preprocess::Planes;

/// Largest change of size, along each axis by itself.
const ZOOM: f32 = 0.05;
/// Largest shift, as a fraction of half a side.
const SHIFT: f32 = 0.05;
/// Largest logarithm of the factor of brightness, up or down.
const LOG_BRIGHTNESS: f32 = 0.2;

/// For each pixel along an axis: the two source pixels that it is interpolated between, and the
/// weight of the second.
type Axis = Vec<(usize, usize, f32)>;

/// A random transformation of frames of one size.
#[derive(Debug, Clone)]
pub struct Augmentation {
    columns: Axis,
    rows: Axis,
    brightness: f32,
}

/// Draws mirroring, zoom and shift along an axis; beyond its ends the source is mirrored.
fn draw_axis(length: usize, rng: &mut ChaCha8Rng) -> Axis {
    let zoom = 1.0 + rng.random_range(-ZOOM..ZOOM);
    let along = if rng.random() { zoom } else { -zoom };
    let middle = length as f32 / 2.0;
    let shift = rng.random_range(-SHIFT..SHIFT) * middle;
    let last = length - 1;
    let mirrored = |at: i64| {
        let at = if at < 0 { -1 - at } else { at };
        let at = at.unsigned_abs() as usize % (2 * length);
        if at > last { 2 * length - 1 - at } else { at }
    };
    (0..length)
        .map(|place| {
            let at = (place as f32 + 0.5 - middle) * along + middle + shift - 0.5;
            let first = at.floor();
            (
                mirrored(first as i64),
                mirrored(first as i64 + 1),
                at - first,
            )
        })
        .collect()
}

impl Augmentation {
    /// Draws one for frames of this width and height.
    pub fn draw(size: [usize; 2], rng: &mut ChaCha8Rng) -> Self {
        let [width, height] = size;
        Self {
            columns: draw_axis(width, rng),
            rows: draw_axis(height, rng),
            brightness: rng.random_range(-LOG_BRIGHTNESS..LOG_BRIGHTNESS).exp(),
        }
    }

    /// Transforms a plane, row by row, without its brightness: for masks.
    pub fn apply_to_mask(&self, plane: &[f32]) -> Vec<f32> {
        let width = self.columns.len();
        let row = |row: usize| &plane[row * width..(row + 1) * width];
        let mut out = Vec::with_capacity(plane.len());
        for &(upper, lower, down) in &self.rows {
            let (upper, lower) = (row(upper), row(lower));
            out.extend(self.columns.iter().map(|&(left, right, along)| {
                let interpolate = |row: &[f32]| row[left] + (row[right] - row[left]) * along;
                let (upper, lower) = (interpolate(upper), interpolate(lower));
                upper + (lower - upper) * down
            }));
        }
        out
    }

    /// Transforms a frame with values in [-1, 1].
    pub fn apply(&self, planes: &Planes) -> Planes {
        let lit = |value: f32| ((value + 1.0) * self.brightness - 1.0).clamp(-1.0, 1.0);
        let all =
            (0..planes.channels).flat_map(|channel| self.apply_to_mask(planes.plane(channel)));
        Planes {
            data: all.map(lit).collect(),
            ..*planes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::generator;

    #[test]
    fn a_frame_is_stretched_and_shifted_a_little_and_lit_as_a_whole() {
        let (width, height) = (40, 30);
        let slope =
            |index: usize| (index % width) as f32 / 40.0 - 0.9 + (index / width) as f32 / 60.0;
        let planes = Planes {
            channels: 1,
            width_px: width,
            height_px: height,
            data: (0..width * height).map(slope).collect(),
        };
        let mut mirrored = [0; 2];
        for seed in 0..30 {
            let augmentation = Augmentation::draw([width, height], &mut generator(seed, "view", 0));
            let found = augmentation.apply_to_mask(&planes.data);
            // The middle moves by at most 5 % of half a side and keeps its value.
            let middle = found[height / 2 * width + width / 2];
            let expected = slope(height / 2 * width + width / 2);
            assert!((middle - expected).abs() < 0.05 * (0.5 + 0.25) + 0.05);
            for (side, step) in [(0, 1), (1, width)] {
                let at = height / 2 * width + width / 2;
                let rise =
                    (found[at + step] - found[at]) / (planes.data[at + step] - planes.data[at]);
                assert!((0.94..1.06).contains(&rise.abs()), "{rise}");
                mirrored[side] += usize::from(rise < 0.0);
            }
            let lit = augmentation.apply(&planes).data;
            let factor = |index: usize| (lit[index] + 1.0) / (found[index] + 1.0);
            assert!((0.81..1.23).contains(&factor(0)));
            assert!(
                (0..lit.len())
                    .all(|index| lit[index] == 1.0 || (factor(index) - factor(0)).abs() < 1e-4)
            );
        }
        assert!(
            mirrored.iter().all(|count| (5..25).contains(count)),
            "{mirrored:?}"
        );
    }
}
