//! Digests of decoded images. A copy of an image that was saved in another lossless format, with
//! another compression or other metadata, has other bytes but the same pixels.

use scoring::inspect::frame::{Channels, Frame, Pixels};
use sha2::{Digest, Sha256};

/// Bytes that are hashed at once.
const BLOCK: usize = 1 << 16;

/// SHA-256 of a frame's size and values. Grey stored as three equal channels, and 8 bits stored as
/// 16 (times 257), count as what they are. A copy in JPEG has other pixels than its original and is
/// not recognised.
pub fn pixel_digest(frame: &Frame) -> [u8; 32] {
    match frame.pixels() {
        Pixels::U8(values) => digest(frame, values, |value| u16::from(*value) * 257),
        Pixels::U16(values) => digest(frame, values, |value| *value),
    }
}

fn digest<T: PartialEq>(frame: &Frame, values: &[T], wide: impl Fn(&T) -> u16) -> [u8; 32] {
    let equal = |pixel: &[T]| pixel[0] == pixel[1] && pixel[1] == pixel[2];
    let grey = frame.channels() == Channels::Grey || values.chunks_exact(3).all(equal);
    let step = if grey { frame.channels().count() } else { 1 };
    let mut hash = Sha256::new();
    hash.update(frame.width_px().to_le_bytes());
    hash.update(frame.height_px().to_le_bytes());
    hash.update([if grey { 1 } else { 3 }]);
    let mut bytes = Vec::with_capacity(BLOCK);
    for value in values.iter().step_by(step) {
        bytes.extend_from_slice(&wide(value).to_le_bytes());
        if bytes.len() >= BLOCK {
            hash.update(&bytes);
            bytes.clear();
        }
    }
    hash.update(&bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use scoring::io::image_file::read_frame;

    fn frame(width_px: u32, channels: Channels, pixels: Pixels) -> Frame {
        let height_px = pixels.len() / channels.count() / width_px as usize;
        Frame::new(width_px, height_px as u32, channels, pixels).unwrap()
    }

    #[test]
    fn a_copy_in_another_lossless_format_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let picture = image::RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([x as u8 * 5, y as u8 * 7, (x * y) as u8])
        });
        let digests = ["a.png", "a.bmp", "a.tif"].map(|name| {
            let path = folder.path().join(name);
            picture.save(&path).unwrap();
            pixel_digest(&read_frame(&path).unwrap())
        });
        assert!(digests[0] == digests[1] && digests[0] == digests[2]);
        let mut other = picture.clone();
        other.put_pixel(39, 29, image::Rgb([0, 0, 1]));
        let path = folder.path().join("b.png");
        other.save(&path).unwrap();
        assert_ne!(digests[0], pixel_digest(&read_frame(&path).unwrap()));
    }

    #[test]
    fn grey_and_depth_count_as_what_they_are() {
        let values: Vec<u8> = (0..120).map(|value| value * 2).collect();
        let grey = frame(12, Channels::Grey, Pixels::U8(values.clone()));
        let wide = values.iter().map(|value| u16::from(*value) * 257).collect();
        let three: Vec<u8> = values.iter().flat_map(|value| [*value; 3]).collect();
        let expected = pixel_digest(&grey);
        for same in [
            frame(12, Channels::Grey, Pixels::U16(wide)),
            frame(12, Channels::Rgb, Pixels::U8(three.clone())),
        ] {
            assert_eq!(pixel_digest(&same), expected);
        }
        // Another shape of the same values, or colour in one pixel, is another image.
        let turned = frame(10, Channels::Grey, Pixels::U8(values));
        let mut coloured = three;
        coloured[359] ^= 1;
        let coloured = frame(12, Channels::Rgb, Pixels::U8(coloured));
        for other in [turned, coloured] {
            assert_ne!(pixel_digest(&other), expected);
        }
    }
}
