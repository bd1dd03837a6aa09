//! Image folders as training and test data.
//!
//! In: a folder in MVTec AD's layout, or a bare folder of good images. Out: prepared frames, tiles cut from them on
//! demand, and labelled test items. Nothing here scores or trains.

mod holdout;
mod layout;
mod tiles;
mod training;

pub use holdout::{Groups, Split, split};
pub use layout::{TestItem, calibration_files, read_mask, test_items, training_files};
pub use tiles::{Coordinates, cut_tile};
pub(crate) use training::chain;
pub use training::{Colour, Skipped, TrainingSet, digest_of_files, file_digest, hex, usable};

use std::path::PathBuf;

/// Why a folder cannot serve as data.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// No such folder.
    #[error("no folder at {}", .0.display())]
    Missing(PathBuf),
    /// The folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No images of the known kinds.
    #[error("no images in {} (looked for PNG, JPEG, BMP and TIFF{})", folder.display(), if *layout { ", in train/good or directly" } else { "" })]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Whether MVTec's layout was looked for too.
        layout: bool,
    },
    /// Every file was skipped.
    #[error("none of {count} images can be used; the first: {first}")]
    NothingLeft {
        /// How many there are.
        count: usize,
        /// Why the first cannot.
        first: String,
    },
    /// No test folder.
    #[error("{} has no test folder: expected MVTec's layout, test/<kind>/*.png and ground_truth/<kind>/<name>_mask.png", .0.display())]
    NoTest(PathBuf),
    /// A mask that cannot be used.
    #[error("ground truth {}: {reason}", path.display())]
    Mask {
        /// The mask.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The groups file is not as expected.
    #[error("{} line {line}: {reason}", path.display())]
    Groups {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A groups file about other images.
    #[error(
        "{} names none of the {count} images, e.g. not {}: expected paths relative to {}", path.display(), example.display(), root.display()
    )]
    OtherImages {
        /// The groups file.
        path: PathBuf,
        /// Images.
        count: usize,
        /// The first of them.
        example: PathBuf,
        /// What its paths are relative to.
        root: PathBuf,
    },
    /// A hold-out that leaves nothing to train on.
    #[error("holding out {fraction} of {parts} parts leaves none to train on")]
    HoldOut {
        /// The fraction asked for.
        fraction: f64,
        /// Parts there are.
        parts: usize,
    },
}
