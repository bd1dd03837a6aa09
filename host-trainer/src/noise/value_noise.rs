//! Value noise: smooth random fields that can be evaluated at any position.

/// A pseudorandom number in 0..1 for each lattice point, mixed like MurmurHash3's finaliser.
pub(crate) fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ seed;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    ((h ^ (h >> 16)) >> 8) as f32 / (1u32 << 24) as f32
}

/// Value noise in -1..1 with a lattice spacing of 1.
pub(crate) fn value_noise(x: f32, y: f32, seed: u32) -> f32 {
    2.0 * interpolate(x, y, |x, y| lattice(x, y, seed)) - 1.0
}

/// Interpolates smoothly between the values of the four lattice points around a position.
pub(crate) fn interpolate(x: f32, y: f32, value: impl Fn(i32, i32) -> f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - left), smooth(y - top));
    let (left, top) = (left as i32, top as i32);
    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
    let row = |y| mix(value(left, y), value(left + 1, y), u);
    mix(row(top), row(top + 1), v)
}
