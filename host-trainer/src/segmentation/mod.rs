//! Trains a segmentation network ([`proto::manifest::SegmentationNetwork`]) on good frames with
//! synthetic defects ([`defect`]), in random augmentations ([`augmentation`], [`examples`]). The
//! network ([`network`]) says of each cell whether it was changed. A fifth of the frames, of parts
//! of their own where parts are known, is kept for validation: they give the logits of good cells
//! and measure the improvement over the variation model alone, on kinds of defects that the network
//! did not learn from. **Ours**.

mod augmentation;
mod defect;
mod error;
mod examples;
mod fit;
#[cfg(test)]
mod fixtures;
mod frame;
mod improvement;
mod network;
mod sampling;
mod shape;
mod task;

use std::sync::Arc;

use proto::manifest::{SegmentationGain, SegmentationNetwork};
use scoring::infer::SegmentationEngine;
use scoring::inspect::segmentation::plane_count;

pub use augmentation::Augmentation;
pub use defect::{DefectKind, DefectiveFrame};
use error::LEAST_FRAMES;
pub use error::{Cause, SegmentationError};
pub use examples::BATCH;
use fit::{fit, read_training_frames};
pub use frame::GoodFrame;
use improvement::measure;
pub use network::SegmentationNet;
pub use task::{
    CHECKPOINT_EVERY, Phase, ReadFrame, STEPS, SegmentationOptions, SegmentationProgress,
    SegmentationTask, VALIDATION_ONE_IN,
};

/// Smallest spread of logits.
const LEAST_SPREAD: f32 = 0.1;
/// Tolerance of golden logits: other instruction sets sum in another order.
const TOLERANCE: f32 = 0.02;

/// Trains a network and measures its improvement. It is refused if it brings none.
pub fn train(
    task: &SegmentationTask,
    on_progress: &mut dyn FnMut(SegmentationProgress),
) -> Result<(SegmentationNetwork, SegmentationGain), SegmentationError> {
    if task.frame_count < LEAST_FRAMES {
        return Err(SegmentationError::Frames(task.frame_count));
    }
    let frames = Arc::new(read_training_frames(task, on_progress)?);
    let onnx = fit(task, &frames, on_progress)?;
    let engine = SegmentationEngine::new(&onnx, plane_count(task.colour))?;
    let mut network = SegmentationNetwork {
        onnx,
        mean: frames.mean.clone(),
        scale: frames.scale.clone(),
        logit_mean: 0.0,
        logit_spread: 1.0,
        weight: task.options.weight,
        golden_logits: Vec::new(),
        golden_tolerance: TOLERANCE,
        local_contrast: task.options.local_contrast,
    };
    let mut logits = Vec::new();
    for index in task.training_count..task.frame_count {
        logits.extend(task.logits(&engine, &network, &task.frame(index)?)?);
    }
    let (mean, spread) = mean_and_spread(&logits);
    (network.logit_mean, network.logit_spread) = (mean, spread.max(LEAST_SPREAD));
    adopt(task, network, &DefectKind::UNSEEN, on_progress)
}

/// Takes a network that was trained on the same frames: with the options of this task, golden
/// logits of this package, and its improvement measured here, on the `unseen` kinds of defects that
/// it did not learn from (on all kinds if there are none). It is refused if it brings none.
pub fn adopt(
    task: &SegmentationTask,
    mut network: SegmentationNetwork,
    unseen: &[DefectKind],
    on_progress: &mut dyn FnMut(SegmentationProgress),
) -> Result<(SegmentationNetwork, SegmentationGain), SegmentationError> {
    let engine = SegmentationEngine::new(&network.onnx, plane_count(task.colour))?;
    network.weight = task.options.weight;
    network.local_contrast = task.options.local_contrast;
    network.golden_logits = task.logits(&engine, &network, task.golden_frame)?;
    let gain = measure(task, &network, &engine, unseen, on_progress)?;
    let SegmentationGain { with, without, .. } = gain;
    if with <= without {
        return Err(SegmentationError::Useless { with, without });
    }
    Ok((network, gain))
}

fn mean_and_spread(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let values = || values.iter().map(|value| f64::from(*value));
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

#[cfg(test)]
mod tests {
    use scoring::inspect::segmentation::{check, resized};

    use super::fixtures::{model, part, task};
    use super::*;

    #[test]
    fn a_network_finds_what_the_variation_model_alone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (model, golden_frame) = (model(), resized(&part(0), false));
        let checkpoint = folder.path().join("segmentation.safetensors");
        let task = task(&model, &golden_frame, &checkpoint);
        let mut ended = Vec::new();
        let mut on_progress = |at: SegmentationProgress| {
            if at.done == at.count {
                ended.push((at.phase, at.count));
            }
        };
        let (network, gain) = train(&task, &mut on_progress).unwrap();
        let expected = [
            (Phase::Reading, 52),
            (Phase::Training, 150),
            (Phase::Validating, 12),
        ];
        assert_eq!(ended, expected);
        assert!(gain.with > gain.without + 0.02, "{gain:?}");
        assert_eq!(gain.unseen_kinds, ["blur", "rough"]);
        assert_eq!(gain.unseen_parts, Some(true));
        check(&network, false).unwrap();
        let few = SegmentationTask {
            frame_count: 39,
            ..task
        };
        let few = train(&few, &mut |_| {});
        assert!(matches!(few, Err(SegmentationError::Frames(39))));
    }
}
