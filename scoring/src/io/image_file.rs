//! Reads image files as frames: PNG, JPEG, BMP and TIFF, 8 or 16 bit, grey or colour. Alpha is
//! dropped.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageReader, Limits};
use proto::limits::MAX_FRAME_SIDE_PX;
use proto::manifest::Roi;

use crate::inspect::frame::{Channels, Frame, FrameError, Pixels};
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
    /// The file cannot be decoded.
    #[error("{} is broken, or not a PNG, JPEG, BMP or TIFF", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        source: image::ImageError,
    },
    /// A JPEG without its end marker. Decoders fill the missing part with grey, where a defect
    /// would pass unseen.
    #[error("{} is cut off: a JPEG without its end marker", .0.display())]
    CutOff(PathBuf),
    /// The image has a pixel type that no camera delivers.
    #[error("{}: expected 8 or 16 bit grey or colour, found {found:?}", path.display())]
    PixelType {
        /// The file.
        path: PathBuf,
        /// The pixel type found.
        found: ColorType,
    },
    /// The image has a size that a frame cannot have.
    #[error("{}", path.display())]
    Frame {
        /// The file.
        path: PathBuf,
        /// What is wrong with the size.
        source: FrameError,
    },
}

/// Bytes read at most; no camera image is larger.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Whether a JPEG's end-of-image marker is missing. The segments are walked (ITU-T T.81, B.1.1 and
/// B.2), because a preview in an EXIF segment has its own end marker, and some cameras append data
/// after the end.
pub(crate) fn is_cut_off_jpeg(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else {
        return false;
    };
    loop {
        // Fill bytes 0xff may precede a marker. In coded data 0xff 0x00 is a value and 0xd0..=0xd7
        // a restart marker.
        let marker = rest.windows(2).position(|pair| {
            pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff)
        });
        let Some(at) = marker else {
            return true;
        };
        let kind = rest[at + 1];
        rest = &rest[at + 2..];
        if kind == END {
            return false;
        }
        // Every other marker starts a segment, which states its length.
        let [high, low, ..] = *rest else {
            return true;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(length..) else {
            return true;
        };
        rest = after;
    }
}

/// Whether the file name's extension is one of the supported formats.
pub fn is_image_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| {
        ["png", "jpg", "jpeg", "bmp", "tif", "tiff"].contains(&ending.to_ascii_lowercase().as_str())
    })
}

/// Reads an image file. Its content decides the format, not its name.
pub fn read_frame(path: &Path) -> Result<Frame, ImageFileError> {
    let open = |source| ImageFileError::Open {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(open)?.is_file() {
        return Err(ImageFileError::NoFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(open)?;
    if is_cut_off_jpeg(&bytes) {
        return Err(ImageFileError::CutOff(path.to_owned()));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(open)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_FRAME_SIDE_PX);
    limits.max_image_height = Some(MAX_FRAME_SIDE_PX);
    reader.limits(limits);
    let image = reader.decode().map_err(|source| ImageFileError::Decode {
        path: path.to_owned(),
        source,
    })?;
    let (width_px, height_px) = (image.width(), image.height());
    let (channels, pixels) = match image {
        DynamicImage::ImageLuma8(image) => (Channels::Grey, Pixels::U8(image.into_raw())),
        DynamicImage::ImageRgb8(image) => (Channels::Rgb, Pixels::U8(image.into_raw())),
        DynamicImage::ImageLuma16(image) => (Channels::Grey, Pixels::U16(image.into_raw())),
        DynamicImage::ImageRgb16(image) => (Channels::Rgb, Pixels::U16(image.into_raw())),
        image @ DynamicImage::ImageLumaA8(_) => {
            (Channels::Grey, Pixels::U8(image.into_luma8().into_raw()))
        }
        image @ DynamicImage::ImageRgba8(_) => {
            (Channels::Rgb, Pixels::U8(image.into_rgb8().into_raw()))
        }
        image @ DynamicImage::ImageLumaA16(_) => {
            (Channels::Grey, Pixels::U16(image.into_luma16().into_raw()))
        }
        image @ DynamicImage::ImageRgba16(_) => {
            (Channels::Rgb, Pixels::U16(image.into_rgb16().into_raw()))
        }
        other => {
            return Err(ImageFileError::PixelType {
                path: path.to_owned(),
                found: other.color(),
            });
        }
    };
    Frame::new(width_px, height_px, channels, pixels).map_err(|source| ImageFileError::Frame {
        path: path.to_owned(),
        source,
    })
}

/// Reads a mask image as a region of interest: white is inspected. A mask without white is not an
/// error here.
pub fn read_roi_mask(path: &Path) -> Result<Roi, ImageFileError> {
    let mask = DynamicImage::ImageRgb8(read_frame(path)?.to_rgb8()).to_luma8();
    Ok(from_mask(&mask))
}

#[cfg(test)]
mod tests {
    use super::*;

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
