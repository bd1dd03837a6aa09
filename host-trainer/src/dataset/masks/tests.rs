use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::*;

const SIDE: u32 = 20;

/// A square hole in the middle, a twenty-fifth of the picture.
fn hole(x: u32, y: u32) -> bool {
    (8..12).contains(&x) && (8..12).contains(&y)
}

fn expected() -> Vec<bool> {
    let places = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
    places.map(|(x, y)| hole(x, y)).collect()
}

/// Saves a picture in this format under a name that ends in .png, and reads it as a mask.
fn read(picture: &DynamicImage, format: ImageFormat) -> Result<Mask, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.png");
    picture.save_with_format(&path, format).unwrap();
    Mask::read(&[path], false).map_err(|error| error.to_string())
}

fn png(picture: impl Into<DynamicImage>) -> Result<Mask, String> {
    read(&picture.into(), ImageFormat::Png)
}

fn grey(good: u8, defect: u8) -> GrayImage {
    GrayImage::from_fn(SIDE, SIDE, |x, y| {
        Luma([if hole(x, y) { defect } else { good }])
    })
}

fn deep(defect: u16) -> image::ImageBuffer<Luma<u16>, Vec<u16>> {
    image::ImageBuffer::from_fn(SIDE, SIDE, |x, y| {
        Luma([if hole(x, y) { defect } else { 0 }])
    })
}

fn colour(good: [u8; 3], defect: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        Rgb(if hole(x, y) { defect } else { good })
    })
}

fn clear(good: [u8; 4], defect: [u8; 4]) -> RgbaImage {
    RgbaImage::from_fn(SIDE, SIDE, |x, y| {
        Rgba(if hole(x, y) { defect } else { good })
    })
}

#[test]
fn every_unambiguous_convention_marks_the_same_pixels() {
    let conventions: [(DynamicImage, Option<&str>); 16] = [
        (grey(0, 255).into(), None),
        (grey(0, 1).into(), Some("values 0 and 1")),
        (grey(0, 127).into(), Some("values 0 and 127")),
        (grey(0, 128).into(), Some("values 0 and 128")),
        (grey(3, 250).into(), Some("values 3 and 250")),
        (deep(65_535).into(), None),
        (deep(255).into(), Some("values 0 and 255")),
        (deep(1).into(), Some("values 0 and 1")),
        (
            colour([0; 3], [255, 0, 0]).into(),
            Some("colour 255,0,0 on black"),
        ),
        (
            colour([0; 3], [0, 0, 255]).into(),
            Some("colour 0,0,255 on black"),
        ),
        // The first colour of Pascal VOC's palette.
        (
            colour([0; 3], [128, 0, 0]).into(),
            Some("colour 128,0,0 on black"),
        ),
        (colour([0; 3], [255; 3]).into(), None),
        (
            clear([0; 4], [0, 0, 0, 255]).into(),
            Some("a transparent background"),
        ),
        (
            clear([255, 255, 255, 0], [255; 4]).into(),
            Some("a transparent background"),
        ),
        (
            clear([0; 4], [255; 4]).into(),
            Some("a transparent background"),
        ),
        (clear([0, 0, 0, 255], [255; 4]).into(), None),
    ];
    for (picture, convention) in conventions {
        let mask = png(picture.clone()).unwrap();
        assert_eq!(mask.defects, expected(), "{convention:?}");
        assert_eq!(mask.convention.as_deref(), convention);
        if !picture.color().has_alpha() || convention.is_none() {
            let tiff = read(&picture, ImageFormat::Tiff).unwrap();
            assert_eq!(tiff.defects, expected(), "{convention:?} as TIFF");
        }
    }
}

/// A palette and one bit a pixel: PNG's own small types, which `image` cannot write.
#[test]
fn palettes_and_single_bits_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.png");
    let written = |kind, depth, bytes: Vec<u8>, palette: Option<Vec<u8>>| {
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = png::Encoder::new(file, SIDE, SIDE);
        encoder.set_color(kind);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&bytes).unwrap();
        writer.finish().unwrap();
        Mask::read(std::slice::from_ref(&path), false).unwrap()
    };
    let indices: Vec<u8> = expected().into_iter().map(u8::from).collect();
    let voc = vec![0, 0, 0, 128, 0, 0, 0, 128, 0];
    let mask = written(
        png::ColorType::Indexed,
        png::BitDepth::Eight,
        indices,
        Some(voc),
    );
    assert_eq!(mask.defects, expected());
    let bits: Vec<u8> = expected()
        .chunks(SIDE as usize)
        .flat_map(|row| {
            row.chunks(8).map(|byte| {
                let bits = byte.iter().enumerate();
                bits.map(|(at, bit)| u8::from(*bit) << (7 - at)).sum::<u8>()
            })
        })
        .collect();
    let mask = written(png::ColorType::Grayscale, png::BitDepth::One, bits, None);
    assert_eq!((mask.defects, mask.convention), (expected(), None));
}

#[test]
fn blurred_edges_are_cut_at_half() {
    let blurred = image::imageops::blur(&grey(0, 255), 0.6);
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let mask = read(&blurred.clone().into(), format).unwrap();
        assert_eq!(mask.defects, expected(), "{format:?}");
    }
    assert_eq!(
        read(&grey(0, 255).into(), ImageFormat::Jpeg)
            .unwrap()
            .defects,
        expected()
    );
    let red = colour([0; 3], [255, 0, 0]);
    let found = read(&red.into(), ImageFormat::Jpeg).unwrap().defects;
    let off = found.iter().zip(expected()).filter(|(a, b)| **a != *b);
    // JPEG halves the resolution of colours.
    assert!(off.count() <= 24);
}

#[test]
fn what_could_mean_several_things_is_refused() {
    let three = |middle: u8| {
        GrayImage::from_fn(SIDE, SIDE, |x, y| {
            Luma([match (hole(x, y), y < 4) {
                (true, _) => 255,
                (_, true) => middle,
                _ => 0,
            }])
        })
    };
    let photograph = GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([(x * 9 + y * 3) as u8]));
    let dim = GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([((x * y) % 100) as u8]));
    let refused: [(DynamicImage, &str); 8] = [
        (grey(1, 2).into(), "two values are 1 and 2"),
        (grey(127, 255).into(), "two values are 127 and 255"),
        (three(127).into(), "area of value 127"),
        (three(1).into(), "area of value 1"),
        (photograph.into(), "photograph"),
        (dim.into(), "none in the upper half"),
        (colour([255; 3], [255, 0, 0]).into(), "none of them black"),
        (
            clear([255, 255, 255, 255], [0, 0, 0, 0]).into(),
            "", // By transparency everything but the hole: read, and marked nearly everything.
        ),
    ];
    for (picture, reason) in refused {
        match png(picture) {
            Err(error) => assert!(error.contains("m.png") && error.contains(reason), "{error}"),
            Ok(mask) => assert!(
                reason.is_empty() && mask.marks_nearly_everything(),
                "{reason}"
            ),
        }
    }
    // Values of the upper half are defects, however many.
    assert!(png(three(200)).is_ok());
}

#[test]
fn empty_full_and_inverted_masks_are_told_apart() {
    let black = png(grey(0, 0)).unwrap();
    assert_eq!((black.marked(), black.convention), (0.0, None));
    assert_eq!(png(grey(255, 255)).unwrap().marked(), 1.0);
    let inverted = png(grey(255, 0)).unwrap();
    assert!(inverted.marks_nearly_everything());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.png");
    grey(255, 0).save(&path).unwrap();
    assert_eq!(Mask::read(&[path], true).unwrap().defects, expected());
}

#[test]
fn the_masks_of_one_image_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..3)
        .map(|n| folder.path().join(format!("{n}.png")))
        .collect();
    for (number, file) in files.iter().enumerate() {
        GrayImage::from_fn(6, 4, |x, _| Luma([u8::from(x as usize == number) * 255]))
            .save(file)
            .unwrap();
    }
    let mask = Mask::read(&files, false).unwrap();
    let row = [true, true, true, false, false, false];
    assert_eq!(mask.defects, row.repeat(4));
    GrayImage::new(4, 6).save(&files[2]).unwrap();
    let error = Mask::read(&files, false).unwrap_err().to_string();
    assert!(
        error.contains("2.png") && error.contains("turned"),
        "{error}"
    );
}

#[test]
fn a_mask_of_another_size_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.png");
    GrayImage::from_pixel(3, 2, Luma([200]))
        .save(&path)
        .unwrap();
    let mask = Mask::read(std::slice::from_ref(&path), false).unwrap();
    assert_eq!(mask.defects, vec![true; 6]);
    assert!(mask.check_size(3, 2, "its image").is_ok());
    let error = mask.check_size(4, 2, "its image").unwrap_err();
    assert!(error.contains("4×2") && error.contains("3×2"), "{error}");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\nxx").unwrap();
    let error = Mask::read(&[path], false).unwrap_err().to_string();
    assert!(
        error.contains("m.png") && error.contains("damaged"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two values, whatever they are: the defects are those of the higher one, or it is refused.
    #[test]
    fn two_greys_are_never_misread(low in 0u8..=255, high in 0u8..=255) {
        prop_assume!(low < high);
        match png(grey(low, high)) {
            Ok(mask) => {
                prop_assert_eq!(mask.defects, expected());
                prop_assert!(low == 0 || (low < 64 && high > 190));
            }
            Err(_) => prop_assert!(low > 0),
        }
    }

    /// Any colours on black are defects, whole areas of them.
    #[test]
    fn colours_on_black_are_defects(colours in prop::collection::vec(any::<[u8; 3]>(), 1..6)) {
        prop_assume!(colours.iter().all(|colour| *colour != [0; 3]));
        // Pure greys beside each other may be labels of several meanings.
        prop_assume!(colours.iter().any(|[r, g, b]| r != g || g != b));
        let picture = RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let colour = colours[(x as usize + y as usize) % colours.len()];
            Rgb(if hole(x, y) { colour } else { [0; 3] })
        });
        let used: Vec<_> = (16..=22).map(|at: usize| colours[at % colours.len()]).collect();
        prop_assume!(used.iter().any(|[r, g, b]| r != g || g != b));
        prop_assert_eq!(png(picture).unwrap().defects, expected());
    }

    /// Labels 0 to n of any depth.
    #[test]
    fn labels_are_defects(most in 2u16..120, sixteen in any::<bool>()) {
        let label = |x: u32, y: u32| if hole(x, y) { 1 + (x as u16 % 2) * (most - 1) } else { 0 };
        let picture: DynamicImage = if sixteen {
            image::ImageBuffer::from_fn(SIDE, SIDE, |x, y| Luma([label(x, y)])).into()
        } else {
            GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([label(x, y) as u8])).into()
        };
        prop_assert_eq!(png(picture).unwrap().defects, expected());
    }

    /// Bytes at random, or a mask with some of them changed, are read or refused, and never panic.
    #[test]
    fn damaged_masks_are_read_or_refused(
        at in 0usize..120,
        bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.png");
        grey(0, 1).save(&path).unwrap();
        let mut file = std::fs::read(&path).unwrap();
        for (place, byte) in file.iter_mut().skip(at).zip(&bytes) {
            *place = *byte;
        }
        std::fs::write(&path, file).unwrap();
        if let Ok(mask) = Mask::read(&[path], false) {
            prop_assert_eq!(mask.defects.len(), (mask.width_px * mask.height_px) as usize);
        }
    }
}
