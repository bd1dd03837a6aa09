//! Draws the random numbers that synthetic defects are made of. Pure: a generator goes in, numbers
//! come out.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::noise::value_noise;

/// Value noise in -1..1 at a pixel; its elements are `length_px` large.
pub(super) fn smooth_noise(x: f32, y: f32, length_px: f32, seed: u32) -> f32 {
    value_noise(x / length_px, y / length_px, seed)
}

/// Draws from a log-uniform distribution: the logarithm is uniform between those of the bounds.
pub(super) fn log_uniform(rng: &mut ChaCha8Rng, range: Range<f32>) -> f32 {
    rng.random_range(range.start.ln()..range.end.ln()).exp()
}

/// Draws a factor above or below 1 with equal chance; the magnitude of its logarithm is uniform in
/// `log_magnitude`.
pub(super) fn random_factor(rng: &mut ChaCha8Rng, log_magnitude: Range<f32>) -> f32 {
    let by = rng.random_range(log_magnitude);
    if rng.random() { by.exp() } else { (-by).exp() }
}
