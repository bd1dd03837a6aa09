//! Measures a surface from good images: their size, colour, brightness, grain, and how alike they
//! are. Pure arithmetic on frames as they are read.

use scoring::inspect::frame::{Channels, Frame, Pixels};

/// What was measured of a surface. Lengths are in pixels of the original images.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Surface {
    /// Number of good images.
    pub images: usize,
    /// Number of images measured.
    pub looked_at: usize,
    /// Median width.
    pub width_px: u32,
    /// Median height.
    pub height_px: u32,
    /// Mean difference between a pixel's highest and lowest channel, of 255.
    pub colourfulness: f32,
    /// Standard deviation of the images' mean brightness over its mean.
    pub brightness_spread: f32,
    /// Correlation length across the grain, at which the autocorrelation has fallen to 1/e; the
    /// median over images.
    pub grain_px: f32,
    /// Median distance between the thumbnails of an image and of its most similar one, divided by
    /// the median distance between any two. Near 1 if no two images show the same part.
    pub nearest: f32,
    /// Median correlation of an image's thumbnail with the mean of the others, after shading is
    /// removed. Near 0 if each place may look like any other, near 1 if parts are in a fixed pose.
    pub layout: f32,
}

/// What was measured of one image.
#[derive(Debug, Clone)]
pub struct ImageMeasurements {
    width_px: u32,
    height_px: u32,
    colourfulness: f32,
    brightness: f32,
    grain_px: f32,
    thumbnail: Vec<f32>,
}

/// Side of the square in the middle of an image in which the grain is measured.
const MIDDLE_PX: usize = 512;
/// Cells along a side of a thumbnail.
const CELLS: usize = 16;

impl ImageMeasurements {
    /// Measures an image.
    pub fn of(frame: &Frame) -> Self {
        let (width, height) = (frame.width_px() as usize, frame.height_px() as usize);
        let channels = match frame.channels() {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        };
        let values: Vec<f32> = match frame.pixels() {
            Pixels::U8(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Pixels::U16(values) => values
                .iter()
                .map(|&value| f32::from(value) / 257.0)
                .collect(),
        };
        let pixels = values.chunks_exact(channels);
        let grey: Vec<f32> = pixels
            .clone()
            .map(|pixel| pixel.iter().sum::<f32>() / channels as f32)
            .collect();
        let area = grey.len().max(1) as f32;
        let colours = pixels.map(|pixel| {
            let (low, high) = pixel
                .iter()
                .fold((f32::MAX, f32::MIN), |(low, high), &value| {
                    (low.min(value), high.max(value))
                });
            high - low
        });
        Self {
            width_px: frame.width_px(),
            height_px: frame.height_px(),
            colourfulness: colours.sum::<f32>() / area,
            brightness: grey.iter().sum::<f32>() / area,
            grain_px: grain(&grey, width, height),
            thumbnail: thumbnail(&grey, width, height),
        }
    }
}

/// Mean brightness of each cell, relative to that of the whole image.
fn thumbnail(grey: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut sums = vec![(0.0f32, 0.0f32); CELLS * CELLS];
    for (y, row) in grey.chunks_exact(width).enumerate() {
        for (x, value) in row.iter().enumerate() {
            let (sum, count) = &mut sums[y * CELLS / height * CELLS + x * CELLS / width];
            *sum += value;
            *count += 1.0;
        }
    }
    let means: Vec<f32> = sums
        .iter()
        .map(|(sum, count)| sum / count.max(1.0))
        .collect();
    let mean = means.iter().sum::<f32>() / means.len() as f32;
    means.iter().map(|value| value / mean.max(1.0)).collect()
}

/// The shorter one of the correlation lengths along rows and along columns.
fn grain(grey: &[f32], width: usize, height: usize) -> f32 {
    let (columns, rows) = (width.min(MIDDLE_PX), height.min(MIDDLE_PX));
    let (left, top) = ((width - columns) / 2, (height - rows) / 2);
    let row = |y: usize| -> Vec<f32> {
        let start = (top + y) * width + left;
        grey[start..start + columns].to_vec()
    };
    let column = |x: usize| -> Vec<f32> {
        let at = |y| grey[(top + y) * width + left + x];
        (0..rows).map(at).collect()
    };
    // Every fourth line is enough.
    let along_rows = correlation_length((0..rows).step_by(4).map(row));
    let along_columns = correlation_length((0..columns).step_by(4).map(column));
    along_rows.min(along_columns)
}

/// The lag at which the mean autocorrelation of lines falls below 1/e. Slow changes, of light and
/// shape, are removed first.
fn correlation_length(lines: impl Iterator<Item = Vec<f32>>) -> f32 {
    let mut products: Vec<f64> = Vec::new();
    for line in lines {
        let line = detrended(&line);
        let lags = (line.len() / 4).max(1);
        products.resize(lags.max(products.len()), 0.0);
        for (lag, sum) in products.iter_mut().enumerate().take(lags) {
            let pairs = line.iter().zip(&line[lag..]);
            let sums: f64 = pairs.map(|(a, b)| f64::from(a * b)).sum();
            *sum += sums / (line.len() - lag) as f64;
        }
    }
    let Some(&whole) = products.first().filter(|whole| **whole > 0.0) else {
        return 0.0;
    };
    let level = whole * (-1.0f64).exp();
    let below = products.iter().position(|product| *product < level);
    below.map_or(products.len() as f32, |lag| {
        let (before, after) = (products[lag - 1], products[lag]);
        (lag as f64 - 1.0 + (before - level) / (before - after)) as f32
    })
}

/// Subtracts the moving mean over a quarter of the line.
fn detrended(line: &[f32]) -> Vec<f32> {
    let reach = line.len() / 8;
    let mut sums = vec![0.0f64; line.len() + 1];
    for (index, value) in line.iter().enumerate() {
        sums[index + 1] = sums[index] + f64::from(*value);
    }
    let around = |index: usize| {
        let (from, to) = (
            index.saturating_sub(reach),
            (index + reach + 1).min(line.len()),
        );
        ((sums[to] - sums[from]) / (to - from) as f64) as f32
    };
    let values = line.iter().enumerate();
    values.map(|(index, value)| value - around(index)).collect()
}

fn median<T: Copy>(values: &mut [T], order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Option<T> {
    values.sort_unstable_by(order);
    values.get(values.len() / 2).copied()
}

impl Surface {
    /// Summarises the measured ones of `images` good images. `None` if none was measured.
    pub fn of(measured: &[ImageMeasurements], images: usize) -> Option<Self> {
        let count = measured.len() as f32;
        let of = |value: &dyn Fn(&ImageMeasurements) -> f32| -> Vec<f32> {
            measured.iter().map(value).collect()
        };
        let mean = |values: &[f32]| values.iter().sum::<f32>() / count;
        let brightness = of(&|image| image.brightness);
        let middle = mean(&brightness);
        let squares: Vec<f32> = brightness.iter().map(|b| (b - middle).powi(2)).collect();
        let mut widths: Vec<u32> = measured.iter().map(|image| image.width_px).collect();
        let mut heights: Vec<u32> = measured.iter().map(|image| image.height_px).collect();
        Some(Self {
            images,
            looked_at: measured.len(),
            width_px: median(&mut widths, u32::cmp)?,
            height_px: median(&mut heights, u32::cmp)?,
            colourfulness: mean(&of(&|image| image.colourfulness)),
            brightness_spread: mean(&squares).sqrt() / middle.max(1.0),
            grain_px: median(&mut of(&|image| image.grain_px), f32::total_cmp)?,
            nearest: nearest(measured),
            layout: layout(measured),
        })
    }
}

fn nearest(images: &[ImageMeasurements]) -> f32 {
    let distance = |a: &ImageMeasurements, b: &ImageMeasurements| {
        let squares = a.thumbnail.iter().zip(&b.thumbnail);
        squares.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    };
    let (mut closest, mut all) = (Vec::new(), Vec::new());
    for (index, image) in images.iter().enumerate() {
        let others = images
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let distances: Vec<f32> = others.map(|(_, other)| distance(image, other)).collect();
        closest.extend(distances.iter().copied().min_by(f32::total_cmp));
        all.extend(distances);
    }
    match (
        median(&mut closest, f32::total_cmp),
        median(&mut all, f32::total_cmp),
    ) {
        (Some(closest), Some(all)) if all > 0.0 => closest / all,
        _ => 1.0,
    }
}

fn layout(images: &[ImageMeasurements]) -> f32 {
    let thumbnails: Vec<Vec<f32>> = images
        .iter()
        .map(|image| without_shading(&image.thumbnail))
        .collect();
    let mut sum = vec![0.0f32; CELLS * CELLS];
    for thumbnail in &thumbnails {
        let values = sum.iter_mut().zip(thumbnail);
        values.for_each(|(sum, value)| *sum += value);
    }
    let mut correlations: Vec<f32> = thumbnails
        .iter()
        .map(|thumbnail| {
            let others = sum.iter().zip(thumbnail).map(|(sum, own)| sum - own);
            correlation(thumbnail, &others.collect::<Vec<f32>>())
        })
        .collect();
    median(&mut correlations, f32::total_cmp).unwrap_or(0.0)
}

/// Subtracts the least-squares quadratic surface: the shading of an even surface by lamp and lens.
fn without_shading(thumbnail: &[f32]) -> Vec<f32> {
    let place = |at: usize| at as f32 / (CELLS - 1) as f32 * 2.0 - 1.0;
    let terms: [fn(f32, f32) -> f32; 6] = [
        |_, _| 1.0,
        |x, _| x,
        |_, y| y,
        |x, _| x * x,
        |x, y| x * y,
        |_, y| y * y,
    ];
    // Gram-Schmidt: each term is made orthogonal to those before, then the thumbnail to all.
    let remove = |values: &mut [f32], term: &[f32]| {
        let amount: f32 = values.iter().zip(term).map(|(a, b)| a * b).sum();
        values
            .iter_mut()
            .zip(term)
            .for_each(|(value, term)| *value -= amount * term);
    };
    let mut basis: Vec<Vec<f32>> = Vec::new();
    for term in terms {
        let mut values: Vec<f32> = (0..CELLS * CELLS)
            .map(|cell| term(place(cell % CELLS), place(cell / CELLS)))
            .collect();
        for before in &basis {
            remove(&mut values, before);
        }
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        basis.push(values.into_iter().map(|v| v / norm).collect());
    }
    let mut rest = thumbnail.to_vec();
    for term in &basis {
        remove(&mut rest, term);
    }
    rest
}

/// Pearson correlation; 0 if one of them does not vary.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut product, mut squares) = (0.0f32, [0.0f32; 2]);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        product += a * b;
        squares[0] += a * a;
        squares[1] += b * b;
    }
    let norm = (squares[0] * squares[1]).sqrt();
    if norm > 0.0 { product / norm } else { 0.0 }
}
