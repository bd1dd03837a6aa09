//! The values of a picture as they are stored: for masks, whose values are labels.

use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use proto::limits::MAX_FRAME_SIDE_PX;

/// A picture's values.
#[derive(Debug, Clone)]
pub(super) struct Values {
    /// Width in pixels.
    pub(super) width_px: u32,
    /// Height in pixels.
    pub(super) height_px: u32,
    /// Colour values a pixel: 1 or 3.
    pub(super) channels: usize,
    /// Colour values, interleaved, row-major.
    pub(super) colour: Vec<u16>,
    /// Opacity of each pixel, if the file has it.
    pub(super) alpha: Option<Vec<u16>>,
    /// The type's highest value: 255 or 65535.
    pub(super) full: u16,
    /// Whether the file's compression changes values.
    pub(super) lossy: bool,
}

impl Values {
    /// Red, green and blue of each pixel.
    pub(super) fn colours(&self) -> Vec<[u16; 3]> {
        let pixels = self.colour.chunks_exact(self.channels);
        pixels
            .map(|pixel| match *pixel {
                [red, green, blue] => [red, green, blue],
                [grey, ..] => [grey; 3],
                [] => [0; 3],
            })
            .collect()
    }
}

/// Reads a picture's values. Its content decides the format, not its name. The error is a reason
/// without the file's name.
pub(super) fn read_values(file: &Path) -> Result<Values, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    if !std::fs::metadata(file).map_err(|error| unreadable(&error))?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let mut reader = reader.map_err(|error| unreadable(&error))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_FRAME_SIDE_PX);
    limits.max_image_height = Some(MAX_FRAME_SIDE_PX);
    reader.limits(limits);
    let lossy = reader.format() == Some(ImageFormat::Jpeg);
    let image = reader.decode().map_err(|error| unreadable(&error))?;
    Ok(of_image(&image, lossy))
}

/// The values of a decoded picture.
fn of_image(image: &DynamicImage, lossy: bool) -> Values {
    let colour = image.color();
    let (channels, has_alpha) = (if colour.has_color() { 3 } else { 1 }, colour.has_alpha());
    let deep = colour.bytes_per_pixel() / colour.channel_count() > 1;
    let wide = |values: Vec<u8>| values.into_iter().map(u16::from).collect::<Vec<u16>>();
    let values: Vec<u16> = match (channels, has_alpha, deep) {
        (1, false, false) => wide(image.to_luma8().into_raw()),
        (1, true, false) => wide(image.to_luma_alpha8().into_raw()),
        (_, false, false) => wide(image.to_rgb8().into_raw()),
        (_, true, false) => wide(image.to_rgba8().into_raw()),
        (1, false, true) => image.to_luma16().into_raw(),
        (1, true, true) => image.to_luma_alpha16().into_raw(),
        (_, false, true) => image.to_rgb16().into_raw(),
        (_, true, true) => image.to_rgba16().into_raw(),
    };
    let (colour, alpha) = if has_alpha {
        let pixels = values.chunks_exact(channels + 1);
        let alpha = pixels.clone().map(|pixel| pixel[channels]).collect();
        let colour = pixels.flat_map(|pixel| pixel[..channels].to_vec());
        (colour.collect(), Some(alpha))
    } else {
        (values, None)
    };
    Values {
        width_px: image.width(),
        height_px: image.height(),
        channels,
        colour,
        alpha,
        full: if deep { u16::MAX } else { 255 },
        lossy,
    }
}
