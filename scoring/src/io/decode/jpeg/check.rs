//! Checks a JPEG from its start marker to its end marker: every segment, every coded block, and
//! that nothing is missing. Its coded data have no checksums, but damage shows: codes that do not
//! exist, runs beyond a block, values that no picture has, data that end before or after the last
//! block. What shows in none of these ways remains: a few in a thousand damaged files, as a test
//! measures.

use image::metadata::Orientation;

use super::frame::Frame;
use super::huffman::{Table, default_tables};
use super::scan::Scan;
use crate::io::decode::{DecodeError, PictureFormat, check_size};

/// What is wrong with a JPEG.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The file ends before the end marker.
    #[error("cut off: there is no end marker")]
    CutOff,
    /// Something else is where a marker should be.
    #[error("no marker where a segment should begin")]
    NoMarker,
    /// A marker at a place where it cannot be.
    #[error("a marker {0:#04x} out of place")]
    Marker(u8),
    /// A segment with impossible content.
    #[error("a {0} header that cannot be")]
    Header(&'static str),
    /// A scan needs a table that was not given.
    #[error("a table is missing")]
    NoTable,
    /// A scan that repeats, or skips, what other scans bring.
    #[error("scans out of order")]
    Order,
    /// The last scan is there, but not all of the picture.
    #[error("not all scans are there")]
    ScansMissing,
    /// The coded data end before the last block.
    #[error("coded data end too early")]
    DataEnd,
    /// Bits that are no code.
    #[error("bits that are no code")]
    Code,
    /// A value that no picture has.
    #[error("a value that no picture has")]
    Value,
    /// More coefficients than a block has, or more blocks than a scan has.
    #[error("coefficients beyond their block")]
    Run,
    /// Another restart marker than that of the next interval.
    #[error("a restart marker is missing")]
    Restart,
    /// Zeros that stand for no flat surface.
    #[error("a hole of zeros")]
    Hole,
    /// Data are left over after the last block.
    #[error("coded data end too late, by {0} bytes")]
    Stray(usize),
    /// A kind of JPEG that is not read.
    #[error("{0}")]
    Unsupported(String),
    /// Larger than a frame may be.
    #[error("too large: {0}×{1} px")]
    TooLarge(u32, u32),
}

/// What the coded data are read with.
pub(super) struct Tables {
    /// DC and AC tables.
    pub(super) huffman: [[Option<Table>; 4]; 2],
    /// Quantisation tables, from low to high frequencies.
    pub(super) quantisation: [Option<[u16; 64]>; 4],
    /// Units between restart markers; 0: there are none.
    pub(super) restart_interval: u32,
}

/// A JPEG that is whole.
pub(super) struct Checked {
    /// Bytes up to and including the end marker.
    pub(super) length: usize,
    /// The file has no Huffman tables and means the standard's.
    pub(super) default_tables: bool,
    /// As stated by an EXIF segment.
    pub(super) orientation: Orientation,
}

/// Checks a JPEG that begins with the start marker. What follows its end marker is ignored: padding,
/// a camera's trailer, or a second picture (MPO).
pub(super) fn check(bytes: &[u8]) -> Result<Checked, DecodeError> {
    Walker::new(bytes).walk().map_err(|fault| match fault {
        Fault::Unsupported(found) => {
            DecodeError::unsupported("a baseline or progressive JPEG of 8 bits", found)
        }
        Fault::TooLarge(width_px, height_px) => DecodeError::TooLarge {
            width_px: width_px.into(),
            height_px: height_px.into(),
        },
        fault => DecodeError::damaged(PictureFormat::Jpeg, fault),
    })
}

struct Walker<'a> {
    bytes: &'a [u8],
    /// Offset of the next marker.
    at: usize,
    frame: Option<Frame>,
    tables: Tables,
    has_tables: bool,
    default_tables: bool,
    orientation: Orientation,
}

impl<'a> Walker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 2,
            frame: None,
            tables: Tables {
                huffman: Default::default(),
                quantisation: [None; 4],
                restart_interval: 0,
            },
            has_tables: false,
            default_tables: false,
            orientation: Orientation::NoTransforms,
        }
    }

    fn walk(mut self) -> Result<Checked, Fault> {
        loop {
            match self.marker()? {
                0xd9 => break,
                marker @ (0x01 | 0xd0..=0xd8) => return Err(Fault::Marker(marker)),
                marker => self.segment(marker)?,
            }
        }
        match self.frame {
            Some(frame) if frame.is_complete() => Ok(Checked {
                length: self.at,
                default_tables: self.default_tables,
                orientation: self.orientation,
            }),
            _ => Err(Fault::ScansMissing),
        }
    }

    /// Takes the next marker. Bytes of 0xff may precede it.
    fn marker(&mut self) -> Result<u8, Fault> {
        if *self.bytes.get(self.at).ok_or(Fault::CutOff)? != 0xff {
            return Err(Fault::NoMarker);
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if byte != 0xff {
                return Ok(byte);
            }
        }
        Err(Fault::CutOff)
    }

    /// Takes the segment of a marker.
    fn segment(&mut self, marker: u8) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let &[high, low, ..] = rest else {
            return Err(Fault::CutOff);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(Fault::Header("segment"));
        }
        let content = rest.get(2..length).ok_or(Fault::CutOff)?;
        self.at += length;
        match marker {
            0xc0..=0xc2 if self.frame.is_some() => return Err(Fault::Marker(marker)),
            0xc0..=0xc2 => {
                let (width, height) = Frame::size(content)?;
                check_size(width.into(), height.into())
                    .map_err(|_| Fault::TooLarge(width, height))?;
                self.frame = Some(Frame::read(content, marker == 0xc2)?);
            }
            0xc4 => self.huffman_tables(content)?,
            0xda => self.scan(content)?,
            0xdb => self.quantisation_tables(content)?,
            0xdd => match content {
                &[high, low] => {
                    self.tables.restart_interval = u16::from_be_bytes([high, low]).into();
                }
                _ => return Err(Fault::Header("restart interval")),
            },
            0xe1 => {
                if let Some(exif) = content.strip_prefix(b"Exif\0\0")
                    && let Some(orientation) = Orientation::from_exif_chunk(exif)
                {
                    self.orientation = orientation;
                }
            }
            0xe0..=0xef | 0xfe => {}
            0xc3 => return Err(Fault::Unsupported("a lossless JPEG".into())),
            0xc9..=0xcf => {
                return Err(Fault::Unsupported("arithmetic coding".into()));
            }
            0xc5..=0xc7 | 0xde | 0xdf => {
                return Err(Fault::Unsupported("hierarchical coding".into()));
            }
            0xdc => return Err(Fault::Unsupported("a height after the picture".into())),
            0xf7 | 0xf8 => return Err(Fault::Unsupported("a JPEG-LS".into())),
            marker => return Err(Fault::Marker(marker)),
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut content: &[u8]) -> Result<(), Fault> {
        let wrong = || Fault::Header("Huffman table");
        self.has_tables = true;
        while let Some((&place, rest)) = content.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong)?;
            let count = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(count).ok_or_else(wrong)?;
            let table = Table::new(counts, symbols).ok_or_else(wrong)?;
            let class = self.tables.huffman.get_mut(usize::from(place >> 4));
            let slot = class.and_then(|class| class.get_mut(usize::from(place & 15)));
            *slot.ok_or_else(wrong)? = Some(table);
            content = rest;
        }
        Ok(())
    }

    fn quantisation_tables(&mut self, mut content: &[u8]) -> Result<(), Fault> {
        let wrong = || Fault::Header("quantisation table");
        while let Some((&place, rest)) = content.split_first() {
            let bytes = match place >> 4 {
                0 => 1,
                1 => 2,
                _ => return Err(wrong()),
            };
            let (values, rest) = rest.split_at_checked(64 * bytes).ok_or_else(wrong)?;
            let table: [u16; 64] = std::array::from_fn(|at| match bytes {
                1 => values[at].into(),
                _ => u16::from_be_bytes([values[2 * at], values[2 * at + 1]]),
            });
            if table.contains(&0) {
                return Err(wrong());
            }
            let slot = self.tables.quantisation.get_mut(usize::from(place & 15));
            *slot.ok_or_else(wrong)? = Some(table);
            content = rest;
        }
        Ok(())
    }

    fn scan(&mut self, content: &[u8]) -> Result<(), Fault> {
        let frame = self.frame.as_mut().ok_or(Fault::Marker(0xda))?;
        if !self.has_tables {
            self.tables.huffman = default_tables();
            (self.has_tables, self.default_tables) = (true, true);
        }
        let scan = Scan::read(content, frame)?;
        self.at = scan.walk(self.bytes, self.at, frame, &self.tables)?;
        Ok(())
    }
}
