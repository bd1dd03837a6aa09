//! Unpacks grey values of more than 8 bits from drivers' layouts to 16 bits.

use crate::io::values::widen;

/// Little-endian words with the value in the low `bits` bits (9..=16).
pub(super) fn words(bytes: &[u8], bits: u32) -> Vec<u16> {
    let maximum = u16::MAX >> (16 - bits);
    // The upper bits are zero by definition. If a driver sets them anyway, white is easier to
    // notice than noise.
    let value = |word: &[u8; 2]| widen(u16::from_le_bytes(*word).min(maximum), bits);
    bytes.as_chunks().0.iter().map(value).collect()
}

/// MIPI RAW10: four pixels in five bytes, first the upper 8 bits of each, then the lower 2 bits of
/// all, lowest for the first pixel. A row consists of complete groups, the last of which may extend
/// beyond the row's pixels.
pub(super) fn mipi_10(bytes: &[u8], width_px: usize) -> Vec<u16> {
    unpack(bytes, width_px, |group: &[u8; 5]| {
        [0, 1, 2, 3].map(|pixel| {
            let low = (group[4] >> (2 * pixel)) & 0b11;
            widen((u16::from(group[pixel]) << 2) | u16::from(low), 10)
        })
    })
}

/// MIPI RAW12: two pixels in three bytes, first the upper 8 bits of each, then the lower 4 bits of
/// both, lowest for the first pixel. A row consists of complete groups.
pub(super) fn mipi_12(bytes: &[u8], width_px: usize) -> Vec<u16> {
    unpack(bytes, width_px, |group: &[u8; 3]| {
        [0, 1].map(|pixel| {
            let low = (group[2] >> (4 * pixel)) & 0b1111;
            widen((u16::from(group[pixel]) << 4) | u16::from(low), 12)
        })
    })
}

fn unpack<const BYTES: usize, const PIXELS: usize>(
    bytes: &[u8],
    width_px: usize,
    pixels: impl Fn(&[u8; BYTES]) -> [u16; PIXELS],
) -> Vec<u16> {
    let row_bytes = width_px.div_ceil(PIXELS) * BYTES;
    let rows = bytes.chunks_exact(row_bytes);
    rows.flat_map(|row| row.as_chunks().0.iter().flat_map(&pixels).take(width_px))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_keeps_both_ends_and_the_order() {
        for bits in [10, 12, 16] {
            let maximum = u16::MAX >> (16 - bits);
            assert_eq!(widen(0, bits), 0);
            assert_eq!(widen(maximum, bits), u16::MAX);
            let all: Vec<u16> = (0..=maximum).map(|value| widen(value, bits)).collect();
            assert!(all.is_sorted_by(|a, b| a < b), "{bits} bits");
        }
        // 0b10_0000_0001 → 10_0000_0001 100000
        assert_eq!(widen(0b10_0000_0001, 10), 0b1000_0000_0110_0000);
    }
}
