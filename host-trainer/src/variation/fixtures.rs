//! Parts that the tests here fit models to.

use scoring::inspect::preprocess::Planes;

/// A textured part with a bright left third; brightness and contrast vary from part to part. A worn
/// one has fainter texture over a quarter of it, with no pixel out of range.
pub(super) fn part(seed: u64, worn: bool) -> Planes {
    let side = 96;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let (light, contrast) = (0.2 * random(), 0.3 + 0.1 * random());
    let mut data = Vec::new();
    for y in 0..side {
        for x in 0..side {
            let base = if x < 32 { 0.4 } else { 0.0 };
            let inside = worn && (44..92).contains(&x) && (40..88).contains(&y);
            let texture = contrast * random() * if inside { 0.25 } else { 1.0 };
            data.push(base + light + texture);
        }
    }
    Planes {
        channels: 1,
        width_px: side,
        height_px: side,
        data,
    }
}
