//! Decodes TIFF.

use std::io::Cursor;

use image::codecs::tiff::TiffDecoder;

use super::{DecodeError, Decoded, Page, PictureFormat};

pub(super) fn decode(bytes: &[u8], _page: Page) -> Result<Decoded, DecodeError> {
    let damaged = |error| DecodeError::damaged(PictureFormat::Tiff, error);
    let decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    super::by_image(decoder, PictureFormat::Tiff)
}

pub(super) fn count_pages(_bytes: &[u8]) -> Result<u32, DecodeError> {
    Ok(1)
}
