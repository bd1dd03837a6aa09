//! Converts an 8-bit Bayer mosaic to colour by averaging the nearest samples of each colour
//! (bilinear).
//!
//! The method is simple on purpose: edge-directed methods invent structure, which looks like a
//! defect.

/// Colours of the upper left 2×2 pixels, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    Rggb,
    Grbg,
    Gbrg,
    Bggr,
}

impl Pattern {
    /// Column and row of the red sample.
    fn red_at(self) -> (usize, usize) {
        match self {
            Self::Rggb => (0, 0),
            Self::Grbg => (1, 0),
            Self::Gbrg => (0, 1),
            Self::Bggr => (1, 1),
        }
    }
}

/// The neighbouring positions. At the border both are the inner one, which has the same colour.
fn neighbours(at: usize, count: usize) -> (usize, usize) {
    let before = if at == 0 { 1 } else { at - 1 };
    let after = if at + 1 == count { at - 1 } else { at + 1 };
    (before, after)
}

fn mean<const N: usize>(samples: [u8; N]) -> u8 {
    let sum: usize = samples.iter().map(|&sample| usize::from(sample)).sum();
    ((sum + N / 2) / N) as u8
}

/// Interleaved RGB values from complete rows of `width_px` samples. The mosaic must be 2×2 pixels
/// or larger.
pub(super) fn demosaic(samples: &[u8], width_px: usize, pattern: Pattern) -> Vec<u8> {
    let height_px = samples.len() / width_px;
    let (red_x, red_y) = pattern.red_at();
    let row = |y: usize| &samples[y * width_px..(y + 1) * width_px];
    let mut rgb = Vec::with_capacity(samples.len() * 3);
    for y in 0..height_px {
        let (above, below) = neighbours(y, height_px);
        let (above, here, below) = (row(above), row(y), row(below));
        let red_row = y % 2 == red_y;
        for x in 0..width_px {
            let (left, right) = neighbours(x, width_px);
            let own = here[x];
            let beside = || mean([here[left], here[right]]);
            let upright = || mean([above[x], below[x]]);
            let cross = || mean([above[x], below[x], here[left], here[right]]);
            let diagonal = || mean([above[left], above[right], below[left], below[right]]);
            rgb.extend_from_slice(&match (red_row, x % 2 == red_x) {
                (true, true) => [own, cross(), diagonal()],
                (true, false) => [beside(), own, upright()],
                (false, true) => [upright(), own, beside()],
                (false, false) => [diagonal(), cross(), own],
            });
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_gives_back_an_even_colour() {
        let colour = [200, 90, 30];
        for (pattern, order) in [
            (Pattern::Rggb, [0, 1, 1, 2]),
            (Pattern::Grbg, [1, 0, 2, 1]),
            (Pattern::Gbrg, [1, 2, 0, 1]),
            (Pattern::Bggr, [2, 1, 1, 0]),
        ] {
            for (width_px, height_px) in [(2, 2), (5, 4), (4, 7)] {
                let samples: Vec<u8> = (0..width_px * height_px)
                    .map(|at| colour[order[at / width_px % 2 * 2 + at % width_px % 2]])
                    .collect();
                let rgb = demosaic(&samples, width_px, pattern);
                assert_eq!(
                    rgb,
                    colour.repeat(width_px * height_px),
                    "{pattern:?} {width_px}×{height_px}"
                );
            }
        }
    }

    #[test]
    fn missing_colours_are_the_mean_of_the_nearest() {
        // R G R     10 20 30
        // G B G     40 50 60
        // R G R     70 80 90
        let rgb = demosaic(&[10, 20, 30, 40, 50, 60, 70, 80, 90], 3, Pattern::Rggb);
        let pixel = |x: usize, y: usize| &rgb[(y * 3 + x) * 3..][..3];
        assert_eq!(pixel(1, 1), [50, 50, 50], "at blue");
        assert_eq!(pixel(1, 0), [20, 20, 50], "green in a red row");
        assert_eq!(pixel(0, 1), [40, 40, 50], "green in a blue row");
        assert_eq!(pixel(0, 0), [10, 30, 50], "a corner");
        assert_eq!(pixel(2, 2), [90, 70, 50], "the corner opposite");
    }
}
