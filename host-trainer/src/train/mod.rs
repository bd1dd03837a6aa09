//! The training procedure of the method (paper, IV-F) and of its baselines (VI-D).
//!
//! In: batches of tiles. Out: weights, in checkpoints. Progress is reported as typed events; the
//! command draws the bars.

mod adam;
mod average;
mod batches;
mod checkpoint;
mod loss;

pub use adam::{Adam, BETA1, BETA2, LEARNING_RATE};
pub use average::Average;
pub use batches::{Batch, BatchSource};
pub use checkpoint::{Checkpoint, CheckpointError, Progress, recover, save, save_tensors};
pub use loss::{Loss, LossKind, Ssim, shift_on_clean_pixels};

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proto::manifest::{TILE_PX, TrainingMode};
use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use crate::network::{Architecture, CHANNELS, Network, OutputActivation};
use crate::tensor::floats;

/// Tiles drawn before training (IV-F).
pub const TILES: usize = 80_000;
/// Tiles per iteration (IV-F).
pub const BATCH: usize = 64;
/// Iterations (IV-F).
pub const ITERATIONS: usize = 3_500;

/// Why training stopped short.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss is NaN or infinite.
    #[error(
        "the loss became {loss} at iteration {iteration}, so training cannot go on; the last \
         checkpoint is intact. Check the images and the feature weights, or try another --seed"
    )]
    NotFinite {
        /// The iteration, from 1.
        iteration: usize,
        /// The loss.
        loss: f64,
    },
    /// A worker thread ended early.
    #[error("the threads that cut tiles ended at iteration {0}")]
    Workers(usize),
    /// A tile could not be read from the file that was made at the start.
    #[error("cannot read the tiles from disk; the last checkpoint is intact: resume from it")]
    Tiles(#[from] std::io::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// How the learning rate changes over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays the same, as in the paper (IV-F).
    #[default]
    Constant,
    /// It falls to 0 along half a cosine (Loshchilov and Hutter 2017).
    Cosine,
}

impl Schedule {
    /// Fraction of the full rate at an iteration, from 0, out of `iterations`.
    fn fraction(self, iteration: usize, iterations: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => {
                let done = iteration as f64 / iterations.max(1) as f64;
                (1.0 + (std::f64::consts::PI * done).cos()) / 2.0
            }
        }
    }
}

/// Everything that the trainer needs besides the images.
#[derive(Debug)]
pub struct Recipe {
    /// What the network learns to do.
    pub mode: TrainingMode,
    /// Activation of the network's output.
    pub activation: OutputActivation,
    /// The loss to minimise, unless there is a teacher.
    pub loss: Loss,
    /// A trained network to imitate: the distance from its shift is minimised instead of the loss.
    pub teacher: Option<Network>,
    /// Weight of [`shift_on_clean_pixels`], which is added to the loss. The paper does not add it
    /// (0).
    pub quiet: f64,
    /// Decay of the moving average of the weights. The paper keeps none (0).
    pub average: f64,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// How the network is built.
    pub architecture: Architecture,
    /// Total number of iterations, including those of earlier sessions.
    pub iterations: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Where to compute.
    pub device: Device,
    /// Threads that cut and corrupt tiles.
    pub workers: usize,
    /// Iterations between checkpoints.
    pub checkpoint_every: usize,
}

/// A report of progress.
#[derive(Debug)]
pub enum Event {
    /// An iteration was completed.
    Step {
        /// Its number, from 1.
        iteration: usize,
        /// Its loss.
        loss: f64,
        /// Tiles per second, averaged over this session.
        tiles_per_s: f64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Iterations completed.
        iteration: usize,
        /// Some tiles of the last batch, to show what the network does.
        samples: Samples,
    },
}

/// A few tiles on their way through the network. The images are `count` × 3 × 65 × 65 values, the
/// scores `count` × 65 × 65.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Number of tiles.
    pub count: usize,
    /// The good tiles.
    pub clean: Vec<f32>,
    /// The corrupted tiles.
    pub noisy: Vec<f32>,
    /// The repaired tiles.
    pub repaired: Vec<f32>,
    /// Their anomaly scores.
    pub scores: Vec<f32>,
}

/// How a session of training ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// How far the run has got.
    pub progress: Progress,
    /// Whether it was stopped before its last iteration.
    pub interrupted: bool,
}

/// The network's output as both an image and a shift.
struct Prediction {
    /// The repaired image, which the loss compares.
    image: Tensor,
    /// The shift, whose magnitude is the score.
    shift: Tensor,
}

/// Runs the network and interprets its output, which depends on the training mode.
fn predict(
    network: &Network,
    mode: TrainingMode,
    activation: OutputActivation,
    input: &Tensor,
) -> Result<Prediction, TchError> {
    let output = network.forward(input)?;
    Ok(match mode {
        TrainingMode::Direct => Prediction {
            image: activation.apply(&input.f_add(&output)?)?,
            shift: output,
        },
        TrainingMode::Denoising | TrainingMode::Reconstruction => {
            let image = activation.apply(&output)?;
            Prediction {
                shift: image.f_sub(input)?,
                image,
            }
        }
    })
}

/// Mean squared difference between A and the teacher's A. **Ours**, after distillation (Hinton et
/// al. 2015). With the mean absolute difference, a narrow network would give no shift where it is
/// unsure, and so miss defects.
fn distance_from_teacher(
    teacher: &Network,
    input: &Tensor,
    shift: &Tensor,
) -> Result<Tensor, TchError> {
    let target = tch::no_grad(|| teacher.forward(input))?;
    shift.f_mse_loss(&target, tch::Reduction::Mean)
}

/// Moves a batch's values to the device as N × 3 × 65 × 65; grey planes are replicated there
/// (IV-A).
fn to_device(values: &[f32], batch: &Batch, device: Device) -> Result<Tensor, TchError> {
    let (count, side) = (batch.count as i64, i64::from(TILE_PX));
    Tensor::f_from_slice(values)?
        .f_view([count, batch.channels as i64, side, side])?
        .f_to_device(device)?
        .f_expand([count, CHANNELS, side, side], false)?
        .f_contiguous()
}

/// Trains until the last iteration or until `stop` is set. In both cases `checkpoint` holds the
/// state afterwards. If `checkpoint` exists, the run continues from it; on a CPU it ends with the
/// same result as an uninterrupted run.
pub fn train(
    recipe: &Recipe,
    source: &Arc<BatchSource>,
    checkpoint: &Path,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event),
) -> Result<Outcome, TrainError> {
    let network = Network::initialise(CHANNELS, &recipe.architecture, recipe.seed, recipe.device)?;
    let mut adam = Adam::new(network.parameters())?;
    let mut average = match recipe.average {
        decay if decay > 0.0 => Some(Average::new(network.parameters(), decay)?),
        _ => None,
    };
    let mut progress = Progress::default();
    if checkpoint.exists() {
        let saved = Checkpoint::open(checkpoint)?;
        saved.restore(&mut adam)?;
        if let Some(average) = &average {
            saved.restore_tensors(average.state())?;
        }
        progress = saved.progress;
    }
    let before = progress;
    let started = Instant::now();
    let range = progress.iterations..recipe.iterations.max(progress.iterations);
    let mut batches = source.stream(range.clone(), recipe.workers);
    for iteration in range {
        let batch = batches.next().ok_or(TrainError::Workers(iteration))??;
        let clean = to_device(&batch.clean, &batch, recipe.device)?;
        let noisy = to_device(&batch.noisy, &batch, recipe.device)?;
        let prediction = predict(&network, recipe.mode, recipe.activation, &noisy)?;
        let mut loss = match &recipe.teacher {
            Some(teacher) => distance_from_teacher(teacher, &noisy, &prediction.shift)?,
            None => recipe.loss.compute(&prediction.image, &clean)?,
        };
        if recipe.quiet > 0.0 {
            let residual = shift_on_clean_pixels(&prediction.shift, &clean, &noisy)?;
            loss = loss.f_add(&residual.f_mul_scalar(recipe.quiet)?)?;
        }
        let value = loss.f_double_value(&[])?;
        if !value.is_finite() {
            return Err(TrainError::NotFinite {
                iteration: iteration + 1,
                loss: value,
            });
        }
        loss.f_backward()?;
        adam.step(recipe.schedule.fraction(iteration, recipe.iterations))?;
        if let Some(average) = &mut average {
            average.update(iteration + 1)?;
        }
        let elapsed = started.elapsed().as_secs_f64();
        progress = Progress {
            iterations: iteration + 1,
            seconds: before.seconds + elapsed,
        };
        let done = (progress.iterations - before.iterations) * batch.count;
        on_event(Event::Step {
            iteration: progress.iterations,
            loss: value,
            tiles_per_s: done as f64 / elapsed,
        });
        let stopping = stop.load(Ordering::Relaxed);
        let last = progress.iterations == recipe.iterations;
        if stopping || last || progress.iterations.is_multiple_of(recipe.checkpoint_every) {
            save(checkpoint, &adam, average.as_ref(), progress)?;
            on_event(Event::Checkpoint {
                iteration: progress.iterations,
                samples: samples(&clean, &noisy, &prediction)?,
            });
        }
        if stopping && !last {
            return Ok(Outcome {
                progress,
                interrupted: true,
            });
        }
    }
    Ok(Outcome {
        progress,
        interrupted: false,
    })
}

fn samples(clean: &Tensor, noisy: &Tensor, prediction: &Prediction) -> Result<Samples, TchError> {
    let count = clean.size()[0].min(8);
    let first = |tensor: &Tensor| floats(&tensor.f_narrow(0, 0, count)?);
    let scores =
        prediction
            .shift
            .f_detach()?
            .f_abs()?
            .f_sum_dim_intlist(1i64, false, tch::Kind::Float)?;
    Ok(Samples {
        count: count as usize,
        clean: first(clean)?,
        noisy: first(noisy)?,
        repaired: first(&prediction.image)?,
        scores: first(&scores)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_constant_or_falls_along_a_cosine() {
        assert_eq!(Schedule::Constant.fraction(99, 100), 1.0);
        let cosine = |iteration| Schedule::Cosine.fraction(iteration, 100);
        assert_eq!(cosine(0), 1.0);
        assert!((cosine(50) - 0.5).abs() < 1e-12);
        assert!(cosine(99) < 0.001);
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        floats(tensor).unwrap()
    }

    /// RefReLU as the paper defines it (IV-D).
    fn refrelu(x: f32) -> f32 {
        if x < -1.0 {
            0.01 * x - 0.99
        } else if x > 1.0 {
            0.01 * x + 0.99
        } else {
            x
        }
    }

    #[test]
    fn the_shift_is_the_output_and_refrelu_is_applied_to_the_sum() {
        let network =
            Network::initialise(CHANNELS, &Architecture::paper(4), 1, Device::Cpu).unwrap();
        let waves: Vec<f32> = (0..3 * 65 * 65).map(|k| (k as f32 * 0.37).sin()).collect();
        let input = Tensor::from_slice(&waves).view([1, 3, 65, 65]) * 1.5;
        let output = values(&network.forward(&input).unwrap());
        let input_values = values(&input);
        let predicted = |mode, activation| predict(&network, mode, activation, &input).unwrap();
        let near = |found: Vec<f32>, expected: &dyn Fn(f32, f32) -> f32| {
            for ((found, a), i) in found.iter().zip(&output).zip(&input_values) {
                assert!((found - expected(*a, *i)).abs() < 1e-5);
            }
        };
        assert!(
            input_values
                .iter()
                .zip(&output)
                .any(|(i, a)| (i + a).abs() > 1.1),
            "RefReLU has something to do"
        );
        let direct = predicted(TrainingMode::Direct, OutputActivation::RefRelu);
        near(values(&direct.shift), &|a, _| a);
        near(values(&direct.image), &|a, i| refrelu(i + a));
        let tanh = predicted(TrainingMode::Direct, OutputActivation::Tanh);
        near(values(&tanh.image), &|a, i| (i + a).tanh());
        for mode in [TrainingMode::Denoising, TrainingMode::Reconstruction] {
            let prediction = predicted(mode, OutputActivation::RefRelu);
            near(values(&prediction.image), &|a, _| refrelu(a));
            near(values(&prediction.shift), &|a, i| refrelu(a) - i);
        }
    }
}
