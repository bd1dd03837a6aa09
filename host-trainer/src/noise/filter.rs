//! Neighbourhood filters inside a rectangle of one plane. Beyond the tile's edge the blur repeats
//! the nearest pixel (**ours**), and erosion and dilation ignore it.
//!
//! Our own code, because no image library filters f32 planes inside a mask only, with a Gaussian
//! whose size and sigma are independent. Converting to a library's types and back would cost more
//! than the filter.

use super::rect::Rect;

/// A normalised Gaussian kernel of `size` taps, an odd number.
pub(super) fn gaussian_kernel(size: usize, sigma_px: f32) -> Vec<f32> {
    let radius = (size / 2) as f32;
    let weight = |tap: usize| {
        let distance = tap as f32 - radius;
        (-distance * distance / (2.0 * sigma_px * sigma_px)).exp()
    };
    let taps: Vec<f32> = (0..size).map(weight).collect();
    let sum: f32 = taps.iter().sum();
    taps.into_iter().map(|tap| tap / sum).collect()
}

/// Blurs `plane` (side × side) with a separable kernel, horizontal and vertical, and returns the
/// values inside `rect`.
pub(super) fn blur(plane: &[f32], side: usize, rect: Rect, kernel: [&[f32]; 2]) -> Vec<f32> {
    let [across, down] = kernel;
    let (radius_x, radius_y) = (across.len() / 2, down.len() / 2);
    let rows = rect.height + 2 * radius_y;
    let columns = rect.width + 2 * radius_x;
    let clamp = |at: usize, radius: usize| at.saturating_sub(radius).min(side - 1);
    let mut padded = vec![0.0; columns];
    let mut horizontal = vec![0.0; rows * rect.width];
    for row in 0..rows {
        let source = &plane[clamp(rect.y + row, radius_y) * side..][..side];
        for (column, value) in padded.iter_mut().enumerate() {
            *value = source[clamp(rect.x + column, radius_x)];
        }
        let sums = &mut horizontal[row * rect.width..][..rect.width];
        for (tap, weight) in across.iter().enumerate() {
            for (sum, value) in sums.iter_mut().zip(&padded[tap..]) {
                *sum += weight * value;
            }
        }
    }
    let mut blurred = vec![0.0; rect.width * rect.height];
    for row in 0..rect.height {
        let sums = &mut blurred[row * rect.width..][..rect.width];
        for (tap, weight) in down.iter().enumerate() {
            let source = &horizontal[(row + tap) * rect.width..][..rect.width];
            for (sum, value) in sums.iter_mut().zip(source) {
                *sum += weight * value;
            }
        }
    }
    blurred
}

/// Which value of a neighbourhood is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extreme {
    Min,
    Max,
}

/// The offsets in a disk of odd diameter: dx² + dy² ≤ r².
pub(super) fn disk(size_px: usize) -> Vec<[isize; 2]> {
    let radius = (size_px / 2) as isize;
    let span = -radius..=radius;
    span.clone()
        .flat_map(|dy| span.clone().map(move |dx| [dx, dy]))
        .filter(|[dx, dy]| dx * dx + dy * dy <= radius * radius)
        .collect()
}

/// Replaces each pixel of `rect` by the extreme value over the disk around it, `iterations` times.
/// Returns a copy of the whole plane, in which only the rectangle is meaningful.
pub(super) fn morphology(
    plane: &[f32],
    side: usize,
    rect: Rect,
    size_px: usize,
    iterations: u32,
    extreme: Extreme,
) -> Vec<f32> {
    let offsets = disk(size_px);
    let mut source = plane.to_vec();
    for pass in (0..iterations as usize).rev() {
        // The remaining passes need the result of this one within this margin.
        let margin = pass * (size_px / 2);
        let x0 = rect.x.saturating_sub(margin);
        let y0 = rect.y.saturating_sub(margin);
        let x1 = (rect.x + rect.width + margin).min(side);
        let y1 = (rect.y + rect.height + margin).min(side);
        let mut result = source.clone();
        for y in y0..y1 {
            for &[dx, dy] in &offsets {
                let Some(from_y) = y.checked_add_signed(dy).filter(|&y| y < side) else {
                    continue;
                };
                // The columns whose neighbour at dx is inside the tile.
                let left = x0.max(dx.min(0).unsigned_abs());
                let right = x1.min(side - dx.max(0).unsigned_abs());
                if left >= right {
                    continue;
                }
                let from_x = left.wrapping_add_signed(dx);
                let from = &source[from_y * side + from_x..][..right - left];
                let to = &mut result[y * side + left..][..right - left];
                match extreme {
                    Extreme::Min => to.iter_mut().zip(from).for_each(|(a, b)| *a = a.min(*b)),
                    Extreme::Max => to.iter_mut().zip(from).for_each(|(a, b)| *a = a.max(*b)),
                }
            }
        }
        source = result;
    }
    source
}
