//! Decodes BMP. Its pixels have neither checksum nor end, so what the header says is compared with
//! what the file has.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{DynamicImage, ImageDecoder};

use super::palette::by_palette;
use super::{DecodeError, Decoded, Orientation, PictureFormat, check_size, samples};
use crate::inspect::frame::{Channels, Pixels};

/// Bytes after the pixels that are no sign of a wrong size in a header that states no length.
/// Frame grabbers fill up the last block of a disk.
const MAX_PADDING: u64 = 4_096;

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let header = Header::read(bytes)?;
    check_size(header.width_px.into(), header.height_px.into())?;
    header.check(bytes.len() as u64)?;
    let failed = |error: image::ImageError| damaged(error);
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let palette = decoder.get_palette().map(<[[u8; 3]]>::to_vec);
    let (width_px, height_px) = decoder.dimensions();
    let mut decoded = Decoded {
        width_px,
        height_px,
        channels: Channels::Rgb,
        pixels: Pixels::U8(Vec::new()),
        bits: 8,
        palette_indices: None,
        alpha: None,
        orientation: Orientation::NoTransforms,
    };
    match palette {
        Some(palette) => {
            let indices = header.indices(bytes)?;
            (decoded.channels, decoded.pixels) = by_palette(&indices, &palette)
                .map_err(|reason| damaged(format!("palette: {reason}")))?;
            decoded.palette_indices = Some(indices);
            decoded.bits = header.bits as u8;
        }
        None => match DynamicImage::from_decoder(decoder).map_err(failed)? {
            DynamicImage::ImageRgb8(image) => decoded.pixels = Pixels::U8(image.into_raw()),
            DynamicImage::ImageRgba8(image) => {
                let (colours, alpha) = samples::split_last(Pixels::U8(image.into_raw()), 3);
                (decoded.pixels, decoded.alpha) = (colours, Some(alpha));
            }
            other => return Err(damaged(format!("pixels of {:?}", other.color()))),
        },
    }
    Ok(decoded)
}

fn damaged(reason: impl std::fmt::Display) -> DecodeError {
    DecodeError::damaged(PictureFormat::Bmp, reason)
}

/// What a header says.
struct Header {
    width_px: u32,
    height_px: u32,
    /// Bits of a pixel.
    bits: u16,
    /// The first row in the file is the uppermost.
    top_down: bool,
    /// Offset of the pixels.
    pixels_at: u32,
    /// Bytes of the pixels; 0 if it is not said.
    pixel_bytes: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let cut_off = || damaged("cut off in its header");
        let at = |offset: usize| -> Result<u32, DecodeError> {
            let word = bytes
                .get(offset..offset + 4)
                .and_then(|word| word.try_into().ok());
            word.map(u32::from_le_bytes).ok_or_else(cut_off)
        };
        let (pixels_at, header_bytes) = (at(10)?, at(14)?);
        if header_bytes == 12 {
            // That of OS/2 and Windows 2.
            let (size, planes_and_bits) = (at(18)?, at(22)?);
            return Ok(Self {
                width_px: size & 0xffff,
                height_px: size >> 16,
                bits: (planes_and_bits >> 16) as u16,
                top_down: false,
                pixels_at,
                pixel_bytes: 0,
            });
        }
        let bits = (at(26)? >> 16) as u16;
        let found = match at(30)? {
            0 | 3 | 6 => {
                return Ok(Self {
                    width_px: at(18)?,
                    height_px: (at(22)? as i32).unsigned_abs(),
                    bits,
                    top_down: (at(22)? as i32) < 0,
                    pixels_at,
                    pixel_bytes: at(34)?,
                });
            }
            1 | 2 => "run lengths",
            4 => "a JPEG in a BMP",
            5 => "a PNG in a BMP",
            _ => return Err(damaged("a compression that does not exist")),
        };
        Err(DecodeError::unsupported("a BMP without compression", found))
    }

    /// Bytes from row to row.
    fn stride_bytes(&self) -> u64 {
        (u64::from(self.width_px) * u64::from(self.bits)).div_ceil(32) * 4
    }

    /// The values that a palette gives their colours, from the uppermost row on.
    fn indices(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        if !matches!(self.bits, 1 | 2 | 4 | 8) {
            return Err(damaged(format!("a palette for {} bits", self.bits)));
        }
        let stride = self.stride_bytes() as usize;
        let rows = bytes.get(self.pixels_at as usize..).unwrap_or_default();
        let rows = rows.chunks_exact(stride).take(self.height_px as usize);
        let unpack = |row| samples::unpack(row, stride, self.width_px as usize, self.bits as u8);
        let mut rows: Vec<Vec<u8>> = rows.map(unpack).collect();
        if !self.top_down {
            rows.reverse();
        }
        Ok(rows.concat())
    }

    /// Compares the size with the bytes that are there.
    fn check(&self, file_bytes: u64) -> Result<(), DecodeError> {
        let row_bits = u64::from(self.width_px) * u64::from(self.bits);
        let height = u64::from(self.height_px);
        let needed = self.stride_bytes() * height;
        let there = file_bytes.saturating_sub(self.pixels_at.into());
        if there < needed {
            return Err(damaged(format!(
                "expected {needed} bytes of pixels, found {there}"
            )));
        }
        // Programs round lengths differently, and some write that of the file.
        let stated = u64::from(self.pixel_bytes);
        let plausible = match stated {
            0 => there - needed <= MAX_PADDING,
            _ => {
                (needed..=needed + 4).contains(&stated)
                    || stated == row_bits.div_ceil(8) * height
                    || stated == there
                    || stated == file_bytes
            }
        };
        match plausible {
            true => Ok(()),
            false => Err(damaged(format!(
                "expected {stated} bytes of pixels, found {needed} for {}×{} px of {} bits",
                self.width_px, self.height_px, self.bits
            ))),
        }
    }
}
