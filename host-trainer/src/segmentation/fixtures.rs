//! Frames, a variation model and a training task that several tests here share.

use std::path::Path;
use std::sync::Arc;

use proto::manifest::VariationModel;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::preprocess::Planes;
use tch::Device;

use super::frame::GoodFrame;
use super::sampling::smooth_noise;
use super::task::{CHECKPOINT_EVERY, SegmentationOptions, SegmentationTask};
use crate::noise::value_noise;
use crate::variation::VariationBuilder;

/// A frame of 96 × 80 pixels with a fine texture.
pub(super) fn good_frame(seed: u32, channels: usize) -> GoodFrame {
    let (width_px, height_px) = (96, 80);
    let area = width_px * height_px;
    let value = |index: usize| {
        let (x, y) = (
            (index % area % width_px) as f32,
            (index % area / width_px) as f32,
        );
        0.4 * smooth_noise(x, y, 2.0, seed) + 0.1 * smooth_noise(x, y, 50.0, seed + 1)
    };
    GoodFrame::new(Planes {
        channels,
        width_px,
        height_px,
        data: (0..channels * area).map(value).collect(),
    })
}

/// A part with an even grain, whose brightness and contrast vary from part to part.
pub(super) fn part(number: usize) -> Planes {
    let (side, seed) = (96, number as u32);
    let (light, contrast) = (
        0.2 * value_noise(number as f32 * 0.37, 0.5, 1),
        0.3 + 0.1 * value_noise(number as f32 * 0.73, 0.5, 2),
    );
    let value = |index: usize| {
        let (x, y) = ((index % side) as f32, (index / side) as f32);
        light + contrast * value_noise(x / 1.7, y / 3.1, seed)
    };
    Planes {
        channels: 1,
        width_px: side,
        height_px: side,
        data: (0..side * side).map(value).collect(),
    }
}

fn no_scores(planes: &Planes) -> ScoreMap {
    ScoreMap::zeros(planes.width_px, planes.height_px)
}

/// A variation model of 64 such parts.
pub(super) fn model() -> VariationModel {
    let mut builder = VariationBuilder::new(false);
    for number in 0..64 {
        let planes = part(number);
        builder.add(&planes, &no_scores(&planes));
    }
    builder.finish().unwrap()
}

/// A short training on such parts.
pub(super) fn task<'a>(
    model: &'a VariationModel,
    golden_frame: &'a Planes,
    checkpoint: &'a Path,
) -> SegmentationTask<'a> {
    SegmentationTask {
        model,
        colour: false,
        frame_count: 64,
        training_count: 52,
        unseen_parts: Some(true),
        read_frame: Arc::new(|number| Ok(part(number))),
        score: &|planes| Ok(no_scores(planes)),
        golden_frame,
        options: SegmentationOptions::default(),
        steps: 150,
        seed: 1,
        device: Device::Cpu,
        checkpoint,
        checkpoint_every: CHECKPOINT_EVERY,
    }
}
