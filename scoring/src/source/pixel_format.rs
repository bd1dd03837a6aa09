//! Converts raw frames to frames, with one function per V4L2 pixel format (names and layouts:
//! kernel documentation, "Image Formats").
//!
//! Mono formats become grey frames of 8 or 16 bit, all others 8-bit RGB. More than 8 significant
//! bits are widened to 16 by repeating the upper bits, so that white is 65535 whatever the sensor's
//! depth.
//!
//! YUV is read as ITU-R BT.601 with limited range (Y 16..=235), which is V4L2's default if a driver
//! says nothing else, as with webcams. A raw frame does not carry its colour space, so another one
//! goes unnoticed. Training images pass through the same conversion, so that shifts colours but not
//! verdicts.

use std::borrow::Cow;

use proto::limits::MAX_FRAME_SIDE_PX;
use proto::manifest::Reading;
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPackedImage, YuvRange, YuvStandardMatrix};

use super::bayer::{self, Pattern};
use super::{FourCc, RawFrame, mono};
use crate::inspect::frame::{Channels, Frame, FrameError, Pixels};
use crate::io::decode::{DecodeError, decode_jpeg};
use crate::io::image_file::scale;

/// The formats that [`to_frame`] converts, most preferred first: colour before grey, because a
/// camera that offers both is a colour camera; finished pixels before the sensor's mosaic; 8 bit
/// before more, which few cameras fill; compressed formats last, because compression blurs fine
/// defects.
pub const SUPPORTED: &[FourCc] = &[
    FourCc(*b"RGB3"),
    FourCc(*b"BGR3"),
    FourCc(*b"YUYV"),
    FourCc(*b"UYVY"),
    FourCc(*b"NV12"),
    FourCc(*b"RGGB"),
    FourCc(*b"GRBG"),
    FourCc(*b"GBRG"),
    FourCc(*b"BA81"),
    FourCc(*b"GREY"),
    FourCc(*b"Y12 "),
    FourCc(*b"Y12P"),
    FourCc(*b"Y10 "),
    FourCc(*b"Y10P"),
    FourCc(*b"Y16 "),
    FourCc(*b"MJPG"),
    FourCc(*b"JPEG"),
];

/// 16-bit grey values of an image file, in the layout of `Y16`. How many of the bits are significant
/// is known by the package ([`proto::manifest::Reading`]), so these are the file's own values. No
/// camera has this format; a replay and its recordings do.
pub const FILE_GREY_16: FourCc = FourCc(*b"FY16");

/// Whether a camera's frames of this format are converted by [`to_frame`].
pub fn is_supported(format: FourCc) -> bool {
    SUPPORTED.contains(&format)
}

/// Why a raw frame cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum PixelFormatError {
    /// The format is not in [`SUPPORTED`].
    #[error("expected one of {}, found pixel format {found}", names(SUPPORTED))]
    Unsupported {
        /// The format found.
        found: FourCc,
    },
    /// The driver delivered fewer bytes than the format takes at this size.
    #[error("{format}: expected {expected_bytes} bytes or more, found {found_bytes}")]
    Short {
        /// The format.
        format: FourCc,
        /// Bytes up to the last pixel.
        expected_bytes: u64,
        /// Bytes found.
        found_bytes: u64,
    },
    /// The stride is shorter than a row.
    #[error(
        "{format}: expected {expected_bytes} bytes or more from row to row, found {found_bytes}"
    )]
    Stride {
        /// The format.
        format: FourCc,
        /// Bytes of a row.
        expected_bytes: u32,
        /// The driver's stride in bytes.
        found_bytes: u32,
    },
    /// The mosaic is so small that a colour is missing.
    #[error("{format}: expected 2×2 px or more, found {width_px}×{height_px}")]
    Mosaic {
        /// The format.
        format: FourCc,
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
    /// The JPEG has another size than was negotiated with the driver.
    #[error("expected a JPEG of {}×{} px, found {}×{}", expected_px.0, expected_px.1, found_px.0, found_px.1)]
    JpegSize {
        /// Negotiated width and height in pixels.
        expected_px: (u32, u32),
        /// Width and height in pixels in the JPEG's header.
        found_px: (u32, u32),
    },
    /// The JPEG is damaged, or of a kind that is not read.
    #[error("the camera's JPEG")]
    Jpeg(#[source] DecodeError),
    /// The YUV conversion failed in spite of the checks before it.
    #[error("{format}: {reason}")]
    Yuv {
        /// The format.
        format: FourCc,
        /// The converter's error.
        reason: String,
    },
    /// A value of an image file has more bits than the package's files have.
    #[error("expected values of {bits} bits, as in the package's files, found {found}")]
    Bits {
        /// Bits of the package's files.
        bits: u8,
        /// The greatest value.
        found: u16,
    },
    /// The frame has an invalid size.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Format codes for display, separated by commas.
pub fn names(formats: &[FourCc]) -> String {
    let names: Vec<String> = formats.iter().map(FourCc::to_string).collect();
    names.join(", ")
}

/// Converts a raw frame as a package needs it: frames of image files are scaled as `reading` says.
/// A camera's formats say themselves how many bits they have.
pub fn to_frame_as(raw: &RawFrame, reading: &Reading) -> Result<Frame, PixelFormatError> {
    let frame = to_frame(raw)?;
    if raw.format != FILE_GREY_16 {
        return Ok(frame);
    }
    scale(frame, reading.bits).map_err(|found| PixelFormatError::Bits {
        bits: reading.bits,
        found,
    })
}

/// Converts a raw frame; the module's documentation says how depth and colour are converted. Values
/// of image files are not scaled.
pub fn to_frame(raw: &RawFrame) -> Result<Frame, PixelFormatError> {
    let sides = 1..=MAX_FRAME_SIDE_PX;
    if !sides.contains(&raw.width_px) || !sides.contains(&raw.height_px) {
        return Err(FrameError::Size {
            width_px: raw.width_px,
            height_px: raw.height_px,
        }
        .into());
    }
    let width = raw.width_px as usize;
    let (channels, pixels) = match &raw.format.0 {
        b"GREY" => (Channels::Grey, Pixels::U8(packed(raw)?.into_owned())),
        b"Y10 " => (Channels::Grey, Pixels::U16(mono::words(&packed(raw)?, 10))),
        b"Y12 " => (Channels::Grey, Pixels::U16(mono::words(&packed(raw)?, 12))),
        b"Y16 " | b"FY16" => (Channels::Grey, Pixels::U16(mono::words(&packed(raw)?, 16))),
        b"Y10P" => (
            Channels::Grey,
            Pixels::U16(mono::mipi_10(&packed(raw)?, width)),
        ),
        b"Y12P" => (
            Channels::Grey,
            Pixels::U16(mono::mipi_12(&packed(raw)?, width)),
        ),
        b"RGB3" => (Channels::Rgb, Pixels::U8(packed(raw)?.into_owned())),
        b"BGR3" => (Channels::Rgb, Pixels::U8(bgr(raw)?)),
        b"YUYV" | b"UYVY" => (Channels::Rgb, Pixels::U8(yuv_422(raw)?)),
        b"NV12" => (Channels::Rgb, Pixels::U8(nv12(raw)?)),
        b"RGGB" => (Channels::Rgb, mosaic(raw, Pattern::Rggb)?),
        b"GRBG" => (Channels::Rgb, mosaic(raw, Pattern::Grbg)?),
        b"GBRG" => (Channels::Rgb, mosaic(raw, Pattern::Gbrg)?),
        b"BA81" => (Channels::Rgb, mosaic(raw, Pattern::Bggr)?),
        b"MJPG" | b"JPEG" => jpeg(raw)?,
        _ => return Err(PixelFormatError::Unsupported { found: raw.format }),
    };
    Ok(Frame::new(raw.width_px, raw.height_px, channels, pixels)?)
}

/// Bytes of a row up to its last pixel. Pixels that share bytes form complete groups.
fn row_bytes(raw: &RawFrame) -> u32 {
    let width = raw.width_px;
    match &raw.format.0 {
        b"Y10 " | b"Y12 " | b"Y16 " | b"FY16" => width * 2,
        b"Y10P" => width.div_ceil(4) * 5,
        b"Y12P" => width.div_ceil(2) * 3,
        b"RGB3" | b"BGR3" => width * 3,
        b"YUYV" | b"UYVY" => width.div_ceil(2) * 4,
        b"NV12" => width.next_multiple_of(2),
        _ => width,
    }
}

/// `count` rows from row `first` on, in units of the stride, without the padding between rows.
fn rows(raw: &RawFrame, first: u32, count: u32) -> Result<Cow<'_, [u8]>, PixelFormatError> {
    let row = row_bytes(raw);
    // A driver that does not state a stride does not pad rows.
    let stride = if raw.stride_bytes == 0 {
        row
    } else {
        raw.stride_bytes
    };
    if stride < row {
        return Err(PixelFormatError::Stride {
            format: raw.format,
            expected_bytes: row,
            found_bytes: stride,
        });
    }
    // The last row needs no padding. With sides within MAX_FRAME_SIDE_PX none of this overflows a
    // u64.
    let start = u64::from(stride) * u64::from(first);
    let end = start + u64::from(stride) * u64::from(count - 1) + u64::from(row);
    let short = || PixelFormatError::Short {
        format: raw.format,
        expected_bytes: end,
        found_bytes: raw.data.len() as u64,
    };
    let bounds = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let data = bounds
        .and_then(|(start, end)| raw.data.get(start..end))
        .ok_or_else(short)?;
    if stride == row {
        return Ok(Cow::Borrowed(data));
    }
    let unpadded = data
        .chunks(stride as usize)
        .flat_map(|line| &line[..row as usize]);
    Ok(Cow::Owned(unpadded.copied().collect()))
}

/// All rows of the first plane.
fn packed(raw: &RawFrame) -> Result<Cow<'_, [u8]>, PixelFormatError> {
    rows(raw, 0, raw.height_px)
}

fn bgr(raw: &RawFrame) -> Result<Vec<u8>, PixelFormatError> {
    let mut values = packed(raw)?.into_owned();
    for pixel in values.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
    Ok(values)
}

fn mosaic(raw: &RawFrame, pattern: Pattern) -> Result<Pixels, PixelFormatError> {
    if raw.width_px < 2 || raw.height_px < 2 {
        return Err(PixelFormatError::Mosaic {
            format: raw.format,
            width_px: raw.width_px,
            height_px: raw.height_px,
        });
    }
    let samples = packed(raw)?;
    Ok(Pixels::U8(bayer::demosaic(
        &samples,
        raw.width_px as usize,
        pattern,
    )))
}

fn rgb_buffer(raw: &RawFrame) -> Vec<u8> {
    vec![0; raw.width_px as usize * raw.height_px as usize * 3]
}

fn yuv_422(raw: &RawFrame) -> Result<Vec<u8>, PixelFormatError> {
    let samples = packed(raw)?;
    let image = YuvPackedImage {
        yuy: samples.as_ref(),
        yuy_stride: row_bytes(raw),
        width: raw.width_px,
        height: raw.height_px,
    };
    let convert = match &raw.format.0 {
        b"YUYV" => yuv::yuyv422_to_rgb,
        _ => yuv::uyvy422_to_rgb,
    };
    let mut rgb = rgb_buffer(raw);
    convert(
        &image,
        &mut rgb,
        raw.width_px * 3,
        YuvRange::Limited,
        YuvStandardMatrix::Bt601,
    )
    .map_err(|error| refused(raw, &error))?;
    Ok(rgb)
}

/// A plane of Y, then one of half the size with alternating U and V. Both have the same stride.
fn nv12(raw: &RawFrame) -> Result<Vec<u8>, PixelFormatError> {
    let chroma = rows(raw, raw.height_px, raw.height_px.div_ceil(2))?;
    let luma = packed(raw)?;
    let image = YuvBiPlanarImage {
        y_plane: luma.as_ref(),
        y_stride: row_bytes(raw),
        uv_plane: chroma.as_ref(),
        uv_stride: row_bytes(raw),
        width: raw.width_px,
        height: raw.height_px,
    };
    let mut rgb = rgb_buffer(raw);
    yuv::yuv_nv12_to_rgb(
        &image,
        &mut rgb,
        raw.width_px * 3,
        YuvRange::Limited,
        YuvStandardMatrix::Bt601,
        YuvConversionMode::Balanced,
    )
    .map_err(|error| refused(raw, &error))?;
    Ok(rgb)
}

fn refused(raw: &RawFrame, error: &yuv::YuvError) -> PixelFormatError {
    PixelFormatError::Yuv {
        format: raw.format,
        reason: error.to_string(),
    }
}

/// A Motion JPEG. It is refused for the same damage as a file. The orientation that it may state is
/// not applied: a camera on a line does not turn.
fn jpeg(raw: &RawFrame) -> Result<(Channels, Pixels), PixelFormatError> {
    let expected_px = (raw.width_px, raw.height_px);
    let jpeg = decode_jpeg(&raw.data).map_err(PixelFormatError::Jpeg)?;
    let found_px = (jpeg.width_px, jpeg.height_px);
    if expected_px != found_px {
        return Err(PixelFormatError::JpegSize {
            expected_px,
            found_px,
        });
    }
    Ok((jpeg.channels, Pixels::U8(jpeg.values)))
}
