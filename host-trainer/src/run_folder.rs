//! A training run on disk: `run.json` (what was asked for and which files were used), `checkpoint.safetensors`,
//! `losses.csv`, `samples/NNNNNN.png`. `package` needs nothing else; with `--areas` it keeps `areas.safetensors` beside them.

use std::path::{Path, PathBuf};

use proto::manifest::{Input, TrainingMode};
use serde::{Deserialize, Serialize};

use crate::network::{Architecture, OutputActivation};
use crate::train::{LossKind, Schedule};
use edge_runtime::io::atomic::{WriteError, write_atomic};

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not there or cannot be read.
    #[error("no training run at {} (run.json cannot be read)", folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is damaged or from another version.
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

/// Everything that decides a run's result, and what it was fed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Version of this structure.
    pub schema: u32,
    /// What the network learns to do.
    pub mode: TrainingMode,
    /// What is minimised.
    pub loss: LossKind,
    /// Weight of the mean |A| on uncorrupted pixels; 0 is the paper's.
    #[serde(default)]
    pub quiet: f64,
    /// Each good tile was lit otherwise by up to 1 ± this; 0 is the paper's.
    #[serde(default)]
    pub lighting: f32,
    /// Decay of the running average of weights; 0 is the paper's.
    #[serde(default)]
    pub average: f64,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// The run whose network was imitated, in words.
    #[serde(default)]
    pub teacher: Option<String>,
    /// SHA-256 of what that network was trained on, in hexadecimal.
    #[serde(default)]
    pub teacher_digests: Vec<String>,
    /// What follows the network's output.
    pub activation: OutputActivation,
    /// Where the perceptual loss has its features from, in words.
    pub features: String,
    /// Noise families, in words.
    pub noise: String,
    /// Channels after the first convolution.
    pub width: i64,
    /// See [`Architecture::upsampled`].
    #[serde(default)]
    pub upsampled: bool,
    /// Iterations in all.
    pub iterations: usize,
    /// Tiles an iteration.
    pub batch: usize,
    /// Tiles cropped.
    pub tiles: usize,
    /// Seed.
    pub seed: u64,
    /// What frames are turned into.
    pub input: Input,
    /// Files trained on.
    pub train_files: Vec<PathBuf>,
    /// SHA-256 of each, in hexadecimal.
    pub train_digests: Vec<String>,
    /// Files held out for calibration.
    pub held_out: Vec<PathBuf>,
    /// The part that each held-out file shows.
    pub held_out_parts: Vec<String>,
}

impl Run {
    /// How the network is built.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            width: self.width,
            upsampled: self.upsampled,
        }
    }

    /// What is minimised, in words.
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

    /// What tiles went through, in words.
    pub fn noise_label(&self) -> String {
        if self.lighting > 0.0 {
            let tenths = (self.lighting * 1_000.0).round() / 10.0;
            format!("{}; lighting ±{tenths} %", self.noise)
        } else {
            self.noise.clone()
        }
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

    /// Writes it.
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

/// Where a run's checkpoint is.
pub fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

/// Where the checkpoint is of the area network that is learned from a run's images.
pub fn area_checkpoint(folder: &Path) -> PathBuf {
    folder.join("areas.safetensors")
}

/// Where a run's losses are: `iteration,loss`, one line an iteration.
pub fn losses(folder: &Path) -> PathBuf {
    folder.join("losses.csv")
}

/// Where a run's sample maps are.
pub fn sample(folder: &Path, iteration: usize) -> PathBuf {
    folder.join("samples").join(format!("{iteration:06}.png"))
}

#[cfg(test)]
mod tests {
    use proto::manifest::{ColourMode, InputSize};

    use super::*;

    #[test]
    fn shares_of_light_are_said_as_they_were_given() {
        let run = |lighting: f32| Run {
            schema: SCHEMA,
            mode: TrainingMode::Direct,
            loss: LossKind::Perceptual,
            quiet: 0.0,
            lighting,
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
            input: Input {
                size: InputSize::Native,
                colour: ColourMode::Rgb,
            },
            train_files: Vec::new(),
            train_digests: Vec::new(),
            held_out: Vec::new(),
            held_out_parts: Vec::new(),
        };
        assert_eq!(run(0.0).noise_label(), "all");
        // As f32 it is 0.300000012.
        assert_eq!(run(0.3).noise_label(), "all; lighting ±30 %");
        assert_eq!(run(0.125).noise_label(), "all; lighting ±12.5 %");
    }
}
