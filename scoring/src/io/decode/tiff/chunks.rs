//! Puts the strips or tiles of a TIFF together.

use tiff::tags::ByteOrder;

use super::damaged;
use super::layout::{Compression, Layout};
use super::unpack::{Expected, unpack};
use crate::inspect::frame::{Channels, Pixels};
use crate::io::decode::{DecodeError, check_size, jpeg};
use crate::io::values::widen;

/// Bytes before the first place where pixels can be.
const HEADER_BYTES: u64 = 8;

/// The values of a picture, interleaved, row by row: as they are for 8 and 16 bits, one a byte for
/// fewer than 8, and widened to 16 bits for those in between, which are packed.
pub(super) fn read(bytes: &[u8], layout: &Layout) -> Result<Pixels, DecodeError> {
    check_size(layout.width_px.into(), layout.height_px.into())?;
    let plan = Plan::new(layout)?;
    plan.check_places(bytes)?;
    let count = layout.width_px as usize * layout.height_px as usize * layout.samples;
    Ok(if layout.bits <= 8 {
        let mut values = vec![0_u8; count];
        plan.fill(bytes, &mut values, &|value| value as u8)?;
        Pixels::U8(values)
    } else {
        let mut values = vec![0_u16; count];
        plan.fill(bytes, &mut values, &|value| value)?;
        Pixels::U16(values)
    })
}

/// Sizes that all strips or tiles share.
struct Plan<'a> {
    layout: &'a Layout,
    /// Values of a pixel in one strip or tile.
    samples: usize,
    /// Values of a row.
    row_values: usize,
    row_bytes: usize,
}

impl<'a> Plan<'a> {
    fn new(layout: &'a Layout) -> Result<Self, DecodeError> {
        let samples = if layout.planar { 1 } else { layout.samples };
        let row_values = layout.chunk_width_px as usize * samples;
        let row_bytes = (row_values * usize::from(layout.bits)).div_ceil(8);
        check_size(layout.chunk_width_px.into(), layout.chunk_height_px.into())
            .map_err(|_| damaged("strips or tiles larger than a picture"))?;
        Ok(Self {
            layout,
            samples,
            row_values,
            row_bytes,
        })
    }

    /// Rows of the strips or tiles in row `down` of them.
    fn rows(&self, down: usize) -> usize {
        let first = down * self.layout.chunk_height_px as usize;
        let rest = self.layout.height_px as usize - first;
        match self.layout.tiled {
            true => self.layout.chunk_height_px as usize,
            false => rest.min(self.layout.chunk_height_px as usize),
        }
    }

    fn expected(&self, down: usize) -> Expected {
        Expected {
            bytes: self.rows(down) * self.row_bytes,
            full_bytes: self.layout.chunk_height_px as usize * self.row_bytes,
            width_px: self.layout.chunk_width_px,
            rows: self.rows(down) as u32,
        }
    }

    /// Refuses strips or tiles that are missing, beyond the end of the file, or on top of each
    /// other.
    fn check_places(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut places = Vec::with_capacity(self.layout.chunks.len());
        for (number, &(offset, length)) in self.layout.chunks.iter().enumerate() {
            let name = if self.layout.tiled { "tile" } else { "strip" };
            if length == 0 || offset == 0 {
                return Err(damaged(format!("{name} {number} is missing")));
            }
            let down = number / self.layout.across() % self.layout.down();
            let needed = match self.layout.compression {
                Compression::None => self.expected(down).bytes as u64,
                _ => length,
            };
            let end = offset.checked_add(needed.max(1));
            let inside = end.is_some_and(|end| end <= bytes.len() as u64);
            if offset < HEADER_BYTES || length < needed || !inside {
                return Err(damaged(format!(
                    "{name} {number} has {length} bytes at {offset}, of {needed}, in a file of {}",
                    bytes.len()
                )));
            }
            places.push((offset, offset + needed));
        }
        places.sort_unstable();
        let overlap = places.windows(2).any(|pair| pair[0].1 > pair[1].0);
        match overlap {
            true => Err(damaged("strips or tiles that share bytes")),
            false => Ok(()),
        }
    }

    /// Reads every strip or tile into `values`.
    fn fill<T: Copy>(
        &self,
        bytes: &[u8],
        values: &mut [T],
        narrow: &dyn Fn(u16) -> T,
    ) -> Result<(), DecodeError> {
        let layout = self.layout;
        let (across, down) = (layout.across(), layout.down());
        let mut line = vec![0_u16; self.row_values];
        for (number, &(offset, length)) in layout.chunks.iter().enumerate() {
            let (column, row) = (number % across, number / across % down);
            let plane = number / (across * down);
            let end = offset.saturating_add(length).min(bytes.len() as u64);
            let data = &bytes[offset as usize..end as usize];
            let pixels = self.pixels(data, self.expected(row))?;
            let first_row = row * layout.chunk_height_px as usize;
            let first_column = column * layout.chunk_width_px as usize;
            let columns =
                (layout.chunk_width_px as usize).min(layout.width_px as usize - first_column);
            let rows = self.rows(row).min(layout.height_px as usize - first_row);
            for (y, packed) in pixels.chunks_exact(self.row_bytes).take(rows).enumerate() {
                self.row(packed, &mut line);
                let start = (first_row + y) * layout.width_px as usize + first_column;
                let to = &mut values[start * layout.samples..][..columns * layout.samples];
                if layout.planar {
                    for (pixel, &value) in to.chunks_exact_mut(layout.samples).zip(&line) {
                        pixel[plane] = narrow(value);
                    }
                } else {
                    for (to, &value) in to.iter_mut().zip(&line) {
                        *to = narrow(value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The packed pixels of a strip or tile.
    fn pixels(&self, data: &[u8], expected: Expected) -> Result<Vec<u8>, DecodeError> {
        let layout = self.layout;
        match layout.compression {
            Compression::Jpeg => self.jpeg(data, expected),
            compression if layout.reversed_bits => {
                let data: Vec<u8> = data.iter().map(|byte| byte.reverse_bits()).collect();
                unpack(&data, compression, expected).map_err(damaged)
            }
            compression => unpack(data, compression, expected).map_err(damaged),
        }
    }

    /// A strip or tile that is a JPEG, whose tables may be elsewhere (TIFF Technical Note 2).
    fn jpeg(&self, data: &[u8], expected: Expected) -> Result<Vec<u8>, DecodeError> {
        let mut stream = vec![0xff, 0xd8];
        if self.samples == 3 {
            // An Adobe segment says whether colours are YCbCr, which the stream itself need not.
            stream.extend(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0");
            stream.push(self.layout.ycbcr.into());
        }
        let tables = self.layout.jpeg_tables.as_slice();
        let tables = tables.strip_prefix(b"\xff\xd8").unwrap_or(tables);
        stream.extend(tables.strip_suffix(b"\xff\xd9").unwrap_or(tables));
        stream.extend(
            data.strip_prefix(b"\xff\xd8")
                .ok_or_else(|| damaged("a strip or tile that is no JPEG"))?,
        );
        let jpeg = jpeg::decode(&stream)?;
        let channels = match jpeg.channels {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        };
        let fits = jpeg.width_px == self.layout.chunk_width_px
            && channels == self.samples
            && (jpeg.values.len() == expected.bytes || jpeg.values.len() == expected.full_bytes);
        match fits {
            true => Ok(jpeg.values),
            false => Err(damaged("a strip or tile whose JPEG has another size")),
        }
    }

    /// Unpacks a row into 16-bit numbers, and adds up differences.
    fn row(&self, packed: &[u8], line: &mut [u16]) {
        let bits = u32::from(self.layout.bits);
        match bits {
            8 => {
                for (value, &byte) in line.iter_mut().zip(packed) {
                    *value = byte.into();
                }
            }
            16 => {
                let big = self.layout.order == ByteOrder::BigEndian;
                for (value, &pair) in line.iter_mut().zip(packed.as_chunks().0) {
                    *value = match big {
                        true => u16::from_be_bytes(pair),
                        false => u16::from_le_bytes(pair),
                    };
                }
            }
            bits => {
                let (mut ahead, mut count) = (0_u32, 0);
                let mut bytes = packed.iter();
                for value in line.iter_mut() {
                    while count < bits {
                        ahead = ahead << 8 | u32::from(bytes.next().copied().unwrap_or(0));
                        count += 8;
                    }
                    count -= bits;
                    *value = (ahead >> count) as u16 & (u16::MAX >> (16 - bits));
                    ahead &= (1 << count) - 1;
                    if bits > 8 {
                        *value = widen(*value, bits);
                    }
                }
            }
        }
        if self.layout.differences {
            let mask = if bits == 8 { 0xff } else { u16::MAX };
            for at in self.samples..line.len() {
                line[at] = line[at].wrapping_add(line[at - self.samples]) & mask;
            }
        }
    }
}
