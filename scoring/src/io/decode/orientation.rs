//! Turns and mirrors pixels as a file's orientation asks for (EXIF 2.3, 4.6.4, tag Orientation;
//! TIFF 6.0 has the same tag).

use image::metadata::Orientation;

use crate::inspect::frame::Pixels;

/// Whether width and height change places.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// [`turn_values`] for either depth.
pub(super) fn turn(
    pixels: Pixels,
    width: usize,
    height: usize,
    channels: usize,
    orientation: Orientation,
) -> Pixels {
    match pixels {
        Pixels::U8(values) => Pixels::U8(turn_values(values, width, height, channels, orientation)),
        Pixels::U16(values) => {
            Pixels::U16(turn_values(values, width, height, channels, orientation))
        }
    }
}

/// Interleaved values of `width` × `height` pixels as they are shown.
pub(super) fn turn_values<T: Copy>(
    values: Vec<T>,
    width: usize,
    height: usize,
    channels: usize,
    orientation: Orientation,
) -> Vec<T> {
    // Where the first pixel shown lies in the file, and the steps from it to the next pixel of the
    // same row and of the same column.
    let (right, down) = (1, width as isize);
    let (last_column, last_row) = (width - 1, (height - 1) * width);
    let (first, step, row_step) = match orientation {
        Orientation::NoTransforms => return values,
        Orientation::FlipHorizontal => (last_column, -right, down),
        Orientation::Rotate180 => (last_row + last_column, -right, -down),
        Orientation::FlipVertical => (last_row, right, -down),
        Orientation::Rotate90FlipH => (0, down, right),
        Orientation::Rotate90 => (last_row, -down, right),
        Orientation::Rotate270FlipH => (last_row + last_column, -down, -right),
        Orientation::Rotate270 => (last_column, down, -right),
    };
    let (columns, rows) = match swaps_sides(orientation) {
        true => (height, width),
        false => (width, height),
    };
    let mut turned = Vec::with_capacity(values.len());
    for row in 0..rows {
        for column in 0..columns {
            let offset = row_step * row as isize + step * column as isize;
            let at = first.wrapping_add_signed(offset) * channels;
            turned.extend_from_slice(&values[at..at + channels]);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, RgbImage};

    #[test]
    fn every_orientation_is_that_of_the_image_crate() {
        let (width, height) = (5, 3);
        let values: Vec<u8> = (0..width * height * 3).map(|value| value as u8).collect();
        let image = RgbImage::from_raw(width, height, values.clone()).unwrap();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = DynamicImage::ImageRgb8(image.clone());
            expected.apply_orientation(orientation);
            let found = turn_values(values.clone(), 5, 3, 3, orientation);
            assert_eq!(found, expected.as_bytes(), "orientation {exif}");
            assert_eq!(swaps_sides(orientation), expected.width() == 3);
        }
    }
}
