//! Decodes TIFF 6.0 and BigTIFF: strips and tiles, interleaved and planar, grey, colour, palette and
//! CMYK, with alpha or without.
//!
//! The `tiff` crate reads the directories. The pixels are put together here, because a strip must
//! be the whole of its data: the crate takes as many bytes as it needs and leaves the rest, and
//! checksum and end marker with it.

use std::io::Cursor;

use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use super::palette::by_palette;
use super::{DecodeError, Decoded, Page, PictureFormat, samples};
use crate::inspect::frame::{Channels, Pixels};

mod chunks;
mod layout;
mod lzw;
mod unpack;

use layout::{Colours, Layout};

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// Pages of a file that are counted.
const MAX_PAGES: u32 = 65_535;

pub(super) fn decode(bytes: &[u8], page: Page) -> Result<Decoded, DecodeError> {
    let mut pages = Pages::of(bytes)?;
    let wanted = match page {
        Page::Only if pages.stacked > 1 => {
            return Err(DecodeError::Pages {
                format: PictureFormat::Tiff,
                pages: pages.stacked,
            });
        }
        Page::Only => 1,
        Page::Number(wanted) => wanted,
    };
    let count = pages.directories.len() as u32;
    if pages.stacked > count {
        return Err(DecodeError::unsupported(
            "a directory for each page",
            format!(
                "an ImageJ stack of {} pages with {count} directories",
                pages.stacked
            ),
        ));
    }
    let index = (wanted as usize).checked_sub(1);
    let directory = index.and_then(|index| pages.directories.get(index).copied());
    let Some(directory) = directory else {
        return Err(DecodeError::NoSuchPage {
            wanted,
            pages: count,
        });
    };
    pages.reader.seek_to_image(directory).map_err(refused)?;
    let layout = Layout::read(&mut pages.reader)?;
    let values = chunks::read(bytes, &layout)?;
    assemble(layout, values)
}

pub(super) fn count_pages(bytes: &[u8]) -> Result<u32, DecodeError> {
    Ok(Pages::of(bytes)?.stacked)
}

/// The directories of a file that hold pictures.
struct Pages<'a> {
    reader: Reader<'a>,
    /// Numbers of the directories, without previews and masks of other pictures.
    directories: Vec<usize>,
    /// Number of pages, which for ImageJ may be more than directories.
    stacked: u32,
}

impl<'a> Pages<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Decoder::new(Cursor::new(bytes)).map_err(refused)?;
        let mut directories = Vec::new();
        for number in 0..MAX_PAGES {
            // Bit 0: a smaller version of another picture; bit 2: its transparency.
            let kind = unsigned(&mut reader, Tag::NewSubfileType)?.unwrap_or(0);
            // The tag's predecessor: 2 is a smaller version.
            let old_kind = unsigned(&mut reader, Tag::SubfileType)?.unwrap_or(1);
            if kind & 0b101 == 0 && old_kind != 2 {
                directories.push(number as usize);
            }
            if !reader.more_images() {
                break;
            }
            reader.next_image().map_err(refused)?;
        }
        if directories.is_empty() {
            directories.push(0);
        }
        reader.seek_to_image(directories[0]).map_err(refused)?;
        let stacked = imagej_pages(&mut reader).unwrap_or(1);
        Ok(Self {
            stacked: stacked.max(directories.len() as u32),
            reader,
            directories,
        })
    }
}

/// The number of pages that ImageJ states. Large stacks have one directory only.
fn imagej_pages(reader: &mut Reader<'_>) -> Option<u32> {
    let text = reader.find_tag(Tag::ImageDescription).ok()??;
    let text = text.into_string().ok()?;
    let mut lines = text.lines();
    lines.next()?.strip_prefix("ImageJ=")?;
    lines.find_map(|line| line.strip_prefix("images=")?.trim().parse().ok())
}

/// A number of a directory; `None` if it is not there.
fn unsigned(reader: &mut Reader<'_>, tag: Tag) -> Result<Option<u64>, DecodeError> {
    reader.find_tag_unsigned(tag).map_err(refused)
}

/// Numbers of a directory; `None` if they are not there.
fn numbers(reader: &mut Reader<'_>, tag: Tag) -> Result<Option<Vec<u64>>, DecodeError> {
    reader.find_tag_unsigned_vec(tag).map_err(refused)
}

fn refused(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(kind) => {
            DecodeError::unsupported("a TIFF of a usual kind", kind.to_string())
        }
        error => damaged(error),
    }
}

fn damaged(reason: impl std::fmt::Display) -> DecodeError {
    DecodeError::damaged(PictureFormat::Tiff, reason)
}

/// Values as they lie in the file become grey or colour, and alpha.
fn assemble(layout: Layout, values: Pixels) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded {
        width_px: layout.width_px,
        height_px: layout.height_px,
        channels: Channels::Grey,
        pixels: Pixels::U8(Vec::new()),
        bits: layout.bits,
        palette_indices: None,
        alpha: None,
        orientation: layout.orientation,
    };
    let colours = layout.colours.count();
    let values = match layout.samples - colours {
        0 => values,
        _ => {
            let (kept, extra) = samples::split_last(values, colours);
            decoded.alpha = layout
                .has_alpha
                .then(|| samples::spread(extra, layout.bits));
            kept
        }
    };
    match layout.colours {
        Colours::Grey { white_is_zero } => {
            let values = match white_is_zero {
                true => samples::invert(values, layout.bits),
                false => values,
            };
            decoded.pixels = samples::spread(values, layout.bits);
        }
        Colours::Rgb => {
            decoded.channels = Channels::Rgb;
            decoded.pixels = samples::spread(values, layout.bits);
        }
        Colours::Cmyk => {
            decoded.channels = Channels::Rgb;
            decoded.pixels = samples::cmyk_to_rgb(values);
        }
        Colours::Palette(palette) => {
            let Pixels::U8(indices) = values else {
                return Err(DecodeError::unsupported(
                    "a palette of up to 256 colours",
                    "more",
                ));
            };
            (decoded.channels, decoded.pixels) = by_palette(&indices, &palette)
                .map_err(|reason| damaged(format!("palette: {reason}")))?;
            decoded.palette_indices = Some(indices);
        }
    }
    Ok(decoded)
}
