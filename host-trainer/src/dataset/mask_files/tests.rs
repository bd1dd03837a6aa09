use std::fs;

use image::{GrayImage, Luma};
use proto::manifest::{InputSize, Reading};

use super::*;
use crate::dataset::test_set::test_items;

/// A labelled set of images of 70×70 px with these masks of the kind `cut`, and an unlabelled
/// good one.
fn set(masks: &[(&str, GrayImage)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let save = |path: &str, picture: &GrayImage| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    };
    let texture = |seed: u32| GrayImage::from_fn(70, 70, |x, y| Luma([(x * y + 17 * seed) as u8]));
    save("test/good/0.png", &texture(99));
    for (number, (name, mask)) in masks.iter().enumerate() {
        save(&format!("test/{name}.png"), &texture(number as u32));
        save(&format!("ground_truth/{name}_mask.png"), mask);
    }
    root
}

fn square(side: u32, good: u8, defect: u8) -> GrayImage {
    GrayImage::from_fn(side, side, |x, y| {
        Luma([if x < side / 3 && y < side / 3 {
            defect
        } else {
            good
        }])
    })
}

fn check(root: &Path, inverted: bool) -> Result<(Vec<TestItem>, Account), String> {
    let found = test_items(root).map_err(|error| error.to_string())?;
    let (mut items, mut account) = (found.items, found.account);
    let files: Vec<PathBuf> = items.iter().map(|item| item.image.clone()).collect();
    let survey = Survey::of(&files, InputSize::Native, &Reading::default(), &mut |_| {});
    let checked = check_masks(&mut items, &survey, inverted, &mut account, &mut |_| {});
    checked.map_err(|error| error.to_string())?;
    Ok((items, account))
}

#[test]
fn conventions_empty_masks_and_inverted_ones_are_counted_and_named() {
    let root = set(&[
        ("cut/a", square(70, 0, 1)),
        ("cut/b", square(70, 0, 255)),
        ("cut/c", square(70, 0, 0)),
        ("cut/d", square(70, 255, 0)),
    ]);
    let (items, account) = check(root.path(), false).unwrap();
    let masks = account.masks.as_ref().unwrap();
    let counts = [
        masks.matched,
        masks.odd_values,
        masks.empty,
        masks.nearly_everything,
    ];
    assert_eq!(counts, [4, 1, 1, 1]);
    assert_eq!(masks.conventions["values 0 and 1"], 1);
    let warnings = account.warnings.join("\n");
    assert!(
        warnings.contains("cut/c.png") && warnings.contains("cut/d.png"),
        "{warnings}"
    );
    // An image whose mask marks nothing would count its defect as good pixels.
    assert!(items[2].mask.is_none() && items[3].mask.is_some());
    let (_, account) = check(set(&[("cut/d", square(70, 255, 0))]).path(), true).unwrap();
    assert_eq!(account.masks.unwrap().nearly_everything, 0);
}

#[test]
fn all_bad_masks_are_named_before_anything_is_scored() {
    let root = set(&[
        ("cut/a", square(70, 0, 255)),
        ("cut/half", square(35, 0, 255)),
        ("cut/odd", square(70, 90, 200)),
        ("cut/broken", square(70, 0, 255)),
        ("good/0", square(70, 0, 255)),
    ]);
    fs::write(
        root.path().join("ground_truth/cut/broken_mask.png"),
        b"\x89PNG\r\n\x1a\nxx",
    )
    .unwrap();
    let error = check(root.path(), false).unwrap_err();
    let words = [
        "4 of 5 masks",
        "broken_mask.png",
        "half_mask.png: expected 70×70 px like its image, found 35×35",
        "odd_mask.png",
        "0_mask.png: marks 10.8 % of an image in a folder of good ones",
    ];
    for word in words {
        assert!(error.contains(word), "{word} in {error}");
    }
}

#[test]
fn masks_of_images_that_cannot_be_read_are_passed_over() {
    let root = set(&[("cut/a", square(70, 0, 255)), ("cut/b", square(35, 0, 255))]);
    fs::write(root.path().join("test/cut/b.png"), b"x").unwrap();
    assert!(check(root.path(), false).is_ok());
}
