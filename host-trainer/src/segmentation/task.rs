//! What a segmentation network is trained with: good frames, the variation model that it stands
//! beside, and the settings of training.

use std::path::Path;
use std::sync::Arc;

use proto::manifest::{SegmentationNetwork, VariationModel};
use scoring::infer::SegmentationEngine;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::segmentation::{input, resized, texture};
use tch::Device;

use super::error::{Cause, SegmentationError};

/// Default number of training steps.
pub const STEPS: usize = 10_000;
/// Steps between checkpoints: about a minute on two cores.
pub const CHECKPOINT_EVERY: usize = 200;
/// Default weight of the network's deviations beside those of the variation model: the best one on
/// synthetic defects in good frames (`models/studies`).
const WEIGHT: f32 = 2.0;
/// One frame in this many is kept for validation, at least.
pub const VALIDATION_ONE_IN: usize = 5;

/// What training is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading good frames.
    Reading,
    /// Training.
    Training,
    /// Measuring the improvement on validation frames.
    Validating,
}

/// Progress of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentationProgress {
    /// The phase.
    pub phase: Phase,
    /// Frames or steps done.
    pub done: usize,
    /// Frames or steps in all.
    pub count: usize,
}

/// Reads and prepares the good frame of an index.
pub type ReadFrame = dyn Fn(usize) -> Result<Planes, Cause> + Send + Sync;

/// How a network's output is used. It can be changed without training again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmentationOptions {
    /// See [`SegmentationNetwork::weight`].
    pub weight: f32,
    /// See [`SegmentationNetwork::local_contrast`].
    pub local_contrast: f32,
}

impl Default for SegmentationOptions {
    fn default() -> Self {
        Self {
            weight: WEIGHT,
            local_contrast: 0.0,
        }
    }
}

/// The inputs and settings of a training.
pub struct SegmentationTask<'a> {
    /// The variation model that the network will stand beside.
    pub model: &'a VariationModel,
    /// Whether frames are in colour.
    pub colour: bool,
    /// Number of good frames.
    pub frame_count: usize,
    /// Number of frames to train on: the first ones. The others are for validation.
    pub training_count: usize,
    /// Whether the frames for validation show parts that the others do not; `None` if it is not
    /// known which frames show the same part.
    pub unseen_parts: Option<bool>,
    /// Reads a good frame by its index.
    pub read_frame: Arc<ReadFrame>,
    /// Scores a frame as the variation model takes it.
    pub score: &'a dyn Fn(&Planes) -> Result<ScoreMap, Cause>,
    /// The frame of the parity gate ([`scoring::package::golden_frame`]).
    pub golden_frame: &'a Planes,
    /// How the network's output is used.
    pub options: SegmentationOptions,
    /// Training steps; the default is [`STEPS`].
    pub steps: usize,
    /// Seed of the initial weights and of the synthetic defects.
    pub seed: u64,
    /// Where to train.
    pub device: Device,
    /// Checkpoint file. Training resumes from it if it belongs to the same task.
    pub checkpoint: &'a Path,
    /// Steps between checkpoints; the default is [`CHECKPOINT_EVERY`].
    pub checkpoint_every: usize,
}

impl SegmentationTask<'_> {
    /// Reads a good frame.
    pub(super) fn frame(&self, index: usize) -> Result<Planes, SegmentationError> {
        (self.read_frame)(index).map_err(SegmentationError::Image)
    }

    /// The logits of a network for a frame.
    pub(super) fn logits(
        &self,
        engine: &SegmentationEngine,
        network: &SegmentationNetwork,
        planes: &Planes,
    ) -> Result<Vec<f32>, SegmentationError> {
        let seen = resized(planes, self.colour);
        let texture = texture(&seen, self.colour);
        let input = input(&network.mean, &network.scale, &seen, &texture, self.colour);
        Ok(engine.logits(&input)?)
    }
}
