//! Generates a small labelled data set in MVTec AD's layout, for the demo and for tests. It
//! resembles no real material, and no claim is based on it.

mod defect;
mod texture;

pub use defect::{Defect, apply};
pub use texture::{Texture, paint};

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageError, Luma, RgbImage};

use crate::seed::generator;

/// What to generate.
#[derive(Debug, Clone)]
pub struct SynthOptions {
    /// The material.
    pub texture: Texture,
    /// Side of an image in pixels.
    pub size_px: u32,
    /// Number of images in train/good.
    pub train: usize,
    /// Number of images in test/good.
    pub test_good: usize,
    /// Number of images of each kind of defect.
    pub per_kind: usize,
    /// Seed of all random draws.
    pub seed: u64,
}

/// Why no data set was written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The target exists already.
    #[error("{} exists already; choose another folder", .0.display())]
    Exists(PathBuf),
    /// The images would be smaller than a tile.
    #[error("expected images of at least 65 px, found {0}")]
    Size(u32),
    /// A folder or file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A picture cannot be written.
    #[error("cannot write {}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ImageError,
    },
}

/// Text of the README.txt in each data set.
const NOTE: &str = "Made by `host-trainer synth`: procedural textures with drawn defects. They \
                    resemble no real material.\n";

/// Writes the data set. It is written to a folder beside `target` and then renamed, so that a
/// failed run leaves nothing under that name.
pub fn write_dataset(
    target: &Path,
    options: &SynthOptions,
    on_progress: &mut dyn FnMut(usize),
) -> Result<(), SynthError> {
    if options.size_px < 65 {
        return Err(SynthError::Size(options.size_px));
    }
    let empty = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if target.exists() && !empty {
        return Err(SynthError::Exists(target.to_owned()));
    }
    // Removes the final slash that a shell's completion adds; with it the partial folder would be
    // inside the target instead of beside it.
    let target: PathBuf = target.components().collect();
    let mut partial = target.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let result = fill(&partial, options, on_progress).and_then(|()| {
        fs::rename(&partial, &target).map_err(|source| SynthError::Write {
            path: target.clone(),
            source,
        })
    });
    if result.is_err() {
        fs::remove_dir_all(&partial).ok();
    }
    result
}

/// Writes all images into `root`.
fn fill(
    root: &Path,
    options: &SynthOptions,
    on_progress: &mut dyn FnMut(usize),
) -> Result<(), SynthError> {
    let mut done = 0;
    let save = |folder: &str, name: String, picture: image::DynamicImage| {
        let folder = root.join(folder);
        let path = folder.join(name);
        fs::create_dir_all(&folder).map_err(|source| SynthError::Write {
            path: folder.clone(),
            source,
        })?;
        picture.save(&path).map_err(|source| SynthError::Picture {
            path: path.clone(),
            source,
        })
    };
    let good = |purpose: &str, index: usize| -> RgbImage {
        let mut rng = generator(options.seed, purpose, index as u64);
        paint(options.texture, options.size_px, &mut rng)
    };
    for (folder, purpose, count) in [
        ("train/good", "synth-train", options.train),
        ("test/good", "synth-test", options.test_good),
    ] {
        for index in 0..count {
            save(
                folder,
                format!("{index:03}.png"),
                good(purpose, index).into(),
            )?;
            done += 1;
            on_progress(done);
        }
    }
    for defect in Defect::ALL {
        for index in 0..options.per_kind {
            let clean = good(defect.name(), index);
            let mut rng = generator(options.seed, defect.name(), 1_000_000 + index as u64);
            let (image, mask) = apply(defect, &clean, &mut rng);
            let truth = GrayImage::from_fn(options.size_px, options.size_px, |x, y| {
                Luma([if mask[(y * options.size_px + x) as usize] {
                    255
                } else {
                    0
                }])
            });
            save(
                &format!("test/{}", defect.name()),
                format!("{index:03}.png"),
                image.into(),
            )?;
            let truth_folder = format!("ground_truth/{}", defect.name());
            save(&truth_folder, format!("{index:03}_mask.png"), truth.into())?;
            done += 1;
            on_progress(done);
        }
    }
    let note = root.join("README.txt");
    fs::write(&note, NOTE).map_err(|source| SynthError::Write { path: note, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_exactly_the_pixels_that_changed() {
        for texture in Texture::ALL {
            for defect in Defect::ALL {
                let clean = paint(texture, 128, &mut generator(1, "t", 0));
                assert_eq!(clean, paint(texture, 128, &mut generator(1, "t", 0)));
                let (image, mask) = apply(defect, &clean, &mut generator(1, "d", 0));
                let changed: Vec<bool> = clean
                    .pixels()
                    .zip(image.pixels())
                    .map(|(a, b)| a != b)
                    .collect();
                assert_eq!(mask, changed, "{texture:?} {defect:?}");
                let area = mask.iter().filter(|&&inside| inside).count();
                assert!(
                    (20..128 * 128 / 4).contains(&area),
                    "{texture:?} {defect:?}: {area} px"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes_with_or_without_a_final_slash() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, seed| {
            let options = SynthOptions {
                texture: Texture::Leather,
                size_px: 80,
                train: 1,
                test_good: 1,
                per_kind: 1,
                seed,
            };
            let target = root.path().join(name);
            write_dataset(&target, &options, &mut |_| {}).unwrap();
            let image = fs::read(target.join("test/smear/000.png")).unwrap();
            let mask = fs::read(target.join("ground_truth/smear/000_mask.png")).unwrap();
            (
                image,
                mask,
                fs::read(target.join("train/good/000.png")).unwrap(),
            )
        };
        let first = make("a", 3);
        assert_eq!(first, make("slash/", 3));
        assert_ne!(first, make("c", 4));
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().collect();
        assert_eq!(left.len(), 3, "nothing but the three folders: {left:?}");
    }

    #[test]
    fn the_layout_is_mvtecs_and_an_existing_folder_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("data");
        let options = SynthOptions {
            texture: Texture::Woven,
            size_px: 80,
            train: 2,
            test_good: 1,
            per_kind: 1,
            seed: 3,
        };
        write_dataset(&target, &options, &mut |_| {}).unwrap();
        let items = crate::dataset::test_items(&target).unwrap().items;
        assert_eq!(items.len(), 1 + Defect::ALL.len());
        assert!(
            items
                .iter()
                .all(|item| item.is_good() || item.mask.is_some())
        );
        let training = crate::dataset::training_files(&target).unwrap();
        assert_eq!(training.items.len(), 2);
        assert!(matches!(
            write_dataset(&target, &options, &mut |_| {}),
            Err(SynthError::Exists(_))
        ));
    }
}
