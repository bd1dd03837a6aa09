//! Errors of data sets.

use std::path::PathBuf;

use scoring::io::image_file::ImageFileError;

/// Why a folder cannot be used as a data set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// There is no such folder.
    #[error("no folder at {}", .0.display())]
    Missing(PathBuf),
    /// The folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It has no images of the supported formats.
    #[error(
        "no images in {} (looked for PNG, JPEG, BMP and TIFF{}){found}",
        folder.display(),
        if *layout { ", in train/good or directly" } else { "" }
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Whether train/good, as in MVTec AD's layout, was looked for too.
        layout: bool,
        /// What was found instead, as the end of the sentence.
        found: String,
    },
    /// The folder's layout leaves open which images are meant.
    #[error("{}: {reason}", folder.display())]
    Layout {
        /// The folder.
        folder: PathBuf,
        /// What is unclear, and what to do.
        reason: String,
    },
    /// Many images cannot be read, so the rest may say little of the set.
    #[error(
        "{unreadable} of {count} images cannot be read, more than {} %: \
         --allow-unreadable goes on without them; the first: {first}",
        super::survey::MOST_UNREADABLE_PERCENT
    )]
    Unreadable {
        /// Images that cannot be read.
        unreadable: usize,
        /// Number of images.
        count: usize,
        /// The first of them, and why.
        first: String,
    },
    /// Nothing can be learnt from the images, or measured on them.
    #[error("{0}")]
    Unsuitable(String),
    /// Masks cannot be used.
    #[error(
        "{count} of {of} masks cannot be used: {named}; correct them, or take them away: images \
         without a mask count for the figures of whole images only"
    )]
    Masks {
        /// Number of these masks.
        count: usize,
        /// Number of masks.
        of: usize,
        /// The first of them, and why.
        named: String,
    },
    /// No file can be used.
    #[error("none of {count} images can be used; the first: {first}")]
    NothingLeft {
        /// Number of files.
        count: usize,
        /// Why the first one cannot be used.
        first: String,
    },
    /// An image differs from what it was when training read it first.
    #[error("{} has changed while training was reading it: {reason}; start again", path.display())]
    Changed {
        /// The image.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The tiles cannot be kept on disk.
    #[error(
        "the images do not fit into memory, and their tiles cannot be kept in {}: free some of its \
         disk, or train with fewer --tiles",
        folder.display()
    )]
    Tiles {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no test folder.
    #[error(
        "{} has no test folder: expected MVTec's layout, test/<kind>/*.png and \
         ground_truth/<kind>/<name>_mask.png{found}",
        folder.display()
    )]
    NoTest {
        /// The folder.
        folder: PathBuf,
        /// What was found instead, as the end of the sentence.
        found: String,
    },
    /// A ground-truth mask cannot be used.
    #[error("ground truth {}: {reason}", path.display())]
    Mask {
        /// The mask.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line of the groups file is malformed.
    #[error("{} line {line}: {reason}", path.display())]
    Groups {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The groups file names none of the images.
    #[error(
        "{} names none of the {count} images, e.g. not {}: expected paths relative to {}",
        path.display(),
        example.display(),
        root.display()
    )]
    OtherImages {
        /// The groups file.
        path: PathBuf,
        /// Number of images.
        count: usize,
        /// The first of them.
        example: PathBuf,
        /// The folder that its paths are relative to.
        root: PathBuf,
    },
    /// The hold-out leaves nothing to train on.
    #[error("holding out {fraction} of {parts} parts leaves none to train on")]
    HoldOut {
        /// The fraction asked for.
        fraction: f64,
        /// Number of parts.
        parts: usize,
    },
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// What is wrong with an image, without its name, which stands before it.
pub(super) fn without_path(error: &ImageFileError) -> String {
    match std::error::Error::source(error) {
        Some(source) => chain(source),
        None => error.to_string(),
    }
}
