//! Finds the good images of a data set, in MVTec AD's layout (`train/good`, `test/good`) or in a
//! bare folder of good images, and accounts for everything beside them. Other names that mean the
//! same are taken for it, which is said; where several things could be meant, that is an error.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use scoring::io::account::counted;
use scoring::io::listing::{Listing, images_within};
use scoring::io::text::path_text;

use super::account::{Account, named};
use super::error::DatasetError;
use super::names::{mask_folder_rank, means_good, same_but_for_case};

/// The kind of defect-free images, and the name of their folder.
pub(super) const GOOD: &str = "good";

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
            stray(
                &top.images,
                "beside the folder to calibrate on",
                &mut account,
            );
            good_images(test, "test", &mut account)?
        }
        None => bare_images(root, top, &mut account)?,
    };
    found(items, root, false, account)
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
        all => all
            .iter()
            .find(|(path, _)| path.ends_with(GOOD))
            .map(|(path, _)| path.clone()),
    };
    let others = listing
        .folders
        .iter()
        .filter(|path| Some(*path) != chosen.as_ref());
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
        // Folders of good images that have none may have hidden ones.
        for path in &listing.folders {
            if means_good(path.file_name().unwrap_or_default()) {
                account.images.beside(&list(path)?);
            }
        }
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
        account.warn(format!(
            "{} is taken as the good images",
            path_text(&chosen)
        ));
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
pub(super) fn folder_called<'a>(listing: &'a Listing, names: &[&str]) -> Option<&'a PathBuf> {
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
pub(super) fn stray(images: &[PathBuf], what: &str, account: &mut Account) {
    for path in images {
        account.images.stray(path, what);
    }
}

/// Names the folders below, with their images.
pub(super) fn nested(listing: &Listing, account: &mut Account) {
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
            named(
                &listing
                    .folders
                    .iter()
                    .map(|path| path_text(path))
                    .collect::<Vec<_>>()
            )
        ));
    }
}

/// What a folder has instead of what was looked for, as the end of a sentence.
pub(super) fn instead(listing: &Listing) -> String {
    let names = listing.folders.iter().filter_map(|path| path.file_name());
    let names: Vec<String> = names.map(|name| path_text(Path::new(name))).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; it has {}", named(names)),
    }
}

pub(super) fn found<T>(
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
pub(super) fn list(folder: &Path) -> Result<Listing, DatasetError> {
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
