//! Picture files as people have them: every kind is read as other programs mean it, or refused by
//! its right name, and damage is never data. `fixtures/pictures/make.py` makes the files with
//! Pillow, tifffile and imagecodecs, and says what each must give.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proto::limits::MAX_FRAME_SIDE_PX;
use proto::manifest::Reading;
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::io::decode::{DecodeError, Orientation, Page, PictureFormat, decode};
use scoring::io::image_file::{
    ImageFileError, count_pages, page_path, read_frame, read_frame_as, read_picture,
};
use scoring::source::pixel_format::to_frame;
use scoring::source::{FourCc, RawFrame};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/pictures")
        .join(name)
}

/// An error with its causes on one line.
fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Values in 8 bits. Those of 16 bits are rounded.
fn eight(frame: &Frame) -> Vec<u8> {
    match frame.pixels() {
        Pixels::U8(values) => values.clone(),
        Pixels::U16(values) => values
            .iter()
            .map(|&value| ((u32::from(value) + 128) / 257) as u8)
            .collect(),
    }
}

/// Checks one line of `expect.txt`: a file and what it must give.
fn check(line: &str) -> Result<(), String> {
    let (name, expected) = line.split_once(' ').ok_or("no expectation")?;
    let (kind, what) = expected.split_once(' ').unwrap_or((expected, ""));
    let frame = match (kind, read_frame(&fixture(name))) {
        ("error", Ok(_)) => return Err(format!("expected an error of `{what}`, found a picture")),
        ("error", Err(error)) => {
            let error = text(&error);
            return match error.contains(what) && error.contains(name) {
                true => Ok(()),
                false => Err(format!("expected an error of `{what}`, found `{error}`")),
            };
        }
        (_, frame) => frame.map_err(|error| text(&error))?,
    };
    if kind == "flat" {
        let even = eight(&frame).iter().all(|value| value.to_string() == what);
        return if even {
            Ok(())
        } else {
            Err("expected one grey".into())
        };
    }
    let (reference, tolerance) = match kind {
        "rgb" => ("rgb.png", 0),
        "grey" => ("grey.png", 0),
        "same" => (what, 0),
        // Decoders round differently, and smooth colours of half the resolution differently.
        "near" => (what, 3),
        other => return Err(format!("unknown expectation `{other}`")),
    };
    let reference = read_frame(&fixture(reference)).map_err(|error| text(&error))?;
    if (frame.width_px(), frame.height_px(), frame.channels())
        != (
            reference.width_px(),
            reference.height_px(),
            reference.channels(),
        )
    {
        return Err(format!(
            "expected {}×{} {:?}, found {}×{} {:?}",
            reference.width_px(),
            reference.height_px(),
            reference.channels(),
            frame.width_px(),
            frame.height_px(),
            frame.channels()
        ));
    }
    let (found, expected) = (eight(&frame), eight(&reference));
    let differences: Vec<u32> = found
        .iter()
        .zip(&expected)
        .map(|(&found, &expected)| u32::from(found.abs_diff(expected)))
        .collect();
    let mean = differences.iter().sum::<u32>() / differences.len() as u32;
    let most = differences.iter().max().copied().unwrap_or(0);
    match (tolerance, mean, most) {
        (0, _, 0) => Ok(()),
        (1.., mean, _) if mean <= tolerance => Ok(()),
        _ => Err(format!(
            "values differ by {mean} in the mean, by up to {most}"
        )),
    }
}

#[test]
fn every_kind_of_file_is_read_as_others_mean_it_or_refused_by_its_name() {
    let lines = fs::read_to_string(fixture("expect.txt")).unwrap();
    let wrong: Vec<String> = lines
        .lines()
        .filter_map(|line| Some(format!("{line}: {}", check(line).err()?)))
        .collect();
    assert!(lines.lines().count() > 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn masks_can_see_palette_indices_alpha_and_depth() {
    let picture = |name: &str| read_picture(&fixture(name)).unwrap();
    let palette = picture("palette.png");
    let indices = palette.palette_indices.unwrap();
    // make.py: (x // 8 + y // 8 * 8) % 40
    assert_eq!((indices[0], indices[8], indices[64 * 40 + 1]), (0, 1, 0));
    assert_eq!(picture("palette.tif").palette_indices.unwrap(), indices);
    assert_eq!(picture("palette.bmp").palette_indices.unwrap(), indices);
    let alpha = |name: &str| match picture(name).alpha {
        Some(Pixels::U8(values)) => values[..3].to_vec(),
        other => panic!("{name}: {other:?}"),
    };
    for name in ["rgba.png", "la.png", "rgba.tif", "grey_alpha.tif"] {
        assert_eq!(alpha(name), [255, 253, 251], "{name}");
    }
    assert_eq!(picture("rgb.png").alpha, None);
    let bits = |name: &str| picture(name).bits;
    assert_eq!(
        (bits("1bit.png"), bits("1bit.tif"), bits("1bit.bmp")),
        (1, 1, 1)
    );
    assert_eq!(
        (bits("grey16.png"), bits("12packed.tif"), bits("grey.png")),
        (16, 12, 8)
    );
    assert_eq!(picture("1bit.png").format, PictureFormat::Png);
}

#[test]
fn orientation_is_applied_unless_files_are_read_as_stored() {
    let name = fixture("orientation6.jpg");
    let shown = read_picture(&name).unwrap();
    assert_eq!((shown.frame.width_px(), shown.frame.height_px()), (64, 48));
    assert_eq!(
        (shown.orientation, shown.oriented),
        (Orientation::Rotate90, true)
    );
    let stored = read_frame_as(&name, &Reading::AS_STORED).unwrap();
    assert_eq!((stored.width_px(), stored.height_px()), (48, 64));
}

#[test]
fn pages_are_read_by_number_and_never_the_first_for_all() {
    let file = fixture("pages.tif");
    assert_eq!(count_pages(&file).unwrap(), 3);
    let first = read_frame(&page_path(&file, 1)).unwrap();
    assert_eq!(first, read_frame(&fixture("grey.png")).unwrap());
    let second = read_frame(&page_path(&file, 2)).unwrap();
    let inverted: Vec<u8> = eight(&first).iter().map(|value| 255 - value).collect();
    assert_eq!(eight(&second), inverted);
    let error = text(&read_frame(&page_path(&file, 4)).unwrap_err());
    assert!(
        error.ends_with("pages.tif#4: expected page 4, found 3 pages"),
        "{error}"
    );
    assert!(read_frame(&page_path(&file, 0)).is_err());
    assert_eq!(count_pages(&fixture("preview.tif")).unwrap(), 1);
    assert!(read_frame(&page_path(&fixture("rgb.png"), 1)).is_ok());
    assert!(read_frame(&page_path(&fixture("rgb.png"), 2)).is_err());
    // A file may have such a name itself.
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a.png#1");
    fs::copy(fixture("grey.png"), &odd).unwrap();
    assert!(read_frame(&odd).is_ok());
}

#[test]
fn values_of_12_bits_are_scaled_like_a_cameras() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let values = vec![0, 1, 2_048, 4_095];
    let image = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 2, values.clone());
    image.unwrap().save(&path).unwrap();
    let reading = |bits| Reading {
        bits,
        ..Reading::default()
    };
    let camera = RawFrame {
        format: FourCc(*b"Y12 "),
        width_px: 2,
        height_px: 2,
        stride_bytes: 4,
        data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    };
    let file = read_frame_as(&path, &reading(12)).unwrap();
    assert_eq!(file, to_frame(&camera).unwrap());
    assert_eq!(read_frame(&path).unwrap().pixels(), &Pixels::U16(values));
    let error = read_frame_as(&path, &reading(10)).unwrap_err();
    assert!(matches!(
        error,
        ImageFileError::Bits {
            bits: 10,
            found: 4_095,
            ..
        }
    ));
    assert!(
        error
            .to_string()
            .ends_with("expected values of 10 bits, 0 to 1023, found 4095")
    );
}

/// A BMP of one colour, of 24 bits.
fn bmp(width: u32, height: u32) -> Vec<u8> {
    let stride = (width * 3).next_multiple_of(4);
    let pixels = stride * height;
    let mut file = b"BM".to_vec();
    for word in [
        54 + pixels,
        0,
        54,
        40,
        width,
        height,
        24 << 16 | 1,
        0,
        pixels,
        0,
        0,
        0,
        0,
    ] {
        file.extend(word.to_le_bytes());
    }
    file.resize(54 + pixels as usize, 77);
    file
}

#[test]
fn the_largest_side_is_read_and_a_larger_one_is_too_large_but_not_broken() {
    let side = MAX_FRAME_SIDE_PX;
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in [(side, 2), (2, side), (side + 1, 2), (2, side + 1)] {
        let pixels = image::ImageBuffer::from_pixel(width, height, image::Rgb([7_u16; 3]));
        let deep = image::DynamicImage::ImageRgb16(pixels);
        let mut files = Vec::new();
        for (name, image) in [
            ("a.png", deep.clone()),
            ("a.tif", deep.clone()),
            ("a.jpg", image::DynamicImage::ImageLuma8(deep.to_luma8())),
        ] {
            let path = folder.path().join(name);
            image.save(&path).unwrap();
            files.push(fs::read(path).unwrap());
        }
        files.push(bmp(width, height));
        for file in files {
            let read = decode(&file, Page::Only, true);
            if width.max(height) <= side {
                assert_eq!(read.unwrap().frame.width_px(), width);
                continue;
            }
            let error = read.unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
            assert!(!error.to_string().contains("damaged"), "{error}");
        }
    }
}

/// Pictures of 600 MB: slow and large, so only where `AWR_LARGE_PICTURES` is set.
#[test]
fn pictures_of_hundreds_of_megabytes_are_read() {
    if std::env::var_os("AWR_LARGE_PICTURES").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, side) in [("a.png", 10_000), ("a.tif", 10_000)] {
        let path = folder.path().join(name);
        let image = image::ImageBuffer::from_pixel(side, side, image::Rgb([7_u16, 8, 9]));
        image::DynamicImage::ImageRgb16(image).save(&path).unwrap();
        let frame = read_frame(&path).unwrap();
        assert_eq!((frame.width_px(), frame.height_px()), (side, side));
    }
    let side = MAX_FRAME_SIDE_PX;
    assert!(decode(&bmp(side, side), Page::Only, true).is_ok());
    let path = folder.path().join("a.jpg");
    image::GrayImage::new(side, side).save(&path).unwrap();
    assert_eq!(read_frame(&path).unwrap().width_px(), side);
}

/// A textured picture of 160×120 px in the given format.
fn textured(format: image::ImageFormat, channels: Channels) -> Vec<u8> {
    let rgb = image::RgbImage::from_fn(160, 120, |x, y| {
        let grain = (x * 7 + y * 13 + x * y * 3) % 41;
        image::Rgb([
            90 + grain as u8,
            120 + (grain / 2) as u8,
            60 + (y / 2) as u8,
        ])
    });
    let image = match channels {
        Channels::Grey => {
            image::DynamicImage::ImageLuma8(image::DynamicImage::from(rgb).to_luma8())
        }
        Channels::Rgb => image::DynamicImage::ImageRgb8(rgb),
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Damage as disks, cables and cameras do it.
#[derive(Debug, Clone)]
enum Damage {
    Zeros(usize),
    Random(Vec<u8>),
    Lost(usize),
    Twice(usize),
    CutOff,
    CutOffWithEnd,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (200..600_usize).prop_map(Damage::Zeros),
        prop::collection::vec(any::<u8>(), 48..200).prop_map(Damage::Random),
        (64..600_usize).prop_map(Damage::Lost),
        (64..600_usize).prop_map(Damage::Twice),
        Just(Damage::CutOff),
        Just(Damage::CutOffWithEnd),
    ]
}

/// The file with damage at byte `at`, before its last two bytes.
fn damaged(file: &[u8], at: usize, damage: &Damage) -> Vec<u8> {
    let end = file.len() - 2;
    let at = at.min(end - 1);
    let until = |count: usize| (at + count).min(end);
    let mut bytes = file.to_vec();
    match damage {
        Damage::Zeros(count) => bytes[at..until(*count)].fill(0),
        Damage::Random(noise) => {
            let until = until(noise.len());
            bytes[at..until].copy_from_slice(&noise[..until - at]);
        }
        Damage::Lost(count) => drop(bytes.drain(at..until(*count))),
        Damage::Twice(count) => {
            let again = file[at..until(*count)].to_vec();
            bytes.splice(at..at, again);
        }
        Damage::CutOff => bytes.truncate(at),
        Damage::CutOffWithEnd => drop(bytes.drain(at..end)),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig {
        // 10,000 at a release: PROPTEST_CASES=10000.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        ..ProptestConfig::default()
    })]

    /// PNG has checksums: whatever happens to a file, it is refused, or its pixels are the same.
    #[test]
    fn a_damaged_png_is_never_read_as_other_pixels(
        place in 0.0..1.0_f64,
        damage in damage(),
        bit in 0..8_u32,
        grey in any::<bool>(),
    ) {
        let channels = if grey { Channels::Grey } else { Channels::Rgb };
        let file = textured(image::ImageFormat::Png, channels);
        let whole = decode(&file, Page::Only, true).unwrap();
        let at = (place * file.len() as f64) as usize;
        let mut flipped = file.clone();
        flipped[at] ^= 1 << bit;
        for bytes in [damaged(&file, at, &damage), flipped] {
            if let Ok(picture) = decode(&bytes, Page::Only, true) {
                prop_assert_eq!(picture.frame, whole.frame.clone());
            }
        }
    }

    /// Uncompressed files have no redundancy but their length: bytes that are lost, or that are too
    /// many, are noticed; and a picture has the right size or is refused.
    #[test]
    fn an_uncompressed_picture_with_bytes_missing_is_refused(
        place in 0.0..1.0_f64,
        count in 64..600_usize,
        tiff in any::<bool>(),
    ) {
        let format = if tiff { image::ImageFormat::Tiff } else { image::ImageFormat::Bmp };
        let file = textured(format, Channels::Rgb);
        let at = (place * file.len() as f64) as usize;
        for damage in [Damage::Lost(count), Damage::CutOff, Damage::CutOffWithEnd] {
            let bytes = damaged(&file, at, &damage);
            prop_assume!(bytes.len() + 64 <= file.len());
            prop_assert!(decode(&bytes, Page::Only, true).is_err(), "{:?}", damage);
        }
    }

    /// No bytes at all make a decoder panic, and a picture that is returned fits together.
    #[test]
    fn no_bytes_make_a_decoder_panic(
        which in 0..107_usize,
        place in 0.0..1.0_f64,
        noise in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let lines = fs::read_to_string(fixture("expect.txt")).unwrap();
        let line = lines.lines().nth(which).unwrap();
        let mut bytes = fs::read(fixture(line.split(' ').next().unwrap())).unwrap();
        let at = (place * bytes.len() as f64) as usize;
        for (byte, &value) in bytes.iter_mut().skip(at).zip(&noise) {
            *byte = value;
        }
        // Headers are where it matters, so half of the noise goes there, too.
        let head = (place * 64.0) as usize;
        for (byte, &value) in bytes.iter_mut().skip(head).zip(&noise[..noise.len() / 2]) {
            *byte = value;
        }
        decode(&bytes, Page::Only, true).ok();
        decode(&bytes, Page::Number(2), true).ok();
    }
}

/// Of damage that leaves out, repeats or overwrites dozens of bytes, so many in a thousand may pass
/// unnoticed in a JPEG, which has no checksums. libjpeg-turbo's warnings notice as many.
const MOST_UNNOTICED_PER_1000: usize = 10;

#[test]
fn hardly_any_damaged_jpeg_is_read_and_none_for_zeros_or_lost_bytes() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let cases: usize = cases.unwrap_or(1_000);
    let files = [Channels::Grey, Channels::Rgb].map(|c| textured(image::ImageFormat::Jpeg, c));
    let wholes = files
        .each_ref()
        .map(|file| decode(file, Page::Only, true).unwrap());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut unnoticed, mut flagrant) = (0, Vec::new());
    for case in 0..cases {
        let tree = (0.0..1.0_f64, damage()).new_tree(&mut runner).unwrap();
        let (place, damage) = proptest::strategy::ValueTree::current(&tree);
        let (file, whole) = (&files[case % 2], &wholes[case % 2]);
        // Headers are another matter: a changed quantisation table gives another picture.
        let start = file
            .windows(2)
            .position(|pair| pair == [0xff, 0xda])
            .unwrap()
            + 16;
        let at = start + (place * (file.len() - start - 40) as f64) as usize;
        let bytes = damaged(file, at, &damage);
        match decode(&bytes, Page::Only, true) {
            Ok(picture) if picture.frame != whole.frame => {
                unnoticed += 1;
                if matches!(
                    damage,
                    Damage::Zeros(_) | Damage::CutOff | Damage::CutOffWithEnd
                ) {
                    flagrant.push((at, file.len(), damage));
                }
            }
            _ => {}
        }
    }
    eprintln!("{unnoticed} of {cases} damaged JPEGs were read");
    assert!(flagrant.is_empty(), "{flagrant:?}");
    assert!(
        unnoticed * 1_000 <= MOST_UNNOTICED_PER_1000 * cases,
        "{unnoticed} of {cases}"
    );
}

#[test]
fn a_cameras_jpeg_is_refused_for_the_same_damage_as_a_file() {
    let lines = fs::read_to_string(fixture("expect.txt")).unwrap();
    let mut checked = 0;
    for line in lines.lines() {
        let (name, expected) = line.split_once(' ').unwrap();
        let is_jpeg = name.ends_with(".jpg") && !expected.contains("found a");
        if !is_jpeg || name.starts_with("orientation") || name == "flat.jpg" {
            continue;
        }
        let raw = RawFrame {
            format: FourCc(*b"MJPG"),
            width_px: 64,
            height_px: 48,
            stride_bytes: 0,
            data: fs::read(fixture(name)).unwrap(),
        };
        let (camera, file) = (to_frame(&raw), read_frame(&fixture(name)));
        match (camera, file) {
            (Ok(camera), Ok(file)) => assert_eq!(camera, file, "{name}"),
            (Err(error), Err(_)) => {
                let error = text(&error);
                assert!(
                    error.starts_with("the camera's JPEG: damaged"),
                    "{name}: {error}"
                );
            }
            (camera, file) => panic!("{name}: {:?}, {:?}", camera.is_ok(), file.is_ok()),
        }
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
