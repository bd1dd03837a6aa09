//! How rare the appearance of a place is among all good images, so that what is good and rare (a
//! woven edge, a mark that few parts have) is drawn often enough to be learned as good. Pure
//! arithmetic on frames. Not in the paper, which draws tiles evenly (**ours**).
//!
//! A cell of 16 × 16 pixels, larger in a frame of more than 512 pixels a side, is described by its mean and deviation of brightness, its mean steps
//! from pixel to pixel along rows and columns, and its tint. Its rarity is the squared Mahalanobis
//! distance from all cells, divided by the number of features: 1 on average.

use nalgebra::{Cholesky, SMatrix, SVector};
use scoring::inspect::frame::{Channels, Frame, Pixels};

/// Smallest side of a cell in pixels.
const CELL_PX: u32 = 16;
/// Most cells along a side of a frame, so that 10,000 large frames take 250 MB.
const MOST_CELLS: u32 = 32;
/// Features of a cell.
const FEATURES: usize = 6;
/// Added to each feature's variance, as a fraction of it, and at least.
const RIDGE: f64 = 1e-3;
const LEAST_RIDGE: f64 = 1e-9;
/// Rarer cells are drawn no more often.
const RAREST: f64 = 100.0;

type Features = SVector<f64, FEATURES>;

/// Features of a frame's cells, row by row. Pixels beyond the last whole cell belong to none.
#[derive(Debug, Clone, PartialEq)]
pub struct CellAppearance {
    pub(super) columns: u32,
    pub(super) rows: u32,
    /// Side of a cell in pixels.
    pub(super) cell_px: u32,
    cells: Vec<[f32; FEATURES]>,
}

impl CellAppearance {
    /// Describes the cells of a frame.
    pub fn of(frame: &Frame) -> Self {
        let (width, channels) = (frame.width_px() as usize, frame.channels().count());
        let values: Vec<f32> = match frame.pixels() {
            Pixels::U8(values) => values
                .iter()
                .map(|value| f32::from(*value) / 255.0)
                .collect(),
            Pixels::U16(values) => values
                .iter()
                .map(|value| f32::from(*value) / 65_535.0)
                .collect(),
        };
        let colour = frame.channels() == Channels::Rgb;
        let pixel = |x: usize, y: usize| {
            let at = (y * width + x) * channels;
            &values[at..at + channels]
        };
        let brightness = |x: usize, y: usize| {
            let pixel = pixel(x, y);
            pixel.iter().sum::<f32>() / pixel.len() as f32
        };
        let (width_px, height_px) = (frame.width_px(), frame.height_px());
        let cell_px = width_px.max(height_px).div_ceil(MOST_CELLS).max(CELL_PX);
        // A strip has a row of cells at least.
        let cell_px = cell_px.min(width_px.min(height_px));
        let (columns, rows) = (frame.width_px() / cell_px, frame.height_px() / cell_px);
        let side = cell_px as usize;
        let cell = |column: usize, row: usize| {
            let (mut sum, mut squares, mut across, mut down) = (0.0, 0.0, 0.0, 0.0);
            let mut tint = [0.0; 2];
            for y in row * side..(row + 1) * side {
                for x in column * side..(column + 1) * side {
                    let here = brightness(x, y);
                    sum += here;
                    squares += here * here;
                    across += (here - brightness(x.saturating_sub(1), y)).abs();
                    down += (here - brightness(x, y.saturating_sub(1))).abs();
                    if colour {
                        let pixel = pixel(x, y);
                        tint[0] += pixel[0] - pixel[1];
                        tint[1] += pixel[2] - pixel[1];
                    }
                }
            }
            let count = (side * side) as f32;
            let mean = sum / count;
            let deviation = (squares / count - mean * mean).max(0.0).sqrt();
            [
                mean,
                deviation,
                across / count,
                down / count,
                tint[0] / count,
                tint[1] / count,
            ]
        };
        let cells = (0..rows as usize)
            .flat_map(|row| (0..columns as usize).map(move |column| (column, row)))
            .map(|(column, row)| cell(column, row))
            .collect();
        Self {
            columns,
            rows,
            cell_px,
            cells,
        }
    }

    fn features(&self) -> impl Iterator<Item = Features> + '_ {
        self.cells
            .iter()
            .map(|cell| Features::from_iterator(cell.iter().map(|value| f64::from(*value))))
    }
}

/// The rarity of every cell of every frame, frame after frame and row by row, at most [`RAREST`].
pub(super) fn rarities(frames: &[CellAppearance]) -> Vec<f64> {
    let all = || frames.iter().flat_map(CellAppearance::features);
    let count = all().count().max(1) as f64;
    let mean = all().sum::<Features>() / count;
    let mut covariance = SMatrix::<f64, FEATURES, FEATURES>::zeros();
    for features in all() {
        let off = features - mean;
        covariance += off * off.transpose() / count;
    }
    for feature in 0..FEATURES {
        let variance = covariance[(feature, feature)];
        covariance[(feature, feature)] += (RIDGE * variance).max(LEAST_RIDGE);
    }
    let Some(factor) = Cholesky::new(covariance) else {
        return vec![1.0; count as usize];
    };
    let rarity = |features: Features| {
        let off = features - mean;
        let squared = off.dot(&factor.solve(&off));
        (squared / FEATURES as f64).min(RAREST)
    };
    all().map(rarity).collect()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seed::generator;

    /// Noise, in one frame with a bright stripe.
    fn frame(number: u64, stripe: bool) -> Frame {
        let mut rng = generator(number, "rarity", 0);
        let pixels = (0..96 * 80).map(|at| match stripe && (at % 96) / 16 == 2 {
            true => 250,
            false => rng.random_range(100..140),
        });
        Frame::new(96, 80, Channels::Grey, Pixels::U8(pixels.collect())).unwrap()
    }

    #[test]
    fn what_few_images_show_is_rare() {
        let frames: Vec<CellAppearance> = (0..30)
            .map(|number| CellAppearance::of(&frame(number, number == 7)))
            .collect();
        let found = rarities(&frames);
        assert_eq!(found.len(), 30 * 6 * 5);
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert!((0.5..1.1).contains(&mean), "{mean}");
        for (at, rarity) in found.iter().enumerate() {
            let (of, column) = (at / 30, at % 6);
            match (of, column) {
                (7, 2) => assert!(*rarity > 10.0, "{rarity}"),
                // The cell beside it has a step to it.
                (7, 3) => {}
                _ => assert!(*rarity < 10.0, "{of} {column}: {rarity}"),
            }
        }
    }

    #[test]
    fn a_large_frame_has_no_more_cells() {
        let large = Frame::new(2_000, 1_000, Channels::Grey, Pixels::U8(vec![9; 2_000_000]));
        let found = CellAppearance::of(&large.unwrap());
        assert_eq!((found.columns, found.rows, found.cell_px), (31, 15, 63));
        let strip = Frame::new(4_096, 66, Channels::Grey, Pixels::U8(vec![9; 4_096 * 66]));
        let found = CellAppearance::of(&strip.unwrap());
        assert_eq!((found.columns, found.rows, found.cell_px), (62, 1, 66));
    }

    #[test]
    fn even_images_have_no_rare_places() {
        let even = Frame::new(65, 70, Channels::Rgb, Pixels::U8(vec![9; 65 * 70 * 3])).unwrap();
        let found = rarities(&[CellAppearance::of(&even)]);
        assert_eq!(found, [0.0; 16]);
    }
}
