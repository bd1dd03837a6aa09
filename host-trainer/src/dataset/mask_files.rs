//! Finds the masks of test images, and checks all of them before anything is scored. In: a data
//! set's folders and its test images. Out: the files of each image's mask, and the account.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use scoring::io::account::counted;
use scoring::io::listing::Listing;
use scoring::io::text::path_text;

use super::account::{Account, MaskAccount, named};
use super::error::DatasetError;
use super::masks::Mask;
use super::names::{image_of_mask, mask_folder_rank, means_good, same_but_for_case};
use super::parallel::in_parallel;
use super::survey::Survey;
use super::test_set::TestItem;

/// Most masks that an error names.
const NAMED: usize = 10;

/// The files of an image's mask: one, or several whose defects are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskFiles {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Whether defects and good pixels are exchanged in them.
    pub inverted: bool,
}

impl MaskFiles {
    /// Reads the mask, which must have this size, that of its image.
    pub fn read(&self, width_px: u32, height_px: u32) -> Result<Mask, DatasetError> {
        let mask = Mask::read(&self.files, self.inverted)?;
        let fits = mask.check_size(width_px, height_px, "its image");
        fits.map_err(|reason| DatasetError::Mask {
            path: self.files.first().cloned().unwrap_or_default(),
            reason,
        })?;
        Ok(mask)
    }
}

/// The masks in a folder, by the images that they belong to.
#[derive(Debug, Default)]
struct MaskFolder {
    /// Files and folders of masks, with the names that their images may have, the more telling
    /// name first.
    masks: Vec<(Vec<Vec<u8>>, PathBuf)>,
    /// Their numbers by each of those names, in lower case.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
}

impl MaskFolder {
    fn of(listing: &Listing) -> Self {
        let mut found = Self::default();
        for path in &listing.images {
            let stem = path.file_stem().unwrap_or_default();
            let names = [image_of_mask(stem), Some(stem)];
            found.add(names.into_iter().flatten(), path);
        }
        // MVTec LOCO has a folder for each image, with a file for each defect in it.
        for path in &listing.folders {
            found.add(path.file_name().into_iter(), path);
        }
        found
    }

    fn add<'a>(&mut self, names: impl Iterator<Item = &'a OsStr>, path: &Path) {
        let names: Vec<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
        for name in &names {
            let numbers = self.by_name.entry(name.to_ascii_lowercase()).or_default();
            numbers.push(self.masks.len());
        }
        self.masks.push((names, path.to_owned()));
    }

    /// The mask of an image: named after its whole name, or else after its name without the
    /// ending; a name with `mask` in it before a bare one, and the image's case before another.
    fn of_image(&self, image: &Path) -> Option<&Path> {
        let names = [image.file_name()?, image.file_stem()?].map(OsStr::as_bytes);
        names.into_iter().find_map(|name| {
            let numbers = self.by_name.get(&name.to_ascii_lowercase())?;
            let best = numbers.iter().min_by_key(|number| {
                let (own, path) = &self.masks[**number];
                let rank = own.iter().position(|own| own.eq_ignore_ascii_case(name));
                let exact = own.iter().any(|own| own == name);
                (!exact, own.len() < 2, rank, path)
            });
            best.map(|number| self.masks[*number].1.as_path())
        })
    }
}

/// Where the masks of a data set are.
#[derive(Debug)]
pub(super) struct MaskFinder {
    /// The folder of masks, if there is one, and what is directly in it.
    root: Option<(PathBuf, Listing)>,
    account: MaskAccount,
    used: BTreeSet<PathBuf>,
}

impl MaskFinder {
    /// Looks for the folder of masks among these folders, of which the best known name counts.
    pub(super) fn among(folders: &[PathBuf], account: &mut Account) -> Self {
        let name = |path: &PathBuf| mask_folder_rank(path.file_name().unwrap_or_default());
        let mut found: Vec<&PathBuf> = folders.iter().filter(|path| name(path).is_some()).collect();
        found.sort_by_key(|path| (name(path), (*path).clone()));
        if let [first, others @ ..] = found.as_slice()
            && !others.is_empty()
        {
            let others: Vec<String> = others.iter().map(|path| path_text(path)).collect();
            account.warn(format!(
                "masks are taken from {} and not from {}",
                path_text(first),
                named(&others)
            ));
        }
        let listed = |path: &&PathBuf| Some(((*path).clone(), Listing::of(path).ok()?));
        Self {
            root: found.first().and_then(listed),
            account: MaskAccount::default(),
            used: BTreeSet::new(),
        }
    }

    /// Gives the images of a kind their masks. `beside` has masks found beside the images.
    pub(super) fn give(
        &mut self,
        items: &mut [TestItem],
        folder: &OsStr,
        beside: &HashMap<PathBuf, PathBuf>,
    ) {
        let masks = self
            .folder_of(folder)
            .map(|listing| MaskFolder::of(&listing));
        for item in items {
            let own = masks.as_ref().and_then(|masks| masks.of_image(&item.image));
            let Some(path) = own.or_else(|| beside.get(&item.image).map(PathBuf::as_path)) else {
                continue;
            };
            self.used.insert(path.to_owned());
            let files = if path.is_dir() {
                Listing::of(path)
                    .map(|listing| listing.images)
                    .unwrap_or_default()
            } else {
                vec![path.to_owned()]
            };
            item.mask = (!files.is_empty()).then_some(MaskFiles {
                files,
                inverted: false,
            });
        }
    }

    /// What is in the folder of the masks of a kind: of the same name, or else of one that differs
    /// in case only, or also means good.
    fn folder_of(&self, kind: &OsStr) -> Option<Listing> {
        let (_, root) = self.root.as_ref()?;
        let name = |path: &&PathBuf| path.file_name().unwrap_or_default().to_owned();
        let folders = &root.folders;
        let alike = |path: &&PathBuf| {
            same_but_for_case(&name(path), kind) || (means_good(kind) && means_good(&name(path)))
        };
        let exact = folders.iter().find(|path| name(path) == kind);
        let found = exact.or_else(|| folders.iter().find(alike))?;
        Listing::of(found).ok()
    }

    /// Gives masks that lie directly in the folder of masks, without a folder for each kind, to the
    /// images that have none. A name that several images have belongs to none of them.
    pub(super) fn give_flat(&mut self, items: &mut [TestItem], account: &mut Account) {
        let Some((root, listing)) = self.root.as_ref() else {
            return;
        };
        if listing.images.is_empty() {
            return;
        }
        let flat = MaskFolder::of(&Listing {
            folders: Vec::new(),
            ..listing.clone()
        });
        let mut takers: HashMap<&Path, Vec<usize>> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            if let Some(mask) = flat.of_image(&item.image).filter(|_| item.mask.is_none()) {
                takers.entry(mask).or_default().push(number);
            }
        }
        let mut shared = Vec::new();
        for (mask, numbers) in takers {
            let defects = numbers
                .iter()
                .copied()
                .filter(|number| !items[*number].is_good());
            let defects: Vec<usize> = defects.collect();
            // A good image needs no mask, so it does not compete for one.
            let &[number] = (if defects.is_empty() {
                &numbers
            } else {
                &defects
            })
            .as_slice() else {
                shared.push(path_text(mask));
                continue;
            };
            self.used.insert(mask.to_owned());
            items[number].mask = Some(MaskFiles {
                files: vec![mask.to_owned()],
                inverted: false,
            });
        }
        if !shared.is_empty() {
            shared.sort();
            account.warn(format!(
                "{} directly in {} fit images of several kinds and are not used ({}): make a \
                 folder for each kind, as in test",
                counted(shared.len(), "mask"),
                path_text(root),
                named(&shared)
            ));
        }
    }

    /// Counts what was found, and names the masks of no image.
    pub(super) fn finish(mut self, items: &[TestItem], account: &mut Account) {
        self.account.matched = items.iter().filter(|item| item.mask.is_some()).count();
        let without = |item: &&TestItem| item.mask.is_none() && !item.is_good();
        self.account.images_without = items.iter().filter(without).count();
        let mut unmatched = Vec::new();
        if let Some((root, listing)) = &self.root {
            self.unmatched_in(listing, 2, &mut unmatched);
            account.images.beside(listing);
            if self.account.matched == 0 && !unmatched.is_empty() {
                account.warn(format!(
                    "none of {} in {} belongs to a test image: expected \
                     {}/<kind>/<name>_mask.png for test/<kind>/<name>.png",
                    counted(unmatched.len(), "mask"),
                    path_text(root),
                    path_text(root)
                ));
            }
        }
        self.account.unmatched = unmatched.len();
        for path in &unmatched {
            account.images.name(path, "a mask of no test image");
        }
        account.masks = Some(self.account);
    }

    /// Collects the masks in a folder, and in those below it, that no image has.
    fn unmatched_in(&self, listing: &Listing, depth: usize, unmatched: &mut Vec<PathBuf>) {
        let free = |path: &&PathBuf| !self.used.contains(*path);
        unmatched.extend(listing.images.iter().filter(free).cloned());
        if depth == 0 {
            return;
        }
        for folder in listing.folders.iter().filter(free) {
            if let Ok(below) = Listing::of(folder) {
                self.unmatched_in(&below, depth - 1, unmatched);
            }
        }
    }
}

/// Reads all masks before anything is scored, and adds them to the account. `inverted` exchanges
/// defects and good pixels in all of them. `survey` has the images' sizes. Masks of defect images
/// that mark nothing are taken away, so that these images count for the figures of whole images
/// only. An error names the masks that cannot be used: unreadable, of another size than their
/// image, ambiguous, or marking defects in a good image.
pub fn check_masks(
    items: &mut [TestItem],
    survey: &Survey,
    inverted: bool,
    account: &mut Account,
    on_progress: &mut dyn FnMut(usize),
) -> Result<(), DatasetError> {
    let sizes: HashMap<&Path, (u32, u32)> = survey
        .images
        .iter()
        .map(|image| {
            let facts = &image.facts;
            (image.file.as_path(), (facts.width_px, facts.height_px))
        })
        .collect();
    for item in items.iter_mut() {
        if let Some(mask) = &mut item.mask {
            mask.inverted = inverted;
        }
    }
    let checked = in_parallel(items, on_progress, |_, item| {
        let mask = item.mask.as_ref()?;
        let size = sizes.get(item.image.as_path())?;
        Some(check_mask(item, mask, *size))
    });
    let mut masks = account.masks.take().unwrap_or_default();
    let (mut wrong, mut of) = (Vec::new(), 0);
    let (mut empty, mut nearly_everything) = (Vec::new(), Vec::new());
    for (item, checked) in items.iter_mut().zip(checked) {
        let Some(checked) = checked else { continue };
        of += 1;
        let checked = match checked {
            Ok(checked) => checked,
            Err(reason) => {
                wrong.push(reason);
                continue;
            }
        };
        if let Some(convention) = checked.convention {
            masks.odd_values += 1;
            *masks.conventions.entry(convention).or_default() += 1;
        }
        if checked.empty && !item.is_good() {
            empty.push(path_text(&item.image));
            item.mask = None;
        }
        if checked.nearly_everything {
            nearly_everything.push(path_text(&item.image));
        }
    }
    if !wrong.is_empty() {
        let rest = wrong.len().saturating_sub(NAMED);
        let mut named = wrong[..wrong.len() - rest].join("; ");
        if rest > 0 {
            named += &format!("; and {rest} more");
        }
        return Err(DatasetError::Masks {
            count: wrong.len(),
            of,
            named,
        });
    }
    masks.empty = empty.len();
    masks.nearly_everything = nearly_everything.len();
    if !empty.is_empty() {
        account.warn(format!(
            "{} whose mask marks nothing ({}): only for the figures of whole images",
            counted(empty.len(), "defect image"),
            named(&empty)
        ));
    }
    if !nearly_everything.is_empty() {
        account.warn(format!(
            "{} whose mask marks nearly everything ({}): are good pixels and defects exchanged? \
             --invert-masks exchanges them",
            counted(nearly_everything.len(), "image"),
            named(&nearly_everything)
        ));
    }
    account.masks = Some(masks);
    Ok(())
}

/// What was found out about a mask.
struct Checked {
    convention: Option<String>,
    empty: bool,
    nearly_everything: bool,
}

/// Checks the mask of an image of this size. The error names the mask.
fn check_mask(item: &TestItem, mask: &MaskFiles, size: (u32, u32)) -> Result<Checked, String> {
    let read = mask.read(size.0, size.1).map_err(|error| match error {
        DatasetError::Mask { path, reason } => format!("{}: {reason}", path_text(&path)),
        other => other.to_string(),
    })?;
    let marked = read.marked();
    if item.is_good() && marked > 0.0 {
        let path = mask.files.first().cloned().unwrap_or_default();
        return Err(format!(
            "{}: marks {:.1} % of an image in a folder of good ones",
            path_text(&path),
            100.0 * marked
        ));
    }
    Ok(Checked {
        nearly_everything: read.marks_nearly_everything(),
        convention: read.convention,
        empty: marked == 0.0,
    })
}

#[cfg(test)]
mod tests;
