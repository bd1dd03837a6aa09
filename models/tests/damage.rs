//! Damaged pictures of defective parts, scored with a released package: none becomes OK. How many
//! of the damaged ones are read at all depends on the format; the test prints it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use scoring::inspect::verdict::Verdict;
use scoring::inspector::Inspector;
use scoring::io::decode::{Page, decode};
use scoring::io::image_file::read_frame;
use scoring::package::{Trust, read, read_public_key};
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};

/// Damaged files in CI. `AWR_DAMAGED_FILES` sets another number, 10,000 before a release.
const FILES: usize = 240;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The picture in every format, compressed in every way that is common.
fn encoded(image: &DynamicImage) -> Vec<(&'static str, Vec<u8>)> {
    let with = |format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let tiff = |compression| {
        let mut bytes = Cursor::new(Vec::new());
        let encoder = TiffEncoder::new(&mut bytes).unwrap();
        let mut encoder = encoder.with_compression(compression);
        let rgb = image.to_rgb8();
        encoder
            .write_image::<colortype::RGB8>(rgb.width(), rgb.height(), rgb.as_raw())
            .unwrap();
        bytes.into_inner()
    };
    vec![
        ("JPEG", with(ImageFormat::Jpeg)),
        ("PNG", with(ImageFormat::Png)),
        ("BMP", with(ImageFormat::Bmp)),
        ("TIFF", tiff(Compression::Uncompressed)),
        ("TIFF, LZW", tiff(Compression::Lzw)),
        (
            "TIFF, Deflate",
            tiff(Compression::Deflate(DeflateLevel::Balanced)),
        ),
    ]
}

/// Damages a file in one of the ways of disks, cables and cameras.
fn damage(file: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let at = random.random_range(0..bytes.len());
    let count = random.random_range(1..1_024_usize).min(bytes.len() - at);
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at..at + count].fill(0),
        2 => random.fill_bytes(&mut bytes[at..at + count.min(64)]),
        3 => drop(bytes.drain(at..at + count)),
        4 => bytes.truncate(at),
        _ => {
            let end = bytes.split_off(bytes.len() - 2);
            bytes.truncate(at);
            bytes.extend(end);
        }
    }
    bytes
}

/// The frames of the defects that the package marks NG as they are.
fn defects(inspector: &Inspector) -> Vec<DynamicImage> {
    let mut images = Vec::new();
    for kind in fs::read_dir(folder().join("leather-32/frames/test")).unwrap() {
        let kind = kind.unwrap().path();
        if kind.ends_with("good") {
            continue;
        }
        let files = fs::read_dir(kind).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files.iter().take(3) {
            let frame = read_frame(file).unwrap();
            let found = inspector.inspect(&frame).unwrap();
            if found.verdict == Some(Verdict::Ng) {
                images.push(DynamicImage::ImageRgb8(frame.to_rgb8()));
            }
        }
    }
    images
}

#[test]
fn no_damaged_picture_of_a_defect_becomes_ok() {
    let key = read_public_key(&folder().join("samples-only.key.pub")).unwrap();
    let package = folder().join("leather-32/leather-32.awr");
    let package = read(&package, &Trust::Only(vec![key])).unwrap();
    let inspector = Inspector::new(&package).unwrap();
    let mut images = defects(&inspector);
    images.sort_by_key(|image| image.to_rgb8().as_raw().clone());
    assert!(images.len() >= 5, "{}", images.len());
    let files: Vec<_> = images.iter().take(6).flat_map(encoded).collect();
    let wanted = std::env::var("AWR_DAMAGED_FILES")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut random = StdRng::seed_from_u64(31);
    let mut read = std::collections::BTreeMap::<&str, [usize; 2]>::new();
    let mut passed = Vec::new();
    for number in 0..wanted.unwrap_or(FILES) {
        let (format, file) = &files[number % files.len()];
        let bytes = damage(file, &mut random);
        let [all, accepted] = read.entry(format).or_default();
        *all += 1;
        let Ok(picture) = decode(&bytes, Page::Only, true) else {
            continue;
        };
        *accepted += 1;
        // A size that no frame of the line has is refused after decoding.
        let Ok(found) = inspector.inspect(&picture.frame) else {
            continue;
        };
        if found.verdict != Some(Verdict::Ng) {
            passed.push((number, *format, found.score));
        }
    }
    for (format, [all, accepted]) in &read {
        eprintln!("{format}: {accepted} of {all} damaged files were read");
    }
    assert!(passed.is_empty(), "became OK: {passed:?}");
}
