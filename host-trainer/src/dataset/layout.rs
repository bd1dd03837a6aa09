//! Finds the files of a data set, in MVTec AD's layout (`train/good`, `test/<kind>`,
//! `ground_truth/<kind>/<name>_mask.png` with 255 for defects) or in a bare folder of good images.

use std::fs;
use std::path::{Path, PathBuf};

use scoring::io::image_file::is_image_name;

use super::error::DatasetError;

/// One labelled test image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestItem {
    /// Name of its folder under `test`; `good` means defect-free.
    pub kind: String,
    /// The image.
    pub image: PathBuf,
    /// Its ground-truth mask, if there is one. Defect images without a mask count for image metrics
    /// only.
    pub mask: Option<PathBuf>,
}

impl TestItem {
    /// Whether it is labelled defect-free.
    pub fn is_good(&self) -> bool {
        self.kind == "good"
    }
}

/// Finds the good images to train on, sorted: those in `train/good` if it exists, otherwise those
/// in the folder itself.
pub fn training_files(root: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mvtec = root.join("train").join("good");
    let folder = if mvtec.is_dir() {
        mvtec
    } else {
        root.to_owned()
    };
    let files = images_in(&folder)?;
    if files.is_empty() {
        return Err(DatasetError::Empty {
            folder: root.to_owned(),
            layout: true,
        });
    }
    Ok(files)
}

/// Finds the good images to calibrate on, sorted: those in `test/good` if it exists, otherwise
/// those in the folder itself.
pub fn calibration_files(root: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let good = root.join("test").join("good");
    let folder = if good.is_dir() { good } else { root.to_owned() };
    let files = images_in(&folder)?;
    if files.is_empty() {
        return Err(DatasetError::Empty {
            folder,
            layout: false,
        });
    }
    Ok(files)
}

/// Finds all images under `test`, sorted by kind and name, with their masks.
pub fn test_items(root: &Path) -> Result<Vec<TestItem>, DatasetError> {
    let test = root.join("test");
    if !root.is_dir() {
        return Err(DatasetError::Missing(root.to_owned()));
    }
    if !test.is_dir() {
        return Err(DatasetError::NoTest(root.to_owned()));
    }
    let mut items = Vec::new();
    for folder in entries(&test)?.into_iter().filter(|path| path.is_dir()) {
        let kind = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for image in images_in(&folder)? {
            let stem = image.file_stem().unwrap_or_default().to_string_lossy();
            let mask = root
                .join("ground_truth")
                .join(&kind)
                .join(format!("{stem}_mask.png"));
            items.push(TestItem {
                mask: mask.is_file().then_some(mask),
                kind: kind.clone(),
                image,
            });
        }
    }
    if items.is_empty() {
        return Err(DatasetError::Empty {
            folder: test,
            layout: false,
        });
    }
    Ok(items)
}

/// Reads a ground-truth mask as row-major values, `true` for defects (values above 127). It must
/// have the size of its image.
pub fn read_mask(path: &Path, width_px: u32, height_px: u32) -> Result<Vec<bool>, DatasetError> {
    let wrong = |reason: String| DatasetError::Mask {
        path: path.to_owned(),
        reason,
    };
    let mask = image::open(path)
        .map_err(|error| wrong(error.to_string()))?
        .into_luma8();
    if mask.dimensions() != (width_px, height_px) {
        let (width, height) = mask.dimensions();
        return Err(wrong(format!(
            "expected {width_px}×{height_px} px like its image, found {width}×{height}"
        )));
    }
    Ok(mask
        .into_raw()
        .into_iter()
        .map(|value| value > 127)
        .collect())
}

/// The images directly in a folder, sorted.
fn images_in(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let files = entries(folder)?;
    Ok(files
        .into_iter()
        .filter(|path| path.is_file() && is_image_name(path))
        .collect())
}

/// The entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    if !folder.is_dir() {
        return Err(DatasetError::Missing(folder.to_owned()));
    }
    let read = |source| DatasetError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut paths = fs::read_dir(folder)
        .map_err(read)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(3, 2, image::Luma([200]))
            .save(path)
            .unwrap();
    }

    #[test]
    fn finds_mvtec_layout_and_masks() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        touch(at("train/good/b.png"));
        touch(at("train/good/a.png"));
        touch(at("test/good/0.png"));
        touch(at("test/cut/0.png"));
        touch(at("test/cut/1.png"));
        touch(at("ground_truth/cut/0_mask.png"));
        touch(at("ground_truth/cut/7_mask.png"));
        let names: Vec<_> = training_files(root.path()).unwrap();
        assert_eq!(names, [at("train/good/a.png"), at("train/good/b.png")]);
        let items = test_items(root.path()).unwrap();
        let found: Vec<_> = items
            .iter()
            .map(|i| (i.kind.as_str(), i.mask.is_some()))
            .collect();
        assert_eq!(found, [("cut", true), ("cut", false), ("good", false)]);
    }

    #[test]
    fn a_mask_of_another_size_is_an_error_that_names_both() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.png");
        touch(path.clone());
        assert_eq!(read_mask(&path, 3, 2).unwrap(), vec![true; 6]);
        let error = read_mask(&path, 4, 2).unwrap_err().to_string();
        assert!(error.contains("4×2") && error.contains("3×2"), "{error}");
    }

    #[test]
    fn empty_and_missing_folders_give_different_errors() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(
            training_files(root.path()),
            Err(DatasetError::Empty { .. })
        ));
        assert!(matches!(
            training_files(&root.path().join("no")),
            Err(DatasetError::Missing(_))
        ));
        assert!(matches!(
            test_items(root.path()),
            Err(DatasetError::NoTest(_))
        ));
    }
}
