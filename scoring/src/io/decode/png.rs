//! Decodes PNG. Every chunk's checksum is verified, also those of chunks that only describe (the
//! orientation is in one), and so is the checksum of the compressed data.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::palette::by_palette;
use super::{DecodeError, Decoded, PictureFormat, check_size, samples};
use crate::inspect::frame::{Channels, Pixels};

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let damaged = |error: DecodingError| DecodeError::damaged(PictureFormat::Png, error);
    let mut options = DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    // Texts and colour profiles are not used. Their checksums are verified nevertheless.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    // Sizes are limited below, before anything is allocated for pixels.
    decoder.set_limits(Limits { bytes: usize::MAX });
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(damaged)?;
    check_size(header.width.into(), header.height.into())?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().unwrap_or(0);
    let mut packed = vec![0; size];
    let info = reader.next_frame(&mut packed).map_err(damaged)?;
    // What comes after the pixels, up to the end marker.
    reader.finish().map_err(damaged)?;
    let header = reader.info();
    if (info.width, info.height) != (header.width, header.height) {
        return Err(DecodeError::unsupported(
            "a PNG whose picture fills it",
            format!(
                "an animation with a first picture of {}×{} px",
                info.width, info.height
            ),
        ));
    }
    let orientation = header
        .exif_metadata
        .as_ref()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    let width = info.width as usize;
    let bits = info.bit_depth as u8;
    let values = match info.bit_depth {
        BitDepth::Sixteen => Pixels::U16(
            packed
                .as_chunks()
                .0
                .iter()
                .map(|bytes| u16::from_be_bytes(*bytes))
                .collect(),
        ),
        BitDepth::Eight => Pixels::U8(packed),
        _ => Pixels::U8(samples::unpack(&packed, info.line_size, width, bits)),
    };
    let transparency = header.trns.as_deref();
    let mut decoded = Decoded {
        width_px: info.width,
        height_px: info.height,
        channels: Channels::Grey,
        pixels: Pixels::U8(Vec::new()),
        bits,
        palette_indices: None,
        alpha: None,
        orientation,
    };
    match info.color_type {
        ColorType::Grayscale => {
            decoded.alpha = transparency.and_then(|key| key_alpha(&values, 1, key));
            decoded.pixels = samples::spread(values, bits);
        }
        ColorType::Rgb => {
            decoded.alpha = transparency.and_then(|key| key_alpha(&values, 3, key));
            (decoded.channels, decoded.pixels) = (Channels::Rgb, values);
        }
        ColorType::GrayscaleAlpha => {
            let (grey, alpha) = samples::split_last(values, 1);
            (decoded.pixels, decoded.alpha) = (grey, Some(alpha));
        }
        ColorType::Rgba => {
            let (colours, alpha) = samples::split_last(values, 3);
            (decoded.channels, decoded.pixels) = (Channels::Rgb, colours);
            decoded.alpha = Some(alpha);
        }
        ColorType::Indexed => {
            let Pixels::U8(indices) = values else {
                return Err(DecodeError::damaged(
                    PictureFormat::Png,
                    "a palette with 16-bit indices",
                ));
            };
            let (colours, _) = header
                .palette
                .as_deref()
                .unwrap_or_default()
                .as_chunks::<3>();
            (decoded.channels, decoded.pixels) = by_palette(&indices, colours)
                .map_err(|reason| DecodeError::damaged(PictureFormat::Png, reason))?;
            decoded.alpha = transparency.map(|opacity| {
                let of = |index: &u8| *opacity.get(usize::from(*index)).unwrap_or(&u8::MAX);
                Pixels::U8(indices.iter().map(of).collect())
            });
            decoded.palette_indices = Some(indices);
        }
    }
    Ok(decoded)
}

/// Opacity where one colour is transparent. `key` has two bytes for each channel. `None` if it is
/// too short.
fn key_alpha(values: &Pixels, channels: usize, key: &[u8]) -> Option<Pixels> {
    let (key, _) = key.as_chunks::<2>();
    let key: Vec<u16> = key.iter().map(|bytes| u16::from_be_bytes(*bytes)).collect();
    let key = key.get(..channels)?;
    fn alpha<T: Copy + Into<u16>>(values: &[T], key: &[u16]) -> Vec<u8> {
        let is_key = |pixel: &[T]| {
            pixel
                .iter()
                .zip(key)
                .all(|(&value, &key)| value.into() == key)
        };
        let pixels = values.chunks_exact(key.len());
        pixels
            .map(|pixel| if is_key(pixel) { 0 } else { u8::MAX })
            .collect()
    }
    Some(Pixels::U8(match values {
        Pixels::U8(values) => alpha(values, key),
        Pixels::U16(values) => alpha(values, key),
    }))
}
