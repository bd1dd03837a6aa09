use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage};

use super::*;

const NATIVE: InputSize = InputSize::Native;

/// A grey texture, different for each seed.
fn texture(width: u32, height: u32, seed: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        Luma([(60 + (x * 7 + y * 13 + seed * 31 + x * y) % 120) as u8])
    })
}

/// A texture as an industrial camera's program saves it: values of 12 bits in a file of 16.
fn twelve_bits(seed: u32) -> DynamicImage {
    let grey = texture(70, 70, seed);
    let value = |x, y| u16::from(grey.get_pixel(x, y).0[0]) * 16;
    ImageBuffer::from_fn(70, 70, |x, y| Luma([value(x, y)])).into()
}

/// Saves pictures under their names, and looks at them.
fn survey(pictures: Vec<(&str, DynamicImage)>) -> (tempfile::TempDir, Survey) {
    let root = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, picture) in pictures {
        let path = root.path().join(name);
        picture.save(&path).unwrap();
        files.push(path);
    }
    let survey = Survey::of(&files, NATIVE, &Reading::default(), &mut |_| {});
    (root, survey)
}

fn grey(seed: u32) -> DynamicImage {
    texture(70, 70, seed).into()
}

/// The warnings of a set, or the error.
fn judged(survey: &Survey) -> Result<Vec<String>, String> {
    let mut account = Account::default();
    survey
        .account(&mut account, false)
        .map_err(|error| error.to_string())?;
    let bits = survey.bits().unwrap_or(16);
    survey
        .check_suitable(bits, &mut account)
        .map_err(|error| error.to_string())?;
    Ok(account.warnings)
}

#[test]
fn an_ordinary_set_gives_no_warning() {
    let (_root, found) = survey(vec![
        ("a.png", grey(1)),
        ("b.png", grey(2)),
        ("c.bmp", grey(3)),
    ]);
    assert_eq!(judged(&found).unwrap(), Vec::<String>::new());
    assert_eq!((found.bits(), found.copies().len()), (None, 0));
}

#[test]
fn blank_images_are_named_and_a_set_of_them_is_refused() {
    let shade = |value| DynamicImage::from(GrayImage::from_pixel(70, 70, Luma([value])));
    let colour = RgbImage::from_pixel(70, 70, image::Rgb([200, 40, 90]));
    for (word, pictures) in [
        ("black", vec![("a.png", shade(0)), ("b.png", shade(4))]),
        ("white", vec![("a.png", shade(255)), ("b.png", shade(253))]),
        ("even", vec![("a.png", shade(128)), ("b.png", shade(135))]),
        ("even", vec![("a.png", colour.into())]),
    ] {
        let error = judged(&survey(pictures).1).unwrap_err();
        assert!(error.starts_with("all ") && error.contains(word), "{error}");
    }
    let (_root, found) = survey(vec![
        ("a.png", grey(1)),
        ("b.png", shade(0)),
        ("c.png", grey(2)),
    ]);
    let warnings = judged(&found).unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("b.png"),
        "{warnings:?}"
    );
}

#[test]
fn copies_are_found_by_their_pixels() {
    let as_colour = DynamicImage::from(grey(1).to_rgb8());
    let pictures = vec![
        ("a.png", grey(1)),
        ("b.bmp", grey(1)),
        ("c.tif", as_colour),
        ("d.png", grey(2)),
    ];
    let (root, found) = survey(pictures);
    let original = root.path().join("a.png");
    let copies: Vec<_> = found.copies().into_iter().map(|(_, of)| of).collect();
    assert_eq!(copies, [original.as_path(), original.as_path()]);
    let warnings = judged(&found).unwrap();
    assert!(
        warnings[0].contains("2 is the number of parts"),
        "{warnings:?}"
    );
}

#[test]
fn other_sizes_and_turned_images_are_named() {
    let sized = |width, height| DynamicImage::from(texture(width, height, width));
    let pictures = vec![
        ("a.png", DynamicImage::from(texture(90, 70, 1))),
        ("b.png", DynamicImage::from(texture(90, 70, 2))),
        ("turned.png", sized(70, 90)),
        ("large.png", sized(120, 80)),
    ];
    let warnings = judged(&survey(pictures).1).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("turned.png") && warnings[0].contains("turned?"));
    assert!(warnings[1].contains("large.png") && warnings[1].contains("3 sizes"));
}

#[test]
fn the_depth_of_values_is_that_of_the_set() {
    let (_root, found) = survey(vec![("a.png", twelve_bits(1)), ("b.png", twelve_bits(2))]);
    assert_eq!(found.bits(), Some(12));
    assert!(judged(&found).unwrap().is_empty());
    let mut pictures = vec![
        ("a.png", twelve_bits(1)),
        ("b.png", grey(2)),
        ("c.png", grey(3)),
    ];
    let warnings = judged(&survey(pictures.clone()).1).unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("16 bits"),
        "{warnings:?}"
    );
    // Full values are full values, even if one image of the set is dark.
    let full: DynamicImage =
        ImageBuffer::from_fn(70, 70, |x, y| Luma([(x * y * 13) as u16])).into();
    pictures[1] = ("b.png", full);
    assert_eq!(survey(pictures).1.bits(), Some(16));
}

#[test]
fn grey_is_grey_however_it_is_stored() {
    let tint = |seed| {
        let grey = texture(70, 70, seed);
        let picture = RgbImage::from_fn(70, 70, |x, y| {
            let value = grey.get_pixel(x, y).0[0];
            image::Rgb([value, value / 2, value])
        });
        DynamicImage::from(picture)
    };
    let as_colour = |seed| DynamicImage::from(grey(seed).to_rgb8());
    let decide = |pictures| {
        let mut account = Account::default();
        let colour = survey(pictures).1.colour(Colour::Auto, &mut account);
        (colour, account.warnings.len())
    };
    let all_grey = vec![
        ("a.png", as_colour(1)),
        ("b.jpg", as_colour(2)),
        ("c.png", grey(3)),
    ];
    assert_eq!(decide(all_grey), (Colour::Grey, 0));
    let one_coloured = vec![("a.png", grey(1)), ("b.png", tint(2)), ("c.png", grey(3))];
    assert_eq!(decide(one_coloured.clone()), (Colour::Grey, 1));
    let one_grey = vec![("a.png", tint(1)), ("b.png", tint(2)), ("c.png", grey(3))];
    assert_eq!(decide(one_grey), (Colour::Rgb, 1));
    assert_eq!(decide(vec![("a.png", tint(1))]), (Colour::Rgb, 0));
    let (_root, found) = survey(one_coloured);
    let mut account = Account::default();
    assert_eq!(found.colour(Colour::Rgb, &mut account), Colour::Rgb);
}

#[test]
fn a_tenth_may_be_unreadable_and_no_more() {
    let root = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..10)
        .map(|n| root.path().join(format!("{n}.png")))
        .collect();
    for (seed, file) in files.iter().enumerate() {
        texture(70, 70, seed as u32).save(file).unwrap();
    }
    std::fs::write(&files[3], b"no picture").unwrap();
    let survey = |files: &[PathBuf]| Survey::of(files, NATIVE, &Reading::default(), &mut |_| {});
    let mut account = Account::default();
    survey(&files).account(&mut account, false).unwrap();
    assert_eq!((account.images.used, account.images.unreadable), (9, 1));
    assert!(account.images.left_out[0].file.ends_with("3.png"));
    let error = survey(&files[..9])
        .account(&mut Account::default(), false)
        .unwrap_err()
        .to_string();
    for word in ["1 of 9", "10 %", "--allow-unreadable", "3.png"] {
        assert!(error.contains(word), "{error}");
    }
    assert!(
        survey(&files[..9])
            .account(&mut Account::default(), true)
            .is_ok()
    );
    let nothing = survey(&files[3..4]).account(&mut Account::default(), true);
    assert!(
        nothing
            .unwrap_err()
            .to_string()
            .contains("none of 1 images")
    );
    texture(40, 80, 1).save(&files[0]).unwrap();
    let found = survey(&files[..3]);
    assert_eq!((found.images.len(), found.too_small.len()), (2, 1));
    // An image is resized to a fixed size, however small it is.
    let fixed = InputSize::Fixed {
        width_px: 80,
        height_px: 80,
    };
    assert!(
        Survey::of(&files[..3], fixed, &Reading::default(), &mut |_| {})
            .too_small
            .is_empty()
    );
}

#[test]
fn values_of_more_bits_than_the_package_reads_are_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.png");
    twelve_bits(1).save(&file).unwrap();
    let found = |bits| {
        let reading = Reading {
            bits,
            ..Reading::default()
        };
        Survey::of(std::slice::from_ref(&file), NATIVE, &reading, &mut |_| {})
    };
    assert_eq!(found(12).images.len(), 1);
    let reason = &found(10).unreadable[0].reason;
    assert!(reason.contains("10 bits"), "{reason}");
}
