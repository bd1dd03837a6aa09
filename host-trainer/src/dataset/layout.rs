//! Finds the files of a data set, in MVTec AD's layout (`train/good`, `test/<kind>`,
//! `ground_truth/<kind>/<name>_mask.png`) or in a bare folder of good images, and accounts for
//! everything beside them. Other names that mean the same are taken for it, which is said; where
//! several things could be meant, that is an error.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use scoring::io::account::counted;
use scoring::io::listing::{Listing, images_within};
use scoring::io::text::path_text;

use super::account::{Account, named};
use super::error::DatasetError;
use super::mask_files::{MaskFiles, MaskFinder};
use super::names::{
    image_of_mask, mask_folder_rank, means_good, resembles_good, same_but_for_case,
};

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

/// The kind of defect-free images.
const GOOD: &str = "good";

/// What was found in a data set.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// The files or test images, sorted.
    pub items: Vec<T>,
    /// The account of what was found beside them.
    pub account: Account,
}

/// Finds the good images to train on, sorted: those in `train/good` if there is a folder `train`,
/// otherwise those in the folder itself.
pub fn training_files(root: &Path) -> Result<Found<PathBuf>, DatasetError> {
    let mut account = Account::default();
    let top = list(root)?;
    account.images.beside(&top);
    let train = folder_called(&top, &["train", "training"]);
    let items = match train {
        Some(train) => {
            stray(&top.images, "beside the folder to train on", &mut account);
            good_images(train, "train", &mut account)?
        }
        None => bare_images(root, top, &mut account)?,
    };
    found(items, root, true, account)
}

/// Finds the good images to calibrate on, sorted: those in `test/good` if there is a folder `test`,
/// otherwise those in the folder itself.
pub fn calibration_files(root: &Path) -> Result<Found<PathBuf>, DatasetError> {
    let mut account = Account::default();
    let top = list(root)?;
    account.images.beside(&top);
    let items = match folder_called(&top, &["test"]) {
        Some(test) => {
            stray(&top.images, "beside the folder to calibrate on", &mut account);
            good_images(test, "test", &mut account)?
        }
        None => bare_images(root, top, &mut account)?,
    };
    found(items, root, false, account)
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
    stray(&top.images, "beside the folder of test images", &mut account);
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
        let names = folders.iter().map(|path| path.file_name().unwrap_or_default());
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
    } else if found.items.iter().all(|item| item.is_good() || item.mask.is_none()) {
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

/// The good images in a part of a data set: those in `good`, or in the one folder of a name that
/// means the same, or else directly in it.
fn good_images(
    folder: &Path,
    part: &str,
    account: &mut Account,
) -> Result<Vec<PathBuf>, DatasetError> {
    let listing = list(folder)?;
    account.images.beside(&listing);
    let candidates = good_folders(&listing)?;
    let chosen = match candidates.as_slice() {
        [] => None,
        [(path, _)] => Some(path.clone()),
        all => all.iter().find(|(path, _)| path.ends_with(GOOD)).map(|(path, _)| path.clone()),
    };
    let others = listing.folders.iter().filter(|path| Some(*path) != chosen.as_ref());
    let others: Vec<&PathBuf> = others.collect();
    if chosen.is_none() && !candidates.is_empty() {
        let all: Vec<String> = candidates.iter().map(|(path, _)| path_text(path)).collect();
        return Err(DatasetError::Layout {
            folder: folder.to_owned(),
            reason: format!(
                "{} could each have the good images: call the one that is meant good",
                named(&all)
            ),
        });
    }
    let Some(chosen) = chosen else {
        // A training set without a folder for its one kind. Test images are never so.
        if part == "test" {
            let found = instead(&listing);
            return Err(DatasetError::Empty {
                folder: folder.join(GOOD),
                layout: false,
                found,
            });
        }
        if !listing.images.is_empty() {
            account.warn(format!(
                "{} directly in {} are taken as good images, for want of {}",
                counted(listing.images.len(), "image"),
                path_text(folder),
                path_text(&folder.join(GOOD))
            ));
            account.good_folders.push(path_text(folder));
        }
        nested(&listing, account);
        return Ok(listing.images);
    };
    if chosen.file_name() != Some(OsStr::new(GOOD)) {
        account.warn(format!("{} is taken as the good images", path_text(&chosen)));
    }
    account.good_folders.push(path_text(&chosen));
    stray(&listing.images, "beside the folder of good images", account);
    // Defects in their folders are expected beside test images, and nowhere else.
    for other in others {
        let images = images_within(other);
        if images > 0 && (part == "train" || means_good(other.file_name().unwrap_or_default())) {
            account.images.nested(other, images);
            account.warn(format!(
                "{} in {} are not used: good images are taken from {}",
                counted(images, "image"),
                path_text(other),
                path_text(&chosen)
            ));
        }
    }
    let inside = list(&chosen)?;
    account.images.beside(&inside);
    nested(&inside, account);
    Ok(inside.images)
}

/// The good images of a folder that has neither `train` nor `test` to take them from.
fn bare_images(
    root: &Path,
    top: Listing,
    account: &mut Account,
) -> Result<Vec<PathBuf>, DatasetError> {
    let good = good_folders(&top)?;
    let layout: Vec<String> = top
        .folders
        .iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            let part = ["train", "training", "test"].iter();
            let mut part = part.map(OsStr::new);
            part.any(|part| same_but_for_case(name, part)) || mask_folder_rank(name).is_some()
        })
        .map(|path| path_text(Path::new(path.file_name().unwrap_or_default())))
        .collect();
    match good.as_slice() {
        [(folder, inside)] if top.images.is_empty() => {
            account.warn(format!("{} is taken as the good images", path_text(folder)));
            account.good_folders.push(path_text(folder));
            account.images.beside(inside);
            nested(inside, account);
            Ok(inside.images.clone())
        }
        [] if layout.is_empty() || top.images.is_empty() => {
            nested(&top, account);
            Ok(top.images)
        }
        [] => Err(DatasetError::Layout {
            folder: root.to_owned(),
            reason: format!(
                "it has {} as a data set has, but no folder of good images to use here; {} beside \
                 them may be anything: move good ones into train/good, or give their own folder",
                named(&layout),
                counted(top.images.len(), "image")
            ),
        }),
        [(folder, _), ..] => {
            let all: Vec<String> = good.iter().map(|(path, _)| path_text(path)).collect();
            let also = if top.images.is_empty() {
                String::new()
            } else {
                format!(" and the {} beside", counted(top.images.len(), "image"))
            };
            Err(DatasetError::Layout {
                folder: root.to_owned(),
                reason: format!(
                    "{}{also} could each be the good images: give the folder that is meant, for \
                     example {}",
                    named(&all),
                    path_text(folder)
                ),
            })
        }
    }
}

/// The folders whose name means good and that have images, directly or below.
fn good_folders(listing: &Listing) -> Result<Vec<(PathBuf, Listing)>, DatasetError> {
    let named = |path: &&PathBuf| means_good(path.file_name().unwrap_or_default());
    let mut found = Vec::new();
    for path in listing.folders.iter().filter(named) {
        let inside = list(path)?;
        if !inside.images.is_empty() || inside.images_below() > 0 {
            found.push((path.clone(), inside));
        }
    }
    Ok(found)
}

/// The folder of one of these names, in this case or another.
fn folder_called<'a>(listing: &'a Listing, names: &[&str]) -> Option<&'a PathBuf> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_owned();
    let exact = names.iter().find_map(|wanted| {
        let mut folders = listing.folders.iter();
        folders.find(|path| name(path) == *wanted)
    });
    exact.or_else(|| {
        let alike = |path: &&PathBuf| {
            let mut wanted = names.iter();
            wanted.any(|wanted| same_but_for_case(&name(path), OsStr::new(wanted)))
        };
        listing.folders.iter().find(alike)
    })
}

/// Names images that belong to no part of the layout.
fn stray(images: &[PathBuf], what: &str, account: &mut Account) {
    for path in images {
        account.images.stray(path, what);
    }
}

/// Names the folders below, with their images.
fn nested(listing: &Listing, account: &mut Account) {
    let mut images = 0;
    for folder in &listing.folders {
        let within = images_within(folder);
        account.images.nested(folder, within);
        images += within;
    }
    if images > 0 {
        account.warn(format!(
            "{} in folders below ({}) are not read: move them up to use them",
            counted(images, "image"),
            named(&listing.folders.iter().map(|path| path_text(path)).collect::<Vec<_>>())
        ));
    }
}

/// What a folder has instead of what was looked for, as the end of a sentence.
fn instead(listing: &Listing) -> String {
    let names = listing.folders.iter().filter_map(|path| path.file_name());
    let names: Vec<String> = names.map(|name| path_text(Path::new(name))).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; it has {}", named(names)),
    }
}

fn found<T>(
    items: Vec<T>,
    folder: &Path,
    layout: bool,
    account: Account,
) -> Result<Found<T>, DatasetError> {
    if items.is_empty() {
        let images = &account.images;
        let beside = [
            (images.nested, "in folders below, which are not read"),
            (images.stray, "outside the layout"),
            (images.hidden, "hidden"),
            (images.unsupported, "of other formats"),
        ];
        let beside: Vec<String> = beside
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let first = images.left_out.first();
        let first = first.map_or_else(String::new, |left| format!(", e.g. {}", left.file));
        let found = if beside.is_empty() {
            String::new()
        } else {
            format!("; {}{first}", beside.join(", "))
        };
        return Err(DatasetError::Empty {
            folder: folder.to_owned(),
            layout,
            found,
        });
    }
    Ok(Found { items, account })
}

/// Lists a folder.
fn list(folder: &Path) -> Result<Listing, DatasetError> {
    if !folder.is_dir() {
        return Err(DatasetError::Missing(folder.to_owned()));
    }
    Listing::of(folder).map_err(|source| DatasetError::Read {
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
