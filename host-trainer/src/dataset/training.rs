//! Good images in memory, ready to cut tiles from. They are resized, and their colour is converted,
//! by the code that the camera runs; they keep their bit depth.

use std::path::{Path, PathBuf};

use proto::manifest::{ColourMode, Input, InputSize, Reading};
use scoring::inspect::frame::{Channels, Frame};
use scoring::inspect::preprocess::prepare;
use scoring::io::image_file::read_frame_as;

use super::digest::file_digest;
use super::error::{DatasetError, chain};

/// How the colour of images is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// Grey if every image is grey, otherwise colour.
    Auto,
    /// Three colour channels.
    Rgb,
    /// One channel of luminance.
    Grey,
}

/// A file that could not be used, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// The reason.
    pub reason: String,
}

/// Prepared good images with their digests.
#[derive(Debug)]
pub struct TrainingSet {
    /// The images at the size at which they are scored.
    pub frames: Vec<Frame>,
    /// The size and colour that they were converted to.
    pub input: Input,
    /// How the files were read.
    pub reading: Reading,
    /// SHA-256 of each file used.
    pub digests: Vec<[u8; 32]>,
    /// The files left out.
    pub skipped: Vec<Skipped>,
}

impl TrainingSet {
    /// Reads and prepares `files`. Files that cannot be read or are smaller than a tile are
    /// skipped. `on_progress` gets the number of files done.
    pub fn load(
        files: &[PathBuf],
        size: InputSize,
        colour: Colour,
        reading: Reading,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DatasetError> {
        let mut skipped = Vec::new();
        let mut used = Vec::new();
        for (index, file) in files.iter().enumerate() {
            match load_one(file, size, colour, &reading) {
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
            reading,
            digests: Vec::new(),
            skipped,
        };
        for (frame, digest) in used {
            // A grey image among coloured ones is converted now; it has its final size already.
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

/// Separates the files that can be read and prepared, in their order, from those that cannot.
pub fn usable(
    files: &[PathBuf],
    input: &Input,
    reading: &Reading,
    on_progress: &mut dyn FnMut(usize),
) -> (Vec<PathBuf>, Vec<Skipped>) {
    let (mut good, mut skipped) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let prepared = read_frame_as(file, reading)
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

fn load_one(
    file: &Path,
    size: InputSize,
    wanted: Colour,
    reading: &Reading,
) -> Result<(Frame, [u8; 32]), String> {
    let frame = read_frame_as(file, reading).map_err(|error| chain(&error))?;
    let colour = match (wanted, frame.channels()) {
        (Colour::Grey, _) | (Colour::Auto, Channels::Grey) => ColourMode::Grey,
        (Colour::Rgb, _) | (Colour::Auto, Channels::Rgb) => ColourMode::Rgb,
    };
    let prepared = prepare(&frame, &Input { size, colour }).map_err(|error| chain(&error))?;
    let digest = file_digest(file).map_err(|error| chain(&error))?;
    Ok((prepared, digest))
}
