//! Every pixel format against values worked out by hand from the kernel's documentation and BT.601.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's failure"
)]

use proptest::prelude::*;
use proto::manifest::Reading;
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::source::pixel_format::{
    FILE_GREY_16, PixelFormatError, SUPPORTED, is_supported, to_frame, to_frame_as,
};
use scoring::source::{FourCc, RawFrame};

fn raw(
    format: &[u8; 4],
    (width_px, height_px): (u32, u32),
    stride_bytes: u32,
    data: &[u8],
) -> RawFrame {
    RawFrame {
        format: FourCc(*format),
        width_px,
        height_px,
        stride_bytes,
        data: data.to_vec(),
    }
}

fn eight(frame: &Frame) -> (Channels, &[u8]) {
    match frame.pixels() {
        Pixels::U8(values) => (frame.channels(), values),
        Pixels::U16(_) => panic!("expected 8 bit"),
    }
}

fn sixteen(format: &[u8; 4], size: (u32, u32), stride: u32, data: &[u8]) -> Vec<u16> {
    let frame = to_frame(&raw(format, size, stride, data)).unwrap();
    assert_eq!(frame.channels(), Channels::Grey);
    match frame.pixels() {
        Pixels::U16(values) => values.clone(),
        Pixels::U8(_) => panic!("expected 16 bit"),
    }
}

#[test]
fn grey_and_rgb_lose_the_padding_of_their_rows() {
    let grey = to_frame(&raw(b"GREY", (3, 2), 5, &[1, 2, 3, 99, 99, 4, 5, 6])).unwrap();
    assert_eq!(eight(&grey), (Channels::Grey, &[1, 2, 3, 4, 5, 6][..]));
    // A last row with its padding, and rows without a stated stride.
    let padded = to_frame(&raw(b"GREY", (1, 2), 3, &[1, 99, 99, 2, 99, 99])).unwrap();
    assert_eq!(eight(&padded).1, [1, 2]);
    let unstated = to_frame(&raw(b"GREY", (2, 2), 0, &[1, 2, 3, 4])).unwrap();
    assert_eq!(eight(&unstated).1, [1, 2, 3, 4]);

    let data = [1, 2, 3, 99, 4, 5, 6];
    let rgb = to_frame(&raw(b"RGB3", (1, 2), 4, &data)).unwrap();
    assert_eq!(eight(&rgb), (Channels::Rgb, &[1, 2, 3, 4, 5, 6][..]));
    let bgr = to_frame(&raw(b"BGR3", (1, 2), 4, &data)).unwrap();
    assert_eq!(eight(&bgr), (Channels::Rgb, &[3, 2, 1, 6, 5, 4][..]));
}

#[test]
fn deep_grey_fills_the_full_range() {
    let words = [0, 0, 0xff, 0x03, 0x01, 0x02, 0xff, 0xff];
    assert_eq!(
        sixteen(b"Y10 ", (4, 1), 8, &words),
        [0, 65535, 0b1000_0000_0110_0000, 65535],
        "a value beyond 10 bits is white"
    );
    assert_eq!(
        sixteen(b"Y12 ", (1, 2), 5, &[0xff, 0x0f, 9, 9, 9, 0x01, 0x08]),
        [65535, 0x8018]
    );
    assert_eq!(
        sixteen(b"Y16 ", (2, 1), 4, &[0x34, 0x12, 0xff, 0xff]),
        [0x1234, 65535]
    );
}

#[test]
fn frames_of_files_are_scaled_as_the_package_says_and_a_cameras_are_not() {
    let raw = |format: FourCc, words: &[u8]| RawFrame {
        format,
        width_px: words.len() as u32 / 2,
        height_px: 1,
        stride_bytes: words.len() as u32,
        data: words.to_vec(),
    };
    let twelve = Reading {
        bits: 12,
        ..Reading::default()
    };
    let values = |format, words: &[u8]| {
        let frame = to_frame_as(&raw(format, words), &twelve)?;
        let Pixels::U16(values) = frame.pixels() else {
            panic!("expected 16 bit");
        };
        Ok::<_, PixelFormatError>(values.clone())
    };
    let words = [0xff, 0x0f, 0x01, 0x08];
    let camera = values(FourCc(*b"Y12 "), &words).unwrap();
    assert_eq!(camera, [65535, 0x8018]);
    assert_eq!(values(FILE_GREY_16, &words).unwrap(), camera);
    let full = values(FourCc(*b"Y16 "), &[0x34, 0x12]).unwrap();
    assert_eq!(full, [0x1234]);
    let error = values(FILE_GREY_16, &[0x34, 0x12]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected values of 12 bits, as in the package's files, found 4660"
    );
}

#[test]
fn packed_grey_is_unpacked() {
    // Upper bits 0x80, 0xff, 0x00, 0x01; lower bits, first pixel lowest: 01, 11, 00, 10.
    let group = [0x80, 0xff, 0x00, 0x01, 0b10_00_11_01];
    let all = [0x8060, 65535, 0, 0x0180];
    assert_eq!(sixteen(b"Y10P", (4, 1), 5, &group), all);
    let two_rows = [&group[..], &[7, 7], &group[..]].concat();
    assert_eq!(
        sixteen(b"Y10P", (3, 2), 7, &two_rows),
        [all[0], all[1], all[2], all[0], all[1], all[2]],
        "a width that is no multiple of four, with padding"
    );
    assert_eq!(
        sixteen(b"Y12P", (2, 1), 3, &[0x80, 0xff, 0xf1]),
        [0x8018, 65535]
    );
    assert_eq!(
        sixteen(b"Y12P", (1, 2), 4, &[0x80, 0x55, 0xf1, 7, 0xff, 0x55, 0x0f]),
        [0x8018, 65535]
    );
}

/// Colours of BT.601, limited range: Y, U, V and the RGB values.
const COLOURS: [([u8; 3], [u8; 3]); 6] = [
    ([16, 128, 128], [0, 0, 0]),
    ([235, 128, 128], [255, 255, 255]),
    ([126, 128, 128], [128, 128, 128]),
    ([81, 90, 240], [254, 0, 0]),
    ([145, 54, 34], [0, 255, 1]),
    ([41, 240, 110], [0, 0, 255]),
];

#[test]
fn yuv_colours_are_those_of_bt_601() {
    for ([y, u, v], expected) in COLOURS {
        let cases = [
            raw(b"YUYV", (2, 2), 6, &[y, u, y, v, 1, 1, y, u, y, v]),
            raw(b"UYVY", (2, 2), 4, &[u, y, v, y, u, y, v, y]),
            raw(b"NV12", (2, 2), 3, &[y, y, 1, y, y, 1, u, v]),
            // Odd sizes: the chroma of the last column and row covers one pixel.
            raw(b"NV12", (3, 1), 4, &[y, y, y, 1, u, v, u, v]),
            raw(b"YUYV", (1, 1), 4, &[y, u, y, v]),
        ];
        for case in cases {
            let frame = to_frame(&case).unwrap();
            let (channels, values) = eight(&frame);
            assert_eq!(channels, Channels::Rgb);
            for pixel in values.chunks_exact(3) {
                let off = (0..3).map(|c| pixel[c].abs_diff(expected[c])).max();
                assert!(off <= Some(1), "{} {y} {u} {v}: {pixel:?}", case.format);
            }
        }
    }
}

#[test]
fn bayer_is_read_by_its_pattern_and_stride() {
    let colour = to_frame(&raw(b"GRBG", (2, 2), 3, &[90, 200, 7, 30, 90])).unwrap();
    assert_eq!(
        eight(&colour),
        (Channels::Rgb, &[200, 90, 30].repeat(4)[..])
    );
    let colour = to_frame(&raw(b"BA81", (2, 2), 2, &[30, 90, 90, 200])).unwrap();
    assert_eq!(eight(&colour).1, [200, 90, 30].repeat(4));
    assert_eq!(
        to_frame(&raw(b"RGGB", (1, 4), 1, &[0; 4]))
            .unwrap_err()
            .to_string(),
        "RGGB: expected 2×2 px or more, found 1×4"
    );
}

fn encoded(image: &image::DynamicImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, image::ImageFormat::Jpeg)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn jpegs_of_webcams_are_read() {
    let image = image::RgbImage::from_pixel(24, 16, image::Rgb([200, 60, 60]));
    let bytes = encoded(&image.into());
    let frame = to_frame(&raw(b"MJPG", (24, 16), 0, &bytes)).unwrap();
    let (channels, values) = eight(&frame);
    assert_eq!(channels, Channels::Rgb);
    assert!(
        values[0].abs_diff(200) <= 3 && values[1].abs_diff(60) <= 3,
        "{:?}",
        &values[..3]
    );

    let grey = image::GrayImage::from_pixel(24, 16, image::Luma([77]));
    let frame = to_frame(&raw(b"JPEG", (24, 16), 0, &encoded(&grey.into()))).unwrap();
    assert_eq!(frame.channels(), Channels::Grey);

    // Motion JPEG may omit the Huffman tables and then means the standard's.
    let mut bare = bytes.clone();
    while let Some(at) = bare.windows(2).position(|marker| marker == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        bare.drain(at..at + 2 + length);
    }
    assert!(bare.len() + 100 < bytes.len());
    let without = to_frame(&raw(b"MJPG", (24, 16), 0, &bare)).unwrap();
    assert_eq!(eight(&without).1, values);
}

#[test]
fn jpegs_of_another_size_or_cut_off_are_refused() {
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * y) as u8, 9, 200]));
    let bytes = encoded(&image.into());
    for length in (0..bytes.len()).step_by(7) {
        assert!(to_frame(&raw(b"MJPG", (40, 30), 0, &bytes[..length])).is_err());
    }
    let cut = to_frame(&raw(b"MJPG", (40, 30), 0, &bytes[..bytes.len() / 2]));
    assert!(matches!(cut, Err(PixelFormatError::Jpeg(_))));
    let other = to_frame(&raw(b"MJPG", (41, 30), 0, &bytes)).unwrap_err();
    assert_eq!(
        other.to_string(),
        "expected a JPEG of 41×30 px, found 40×30"
    );
}

#[test]
fn short_buffers_and_impossible_strides_are_named() {
    let message = |case: &RawFrame| to_frame(case).unwrap_err().to_string();
    let expected = [
        (b"GREY", 4 + 3),
        (b"Y10 ", 12 + 6),
        (b"Y10P", 12 + 5),
        (b"Y12P", 12 + 6),
        (b"RGB3", 12 + 9),
        (b"YUYV", 12 + 8),
        (b"NV12", 2 * 4 + 4),
        (b"BA81", 4 + 3),
    ];
    for (format, bytes) in expected {
        let stride = if [b"GREY", b"NV12", b"BA81"].contains(&format) {
            4
        } else {
            12
        };
        let whole = vec![0; bytes];
        assert!(to_frame(&raw(format, (3, 2), stride, &whole)).is_ok());
        let short = raw(format, (3, 2), stride, &whole[1..]);
        let name = short.format;
        assert_eq!(
            message(&short),
            format!(
                "{name}: expected {bytes} bytes or more, found {}",
                bytes - 1
            )
        );
    }
    assert_eq!(
        message(&raw(b"YUYV", (4, 2), 7, &[0; 64])),
        "YUYV: expected 8 bytes or more from row to row, found 7"
    );
    let huge = raw(b"RGB3", (16_384, 16_384), u32::MAX, &[0; 64]);
    assert!(matches!(
        to_frame(&huge),
        Err(PixelFormatError::Short { .. })
    ));
    assert!(matches!(
        to_frame(&raw(b"GREY", (0, 2), 2, &[])),
        Err(PixelFormatError::Frame(_))
    ));
    assert!(message(&raw(b"H264", (2, 2), 2, &[0; 64])).contains("found pixel format H264"));
}

#[test]
fn the_supported_formats_are_converted() {
    for &format in SUPPORTED {
        assert!(is_supported(format));
        let result = to_frame(&raw(&format.0, (4, 4), 0, &[0; 256]));
        assert!(
            !matches!(result, Err(PixelFormatError::Unsupported { .. })),
            "{format}"
        );
    }
    assert!(!is_supported(FourCc(*b"H264")));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        format in prop_oneof![proptest::sample::select(SUPPORTED), any::<[u8; 4]>().prop_map(FourCc)],
        width_px in prop_oneof![0..40_u32, any::<u32>()],
        height_px in prop_oneof![0..40_u32, any::<u32>()],
        stride_bytes in prop_oneof![0..200_u32, any::<u32>()],
        data in proptest::collection::vec(any::<u8>(), 0..6000),
    ) {
        let case = RawFrame { format, width_px, height_px, stride_bytes, data };
        if let Ok(frame) = to_frame(&case) {
            prop_assert_eq!((frame.width_px(), frame.height_px()), (width_px, height_px));
        }
    }

    #[test]
    fn no_damage_to_a_jpeg_makes_it_panic(at in 2..600_usize, value: u8, length in 1..20_usize) {
        let image = image::RgbImage::from_fn(17, 23, |x, y| image::Rgb([(x * y) as u8, 9, x as u8]));
        let mut bytes = encoded(&image.into());
        let end = (at + length).min(bytes.len() - 2);
        let at = at.min(end);
        bytes[at..end].fill(value);
        let _ = to_frame(&raw(b"MJPG", (17, 23), 0, &bytes));
    }
}
