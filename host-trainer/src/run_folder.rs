//! A training run on disk: `run.json` (settings and files used), `checkpoint.safetensors`,
//! `losses.csv` and `samples/NNNNNN.png`. `package` needs nothing else; with `--segmentation` it
//! adds `segmentation.safetensors`.

use std::path::{Path, PathBuf};

use proto::manifest::{Input, Reading, TrainingMode};
use serde::{Deserialize, Serialize};

use crate::network::{Architecture, OutputActivation};
use crate::train::{LossKind, Schedule};
use scoring::io::atomic::{WriteError, write_atomic};

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is missing or cannot be read.
    #[error("no training run at {} (run.json cannot be read)", folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is damaged or of another version.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Version of [`Run`].
const SCHEMA: u32 = 1;

/// Everything that decides a run's result: its settings and its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Version of this structure.
    pub schema: u32,
    /// What the network learns to do.
    pub mode: TrainingMode,
    /// What is minimised.
    pub loss: LossKind,
    /// Weight of the mean |A| on uncorrupted pixels; 0 in the paper.
    #[serde(default)]
    pub quiet: f64,
    /// Brightness augmentation: each tile was scaled by a random factor of up to 1 ± this; 0 in the
    /// paper.
    #[serde(default)]
    pub lighting: f32,
    /// Share of the tiles that was drawn by how rare they look; 0 in the paper.
    #[serde(default)]
    pub rare: f64,
    /// Decay of the running average of weights; 0 in the paper.
    #[serde(default)]
    pub average: f64,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Description of the teacher network, if there was one.
    #[serde(default)]
    pub teacher: Option<String>,
    /// SHA-256 of the teacher's training images, in hexadecimal.
    #[serde(default)]
    pub teacher_digests: Vec<String>,
    /// Output activation.
    pub activation: OutputActivation,
    /// Description of the perceptual features.
    pub features: String,
    /// Description of the noise families.
    pub noise: String,
    /// Channels after the first convolution.
    pub width: i64,
    /// See [`Architecture::upsampled`].
    #[serde(default)]
    pub upsampled: bool,
    /// Number of iterations.
    pub iterations: usize,
    /// Tiles per iteration.
    pub batch: usize,
    /// Number of tiles to draw from.
    pub tiles: usize,
    /// Seed of weights, crops and noise.
    pub seed: u64,
    /// Fraction of the images that was to be held out; `None` in runs of older versions.
    #[serde(default)]
    pub hold_out: Option<f64>,
    /// Size and colour that frames are prepared to.
    pub input: Input,
    /// How the images' files were read.
    #[serde(default = "as_stored")]
    pub reading: Reading,
    /// Training images.
    #[serde(with = "paths")]
    pub train_files: Vec<PathBuf>,
    /// SHA-256 of each training image, in hexadecimal.
    pub train_digests: Vec<String>,
    /// Images held out for calibration.
    #[serde(with = "paths")]
    pub held_out: Vec<PathBuf>,
    /// Name of the part that each held-out image shows.
    pub held_out_parts: Vec<String>,
    /// What the images are known by, beside `train_digests`.
    #[serde(default)]
    pub identities: Identities,
}

/// What a run's images are known by. Empty in runs of older versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identities {
    /// Digest of each training image's pixels, in hexadecimal.
    pub train_pixels: Vec<String>,
    /// The part that each training image shows, by its name in the groups file. Empty without such
    /// a file.
    pub train_parts: Vec<Option<String>>,
    /// SHA-256 of each held-out image, in hexadecimal.
    pub held_out_digests: Vec<String>,
    /// Digest of each held-out image's pixels, in hexadecimal.
    pub held_out_pixels: Vec<String>,
    /// The part that each held-out image shows, like `train_parts`.
    pub held_out_parts: Vec<Option<String>>,
    /// Digests of the pixels of the teacher's training images.
    pub teacher_pixels: Vec<String>,
    /// Parts that the teacher's training images show.
    pub teacher_parts: Vec<String>,
}

/// Paths in JSON: text, or the bytes of a path that is not UTF-8.
mod paths {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        let written = paths.iter().map(|path| match path.to_str() {
            Some(text) => Written::Text(text.to_owned()),
            None => Written::Bytes(path.as_os_str().as_bytes().to_vec()),
        });
        to.collect_seq(written)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        let written = Vec::<Written>::deserialize(from)?;
        let path = |written| match written {
            Written::Text(text) => PathBuf::from(text),
            Written::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        };
        Ok(written.into_iter().map(path).collect())
    }
}

/// How runs read files that do not say it.
fn as_stored() -> Reading {
    Reading::AS_STORED
}

impl Run {
    /// How the network is built.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            width: self.width,
            upsampled: self.upsampled,
        }
    }

    /// Description of the loss.
    pub fn loss_label(&self) -> String {
        let loss = match &self.teacher {
            Some(teacher) => format!("distance from {teacher}"),
            None => self.loss.name().to_owned(),
        };
        if self.quiet > 0.0 {
            format!("{loss} + {} mean |A| on clean pixels", self.quiet)
        } else {
            loss
        }
    }

    /// The current schema.
    pub fn schema() -> u32 {
        SCHEMA
    }

    /// Description of the noise, the brightness augmentation and the tiles drawn by rarity.
    pub fn noise_label(&self) -> String {
        // Rounded to tenths: 0.3 as an f32 times 100 is 30.000002.
        let percent = |share: f64| (share * 1_000.0).round() / 10.0;
        let mut label = self.noise.clone();
        if self.lighting > 0.0 {
            label += &format!("; lighting ±{} %", percent(self.lighting.into()));
        }
        if self.rare > 0.0 {
            label += &format!("; {} % of the tiles drawn by rarity", percent(self.rare));
        }
        label
    }

    /// Reads a run's description.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = description(folder);
        let text = std::fs::read_to_string(&path).map_err(|source| RunError::Read {
            folder: folder.to_owned(),
            source,
        })?;
        let wrong = |reason: String| RunError::Content {
            path: path.clone(),
            reason,
        };
        let run: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if run.schema != SCHEMA {
            return Err(wrong(format!(
                "expected schema {SCHEMA}, found {}",
                run.schema
            )));
        }
        Ok(run)
    }

    /// Writes the run's description.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        let path = description(folder);
        let text = serde_json::to_string_pretty(self).map_err(|error| RunError::Content {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(write_atomic(&path, text.as_bytes())?)
    }
}

fn description(folder: &Path) -> PathBuf {
    folder.join("run.json")
}

/// Path of a run's checkpoint.
pub fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

/// Path of the checkpoint of the segmentation network that is trained on a run's images.
pub fn segmentation_checkpoint(folder: &Path) -> PathBuf {
    folder.join("segmentation.safetensors")
}

/// Path of a run's losses: `iteration,loss`, one line per iteration.
pub fn losses(folder: &Path) -> PathBuf {
    folder.join("losses.csv")
}

/// Path of the sample maps at an iteration.
pub fn sample(folder: &Path, iteration: usize) -> PathBuf {
    folder.join("samples").join(format!("{iteration:06}.png"))
}

#[cfg(test)]
mod tests {
    use proto::manifest::{ColourMode, InputSize};

    use super::*;

    fn run(lighting: f32) -> Run {
        Run {
            schema: SCHEMA,
            mode: TrainingMode::Direct,
            loss: LossKind::Perceptual,
            quiet: 0.0,
            lighting,
            rare: 0.0,
            average: 0.0,
            schedule: Schedule::Constant,
            teacher: None,
            teacher_digests: Vec::new(),
            activation: OutputActivation::RefRelu,
            features: String::new(),
            noise: "all".to_owned(),
            width: 8,
            upsampled: false,
            iterations: 1,
            batch: 1,
            tiles: 1,
            seed: 0,
            hold_out: None,
            input: Input {
                size: InputSize::Native,
                colour: ColourMode::Rgb,
            },
            reading: Reading::default(),
            train_files: Vec::new(),
            train_digests: Vec::new(),
            held_out: Vec::new(),
            held_out_parts: Vec::new(),
            identities: Identities::default(),
        }
    }

    #[test]
    fn lighting_is_printed_as_it_was_given() {
        assert_eq!(run(0.0).noise_label(), "all");
        // Times 100 it is 30.000002 as an f32.
        assert_eq!(run(0.3).noise_label(), "all; lighting ±30 %");
        assert_eq!(run(0.125).noise_label(), "all; lighting ±12.5 %");
    }

    #[test]
    fn paths_of_any_bytes_are_kept() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"/l\xf6t/1.png");
        let written = Run {
            train_files: vec!["/ä/0.png".into(), odd.into()],
            held_out: vec![odd.into()],
            ..run(0.0)
        };
        written.write(folder.path()).unwrap();
        assert_eq!(Run::read(folder.path()).unwrap(), written);
        let text = std::fs::read_to_string(description(folder.path())).unwrap();
        assert!(text.contains("\"/ä/0.png\""), "{text}");
    }
}
