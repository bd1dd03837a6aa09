use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::dataset::test_set::{TestItem, test_items};

/// A folder with these files, which need not be pictures: only names count here.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    root
}

/// The same beside the images of a plain training set.
fn beside_training(files: &[&str]) -> tempfile::TempDir {
    folder(&[files, &["train/good/0.png", "train/good/1.png"]].concat())
}

fn below(root: &Path, paths: &[PathBuf]) -> Vec<String> {
    let names = paths
        .iter()
        .map(|path| path_text(path.strip_prefix(root).unwrap()));
    names.collect()
}

fn training(files: &[&str]) -> (Vec<String>, Account) {
    let root = folder(files);
    let found = training_files(root.path()).unwrap();
    (below(root.path(), &found.items), found.account)
}

fn refused(files: &[&str]) -> String {
    training_files(folder(files).path())
        .unwrap_err()
        .to_string()
}

fn warned(account: &Account, word: &str) {
    let found = account
        .warnings
        .iter()
        .any(|warning| warning.contains(word));
    assert!(found, "{word} in {:?}", account.warnings);
}

/// Kind, name and mask of each test image.
fn test_set(files: &[&str]) -> (Vec<(String, String, Option<String>)>, Account) {
    let root = folder(files);
    let found = test_items(root.path()).unwrap();
    let items = found.items.iter().map(|item| {
        let mask = item
            .mask
            .as_ref()
            .map(|mask| below(root.path(), &mask.files).join("+"));
        (item.kind.clone(), path_text(&item.place()), mask)
    });
    (items.collect(), found.account)
}

/// The masks of the image `test/cut/000.png` beside this mask.
fn mask_of_000(mask: &str) -> Option<String> {
    let (items, account) = test_set(&["test/cut/000.png", "test/good/000.png", mask]);
    assert_eq!(
        account.masks.unwrap().unmatched,
        usize::from(items[0].2.is_none())
    );
    items[0].2.clone()
}

#[test]
fn a_plain_set_is_found_and_nothing_is_said() {
    let (files, account) = training(&["train/good/b.png", "train/good/a.png", "test/good/0.png"]);
    assert_eq!(files, ["train/good/a.png", "train/good/b.png"]);
    assert!(account.warnings.is_empty(), "{:?}", account.warnings);
    let (items, account) = test_set(&[
        "train/good/a.png",
        "test/good/0.png",
        "test/cut/0.png",
        "test/cut/1.png",
        "ground_truth/cut/0_mask.png",
        "ground_truth/cut/7_mask.png",
    ]);
    let kinds: Vec<_> = items
        .iter()
        .map(|(kind, _, mask)| (&kind[..], mask.is_some()))
        .collect();
    assert_eq!(kinds, [("cut", true), ("cut", false), ("good", false)]);
    let masks = account.masks.as_ref().unwrap();
    assert_eq!(
        (masks.matched, masks.unmatched, masks.images_without),
        (1, 1, 1)
    );
    assert!(account.images.left_out[0].file.ends_with("7_mask.png"));
    assert!(account.warnings.is_empty(), "{:?}", account.warnings);
}

#[test]
fn a_bare_folder_is_a_set_and_what_is_hidden_is_not_in_it() {
    let (files, account) = training(&["b.PNG", ".trashed-17-bad.png", "a.jpg", "notes.txt"]);
    assert_eq!(files, ["a.jpg", "b.PNG"]);
    assert_eq!(account.images.hidden, 1);
    assert!(
        account.images.left_out[0]
            .file
            .ends_with(".trashed-17-bad.png")
    );
}

#[test]
fn good_images_are_found_under_names_that_mean_the_same() {
    for name in ["Good", "GOOD", "OK", "ok", "normal", "good ", "defect-free"] {
        let (files, account) = training(&[&format!("train/{name}/0.png"), "shot.png"]);
        assert_eq!(files, [format!("train/{name}/0.png")]);
        warned(
            &account,
            &format!("train/{name} is taken as the good images"),
        );
        // An image beside the training folder is no training image.
        assert_eq!(account.images.stray, 1);
        let good = format!("test/{name}/0.png");
        let (items, account) = test_set(&[&good, "test/cut/0.png"]);
        assert_eq!(items[0].0 == "good", items[0].1.starts_with(name));
        warned(&account, &format!("test/{name} is taken"));
        assert_eq!(account.kinds["good"], 1);
        let root = folder(&[&good, "test/cut/0.png"]);
        let found = calibration_files(root.path()).unwrap();
        assert_eq!(below(root.path(), &found.items), [good]);
    }
}

#[test]
fn a_training_folder_without_good_has_good_images() {
    let (files, account) = training(&["train/0.png", "train/1.png", "test/good/0.png"]);
    assert_eq!(files, ["train/0.png", "train/1.png"]);
    warned(&account, "for want of");
    let (files, account) = training(&["train/0.png", "train/good/1.png", "train/cut/2.png"]);
    assert_eq!(files, ["train/good/1.png"]);
    assert_eq!((account.images.stray, account.images.nested), (1, 1));
    warned(&account, "train/cut are not used");
    // An empty folder `good` does not hide a full one.
    let root = folder(&["train/Good/0.png"]);
    fs::create_dir(root.path().join("train/good")).unwrap();
    assert_eq!(training_files(root.path()).unwrap().items.len(), 1);
}

#[test]
fn what_could_be_several_things_is_refused() {
    assert!(refused(&["train/ok/0.png", "train/normal/0.png"]).contains("call the one"));
    assert!(refused(&["good/0.png", "ok/0.png"]).contains("give the folder"));
    assert!(refused(&["good/0.png", "logo.png"]).contains("1 image beside"));
    // Images beside a data set's folders are no training images.
    let logo = refused(&["logo.png", "test/good/0.png", "ground_truth/cut/0_mask.png"]);
    assert!(
        logo.contains("ground_truth, test") && logo.contains("train/good"),
        "{logo}"
    );
    let (files, account) = training(&["normal/0.png", "abnormal/1.png", "ground_truth/cut/0.png"]);
    assert_eq!(files, ["normal/0.png"]);
    warned(&account, "normal is taken");
}

#[test]
fn images_in_folders_below_are_counted_and_not_read() {
    let (files, account) = training(&["train/good/0.png", "train/good/batch/1.png"]);
    assert_eq!((files.len(), account.images.nested), (1, 1));
    warned(&account, "train/good/batch");
    let error = refused(&["train/good/batch/0.png", "train/good/batch/1.png"]);
    assert!(
        error.contains("2 in folders below") && error.contains("batch"),
        "{error}"
    );
    let (items, account) = test_set(&["test/cut/0.png", "test/cut/b/1.png", "test/good/.x/2.png"]);
    assert_eq!(items.len(), 1);
    assert_eq!((account.images.nested, account.images.hidden), (1, 1));
}

#[test]
fn empty_and_missing_folders_give_different_errors() {
    let root = tempfile::tempdir().unwrap();
    let error = training_files(root.path());
    assert!(matches!(error, Err(DatasetError::Empty { .. })));
    let error = training_files(&root.path().join("no"));
    assert!(matches!(error, Err(DatasetError::Missing(_))));
    let error = test_items(root.path());
    assert!(matches!(error, Err(DatasetError::NoTest { .. })));
    let other = test_items(folder(&["normal/0.png", "abnormal/0.png"]).path());
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("it has abnormal, normal")
    );
    let kinds = calibration_files(folder(&["test/cut/0.png"]).path());
    assert!(kinds.unwrap_err().to_string().contains("it has cut"));
    let hidden = refused(&["train/good/.a.png"]);
    assert!(hidden.contains("1 hidden"), "{hidden}");
    assert!(refused(&["a.webp"]).contains("1 of other formats"));
}

#[test]
fn hidden_folders_and_folders_of_masks_are_no_kinds_of_defects() {
    let (items, account) = test_set(&[
        "test/good/0.png",
        "test/cut/0.png",
        "test/.ipynb_checkpoints/0.png",
        "test/masks/cut/0.png",
        "test/x.png",
    ]);
    let kinds: Vec<_> = items.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["cut", "good"]);
    assert_eq!(items[0].2.as_deref(), Some("test/masks/cut/0.png"));
    assert_eq!((account.images.hidden, account.images.stray), (1, 1));
    warned(&account, "belong to no kind");
}

#[test]
fn what_a_test_set_lacks_is_said() {
    let (_, account) = test_set(&["test/cut/0.png", "ground_truth/cut/0_mask.png"]);
    warned(&account, "no folder of good test images");
    let (_, account) = test_set(&["test/cut/0.png", "test/godo/0.png"]);
    warned(&account, "is godo meant?");
    let (_, account) = test_set(&["test/good/0.png"]);
    warned(&account, "no defect images");
    let (_, account) = test_set(&["test/good/0.png", "test/cut/0.png"]);
    warned(&account, "no masks");
}

#[test]
fn masks_are_found_under_every_usual_name() {
    for mask in [
        "ground_truth/cut/000_mask.png",
        "ground_truth/cut/000_mask.PNG",
        "ground_truth/cut/000_Mask.png",
        "ground_truth/cut/000_mask.bmp",
        "ground_truth/cut/000_mask.tif",
        "ground_truth/cut/000_mask.jpg",
        "ground_truth/cut/000.png",
        "ground_truth/cut/000-gt.png",
        "ground_truth/cut/mask_000.png",
        "ground_truth/cut/000.png_mask.png",
        "ground_truth/cut/000.png.png",
        "ground_truth/Cut/000_mask.png",
        "Ground_Truth/cut/000_mask.png",
        "groundtruth/cut/000_mask.png",
        "masks/cut/000_mask.png",
        "gt/cut/000_mask.png",
        "ground_truth/cut/000/000.png",
        "ground_truth/000_mask.png",
    ] {
        assert_eq!(mask_of_000(mask).as_deref(), Some(mask));
    }
    assert_eq!(
        mask_of_000("test/cut/000_mask.png").as_deref(),
        Some("test/cut/000_mask.png")
    );
    for other in [
        "ground_truth/cut/0_mask.png",
        "ground_truth/hole/000_mask.png",
    ] {
        assert_eq!(mask_of_000(other), None, "{other}");
    }
}

#[test]
fn the_better_of_two_masks_counts_and_the_other_is_named() {
    let (items, account) = test_set(&[
        "test/cut/000.png",
        "ground_truth/cut/000.png",
        "ground_truth/cut/000_mask.png",
        "masks/cut/000_mask.png",
    ]);
    assert_eq!(items[0].2.as_deref(), Some("ground_truth/cut/000_mask.png"));
    assert_eq!(account.masks.as_ref().unwrap().unmatched, 1);
    warned(&account, "not from");
    let (items, _) = test_set(&[
        "test/cut/a.png",
        "test/cut/A.png",
        "ground_truth/cut/A_mask.png",
        "ground_truth/cut/a_mask.png",
    ]);
    let masks: Vec<_> = items
        .iter()
        .map(|(.., mask)| mask.clone().unwrap())
        .collect();
    assert_eq!(
        masks,
        ["ground_truth/cut/A_mask.png", "ground_truth/cut/a_mask.png"]
    );
}

#[test]
fn a_flat_mask_of_two_images_belongs_to_none() {
    let (items, account) = test_set(&[
        "test/cut/000.png",
        "test/hole/000.png",
        "test/hole/001.png",
        "ground_truth/000_mask.png",
        "ground_truth/001_mask.png",
    ]);
    let masked: Vec<_> = items.iter().map(|(.., mask)| mask.is_some()).collect();
    assert_eq!(masked, [false, false, true]);
    warned(&account, "several kinds");
}

#[test]
fn loco_has_a_folder_of_masks_for_each_image() {
    let (items, _) = test_set(&[
        "test/logical/000.png",
        "ground_truth/logical/000/000.png",
        "ground_truth/logical/000/001.png",
    ]);
    let both = "ground_truth/logical/000/000.png+ground_truth/logical/000/001.png";
    assert_eq!(items[0].2.as_deref(), Some(both));
}

#[test]
fn any_bytes_are_a_kind_and_no_two_kinds_are_one() {
    let root = beside_training(&[]);
    let name = |bytes| OsStr::from_bytes(bytes).to_owned();
    let kinds: [&[u8]; 4] = [b"l\xf6t", b"l\xf5t", "лот".as_bytes(), b"<b>x & \"y\""];
    for kind in kinds {
        for (part, file) in [("test", "0.png"), ("ground_truth", "0_mask.png")] {
            let folder = root.path().join(part).join(name(kind));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), b"").unwrap();
        }
    }
    let found = test_items(root.path()).unwrap();
    assert_eq!(found.account.kinds.len(), 4, "{:?}", found.account.kinds);
    assert!(found.items.iter().all(|item| item.mask.is_some()));
    let mut places: Vec<PathBuf> = found.items.iter().map(TestItem::place).collect();
    places.dedup();
    assert_eq!(places.len(), 4);
}

#[test]
fn endings_do_not_decide_whose_mask_it_is() {
    let (items, account) = test_set(&[
        "test/cut/000.png",
        "test/cut/000.bmp",
        "test/cut/001.PNG",
        "ground_truth/cut/000_mask.png",
        "ground_truth/cut/001_mask.png",
    ]);
    assert!(items.iter().all(|(.., mask)| mask.is_some()));
    assert_eq!(account.masks.unwrap().unmatched, 0);
}
