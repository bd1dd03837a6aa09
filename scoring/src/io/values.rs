//! What the values of pictures say about how they were made: how many bits carry information, and
//! whether colours are grey.

use crate::inspect::frame::{Channels, Frame, Pixels};

/// Widens `bits` significant bits (8..=16), in the low bits of a word, to 16 by repeating the upper
/// bits below, so that zero stays zero and the maximum becomes 65535. Cameras' formats and files
/// are scaled by this function alike.
pub fn widen(value: u16, bits: u32) -> u16 {
    (value << (16 - bits)) | value.checked_shr(2 * bits - 16).unwrap_or(0)
}

/// Range of the values of 16-bit pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueRange {
    /// Least value.
    pub least: u16,
    /// Greatest value.
    pub greatest: u16,
}

impl ValueRange {
    /// Bits that industrial cameras' converters have. Their SDKs write such values into 16-bit
    /// files as they are.
    const CONVERTERS: [u8; 4] = [8, 10, 12, 14];

    /// The range of one picture. `None` for 8-bit pictures, whose values say nothing about it.
    pub fn of(frame: &Frame) -> Option<Self> {
        let Pixels::U16(values) = frame.pixels() else {
            return None;
        };
        let first = *values.first()?;
        let mut range = Self {
            least: first,
            greatest: first,
        };
        for &value in values {
            range.least = range.least.min(value);
            range.greatest = range.greatest.max(value);
        }
        Some(range)
    }

    /// The range of both together.
    pub fn union(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
        }
    }

    /// The fewest bits, of those that cameras have, that hold every value: 8, 10, 12 or 14. `None`
    /// if it takes all 16. Over a set of pictures with bright places this tells the depth; of a
    /// single dark one it does not.
    pub fn likely_bits(&self) -> Option<u8> {
        let holds = |bits: &u8| self.greatest <= u16::MAX >> (16 - bits);
        Self::CONVERTERS.into_iter().find(holds)
    }
}

/// Difference between the channels of a pixel, in 8-bit levels, up to which it is taken for grey.
/// JPEG's conversion of colours alone makes differences of 1.
const GREY_TOLERANCE: u16 = 2;

/// Whether a colour frame shows only grey: no channel of any pixel differs from another by more
/// than rounding. True for grey frames.
pub fn is_grey(frame: &Frame) -> bool {
    fn even<T: Copy + Ord + Into<u16>>(values: &[T], tolerance: u16) -> bool {
        let (pixels, _) = values.as_chunks::<3>();
        pixels.iter().all(|[red, green, blue]| {
            let least: u16 = (*red.min(green).min(blue)).into();
            let greatest: u16 = (*red.max(green).max(blue)).into();
            greatest - least <= tolerance
        })
    }
    frame.channels() == Channels::Grey
        || match frame.pixels() {
            Pixels::U8(values) => even(values, GREY_TOLERANCE),
            Pixels::U16(values) => even(values, GREY_TOLERANCE * 257),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(values: Vec<u16>) -> Frame {
        let width = values.len() as u32;
        Frame::new(width, 1, Channels::Grey, Pixels::U16(values)).unwrap()
    }

    #[test]
    fn the_bits_are_those_that_hold_all_values_of_the_set() {
        let bits = |values: &[u16]| {
            let frames = values.iter().map(|&value| deep(vec![17, value, 100]));
            let ranges = frames.filter_map(|frame| ValueRange::of(&frame));
            ranges.reduce(ValueRange::union).unwrap().likely_bits()
        };
        assert_eq!(bits(&[200]), Some(8));
        assert_eq!(bits(&[255, 256]), Some(10));
        assert_eq!(bits(&[1_024, 3]), Some(12));
        assert_eq!(bits(&[4_095]), Some(12));
        assert_eq!(bits(&[4_096]), Some(14));
        assert_eq!(bits(&[16_384]), None);
        let shallow = Frame::new(1, 1, Channels::Grey, Pixels::U8(vec![3])).unwrap();
        assert_eq!(ValueRange::of(&shallow), None);
    }

    #[test]
    fn grey_stored_as_colour_is_grey_and_a_tint_is_not() {
        let colour = |values: Vec<u8>| {
            let width = values.len() as u32 / 3;
            Frame::new(width, 1, Channels::Rgb, Pixels::U8(values)).unwrap()
        };
        assert!(is_grey(&colour(vec![9, 9, 9, 200, 201, 199])));
        assert!(!is_grey(&colour(vec![9, 9, 9, 200, 201, 195])));
        assert!(is_grey(&deep(vec![1, 60_000])));
        let tinted = vec![40_000, 40_000, 41_000];
        assert!(!is_grey(
            &Frame::new(1, 1, Channels::Rgb, Pixels::U16(tinted)).unwrap()
        ));
    }
}
