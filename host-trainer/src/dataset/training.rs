//! Good images, ready to cut tiles from. They are resized, and their colour is converted, by the
//! code that the camera runs; they keep their bit depth.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::manifest::{ColourMode, Input, InputSize, Reading};
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::preprocess::prepare;
use scoring::io::image_file::read_frame_as;

use super::digest::file_digest;
use super::error::{DatasetError, chain};
use super::parallel::in_parallel;
use super::pixel_digest::pixel_digest;
use super::rarity::CellAppearance;
use super::tile_store::frame_bytes;

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

impl Skipped {
    /// The file and the reason.
    pub(super) fn in_words(&self) -> String {
        format!("{}: {}", self.file.display(), self.reason)
    }
}

/// A good image that can be trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingImage {
    /// The file.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// Digest of its pixels, see [`pixel_digest`].
    pub pixels: [u8; 32],
    /// Width and height at which it is scored.
    pub size_px: [u32; 2],
    /// Whether its values have 16 bits.
    pub deep: bool,
    /// How its cells look, if that was asked for.
    pub appearance: Option<CellAppearance>,
}

/// What is kept of images in memory.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Frames are kept if they take at most this together.
    pub most_bytes: usize,
    /// Whether it is kept how the images' cells look.
    pub appearance: bool,
}

/// Good images, checked and described, and their frames if these fit into memory.
#[derive(Debug)]
pub struct TrainingSet {
    /// The images.
    pub images: Vec<TrainingImage>,
    /// Their frames at the size at which they are scored, in the same order. `None` if they would
    /// take more memory than was allowed; [`super::TileStore`] then cuts the tiles from the files.
    pub frames: Option<Vec<Frame>>,
    /// The size and colour that they were converted to.
    pub input: Input,
    /// How the files were read.
    pub reading: Reading,
    /// The files left out.
    pub skipped: Vec<Skipped>,
    /// The colour that was asked for.
    pub(super) wanted: Colour,
}

impl TrainingSet {
    /// Reads and prepares `files` and keeps their frames. Files that cannot be read or are smaller
    /// than a tile are skipped. `on_progress` gets the number of files done.
    pub fn load(
        files: &[PathBuf],
        size: InputSize,
        colour: Colour,
        reading: Reading,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DatasetError> {
        let most = Kept {
            most_bytes: usize::MAX,
            appearance: false,
        };
        Self::load_within(files, size, colour, reading, most, on_progress)
    }

    /// As [`Self::load`], but keeps what `kept` says.
    pub fn load_within(
        files: &[PathBuf],
        size: InputSize,
        colour: Colour,
        reading: Reading,
        kept: Kept,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DatasetError> {
        let Kept {
            most_bytes,
            appearance,
        } = kept;
        let kept_bytes = AtomicUsize::new(0);
        let loaded = in_parallel(files, on_progress, |_, file| {
            let Loaded {
                frame,
                digest,
                pixels,
            } = load_one(file, size, colour, &reading)?;
            let bytes = frame_bytes(&frame);
            let image = TrainingImage {
                file: file.clone(),
                digest,
                pixels,
                size_px: [frame.width_px(), frame.height_px()],
                deep: matches!(frame.pixels(), Pixels::U16(_)),
                appearance: appearance.then(|| CellAppearance::of(&frame)),
            };
            let grey = frame.channels() == Channels::Grey;
            let fits = kept_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= most_bytes;
            Ok((image, grey, fits.then_some(frame)))
        });
        let (mut images, mut frames, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let mut grey = true;
        for (file, loaded) in files.iter().zip(loaded) {
            match loaded {
                Ok((image, is_grey, frame)) => {
                    images.push(image);
                    grey &= is_grey;
                    frames.extend(frame);
                }
                Err(reason) => skipped.push(Skipped {
                    file: file.clone(),
                    reason,
                }),
            }
        }
        if images.is_empty() {
            return Err(DatasetError::NothingLeft {
                count: files.len(),
                first: skipped
                    .first()
                    .map(|s| format!("{}: {}", s.file.display(), s.reason))
                    .unwrap_or_default(),
            });
        }
        let input = Input {
            size,
            colour: if grey {
                ColourMode::Grey
            } else {
                ColourMode::Rgb
            },
        };
        let all_kept = frames.len() == images.len();
        let frames = all_kept.then(|| {
            let frames = frames.into_iter().map(|frame| converted(frame, &input));
            frames.collect::<Result<_, _>>()
        });
        let frames = frames
            .transpose()
            .map_err(|error| DatasetError::NothingLeft {
                count: files.len(),
                first: error,
            })?;
        Ok(Self {
            images,
            frames,
            input,
            reading,
            skipped,
            wanted: colour,
        })
    }

    /// Widths and heights of the images.
    pub fn sizes(&self) -> Vec<[u32; 2]> {
        self.images.iter().map(|image| image.size_px).collect()
    }

    /// How the images' cells look; empty if that was not asked for.
    pub fn appearance(&self) -> Vec<CellAppearance> {
        let images = self.images.iter();
        images
            .filter_map(|image| image.appearance.clone())
            .collect()
    }

    /// Reads an image again and prepares it as before.
    pub(super) fn read_again(&self, image: &TrainingImage) -> Result<Frame, DatasetError> {
        let changed = |reason: String| DatasetError::Changed {
            path: image.file.clone(),
            reason,
        };
        let read = load_one(&image.file, self.input.size, self.wanted, &self.reading);
        let Loaded { frame, digest, .. } = read.map_err(changed)?;
        if digest != image.digest {
            return Err(changed("its content is another".to_owned()));
        }
        converted(frame, &self.input).map_err(changed)
    }
}

/// The frame in the colour of the whole set: a grey image among coloured ones is converted. It has
/// its final size already.
fn converted(frame: Frame, input: &Input) -> Result<Frame, String> {
    if frame.channels() == Channels::Rgb || input.colour == ColourMode::Grey {
        return Ok(frame);
    }
    let native = Input {
        size: InputSize::Native,
        colour: input.colour,
    };
    prepare(&frame, &native).map_err(|error| chain(&error))
}

/// An image that can be used, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableImage {
    /// The file.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// Digest of its pixels, see [`pixel_digest`].
    pub pixels: [u8; 32],
}

/// Separates the files that can be read and prepared, in their order, from those that cannot.
pub fn usable(
    files: &[PathBuf],
    input: &Input,
    reading: &Reading,
    on_progress: &mut dyn FnMut(usize),
) -> (Vec<UsableImage>, Vec<Skipped>) {
    let prepared = in_parallel(files, on_progress, |_, file| {
        let frame = read_frame_as(file, reading).map_err(|error| chain(&error))?;
        prepare(&frame, input).map_err(|error| chain(&error))?;
        Ok(UsableImage {
            file: file.clone(),
            digest: file_digest(file).map_err(|error| chain(&error))?,
            pixels: pixel_digest(&frame),
        })
    });
    let (mut good, mut skipped) = (Vec::new(), Vec::new());
    for (file, prepared) in files.iter().zip(prepared) {
        match prepared {
            Ok(image) => good.push(image),
            Err(reason) => skipped.push(Skipped {
                file: file.clone(),
                reason,
            }),
        }
    }
    (good, skipped)
}

/// A file that was read and prepared.
struct Loaded {
    frame: Frame,
    digest: [u8; 32],
    pixels: [u8; 32],
}

fn load_one(
    file: &Path,
    size: InputSize,
    wanted: Colour,
    reading: &Reading,
) -> Result<Loaded, String> {
    let frame = read_frame_as(file, reading).map_err(|error| chain(&error))?;
    let colour = match (wanted, frame.channels()) {
        (Colour::Grey, _) | (Colour::Auto, Channels::Grey) => ColourMode::Grey,
        (Colour::Rgb, _) | (Colour::Auto, Channels::Rgb) => ColourMode::Rgb,
    };
    Ok(Loaded {
        digest: file_digest(file).map_err(|error| chain(&error))?,
        pixels: pixel_digest(&frame),
        frame: prepare(&frame, &Input { size, colour }).map_err(|error| chain(&error))?,
    })
}
