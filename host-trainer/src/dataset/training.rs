//! Good images in memory, ready to cut tiles from: resized and with their colour handled by the very code that the
//! camera runs, at their native bit depth.

use std::fs;
use std::path::{Path, PathBuf};

use edge_runtime::inspect::frame::{Channels, Frame};
use edge_runtime::inspect::preprocess::prepare;
use edge_runtime::io::image_file::read_frame;
use proto::manifest::{ColourMode, Input, InputSize};
use sha2::{Digest, Sha256};

use super::DatasetError;

/// What the user wants done with colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// Grey when every image is, else colour.
    Auto,
    /// Three channels.
    Rgb,
    /// Luminance only.
    Grey,
}

/// A file that could not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub reason: String,
}

/// Prepared good images with what identifies them.
#[derive(Debug)]
pub struct TrainingSet {
    /// The images at the size that they are scored at.
    pub frames: Vec<Frame>,
    /// Size and colour handling that made them.
    pub input: Input,
    /// SHA-256 of every file used.
    pub digests: Vec<[u8; 32]>,
    /// Files left out.
    pub skipped: Vec<Skipped>,
}

impl TrainingSet {
    /// Reads and prepares `files`; what cannot be read, or is smaller than a tile, is skipped and named.
    /// `on_progress` is told how many files are done.
    pub fn load(
        files: &[PathBuf],
        size: InputSize,
        colour: Colour,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DatasetError> {
        let mut skipped = Vec::new();
        let mut used = Vec::new();
        for (index, file) in files.iter().enumerate() {
            match load_one(file, size, colour) {
                Ok(image) => used.push(image),
                Err(reason) => skipped.push(Skipped {
                    file: file.clone(),
                    reason,
                }),
            }
            on_progress(index + 1);
        }
        if used.is_empty() {
            return Err(DatasetError::NothingLeft {
                count: files.len(),
                first: skipped
                    .first()
                    .map(|s| format!("{}: {}", s.file.display(), s.reason))
                    .unwrap_or_default(),
            });
        }
        let grey = used
            .iter()
            .all(|(frame, _)| frame.channels() == Channels::Grey);
        let colour = if grey {
            ColourMode::Grey
        } else {
            ColourMode::Rgb
        };
        let input = Input { size, colour };
        let mut set = Self {
            frames: Vec::new(),
            input,
            digests: Vec::new(),
            skipped,
        };
        for (frame, digest) in used {
            // Only a grey image among coloured ones still changes here; it has its size already.
            let frame = if frame.channels() == Channels::Grey && !grey {
                let native = Input {
                    size: InputSize::Native,
                    colour,
                };
                prepare(&frame, &native).map_err(|error| DatasetError::NothingLeft {
                    count: files.len(),
                    first: error.to_string(),
                })?
            } else {
                frame
            };
            set.frames.push(frame);
            set.digests.push(digest);
        }
        Ok(set)
    }
}

/// The files that can be read and prepared, in their order, and those that cannot.
pub fn usable(
    files: &[PathBuf],
    input: &Input,
    on_progress: &mut dyn FnMut(usize),
) -> (Vec<PathBuf>, Vec<Skipped>) {
    let (mut good, mut skipped) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let prepared = read_frame(file)
            .map_err(|error| chain(&error))
            .and_then(|frame| prepare(&frame, input).map_err(|error| chain(&error)));
        match prepared {
            Ok(_) => good.push(file.clone()),
            Err(reason) => skipped.push(Skipped {
                file: file.clone(),
                reason,
            }),
        }
        on_progress(index + 1);
    }
    (good, skipped)
}

fn load_one(file: &Path, size: InputSize, wanted: Colour) -> Result<(Frame, [u8; 32]), String> {
    let frame = read_frame(file).map_err(|error| chain(&error))?;
    let colour = match (wanted, frame.channels()) {
        (Colour::Grey, _) | (Colour::Auto, Channels::Grey) => ColourMode::Grey,
        (Colour::Rgb, _) | (Colour::Auto, Channels::Rgb) => ColourMode::Rgb,
    };
    let prepared = prepare(&frame, &Input { size, colour }).map_err(|error| chain(&error))?;
    let digest = file_digest(file).map_err(|error| chain(&error))?;
    Ok((prepared, digest))
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file's bytes.
pub fn file_digest(file: &Path) -> Result<[u8; 32], DatasetError> {
    let bytes = fs::read(file).map_err(|source| DatasetError::Read {
        path: file.to_owned(),
        source,
    })?;
    Ok(Sha256::digest(&bytes).into())
}

/// One digest for a set of files: SHA-256 over their sorted digests, whatever their names and order.
pub fn digest_of_files(digests: &[[u8; 32]]) -> [u8; 32] {
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    Sha256::digest(sorted.concat()).into()
}
