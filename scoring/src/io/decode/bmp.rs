//! Decodes BMP.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;

use super::{DecodeError, Decoded, PictureFormat};

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let damaged = |error| DecodeError::damaged(PictureFormat::Bmp, error);
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    super::by_image(decoder, PictureFormat::Bmp)
}
