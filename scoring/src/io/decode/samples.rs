//! Values of pixels as decoders find them: unpacked, spread over the full range, separated.

use crate::inspect::frame::Pixels;

/// Values of `bits` bits (1, 2, 4 or 8), from the highest bits of each byte on, one a byte. Rows begin
/// with a byte.
pub(super) fn unpack(packed: &[u8], row_bytes: usize, row_values: usize, bits: u8) -> Vec<u8> {
    let each = usize::from(8 / bits);
    let mask = u8::MAX >> (8 - bits);
    let rows = packed.chunks_exact(row_bytes.max(1));
    rows.flat_map(|row| {
        (0..row_values).map(move |at| {
            let shift = 8 - usize::from(bits) * (at % each + 1);
            (row[at / each] >> shift) & mask
        })
    })
    .collect()
}

/// Scales values of fewer than 8 bits so that the maximum is 255.
pub(super) fn spread(values: Pixels, bits: u8) -> Pixels {
    match values {
        Pixels::U8(mut values) if bits < 8 => {
            let most = u16::from(u8::MAX >> (8 - bits));
            for value in &mut values {
                *value = ((u16::from(*value) * 255 + most / 2) / most) as u8;
            }
            Pixels::U8(values)
        }
        values => values,
    }
}

/// Black for white, for values of `bits` bits, or of 16 where they are widened.
pub(super) fn invert(values: Pixels, bits: u8) -> Pixels {
    match values {
        Pixels::U8(mut values) => {
            let most = u8::MAX >> (8 - bits.min(8));
            values.iter_mut().for_each(|value| *value = most - *value);
            Pixels::U8(values)
        }
        Pixels::U16(mut values) => {
            values.iter_mut().for_each(|value| *value = !*value);
            Pixels::U16(values)
        }
    }
}

/// Separates the last of `kept + 1` values of each pixel.
pub(super) fn split_last(values: Pixels, kept: usize) -> (Pixels, Pixels) {
    fn split<T: Copy>(values: &[T], kept: usize) -> (Vec<T>, Vec<T>) {
        let pixels = values.chunks_exact(kept + 1);
        let last = pixels.clone().map(|pixel| pixel[kept]).collect();
        (
            pixels.flat_map(|pixel| &pixel[..kept]).copied().collect(),
            last,
        )
    }
    match values {
        Pixels::U8(values) => {
            let (kept, last) = split(&values, kept);
            (Pixels::U8(kept), Pixels::U8(last))
        }
        Pixels::U16(values) => {
            let (kept, last) = split(&values, kept);
            (Pixels::U16(kept), Pixels::U16(last))
        }
    }
}

/// Inks to light, without a colour profile: what cyan and black leave of red, and so on.
pub(super) fn cmyk_to_rgb(values: Pixels) -> Pixels {
    fn light<T: Copy + Into<u32>>(values: &[T], most: u32, to: fn(u32) -> T) -> Vec<T> {
        let (pixels, _) = values.as_chunks::<4>();
        let left =
            |ink: T, black: T| to(((most - ink.into()) * (most - black.into()) + most / 2) / most);
        pixels
            .iter()
            .flat_map(|&[cyan, magenta, yellow, black]| {
                [left(cyan, black), left(magenta, black), left(yellow, black)]
            })
            .collect()
    }
    match values {
        Pixels::U8(values) => Pixels::U8(light(&values, 255, |value| value as u8)),
        Pixels::U16(values) => Pixels::U16(light(&values, 65_535, |value| value as u16)),
    }
}
