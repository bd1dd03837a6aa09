//! Fits a segmentation network to good frames with synthetic defects: reads the frames, runs the
//! training steps, keeps checkpoints and resumes from them. An ONNX graph comes out.

use std::sync::Arc;
use std::time::Instant;

use scoring::inspect::grid::FINEST;
use scoring::inspect::segmentation::{CELLS, plane_count, resized, texture};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Reduction, Tensor};

use super::error::{Cause, SegmentationError};
use super::examples::{BATCH, TrainingFrames};
use super::network::SegmentationNet;
use super::task::{Phase, SegmentationProgress, SegmentationTask};
use crate::dataset::hex;
use crate::onnx::export_segmentation;
use crate::prefetch::Prefetch;
use crate::seed::generator;
use crate::train::{Adam, Checkpoint, LEARNING_RATE, Progress, save_tensors};

/// Version of the synthetic defects and augmentations. Raise it whenever they change, so that no
/// training resumes from a checkpoint of others.
const EXAMPLES_VERSION: u32 = 3;
/// Highest learning rate. The rate rises to it over the first tenth of the steps and falls to 0
/// along a cosine (Smith and Topin 2019).
const PEAK_RATE: f64 = 2e-3;

/// Reads the training frames on all cores.
pub(super) fn read_training_frames(
    task: &SegmentationTask,
    on_progress: &mut dyn FnMut(SegmentationProgress),
) -> Result<TrainingFrames, SegmentationError> {
    let (count, colour) = (task.training_count, task.colour);
    let read = Arc::clone(&task.read_frame);
    let make = move |index: usize| -> Result<(Vec<u8>, Vec<f32>), Cause> {
        let seen = resized(&read(index)?, colour);
        let bytes = seen
            .data
            .iter()
            .map(|value| ((value + 1.0) * 127.5).round() as u8);
        Ok((bytes.collect(), texture(&seen, colour)))
    };
    let (mut frames, mut textures) = (Vec::new(), Vec::new());
    for made in Prefetch::start(0..count, cores(), make).take(count) {
        let (frame, texture) = made.map_err(SegmentationError::Image)?;
        frames.push(frame);
        textures.push(texture);
        on_progress(SegmentationProgress {
            phase: Phase::Reading,
            done: frames.len(),
            count,
        });
    }
    if frames.len() < count {
        return Err(SegmentationError::Workers);
    }
    Ok(TrainingFrames::new(colour, frames, &textures))
}

/// Runs the training steps while other threads draw the batches ahead.
pub(super) fn fit(
    task: &SegmentationTask,
    frames: &Arc<TrainingFrames>,
    on_progress: &mut dyn FnMut(SegmentationProgress),
) -> Result<Vec<u8>, SegmentationError> {
    let planes = plane_count(task.colour) as i64;
    let mut rng = generator(task.seed, "area network", 0);
    let net = SegmentationNet::new(planes, task.device, &mut rng)?;
    let mut adam = Adam::new(net.parameters())?;
    let fingerprint = fingerprint(task, frames, &net);
    let mut progress = resume(task, &fingerprint, &net, &mut adam)?;
    let kind = training_kind(task.device);
    let threads = tch::get_num_threads();
    if kind == Kind::BFloat16 {
        // All cores draw batches. libtorch's threads wait for each other, so one that shares its
        // core with such a thread holds up all of them: fewer are faster.
        tch::set_num_threads(cores().div_ceil(2) as i32);
    }
    let before = progress;
    let started = Instant::now();
    let (frames, seed) = (Arc::clone(frames), task.seed);
    let draw = move |step: usize| frames.batch(&mut generator(seed, "area step", step as u64));
    let range = before.iterations..task.steps;
    let mut batches = Prefetch::start(range.clone(), cores(), draw);
    let (batch_size, cells, finest) = (BATCH as i64, CELLS as i64, FINEST as i64);
    for step in range {
        let batch = batches.next().ok_or(SegmentationError::Workers)?;
        let tensor = |values: &[f32], size: &[i64]| {
            Tensor::f_from_slice(values)?
                .f_view(size)?
                .f_to_device(task.device)
        };
        let input = tensor(&batch.inputs, &[batch_size, planes, cells, cells])?;
        let mask = tensor(&batch.masks, &[batch_size, 1, finest, finest])?;
        let weight = tensor(&batch.weights, &[batch_size, 1, finest, finest])?;
        let loss = net
            .forward(&input, Some(kind))?
            .f_binary_cross_entropy_with_logits(&mask, Some(&weight), None, Reduction::Mean)?;
        loss.f_backward()?;
        adam.step(learning_rate(step, task.steps) / LEARNING_RATE)?;
        progress = Progress {
            iterations: step + 1,
            seconds: before.seconds + started.elapsed().as_secs_f64(),
        };
        let last = progress.iterations == task.steps;
        if last || progress.iterations.is_multiple_of(task.checkpoint_every) {
            let state = adam.state().into_iter().chain(net.statistics());
            save_tensors(task.checkpoint, state, progress, &fingerprint)
                .map_err(SegmentationError::Save)?;
        }
        on_progress(SegmentationProgress {
            phase: Phase::Training,
            done: step + 1,
            count: task.steps,
        });
    }
    tch::set_num_threads(threads);
    Ok(export_segmentation(&net.steps()?, planes))
}

/// Everything that decides the result: a checkpoint is resumed only by a task with the same.
fn fingerprint(task: &SegmentationTask, frames: &TrainingFrames, net: &SegmentationNet) -> String {
    let mut digest = Sha256::new();
    frames.frames.iter().for_each(|frame| digest.update(frame));
    let parameters = net.parameters().into_iter();
    format!(
        "segmentation: drawings {EXAMPLES_VERSION}, {} weights, {} steps of {BATCH}, seed {}, colour {}, frames {}",
        parameters.map(|(_, values)| values.numel()).sum::<usize>(),
        task.steps,
        task.seed,
        task.colour,
        hex(&digest.finalize())
    )
}

/// Restores the checkpoint if it has this fingerprint.
fn resume(
    task: &SegmentationTask,
    fingerprint: &str,
    net: &SegmentationNet,
    adam: &mut Adam,
) -> Result<Progress, SegmentationError> {
    if task.checkpoint.exists() {
        let saved = Checkpoint::open(task.checkpoint).map_err(SegmentationError::Resume)?;
        if saved.description == fingerprint {
            saved.restore(adam).map_err(SegmentationError::Resume)?;
            let statistics = saved.restore_tensors(net.statistics());
            statistics.map_err(SegmentationError::Resume)?;
            return Ok(saved.progress);
        }
    }
    Ok(Progress::default())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number format of the convolutions in training: 16 bits where the processor has instructions
/// for them, which is faster and learns as well (`models/studies`).
fn training_kind(device: Device) -> Kind {
    match device {
        Device::Cpu if has_bfloat16() => Kind::BFloat16,
        _ => Kind::Float,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_bfloat16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bfloat16() -> bool {
    false
}

/// The learning rate at a step of `steps`.
fn learning_rate(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64 + 0.5, steps as f64);
    let rising = steps / 10.0;
    if step < rising {
        return PEAK_RATE * step / rising;
    }
    let done = (step - rising) / (steps - rising);
    PEAK_RATE * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{model, part, task};
    use super::*;

    /// Power fails after 4 of 6 steps. Resumed from the checkpoint at 3, training ends where it
    /// would have. Nothing is resumed by another task, or from a damaged file.
    #[test]
    fn an_interrupted_training_ends_where_an_uninterrupted_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let (model, golden_frame) = (model(), resized(&part(0), false));
        let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
        let short = |checkpoint| SegmentationTask {
            steps: 6,
            checkpoint_every: 3,
            ..task(&model, &golden_frame, checkpoint)
        };
        let frames = Arc::new(read_training_frames(&short(&whole), &mut |_| {}).unwrap());
        let steps_of = |task: SegmentationTask, then: &dyn Fn(usize)| {
            let mut steps = Vec::new();
            let mut on_progress = |at: SegmentationProgress| {
                steps.push(at.done);
                then(at.done);
            };
            let onnx = fit(&task, &frames, &mut on_progress);
            onnx.map(|onnx| (onnx, steps))
        };
        let at_the_fourth = |done| {
            if done == 4 {
                std::fs::copy(&whole, &cut).unwrap();
            }
        };
        let (expected, steps) = steps_of(short(&whole), &at_the_fourth).unwrap();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        let (found, steps) = steps_of(short(&cut), &|_| ()).unwrap();
        assert_eq!(steps, [4, 5, 6]);
        assert!(found == expected);
        // A finished training is there at once.
        let (found, steps) = steps_of(short(&cut), &|_| ()).unwrap();
        assert!(steps.is_empty() && found == expected);
        let other = SegmentationTask {
            seed: 2,
            ..short(&cut)
        };
        let (found, steps) = steps_of(other, &|_| ()).unwrap();
        assert_eq!(steps.len(), 6);
        assert!(found != expected);
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() / 2]).unwrap();
        let damaged = steps_of(short(&whole), &|_| ());
        assert!(matches!(damaged, Err(SegmentationError::Resume(_))));
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_0() {
        let rates: Vec<f64> = (0..300).map(|step| learning_rate(step, 300)).collect();
        assert!(rates[..30].is_sorted() && rates[30..].iter().rev().is_sorted());
        assert!((rates[29] / PEAK_RATE - 1.0).abs() < 0.02 && rates[299] < 1e-3 * PEAK_RATE);
    }
}
