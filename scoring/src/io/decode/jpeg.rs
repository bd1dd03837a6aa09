//! Decodes JPEG.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, ImageDecoder, Limits};

use super::{DecodeError, Decoded, Orientation, PictureFormat, check_size};
use crate::inspect::frame::{Channels, Pixels};

/// The bytes from the start marker on, if they are a JPEG.
pub(super) fn start(bytes: &[u8]) -> Option<&[u8]> {
    bytes.starts_with(b"\xff\xd8").then_some(bytes)
}

/// A decoded JPEG.
pub(crate) struct Jpeg {
    /// Width in pixels.
    pub(crate) width_px: u32,
    /// Height in pixels.
    pub(crate) height_px: u32,
    /// Colour channels.
    pub(crate) channels: Channels,
    /// Values of 8 bits, interleaved, row by row.
    pub(crate) values: Vec<u8>,
    /// As stated by an EXIF segment.
    pub(crate) orientation: Orientation,
}

/// Decodes a file.
pub(super) fn decode_file(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let jpeg = decode(bytes)?;
    Ok(Decoded {
        width_px: jpeg.width_px,
        height_px: jpeg.height_px,
        channels: jpeg.channels,
        pixels: Pixels::U8(jpeg.values),
        bits: 8,
        palette_indices: None,
        alpha: None,
        orientation: jpeg.orientation,
    })
}

/// Decodes a JPEG of a file or of a camera.
pub(crate) fn decode(bytes: &[u8]) -> Result<Jpeg, DecodeError> {
    let damaged = |error| DecodeError::damaged(PictureFormat::Jpeg, error);
    let mut decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    decoder.set_limits(Limits::no_limits()).map_err(damaged)?;
    let (width_px, height_px) = decoder.dimensions();
    check_size(width_px.into(), height_px.into(), 3)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let (channels, pixels) = match DynamicImage::from_decoder(decoder).map_err(damaged)? {
        DynamicImage::ImageLuma8(image) => (Channels::Grey, image.into_raw()),
        image => (Channels::Rgb, image.into_rgb8().into_raw()),
    };
    Ok(Jpeg {
        width_px,
        height_px,
        channels,
        values: pixels,
        orientation,
    })
}
