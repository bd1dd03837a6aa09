//! How a frame can look otherwise and stay as good as it was: mirrored, a little larger or smaller, moved, brighter or darker. Pure.

use edge_runtime::inspect::preprocess::Planes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Larger or smaller by up to that, each direction by itself.
const ZOOM: f32 = 0.05;
/// Moved by up to that share of half a side.
const MOVE: f32 = 0.05;
/// Brighter or darker by factors of up to that logarithm.
const LIGHT: f32 = 0.2;

/// A way to look at frames.
#[derive(Debug, Clone)]
pub struct View {
    /// Of every column, and of every row: the two that it lies between, and how far it is towards the second.
    columns: Vec<(usize, usize, f32)>,
    rows: Vec<(usize, usize, f32)>,
    light: f32,
}

/// Where the places of a line come from; beyond its ends it is mirrored.
fn line(length: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, usize, f32)> {
    let zoom = 1.0 + rng.random_range(-ZOOM..ZOOM);
    let along = if rng.random() { zoom } else { -zoom };
    let middle = length as f32 / 2.0;
    let moved = rng.random_range(-MOVE..MOVE) * middle;
    let last = length - 1;
    let mirrored = |at: i64| {
        let at = if at < 0 { -1 - at } else { at };
        let at = at.unsigned_abs() as usize % (2 * length);
        if at > last { 2 * length - 1 - at } else { at }
    };
    (0..length)
        .map(|place| {
            let at = (place as f32 + 0.5 - middle) * along + middle + moved - 0.5;
            let first = at.floor();
            (
                mirrored(first as i64),
                mirrored(first as i64 + 1),
                at - first,
            )
        })
        .collect()
}

impl View {
    /// One of many, of frames of this size.
    pub fn any(size: [usize; 2], rng: &mut ChaCha8Rng) -> Self {
        let [width, height] = size;
        Self {
            columns: line(width, rng),
            rows: line(height, rng),
            light: rng.random_range(-LIGHT..LIGHT).exp(),
        }
    }

    /// A plane, row by row, looked at this way, but as bright as it was.
    pub fn of(&self, plane: &[f32]) -> Vec<f32> {
        let width = self.columns.len();
        let row = |row: usize| &plane[row * width..(row + 1) * width];
        let mut out = Vec::with_capacity(plane.len());
        for &(upper, lower, down) in &self.rows {
            let (upper, lower) = (row(upper), row(lower));
            out.extend(self.columns.iter().map(|&(left, right, along)| {
                let of = |row: &[f32]| row[left] + (row[right] - row[left]) * along;
                let (upper, lower) = (of(upper), of(lower));
                upper + (lower - upper) * down
            }));
        }
        out
    }

    /// A frame in [-1, 1] looked at this way.
    pub fn of_frame(&self, planes: &Planes) -> Planes {
        let lit = |value: f32| ((value + 1.0) * self.light - 1.0).clamp(-1.0, 1.0);
        let all = (0..planes.channels).flat_map(|channel| self.of(planes.plane(channel)));
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
    fn a_frame_is_stretched_and_moved_a_little_and_lit_as_a_whole() {
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
            let view = View::any([width, height], &mut generator(seed, "view", 0));
            let found = view.of(&planes.data);
            // The middle moves by 5 % of half a side at most, and what it was is there.
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
            let lit = view.of_frame(&planes).data;
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
