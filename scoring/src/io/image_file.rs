//! Reads image files as frames: PNG, JPEG, BMP and TIFF, 8 or 16 bit, grey or colour. Alpha is
//! dropped. `decode` says what is refused.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::DynamicImage;
use proto::manifest::{Reading, Roi};

use super::decode::{self, DecodeError, Page, Picture};
use super::values::{ValueRange, widen};
use crate::inspect::frame::Frame;
use crate::inspect::roi::from_mask;

/// Why an image file gives no frame.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The file cannot be opened or read.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path is a folder, pipe or device. Reading a pipe could block for ever.
    #[error("expected an image file, found that {} is not a regular file", .0.display())]
    NoFile(PathBuf),
    /// The file is larger than any picture.
    #[error("{}: too large: expected up to {MAX_FILE_BYTES} bytes", .0.display())]
    TooManyBytes(PathBuf),
    /// The content is not read as a picture: damaged, too large, or of another kind.
    #[error("{}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        source: DecodeError,
    },
    /// A value does not fit the number of bits that values are said to have.
    #[error(
        "{}: expected values of {bits} bits, 0 to {}, found {found}",
        path.display(),
        u16::MAX >> (16 - bits)
    )]
    Bits {
        /// The file.
        path: PathBuf,
        /// Bits that values should have.
        bits: u8,
        /// The greatest value found.
        found: u16,
    },
}

/// Bytes read at most; no camera image is larger.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// Whether the file name's extension is one of the supported formats.
pub fn is_image_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| {
        ["png", "jpg", "jpeg", "bmp", "tif", "tiff"].contains(&ending.to_ascii_lowercase().as_str())
    })
}

/// The file and the page that a path names. `stack.tif#2` is the second page of `stack.tif`, unless
/// there is a file of that very name.
pub fn file_and_page(path: &Path) -> (PathBuf, Page) {
    let number = || {
        let name = path.file_name()?.to_str()?;
        let (file, number) = name.rsplit_once('#')?;
        let number = number.parse().ok().filter(|&number| number >= 1)?;
        is_image_name(Path::new(file)).then(|| (path.with_file_name(file), Page::Number(number)))
    };
    match number() {
        Some(found) if !path.exists() => found,
        _ => (path.to_owned(), Page::Only),
    }
}

/// The path of a page, as [`file_and_page`] understands it. Pages count from 1.
pub fn page_path(file: &Path, page: u32) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("#{page}"));
    name.into()
}

/// Number of pages of an image file. It is 1 for all formats but TIFF.
pub fn count_pages(file: &Path) -> Result<u32, ImageFileError> {
    decode::count_pages(&read_bytes(file)?).map_err(|source| ImageFileError::Decode {
        path: file.to_owned(),
        source,
    })
}

/// Reads an image file as the frame that viewers show: its content decides the format, not its
/// name, and the orientation that it states is applied.
pub fn read_frame(path: &Path) -> Result<Frame, ImageFileError> {
    read_frame_as(path, &Reading::default())
}

/// Reads an image file as a set's or package's files are read.
pub fn read_frame_as(path: &Path, reading: &Reading) -> Result<Frame, ImageFileError> {
    Ok(read_picture_as(path, reading)?.frame)
}

/// Reads an image file with what it says beside its colours; see [`Picture`].
pub fn read_picture(path: &Path) -> Result<Picture, ImageFileError> {
    read_picture_as(path, &Reading::default())
}

/// Reads an image file as a set's or package's files are read, with what it says beside its
/// colours. Only the frame's values are scaled by the number of bits.
pub fn read_picture_as(path: &Path, reading: &Reading) -> Result<Picture, ImageFileError> {
    let (file, page) = file_and_page(path);
    let bytes = read_bytes(&file)?;
    let mut picture = decode::decode(&bytes, page, reading.oriented).map_err(|source| {
        ImageFileError::Decode {
            path: path.to_owned(),
            source,
        }
    })?;
    picture.frame = scale(picture.frame, reading.bits).map_err(|found| ImageFileError::Bits {
        path: path.to_owned(),
        bits: reading.bits,
        found,
    })?;
    Ok(picture)
}

/// Reads a mask image as a region of interest: white is inspected. A mask without white is not an
/// error here.
pub fn read_roi_mask(path: &Path) -> Result<Roi, ImageFileError> {
    let mask = DynamicImage::ImageRgb8(read_frame(path)?.to_rgb8()).to_luma8();
    Ok(from_mask(&mask))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ImageFileError> {
    let open = |source| ImageFileError::Open {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(open)?.is_file() {
        return Err(ImageFileError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(open)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ImageFileError::TooManyBytes(path.to_owned()));
    }
    Ok(bytes)
}

/// Scales 16-bit values that have `bits` significant bits, 8..=16, to the full range, as a camera's
/// are. 8-bit frames stay as they are. An error is the greatest value, if it has more bits.
pub fn scale(frame: Frame, bits: u8) -> Result<Frame, u16> {
    let bits = bits.clamp(8, 16);
    match ValueRange::of(&frame) {
        Some(range) if range.greatest > u16::MAX >> (16 - bits) => Err(range.greatest),
        Some(_) if bits < 16 => Ok(frame.map_u16(|value| widen(value, u32::from(bits)))),
        _ => Ok(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::frame::{Channels, Pixels};

    #[test]
    fn every_kind_of_file_is_read_at_its_depth() {
        let folder = tempfile::tempdir().unwrap();
        let colour =
            image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 7]));
        let eight = DynamicImage::ImageRgb8(colour);
        let sixteen = DynamicImage::ImageRgb16(eight.to_rgb16());
        let cases = [
            ("a.png", eight.clone(), Channels::Rgb, false),
            ("b.bmp", eight.clone(), Channels::Rgb, false),
            ("c.tiff", sixteen.clone(), Channels::Rgb, true),
            (
                "d.png",
                DynamicImage::ImageLuma16(sixteen.to_luma16()),
                Channels::Grey,
                true,
            ),
            (
                "e.png",
                DynamicImage::ImageRgba8(eight.to_rgba8()),
                Channels::Rgb,
                false,
            ),
            (
                "f.png",
                DynamicImage::ImageLumaA8(eight.to_luma_alpha8()),
                Channels::Grey,
                false,
            ),
            ("g.jpg", eight.clone(), Channels::Rgb, false),
        ];
        for (name, image, channels, deep) in cases {
            let path = folder.path().join(name);
            image.save(&path).unwrap();
            let frame = read_frame(&path).unwrap();
            assert_eq!((frame.width_px(), frame.height_px()), (9, 7), "{name}");
            assert_eq!(frame.channels(), channels, "{name}");
            assert_eq!(matches!(frame.pixels(), Pixels::U16(_)), deep, "{name}");
        }
        let frame = read_frame(&folder.path().join("a.png")).unwrap();
        assert_eq!(frame.pixels(), &Pixels::U8(eight.to_rgb8().into_raw()));
    }

    #[test]
    fn a_jpeg_cut_off_anywhere_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * y) as u8, 9, 200]))
            .save(&path)
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(read_frame(&path).is_ok());
        for length in (1..whole.len()).step_by(5) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                read_frame(&path).is_err(),
                "cut to {length} of {} bytes",
                whole.len()
            );
        }
        std::fs::write(&path, [&whole[..], &[0; 3]].concat()).unwrap();
        assert!(read_frame(&path).is_ok(), "padding is no damage");
        std::fs::write(&path, [&whole[..], b"SEFT trailer"].concat()).unwrap();
        assert!(read_frame(&path).is_ok(), "nor is a camera's trailer");
        // A preview in an APP1 segment ends before the image does.
        let preview = [
            &[0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9],
            &whole[2..],
        ]
        .concat();
        std::fs::write(&path, &preview).unwrap();
        assert!(read_frame(&path).is_ok());
        std::fs::write(&path, &preview[..preview.len() - 40]).unwrap();
        assert!(read_frame(&path).is_err());
    }

    #[test]
    fn broken_and_missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnothing").unwrap();
        assert!(
            read_frame(&path)
                .unwrap_err()
                .to_string()
                .contains("broken.png")
        );
        let missing = folder.path().join("no.png");
        assert!(matches!(
            read_frame(&missing),
            Err(ImageFileError::Open { .. })
        ));
    }
}
