//! Encodes frames and maps for other programs, without loss.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{ImageBuffer, ImageError, Luma, Rgb};
use tiff::TiffError;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::Gray32Float;

use crate::inspect::frame::{Channels, Frame, Pixels};
use crate::inspect::map::ScoreMap;

/// Why a picture cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The frame cannot be encoded as PNG.
    #[error("cannot encode the frame")]
    Frame(#[from] ImageError),
    /// The map cannot be encoded as TIFF.
    #[error("cannot encode the anomaly map")]
    Map(#[from] TiffError),
    /// The number of scores does not fit the map's size.
    #[error("expected a map of {width_px}×{height_px} px, found {found} scores")]
    MapSize {
        /// Width in pixels.
        width_px: usize,
        /// Height in pixels.
        height_px: usize,
        /// Scores found.
        found: usize,
    },
}

/// Encodes a frame as PNG, at its bit depth and with its channels.
pub fn png(frame: &Frame) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    let (width, height) = (frame.width_px(), frame.height_px());
    // A frame's pixels fit its size, so `from_raw` gives an image.
    let encoded = match (frame.channels(), frame.pixels()) {
        (Channels::Grey, Pixels::U8(values)) => {
            ImageBuffer::<Luma<u8>, _>::from_raw(width, height, &values[..])
                .map(|image| image.write_with_encoder(encoder))
        }
        (Channels::Rgb, Pixels::U8(values)) => {
            ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, &values[..])
                .map(|image| image.write_with_encoder(encoder))
        }
        (Channels::Grey, Pixels::U16(values)) => {
            ImageBuffer::<Luma<u16>, _>::from_raw(width, height, &values[..])
                .map(|image| image.write_with_encoder(encoder))
        }
        (Channels::Rgb, Pixels::U16(values)) => {
            ImageBuffer::<Rgb<u16>, _>::from_raw(width, height, &values[..])
                .map(|image| image.write_with_encoder(encoder))
        }
    };
    encoded.transpose()?;
    Ok(bytes)
}

/// Encodes a map as TIFF of 32-bit floats. It is not compressed, so that every reader of TIFF
/// understands it.
pub fn tiff(map: &ScoreMap) -> Result<Vec<u8>, PictureError> {
    let side = |px: usize| u32::try_from(px).ok().filter(|&px| px > 0);
    let (Some(width), Some(height), true) = (
        side(map.width_px),
        side(map.height_px),
        map.width_px.checked_mul(map.height_px) == Some(map.data.len()),
    ) else {
        return Err(PictureError::MapSize {
            width_px: map.width_px,
            height_px: map.height_px,
            found: map.data.len(),
        });
    };
    let mut bytes = Cursor::new(Vec::new());
    TiffEncoder::new(&mut bytes)?.write_image::<Gray32Float>(width, height, &map.data)?;
    Ok(bytes.into_inner())
}
