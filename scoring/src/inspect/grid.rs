//! The grids of cells that a variation model and a segmentation network divide a frame into, and
//! the limit of these cells' deviations.

/// Cells along a side of a variation model's grids: one for large uneven areas, one for smaller
/// ones.
pub const GRIDS: [usize; 2] = [16, FINEST];
/// Cells along a side of the finest grid, which a segmentation network's logits have too.
pub const FINEST: usize = 32;
/// Largest value of a variation model or a segmentation network. Features are of the order of 1,
/// and weights at most one over the root of the least variance that `host-trainer` leaves (1e-6).
pub(super) const LARGEST_VALUE: f32 = 1e6;
/// Larger deviations mean nothing more, and stay finite when they are added up.
const LARGEST_DEVIATION: f32 = 1e6;

/// Limits a deviation in standard deviations. NaN counts as far off, never as good.
pub(super) fn clamp_deviation(deviation: f32) -> f32 {
    if deviation.is_nan() {
        LARGEST_DEVIATION
    } else {
        deviation.clamp(-LARGEST_DEVIATION, LARGEST_DEVIATION)
    }
}
