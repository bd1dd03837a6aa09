//! Finds the test images of a data set in MVTec AD's layout, each with its kind and its mask.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use scoring::io::account::counted;
use scoring::io::text::path_text;

use super::account::{Account, named};
use super::error::DatasetError;
use super::layout::{Found, GOOD, folder_called, found, instead, list, nested, stray};
use super::mask_files::{MaskFiles, MaskFinder};
use super::names::{image_of_mask, mask_folder_rank, means_good, resembles_good};

/// One labelled test image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestItem {
    /// Name of its folder under `test`; `good` means defect-free, whatever its folder is called.
    pub kind: String,
    /// The image.
    pub image: PathBuf,
    /// Its ground-truth mask, if there is one. Defect images without a mask count for image metrics
    /// only.
    pub mask: Option<MaskFiles>,
}

impl TestItem {
    /// Whether it is labelled defect-free.
    pub fn is_good(&self) -> bool {
        self.kind == GOOD
    }

    /// Its path below `test`: its folder's own name and its file name.
    pub fn place(&self) -> PathBuf {
        let folder = self.image.parent().and_then(Path::file_name);
        Path::new(folder.unwrap_or_default()).join(self.image.file_name().unwrap_or_default())
    }
}

/// Finds all images under `test`, sorted by kind and name, with their masks.
pub fn test_items(root: &Path) -> Result<Found<TestItem>, DatasetError> {
    let mut account = Account::default();
    let top = list(root)?;
    account.images.beside(&top);
    let Some(test) = folder_called(&top, &["test"]) else {
        return Err(DatasetError::NoTest {
            folder: root.to_owned(),
            found: instead(&top),
        });
    };
    stray(
        &top.images,
        "beside the folder of test images",
        &mut account,
    );
    let inside = list(test)?;
    account.images.beside(&inside);
    stray(&inside.images, "in no folder of a kind", &mut account);
    if !inside.images.is_empty() {
        account.warn(format!(
            "{} directly in {} belong to no kind and are not used: move good ones to good, others \
             to a folder for each kind of defect",
            counted(inside.images.len(), "image"),
            path_text(test)
        ));
    }
    // Masks that lie among the kinds are no kind of defect. `label` may be one.
    let is_masks = |path: &PathBuf| {
        let rank = mask_folder_rank(path.file_name().unwrap_or_default());
        rank.is_some_and(|rank| rank < 4)
    };
    let (among, kinds): (Vec<PathBuf>, Vec<PathBuf>) =
        inside.folders.into_iter().partition(is_masks);
    let folders: Vec<PathBuf> = top.folders.iter().chain(&among).cloned().collect();
    let mut masks = MaskFinder::among(&folders, &mut account);
    let mut items = Vec::new();
    let mut good = Vec::new();
    for folder in &kinds {
        let name = folder.file_name().unwrap_or_default();
        let (mut own, beside) = images_of_kind(folder, name, &mut account)?;
        masks.give(&mut own, name, &beside);
        if means_good(name) && !own.is_empty() {
            good.push(path_text(folder));
            if name != GOOD {
                account.warn(format!("{} is taken as the good images", path_text(folder)));
            }
        }
        items.append(&mut own);
    }
    masks.give_flat(&mut items, &mut account);
    masks.finish(&items, &mut account);
    for item in &items {
        *account.kinds.entry(item.kind.clone()).or_default() += 1;
    }
    account.good_folders = good;
    let found = found(items, test, false, account)?;
    Ok(with_warnings_of_kinds(found, &kinds))
}

/// Warns of what the figures will lack.
fn with_warnings_of_kinds(mut found: Found<TestItem>, folders: &[PathBuf]) -> Found<TestItem> {
    let account = &mut found.account;
    if account.good_folders.is_empty() {
        let names = folders
            .iter()
            .map(|path| path.file_name().unwrap_or_default());
        let close: Vec<String> = names
            .filter(|name| resembles_good(name))
            .map(|name| path_text(Path::new(name)))
            .collect();
        let hint = if close.is_empty() {
            String::new()
        } else {
            format!("; is {} meant?", named(&close))
        };
        account.warn(format!(
            "no folder of good test images, so there are no false rejects and no image AUROC: \
             expected test/good{hint}"
        ));
    }
    if found.items.iter().all(TestItem::is_good) {
        account.warn("no defect images, so there are no misses, no AUROC and no AUPRO");
    } else if found
        .items
        .iter()
        .all(|item| item.is_good() || item.mask.is_none())
    {
        account.warn(
            "no masks, so there are figures of whole images only: expected \
             ground_truth/<kind>/<name>_mask.png",
        );
    }
    found
}

/// Images of a kind, and masks that lie beside their images.
fn images_of_kind(
    folder: &Path,
    name: &OsStr,
    account: &mut Account,
) -> Result<(Vec<TestItem>, HashMap<PathBuf, PathBuf>), DatasetError> {
    let listing = list(folder)?;
    account.images.beside(&listing);
    nested(&listing, account);
    let kind = if means_good(name) {
        GOOD.to_owned()
    } else {
        path_text(Path::new(name))
    };
    let stems: HashMap<&OsStr, &PathBuf> = listing
        .images
        .iter()
        .filter_map(|path| Some((path.file_stem()?, path)))
        .collect();
    let of_mask = |path: &PathBuf| {
        let image = stems.get(image_of_mask(path.file_stem()?)?)?;
        Some((*image).clone())
    };
    let mut beside = HashMap::new();
    let mut items = Vec::new();
    for path in &listing.images {
        match of_mask(path) {
            Some(image) => {
                beside.insert(image, path.clone());
            }
            None => items.push(TestItem {
                kind: kind.clone(),
                image: path.clone(),
                mask: None,
            }),
        }
    }
    if !beside.is_empty() {
        account.warn(format!(
            "{} in {} lie beside their images: they are taken as masks, not as images",
            counted(beside.len(), "mask"),
            path_text(folder)
        ));
    }
    Ok((items, beside))
}
