//! What a TIFF's directory says about a picture: size, values, and where its strips or tiles are.

use image::metadata::Orientation;
use tiff::tags::{ByteOrder, Tag};

use super::{Reader, damaged, numbers, unsigned};
use crate::io::decode::{DecodeError, check_size};

/// How colours are coded.
pub(super) enum Colours {
    /// One value.
    Grey {
        /// The greatest value is black.
        white_is_zero: bool,
    },
    /// Red, green, blue; in coded data of JPEG also YCbCr.
    Rgb,
    /// Cyan, magenta, yellow, black.
    Cmyk,
    /// An index into these colours.
    Palette(Vec<[u8; 3]>),
}

impl Colours {
    /// Values of a pixel that are colours.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }
}

/// How strips and tiles are compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Fax4,
    Jpeg,
}

/// Everything that is needed to read a picture.
pub(super) struct Layout {
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    pub(super) colours: Colours,
    /// Values of a pixel, with those that are no colours.
    pub(super) samples: usize,
    /// The first value that is no colour is opacity.
    pub(super) has_alpha: bool,
    /// Bits of a value: 1 to 16.
    pub(super) bits: u8,
    pub(super) order: ByteOrder,
    pub(super) compression: Compression,
    /// Coded data of JPEG are YCbCr.
    pub(super) ycbcr: bool,
    /// Values are differences from the pixel to the left.
    pub(super) differences: bool,
    /// The first pixel of a byte is in its lowest bits.
    pub(super) reversed_bits: bool,
    /// Each value of a pixel has strips or tiles of its own.
    pub(super) planar: bool,
    /// Size of a strip or tile.
    pub(super) chunk_width_px: u32,
    pub(super) chunk_height_px: u32,
    /// Tiles are always whole; the last strip is not.
    pub(super) tiled: bool,
    /// Offset and length in bytes of each strip or tile.
    pub(super) chunks: Vec<(u64, u64)>,
    /// Tables that all strips of JPEG share.
    pub(super) jpeg_tables: Vec<u8>,
    pub(super) orientation: Orientation,
}

impl Layout {
    /// Reads the current directory.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (width_px, height_px) = reader.dimensions().map_err(super::refused)?;
        check_size(width_px.into(), height_px.into())?;
        let samples = unsigned(reader, Tag::SamplesPerPixel)?.unwrap_or(1) as usize;
        let bits = bits(reader)?;
        let photometric = unsigned(reader, Tag::PhotometricInterpretation)?
            .ok_or_else(|| damaged("it does not say how colours are coded"))?;
        let compression = compression(unsigned(reader, Tag::Compression)?.unwrap_or(1))?;
        let colours = colours(reader, photometric, bits, compression)?;
        let extra = numbers(reader, Tag::ExtraSamples)?.unwrap_or_default();
        if samples < colours.count() {
            return Err(damaged(format!(
                "expected {} values a pixel, found {samples}",
                colours.count()
            )));
        }
        if samples > colours.count() + 1 {
            return Err(unsupported(format!("{samples} values a pixel")));
        }
        let planar = match unsigned(reader, Tag::PlanarConfiguration)?.unwrap_or(1) {
            1 => false,
            2 => true,
            other => return Err(damaged(format!("planar configuration {other}"))),
        };
        let differences = match unsigned(reader, Tag::Predictor)?.unwrap_or(1) {
            1 => false,
            2 if matches!(bits, 8 | 16) => true,
            2 => return Err(unsupported(format!("differences of {bits}-bit values"))),
            3 => return Err(unsupported("a predictor of floating-point values".into())),
            other => return Err(damaged(format!("predictor {other}"))),
        };
        if colours.count() == 4 && !matches!(bits, 8 | 16) {
            return Err(unsupported(format!("CMYK of {bits} bits")));
        }
        let reversed_bits = unsigned(reader, Tag::FillOrder)?.unwrap_or(1) == 2;
        if reversed_bits && !matches!(compression, Compression::None | Compression::Fax4) {
            return Err(unsupported("compressed data with reversed bits".into()));
        }
        if compression == Compression::Fax4 && (bits != 1 || samples != 1) {
            return Err(damaged("Group 4 coding of more than black and white"));
        }
        if compression == Compression::Jpeg && (bits != 8 || !matches!(samples, 1 | 3)) {
            return Err(unsupported(format!(
                "JPEG-compressed TIFF with {samples} values of {bits} bits"
            )));
        }
        let jpeg_tables = match reader.find_tag(Tag::JPEGTables).map_err(super::refused)? {
            Some(tables) => tables.into_u8_vec().map_err(super::refused)?,
            None => Vec::new(),
        };
        let order = reader.byte_order();
        let orientation = unsigned(reader, Tag::Orientation)?.unwrap_or(1);
        let orientation = u8::try_from(orientation)
            .ok()
            .and_then(Orientation::from_exif);
        let mut layout = Self {
            width_px,
            height_px,
            colours,
            samples,
            has_alpha: matches!(extra.first(), Some(1 | 2)),
            bits,
            order,
            compression,
            ycbcr: photometric == 6,
            differences,
            reversed_bits,
            planar,
            chunk_width_px: width_px,
            chunk_height_px: height_px,
            tiled: false,
            chunks: Vec::new(),
            jpeg_tables,
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
        };
        layout.read_chunks(reader)?;
        Ok(layout)
    }

    /// Reads where strips or tiles are.
    fn read_chunks(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let (offsets, counts);
        if let Some(tiles) = numbers(reader, Tag::TileOffsets)? {
            let side = |reader: &mut Reader<'_>, tag| -> Result<u32, DecodeError> {
                let side = unsigned(reader, tag)?.and_then(|side| u32::try_from(side).ok());
                side.filter(|side| (1..=65_536).contains(side))
                    .ok_or_else(|| damaged("tiles without a possible size"))
            };
            self.chunk_width_px = side(reader, Tag::TileWidth)?;
            self.chunk_height_px = side(reader, Tag::TileLength)?;
            self.tiled = true;
            (offsets, counts) = (Some(tiles), numbers(reader, Tag::TileByteCounts)?);
        } else {
            let rows = unsigned(reader, Tag::RowsPerStrip)?.unwrap_or(u64::MAX);
            if rows == 0 {
                return Err(damaged("strips of no rows"));
            }
            self.chunk_height_px = rows.min(self.height_px.into()) as u32;
            offsets = numbers(reader, Tag::StripOffsets)?;
            counts = numbers(reader, Tag::StripByteCounts)?;
        }
        let (Some(offsets), Some(counts)) = (offsets, counts) else {
            return Err(damaged("it does not say where its pixels are"));
        };
        let planes = if self.planar { self.samples } else { 1 };
        let expected = self.across() * self.down() * planes;
        if offsets.len() != expected || counts.len() != expected {
            return Err(damaged(format!(
                "expected {expected} strips or tiles, found {} offsets and {} lengths",
                offsets.len(),
                counts.len()
            )));
        }
        self.chunks = offsets.into_iter().zip(counts).collect();
        Ok(())
    }

    /// Tiles side by side; 1 for strips.
    pub(super) fn across(&self) -> usize {
        self.width_px.div_ceil(self.chunk_width_px) as usize
    }

    /// Strips or tiles, one below the other.
    pub(super) fn down(&self) -> usize {
        self.height_px.div_ceil(self.chunk_height_px) as usize
    }
}

fn unsupported(found: String) -> DecodeError {
    DecodeError::unsupported("grey, colour or palette TIFF of up to 16 bits", found)
}

/// Bits of a value, if all values have the same number and are unsigned.
fn bits(reader: &mut Reader<'_>) -> Result<u8, DecodeError> {
    let formats = numbers(reader, Tag::SampleFormat)?.unwrap_or_default();
    match formats.iter().find(|&&format| format != 1) {
        // 4: undefined, which is read as unsigned by everybody.
        None | Some(4) => {}
        Some(2) => return Err(unsupported("signed values".into())),
        Some(3) => return Err(unsupported("floating-point values".into())),
        Some(5 | 6) => return Err(unsupported("complex values".into())),
        Some(other) => return Err(damaged(format!("sample format {other}"))),
    }
    let bits = numbers(reader, Tag::BitsPerSample)?.unwrap_or_else(|| vec![1]);
    let first = bits.first().copied().unwrap_or(1);
    if bits.iter().any(|&other| other != first) {
        return Err(unsupported("values of different numbers of bits".into()));
    }
    match first {
        1..=16 => Ok(first as u8),
        other => Err(unsupported(format!("values of {other} bits"))),
    }
}

fn compression(code: u64) -> Result<Compression, DecodeError> {
    let found = match code {
        1 => return Ok(Compression::None),
        4 => return Ok(Compression::Fax4),
        5 => return Ok(Compression::Lzw),
        7 => return Ok(Compression::Jpeg),
        8 | 32_946 => return Ok(Compression::Deflate),
        32_773 => return Ok(Compression::PackBits),
        2 => "CCITT run lengths".to_owned(),
        3 => "CCITT Group 3".to_owned(),
        6 => "old-style JPEG".to_owned(),
        33_003 | 33_005 | 34_712 => "JPEG 2000".to_owned(),
        34_661 => "JBIG".to_owned(),
        34_887 => "LERC".to_owned(),
        34_892 => "lossy DNG".to_owned(),
        34_925 => "LZMA".to_owned(),
        50_000 => "Zstandard".to_owned(),
        50_001 => "WebP".to_owned(),
        50_002 => "JPEG XL".to_owned(),
        other => format!("number {other}"),
    };
    Err(DecodeError::unsupported(
        "TIFF compression by LZW, Deflate, PackBits, JPEG or Group 4, or none",
        found,
    ))
}

fn colours(
    reader: &mut Reader<'_>,
    photometric: u64,
    bits: u8,
    compression: Compression,
) -> Result<Colours, DecodeError> {
    let found = match photometric {
        0 | 1 => {
            return Ok(Colours::Grey {
                white_is_zero: photometric == 0,
            });
        }
        2 => return Ok(Colours::Rgb),
        3 => return palette(reader, bits).map(Colours::Palette),
        5 => return Ok(Colours::Cmyk),
        6 if compression == Compression::Jpeg => return Ok(Colours::Rgb),
        6 => "YCbCr without JPEG",
        4 => "a transparency mask",
        8..=10 => "CIE Lab",
        32_803 => "a sensor's mosaic",
        34_892 => "linear raw",
        32_844 | 32_845 => "LogLuv",
        _ => "another coding of colours",
    };
    Err(unsupported(found.into()))
}

fn palette(reader: &mut Reader<'_>, bits: u8) -> Result<Vec<[u8; 3]>, DecodeError> {
    if bits > 8 {
        return Err(unsupported(format!("a palette of {bits} bits")));
    }
    let count = 1 << bits;
    let map = numbers(reader, Tag::ColorMap)?.unwrap_or_default();
    if map.len() != 3 * count {
        return Err(damaged(format!(
            "expected a palette of {} values, found {}",
            3 * count,
            map.len()
        )));
    }
    // Colours have 16 bits. Some programs write 8.
    let shift = if map.iter().all(|&value| value < 256) {
        0
    } else {
        8
    };
    let value = |at: usize| (map[at] >> shift) as u8;
    Ok((0..count)
        .map(|at| [value(at), value(count + at), value(2 * count + at)])
        .collect())
}
