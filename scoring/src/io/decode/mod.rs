//! Decodes the bytes of a picture file: PNG, JPEG, BMP or TIFF in, pixels out. The content decides
//! the format, not the file's name.
//!
//! A file is read as a whole or refused. Decoders for people fill what is damaged or missing with
//! grey or with the neighbourhood; in an inspection a defect would pass unseen there, and a good
//! part would look defective. So everything by which a format shows damage is checked: checksums,
//! lengths, markers, and that coded data end where the last pixel does. Pixels of an uncompressed
//! BMP or TIFF have no redundancy: changed values in them cannot be noticed, but missing ones are.

use std::fmt;

use proto::limits::MAX_FRAME_SIDE_PX;

use crate::inspect::frame::{Channels, Frame, FrameError, Pixels};

mod bmp;
mod jpeg;
mod orientation;
mod palette;
mod png;
mod samples;
mod tiff;

pub use image::metadata::Orientation;
pub(crate) use jpeg::decode as decode_jpeg;

/// Formats of picture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFormat {
    /// Portable Network Graphics (W3C).
    Png,
    /// JPEG (ITU-T T.81).
    Jpeg,
    /// Windows bitmap.
    Bmp,
    /// TIFF 6.0 or BigTIFF.
    Tiff,
}

impl fmt::Display for PictureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// A decoded picture: the frame that is scored, and what the file says beside it, from which a mask
/// may take its meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Format of the file.
    pub format: PictureFormat,
    /// Grey or colour values: 8 bit for values of up to 8 bits, which are scaled so that the
    /// maximum is 255 (a 1-bit picture has 0 and 255), otherwise 16 bit as they are in the file.
    /// Palettes are looked up; alpha is left out.
    pub frame: Frame,
    /// Bits of a value in the file: 1, 2, 4, 8, 12 or 16; of an index where there is a palette.
    pub bits: u8,
    /// The values before they were looked up in the palette, one for each pixel, row by row. `None`
    /// without a palette.
    pub palette_indices: Option<Vec<u8>>,
    /// Opacity of each pixel, row by row, where the file states it: 0 is transparent, and the
    /// type's maximum opaque.
    pub alpha: Option<Pixels>,
    /// The orientation that the file states; `NoTransforms` if it states none.
    pub orientation: Orientation,
    /// Whether that orientation was applied.
    pub oriented: bool,
}

/// Why bytes are not read as a picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The content is of no format that is read.
    #[error("expected a PNG, JPEG, BMP or TIFF, found {found}")]
    Format {
        /// What the content begins like.
        found: &'static str,
    },
    /// The picture is larger than a frame may be. It is not damaged.
    #[error(
        "too large: expected up to {MAX_FRAME_SIDE_PX} px a side, found {width_px}×{height_px}"
    )]
    TooLarge {
        /// Width in pixels.
        width_px: u64,
        /// Height in pixels.
        height_px: u64,
    },
    /// The file is of a kind that is not read. It is not damaged.
    #[error("{expected}, found {found}")]
    Unsupported {
        /// What is read.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// The file has several pages, and none was chosen.
    #[error(
        "expected one picture, found a {format} of {pages} pages: name one, such as NAME#2 for the \
         second"
    )]
    Pages {
        /// Format of the file.
        format: PictureFormat,
        /// Number of pages.
        pages: u32,
    },
    /// The file has fewer pages than the chosen one.
    #[error("expected page {wanted}, found {pages} pages")]
    NoSuchPage {
        /// The chosen page, from 1.
        wanted: u32,
        /// Number of pages.
        pages: u32,
    },
    /// The file is cut off or damaged inside.
    #[error("damaged {format}: {reason}")]
    Damaged {
        /// Format of the file.
        format: PictureFormat,
        /// What is wrong, from the decoder.
        reason: String,
    },
    /// The size is one that no frame has.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl DecodeError {
    fn damaged(format: PictureFormat, reason: impl fmt::Display) -> Self {
        Self::Damaged {
            format,
            reason: reason.to_string(),
        }
    }

    fn unsupported(expected: &'static str, found: impl Into<String>) -> Self {
        Self::Unsupported {
            expected,
            found: found.into(),
        }
    }
}

/// What a decoder gives: a picture as it lies in the file.
struct Decoded {
    width_px: u32,
    height_px: u32,
    channels: Channels,
    pixels: Pixels,
    bits: u8,
    palette_indices: Option<Vec<u8>>,
    alpha: Option<Pixels>,
    /// As stated by the file; `NoTransforms` if it states none.
    orientation: Orientation,
}

/// Which page of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The only one. Several are an error.
    Only,
    /// One of several, from 1.
    Number(u32),
}

/// Decodes a picture file. `orient` says whether the orientation that the file states is applied,
/// as every viewer does.
pub fn decode(bytes: &[u8], page: Page, orient: bool) -> Result<Picture, DecodeError> {
    let format = format_of(bytes)?;
    let decoded = match format {
        PictureFormat::Tiff => tiff::decode(bytes, page)?,
        format => {
            if let Page::Number(wanted @ (0 | 2..)) = page {
                return Err(DecodeError::NoSuchPage { wanted, pages: 1 });
            }
            match format {
                PictureFormat::Png => png::decode(bytes)?,
                PictureFormat::Jpeg => jpeg::decode_file(bytes)?,
                _ => bmp::decode(bytes)?,
            }
        }
    };
    let applied = match orient {
        true => decoded.orientation,
        false => Orientation::NoTransforms,
    };
    let (width, height) = (decoded.width_px as usize, decoded.height_px as usize);
    let channels = decoded.channels;
    let turned = |pixels, channels| orientation::turn(pixels, width, height, channels, applied);
    let pixels = turned(decoded.pixels, channels.count());
    let alpha = decoded.alpha.map(|alpha| turned(alpha, 1));
    let palette_indices = decoded
        .palette_indices
        .map(|indices| orientation::turn_values(indices, width, height, 1, applied));
    let (width_px, height_px) = match orientation::swaps_sides(applied) {
        true => (decoded.height_px, decoded.width_px),
        false => (decoded.width_px, decoded.height_px),
    };
    Ok(Picture {
        format,
        frame: Frame::new(width_px, height_px, channels, pixels)?,
        bits: decoded.bits,
        palette_indices,
        alpha,
        orientation: decoded.orientation,
        oriented: orient,
    })
}

/// Number of pages of a picture file. It is 1 for all formats but TIFF.
pub fn count_pages(bytes: &[u8]) -> Result<u32, DecodeError> {
    match format_of(bytes)? {
        PictureFormat::Tiff => tiff::count_pages(bytes),
        _ => Ok(1),
    }
}

/// The format, by the first bytes.
fn format_of(bytes: &[u8]) -> Result<PictureFormat, DecodeError> {
    let starts = |start: &[u8]| bytes.starts_with(start);
    let brand = |brands: &[&[u8; 4]]| {
        let found = bytes.get(8..12);
        bytes.get(4..8) == Some(b"ftyp".as_slice())
            && found.is_some_and(|found| brands.iter().any(|brand| brand.as_slice() == found))
    };
    let found = if starts(b"\x89PNG\r\n\x1a\n") {
        return Ok(PictureFormat::Png);
    } else if starts(b"BM") {
        return Ok(PictureFormat::Bmp);
    } else if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]
        .iter()
        .any(|start| starts(*start))
    {
        return Ok(PictureFormat::Tiff);
    } else if jpeg::start(bytes).is_some() {
        return Ok(PictureFormat::Jpeg);
    } else if bytes.is_empty() {
        "an empty file"
    } else if starts(b"GIF8") {
        "a GIF"
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice()) {
        "a WebP"
    } else if brand(&[b"avif", b"avis"]) {
        "an AVIF"
    } else if brand(&[b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"]) {
        "a HEIF"
    } else if starts(b"\0\0\0\x0cjP  ") || starts(b"\xff\x4f\xff\x51") {
        "a JPEG 2000"
    } else if starts(b"\0\0\0\x0cJXL ") || starts(b"\xff\x0a") {
        "a JPEG XL"
    } else if starts(b"8BPS") {
        "a Photoshop file"
    } else if starts(b"%PDF") {
        "a PDF"
    } else if starts(b"v/1\x01") {
        "an OpenEXR"
    } else if bytes.len() > 2 && bytes[0] == b'P' && (b'1'..=b'7').contains(&bytes[1]) {
        "a PNM"
    } else {
        "other content"
    };
    Err(DecodeError::Format { found })
}

/// Refuses sizes that no frame has, before anything is allocated for them. The sides are the only
/// limit: 16,384 px a side with three 16-bit values take 1.5 GiB.
fn check_size(width_px: u64, height_px: u64) -> Result<(), DecodeError> {
    let largest = u64::from(MAX_FRAME_SIDE_PX);
    if width_px > largest || height_px > largest {
        return Err(DecodeError::TooLarge {
            width_px,
            height_px,
        });
    }
    if width_px == 0 || height_px == 0 {
        return Err(FrameError::Size {
            width_px: width_px as u32,
            height_px: height_px as u32,
        }
        .into());
    }
    Ok(())
}
