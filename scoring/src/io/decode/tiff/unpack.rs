//! Unpacks the data of one strip or tile. They must give exactly the bytes expected and end there.

use fax::Color;
use fax::decoder::{DecodeStatus, Group4Decoder, pels};

use super::layout::Compression;
use super::lzw;

/// Bytes that may follow coded data, because some writers align strips.
const MAX_PADDING: usize = 4;

/// What a strip or tile must give.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// Bytes of the rows that it has.
    pub(super) bytes: usize,
    /// Bytes of as many rows as others have. Some writers fill up the last strip.
    pub(super) full_bytes: usize,
    /// Width in pixels, for Group 4.
    pub(super) width_px: u32,
    /// Rows, for Group 4.
    pub(super) rows: u32,
}

impl Expected {
    fn is_met_by(&self, found: usize) -> bool {
        found == self.bytes || found == self.full_bytes
    }
}

/// Unpacks data that are not JPEG. An error says what is wrong.
pub(super) fn unpack(
    data: &[u8],
    compression: Compression,
    expected: Expected,
) -> Result<Vec<u8>, String> {
    match compression {
        Compression::None => {
            let pixels = data.get(..expected.bytes);
            pixels
                .map(<[u8]>::to_vec)
                .ok_or_else(|| length(expected, data.len()))
        }
        Compression::Lzw => lzw(data, expected),
        Compression::Deflate => {
            let found =
                miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(data, expected.full_bytes)
                    .map_err(|error| format!("Deflate: {error}"))?;
            match expected.is_met_by(found.len()) {
                true => Ok(found),
                false => Err(length(expected, found.len())),
            }
        }
        Compression::PackBits => pack_bits(data, expected),
        Compression::Fax4 => group_4(data, expected),
        Compression::Jpeg => Err("JPEG in its place".into()),
    }
}

fn length(expected: Expected, found: usize) -> String {
    format!("expected {} bytes of pixels, found {found}", expected.bytes)
}

fn lzw(data: &[u8], expected: Expected) -> Result<Vec<u8>, String> {
    let (pixels, left) = lzw::unpack(data, expected.full_bytes)?;
    match expected.is_met_by(pixels.len()) && left <= MAX_PADDING {
        true => Ok(pixels),
        false => Err(length(expected, pixels.len())),
    }
}

/// Apple's run lengths (TIFF 6.0, section 9).
fn pack_bits(data: &[u8], expected: Expected) -> Result<Vec<u8>, String> {
    let mut pixels = Vec::with_capacity(expected.bytes);
    let mut rest = data;
    while pixels.len() < expected.bytes
        && let Some((&head, after)) = rest.split_first()
    {
        let head = head as i8;
        rest = match head {
            -128 => after,
            0.. => {
                let count = head as usize + 1;
                let (literal, after) = after
                    .split_at_checked(count)
                    .ok_or_else(|| length(expected, pixels.len()))?;
                pixels.extend_from_slice(literal);
                after
            }
            _ => {
                let (&value, after) = after
                    .split_first()
                    .ok_or_else(|| length(expected, pixels.len()))?;
                pixels.extend(std::iter::repeat_n(
                    value,
                    usize::from(head.unsigned_abs()) + 1,
                ));
                after
            }
        };
    }
    match pixels.len() == expected.bytes && rest.len() <= MAX_PADDING {
        true => Ok(pixels),
        false => Err(length(expected, pixels.len() + rest.len())),
    }
}

/// Group 4 of fax machines (ITU-T T.6). Black is 1.
fn group_4(data: &[u8], expected: Expected) -> Result<Vec<u8>, String> {
    let width = u16::try_from(expected.width_px).map_err(|_| "Group 4: too wide".to_owned())?;
    let bytes = data
        .iter()
        .map(|&byte| Ok::<u8, std::convert::Infallible>(byte));
    let failed = || "Group 4: broken code".to_owned();
    let mut decoder = Group4Decoder::new(bytes, width).map_err(|_| failed())?;
    let mut pixels = Vec::with_capacity(expected.bytes);
    for row in 0..expected.rows {
        match decoder.advance().map_err(|_| failed())? {
            DecodeStatus::Incomplete => {}
            DecodeStatus::End => {
                return Err(format!(
                    "Group 4: expected {} rows, found {row}",
                    expected.rows
                ));
            }
        }
        let mut byte = 0_u8;
        let mut count = 0;
        for colour in pels(decoder.transition(), width) {
            byte = byte << 1 | u8::from(colour == Color::Black);
            count += 1;
            if count % 8 == 0 {
                pixels.push(byte);
                byte = 0;
            }
        }
        if count % 8 != 0 {
            pixels.push(byte << (8 - count % 8));
        }
    }
    match decoder.advance() {
        Ok(DecodeStatus::End) => Ok(pixels),
        _ => Err("Group 4: coded data do not end after the last row".into()),
    }
}
