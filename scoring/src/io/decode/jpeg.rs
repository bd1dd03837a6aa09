//! Decodes JPEG, of files and of cameras. The stream is checked first (`check`), because decoders
//! are made for viewers: they fill what is damaged or missing and call it a picture.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, ImageDecoder, Limits};

use super::{DecodeError, Decoded, Orientation, PictureFormat, check_size};
use crate::inspect::frame::{Channels, Pixels};

mod bits;
mod check;
mod frame;
mod huffman;
mod scan;

/// Stray bytes that may come before the start marker, as some capture devices deliver them.
const MAX_BYTES_BEFORE_START: usize = 16;

/// The bytes from the start marker on, if they are a JPEG's.
pub(super) fn start(bytes: &[u8]) -> Option<&[u8]> {
    let head = &bytes[..bytes.len().min(MAX_BYTES_BEFORE_START + 3)];
    let at = head.windows(3).position(|start| start == b"\xff\xd8\xff")?;
    Some(&bytes[at..])
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
    /// As stated by an EXIF segment; `NoTransforms` if there is none.
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
    let bytes = start(bytes)
        .ok_or_else(|| DecodeError::damaged(PictureFormat::Jpeg, "there is no start marker"))?;
    let checked = check::check(bytes)?;
    let picture = &bytes[..checked.length];
    let stream = match checked.default_tables {
        true => Cow::Owned(with_default_tables(picture)),
        false => Cow::Borrowed(picture),
    };
    let damaged = |error| DecodeError::damaged(PictureFormat::Jpeg, error);
    let mut decoder = JpegDecoder::new(Cursor::new(stream.as_ref())).map_err(damaged)?;
    decoder.set_limits(Limits::no_limits()).map_err(damaged)?;
    let (width_px, height_px) = decoder.dimensions();
    check_size(width_px.into(), height_px.into())?;
    let (channels, values) = match DynamicImage::from_decoder(decoder).map_err(damaged)? {
        DynamicImage::ImageLuma8(image) => (Channels::Grey, image.into_raw()),
        image => (Channels::Rgb, image.into_rgb8().into_raw()),
    };
    Ok(Jpeg {
        width_px,
        height_px,
        channels,
        values,
        orientation: checked.orientation,
    })
}

/// Inserts a header that makes the decoder assume default Huffman tables. Motion JPEG may omit
/// these tables and then means the standard's (ITU-T T.81, K.3). The decoder assumes them if the
/// file says that it comes from an AVI, which webcams rarely do.
fn with_default_tables(jpeg: &[u8]) -> Vec<u8> {
    const AVI1: [u8; 9] = *b"\xff\xe0\x00\x07AVI1\0";
    let (start, rest) = jpeg.split_at(jpeg.len().min(2));
    [start, &AVI1, rest].concat()
}
