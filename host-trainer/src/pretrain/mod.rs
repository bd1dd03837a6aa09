//! Features of our own: a small VGG-like network that learns from procedural surfaces alone, so that the product works without
//! anybody's photographs, licence or download. **Ours**; the paper's extractor was trained on ImageNet (IV-E).
//!
//! Three questions are asked of its last layer, all answered by the generator. Which windows show the same surface (Chen et al.
//! 2020, SimCLR's loss); what was done to a corrupted window ([`Algorithm`]), so that it sees defects; and how bright the
//! window is every 2 pixels, in each channel: features that only tell surfaces apart do not care for brightness, and a network that is
//! trained by them makes everything white (measured in ARCHITECTURE.md). Its filters stay orthogonal all the while (Cissé et al.
//! 2017, Parseval networks), as random ones are from the start, so that no pattern is amplified without bound.

mod pattern;

pub use pattern::Pattern;

use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::SafeTensorError;
use safetensors::tensor::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::ahead::Ahead;
use crate::arrays::{Array, encoded};
use crate::noise::{Algorithm, Corruption};
use crate::perceptual::{BUILT_IN, Layer, LayerTensors, activations, orthogonal};
use crate::seed::generator;
use crate::train::{Adam, floats};

/// Side of a window in pixels: a tile's (IV-A).
const SIDE: usize = 65;
/// Length of what surfaces are told apart by.
const EMBEDDING: usize = 64;
/// SimCLR's temperature: how sharply the nearest wrong surface is pushed away.
const TEMPERATURE: f64 = 0.2;
/// Weight of the mean squared error of brightness, beside two losses that begin at 4.6 and 2.5.
const BRIGHTNESS: f64 = 10.0;
/// Adam's rate over the paper's 2·10⁻⁴ (IV-F): the features are a matter of minutes, not of 3,500 iterations.
const RATE: f64 = 5.0;

/// What to do.
#[derive(Debug, Clone)]
pub struct PretrainOptions {
    /// Steps.
    pub iterations: usize,
    /// Surfaces a step; each shows two windows and a third one corrupted.
    pub batch: usize,
    /// Seed.
    pub seed: u64,
    /// Where to compute.
    pub device: Device,
    /// Threads that paint.
    pub workers: usize,
}

/// One step's share of right answers.
#[derive(Debug, Clone, Copy)]
pub struct PretrainStep {
    /// Its number, from 1.
    pub iteration: usize,
    /// The loss.
    pub loss: f64,
    /// Windows whose nearest is of the same surface, 0..1.
    pub surfaces_told: f64,
    /// Corruptions recognised, 0..1.
    pub corruptions_told: f64,
    /// Mean squared error of brightness, in units of [-1, 1].
    pub brightness_error: f64,
}

type WeightsAndBias = (Tensor, Tensor);

/// Why there are no features.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The loss is no number any more.
    #[error("the loss became {loss} at step {iteration}: try another --seed")]
    NotFinite {
        /// Where.
        iteration: usize,
        /// What it became.
        loss: f64,
    },
    /// A thread that paints ended early.
    #[error("the threads that paint surfaces ended at step {0}")]
    Workers(usize),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The container could not be made.
    #[error("cannot encode the weights")]
    Encode(#[from] SafeTensorError),
}

/// Windows of one step: two views of each surface, and a third that is corrupted, B × 3 × 65 × 65 each.
struct Batch {
    views: [Vec<f32>; 3],
    done: Vec<i64>,
}

fn batch(options: &PretrainOptions, iteration: usize) -> Batch {
    let mut rng = generator(options.seed, "pretrain", iteration as u64);
    let (mut views, mut done) = ([vec![], vec![], vec![]], Vec::new());
    for _ in 0..options.batch {
        let pattern = Pattern::draw(&mut rng);
        let [first, second] = [0, 1].map(|_| pattern.window(SIDE, &mut rng));
        let mut corrupted = pattern.window(SIDE, &mut rng);
        let algorithm = rng.random_range(0..Algorithm::PAPER.len());
        Corruption::draw(Algorithm::PAPER[algorithm], &corrupted, &mut rng).apply(&mut corrupted);
        for (view, tile) in views.iter_mut().zip([first, second, corrupted]) {
            view.extend_from_slice(tile.values());
        }
        done.push(algorithm as i64);
    }
    Batch { views, done }
}

/// The network being taught, with what answers the three questions.
struct Student {
    layers: Vec<LayerTensors>,
    surface: WeightsAndBias,
    corruption: WeightsAndBias,
    brightness: WeightsAndBias,
}

/// Weights of this size as a leaf, and a bias of zeros.
fn leaf(values: &[f32], size: &[i64], device: Device) -> Result<WeightsAndBias, TchError> {
    let weight = Tensor::f_from_slice(values)?
        .f_view(size)?
        .f_to_device(device)?
        .set_requires_grad(true);
    let bias = Tensor::f_zeros([size[0]], (Kind::Float, device))?.set_requires_grad(true);
    Ok((weight, bias))
}

/// Kaiming's normal weights for ReLU, for what answers a question.
fn head(
    answers: usize,
    inputs: usize,
    device: Device,
    rng: &mut ChaCha8Rng,
) -> Result<WeightsAndBias, TchError> {
    let deviation = (2.0 / inputs as f32).sqrt();
    let values: Vec<f32> = (0..answers * inputs)
        .map(|_| {
            let value: f32 = StandardNormal.sample(rng);
            value * deviation
        })
        .collect();
    leaf(&values, &[answers as i64, inputs as i64], device)
}

/// Brings a filter bank's weights back to orthonormal rows (or columns, where there are more rows) times √2, one step of
/// Björck and Bowie's iteration (1971): enough after a small step of an optimiser.
fn retract(weight: &mut Tensor) -> Result<(), TchError> {
    let size = weight.size();
    let gain = 2f64.sqrt();
    let w = weight.f_view([size[0], -1])?.f_div_scalar(gain)?;
    let [rows, columns] = [w.size()[0], w.size()[1]];
    let cubed = if rows <= columns {
        w.f_matmul(&w.f_transpose(0, 1)?)?.f_matmul(&w)?
    } else {
        w.f_matmul(&w.f_transpose(0, 1)?.f_matmul(&w)?)?
    };
    let nearer = w.f_mul_scalar(1.5)?.f_sub(&cubed.f_mul_scalar(0.5)?)?;
    weight.f_copy_(&nearer.f_mul_scalar(gain)?.f_view(&size[..])?)
}

impl Student {
    fn new(seed: u64, device: Device) -> Result<Self, TchError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = Vec::new();
        let mut channels = 0;
        for layer in BUILT_IN {
            layers.push(match layer {
                Layer::MaxPool => None,
                Layer::Conv(_, inputs, outputs) => {
                    channels = outputs;
                    let size = [outputs as i64, inputs as i64, 3, 3];
                    let values = orthogonal(outputs, inputs * 9, &mut rng);
                    Some(leaf(&values, &size, device)?)
                }
            });
        }
        Ok(Self {
            layers,
            // Of every channel's mean, spread and peak.
            surface: head(EMBEDDING, 3 * channels, device, &mut rng)?,
            corruption: head(Algorithm::PAPER.len(), 3 * channels, device, &mut rng)?,
            // Of the channels at each place.
            brightness: head(3 * 16, channels, device, &mut rng)?,
        })
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let heads = [&self.surface, &self.corruption, &self.brightness];
        self.layers
            .iter()
            .flatten()
            .chain(heads)
            .enumerate()
            .flat_map(|(index, (weight, bias))| {
                [
                    (format!("{index}.weight"), weight.shallow_clone()),
                    (format!("{index}.bias"), bias.shallow_clone()),
                ]
            })
            .collect()
    }

    /// What the last layer shows of windows: N × channels × 8 × 8.
    fn seen(&self, windows: &Tensor) -> Result<Tensor, TchError> {
        activations(&self.layers, windows, |_| ())
    }

    /// Mean squared error of the brightness every 2 pixels, as read from what is seen of them.
    fn brightness_loss(&self, seen: &Tensor, windows: &Tensor) -> Result<Tensor, TchError> {
        let side = seen.size()[2];
        let wanted = windows
            .f_adaptive_avg_pool2d([4 * side, 4 * side])?
            .f_pixel_unshuffle(4)?;
        let (weight, bias) = &self.brightness;
        let weight = weight.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let found = seen.f_conv2d(&weight, Some(bias), [1i64; 2], [0i64; 2], [1i64; 2], 1)?;
        found.f_mse_loss(&wanted, tch::Reduction::Mean)
    }
}

/// N × (3 × channels): mean, spread and peak of each channel.
fn summary(seen: &Tensor) -> Result<Tensor, TchError> {
    let flat = seen.f_flatten(2, -1)?;
    let mean = flat.f_mean_dim(2i64, false, Kind::Float)?;
    let square = flat.f_square()?.f_mean_dim(2i64, false, Kind::Float)?;
    let spread = square
        .f_sub(&mean.f_square()?)?
        .f_clamp_min(1e-6)?
        .f_sqrt()?;
    Tensor::f_cat(&[mean, spread, flat.f_amax(2i64, false)?], 1)
}

/// SimCLR's loss (its equation 1) of pairs, and the share of windows whose nearest is the partner.
fn pairs_loss(embedded: &Tensor) -> Result<(Tensor, f64), TchError> {
    let count = embedded.size()[0];
    let norm = embedded.f_norm_scalaropt_dim(2.0, 1i64, true)?;
    let unit = embedded.f_div(&norm.f_clamp_min(1e-6)?)?;
    let itself = Tensor::f_eye(count, (Kind::Float, embedded.device()))?.f_mul_scalar(-1e4)?;
    let alike = unit
        .f_matmul(&unit.f_transpose(0, 1)?)?
        .f_div_scalar(TEMPERATURE)?
        .f_add(&itself)?;
    let partner = Tensor::f_arange(count, (Kind::Int64, embedded.device()))?
        .f_add_scalar(count / 2)?
        .f_remainder(count)?;
    let told = alike.f_argmax(1, false)?.f_eq_tensor(&partner)?;
    let told = told.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
    let loss =
        alike.f_cross_entropy_loss::<Tensor>(&partner, None, tch::Reduction::Mean, -100, 0.0)?;
    Ok((loss, told.f_double_value(&[])?))
}

/// Learns, and returns the file for `--features`: the convolutions as f16. Ends early when `stop` is set, with what it has.
pub fn pretrain(
    options: &PretrainOptions,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(PretrainStep),
) -> Result<Vec<u8>, PretrainError> {
    file(&learn(options, stop, on_step)?)
}

/// Weights and biases under their names, f16.
fn file(layers: &[WeightsAndBias]) -> Result<Vec<u8>, PretrainError> {
    let names = BUILT_IN.iter().filter_map(|layer| match layer {
        Layer::MaxPool => None,
        Layer::Conv(name, ..) => Some(*name),
    });
    let mut arrays: Vec<Array<Vec<u8>>> = Vec::new();
    for (name, (weight, bias)) in names.zip(layers) {
        for (part, tensor) in [("weight", weight), ("bias", bias)] {
            let size = tensor.size().into_iter().map(|side| side as usize);
            let values = floats(tensor)?.into_iter().map(f16::from_f32);
            let bytes = values.flat_map(f16::to_le_bytes).collect();
            arrays.push((format!("{name}.{part}"), size.collect(), bytes));
        }
    }
    Ok(encoded(&arrays, Dtype::F16, None)?)
}

fn learn(
    options: &PretrainOptions,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(PretrainStep),
) -> Result<Vec<WeightsAndBias>, PretrainError> {
    let mut student = Student::new(options.seed, options.device)?;
    let mut adam = Adam::new(student.parameters())?;
    let source = options.clone();
    let mut batches = Ahead::start(0..options.iterations, options.workers, move |iteration| {
        batch(&source, iteration)
    });
    let size = [options.batch as i64, 3, SIDE as i64, SIDE as i64];
    for iteration in 0..options.iterations {
        let batch = batches
            .next()
            .ok_or(PretrainError::Workers(iteration + 1))?;
        let mut views = Vec::new();
        for view in &batch.views {
            let view = Tensor::f_from_slice(view)?.f_view(size)?;
            views.push(view.f_to_device(options.device)?);
        }
        let windows = Tensor::f_cat(&views, 0)?;
        let seen = student.seen(&windows)?;
        let brightness = student.brightness_loss(&seen, &windows)?;
        let summary = summary(&seen)?;
        let views = summary.f_split(2 * options.batch as i64, 0)?;
        let embedded = views[0].f_linear(&student.surface.0, Some(&student.surface.1))?;
        let (surfaces, surfaces_told) = pairs_loss(&embedded)?;
        let answers = views[1].f_linear(&student.corruption.0, Some(&student.corruption.1))?;
        let done = Tensor::f_from_slice(&batch.done)?.f_to_device(options.device)?;
        let told = answers.f_argmax(1, false)?.f_eq_tensor(&done)?;
        let told = told.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
        let corruptions =
            answers.f_cross_entropy_loss::<Tensor>(&done, None, tch::Reduction::Mean, -100, 0.0)?;
        let loss = surfaces
            .f_add(&corruptions)?
            .f_add(&brightness.f_mul_scalar(BRIGHTNESS)?)?;
        loss.f_backward()?;
        let progress = iteration as f64 / options.iterations as f64;
        adam.step(RATE * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0)?;
        tch::no_grad(|| {
            let mut layers = student.layers.iter_mut().flatten();
            layers.try_for_each(|(weight, _)| retract(weight))
        })?;
        let loss = loss.f_double_value(&[])?;
        if !loss.is_finite() {
            let iteration = iteration + 1;
            return Err(PretrainError::NotFinite { iteration, loss });
        }
        on_step(PretrainStep {
            iteration: iteration + 1,
            loss,
            surfaces_told,
            corruptions_told: told.f_double_value(&[])?,
            brightness_error: brightness.f_double_value(&[])?,
        });
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let layers = student.layers.into_iter().flatten();
    layers
        .map(|(weight, bias)| Ok((weight.f_detach()?, bias.f_detach()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(iterations: usize) -> PretrainOptions {
        PretrainOptions {
            iterations,
            batch: 6,
            seed: 1,
            device: Device::Cpu,
            workers: 2,
        }
    }

    /// Golden values: PyTorch's cross_entropy over cosine similarities over 0.2, the diagonal left out, worked out by hand for
    /// two orthogonal pairs: each row has 1 / 0.2 for the partner and 0 for the two others.
    #[test]
    fn the_loss_of_pairs_is_simclrs() {
        let embedded =
            Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0]).view([4, 2]);
        let (loss, told) = pairs_loss(&embedded).unwrap();
        let expected = (1.0 + 2.0 * (-5.0f64).exp()).ln();
        assert!((loss.double_value(&[]) - expected).abs() < 1e-6);
        assert_eq!(told, 1.0);
    }

    #[test]
    fn learns_and_stays_orthogonal() {
        let mut losses = Vec::new();
        let stop = AtomicBool::new(false);
        // Stopped while steps are large.
        let long = PretrainOptions {
            iterations: 1_000,
            ..options(0)
        };
        let layers = learn(&long, &stop, &mut |step| {
            losses.push(step.loss);
            stop.store(step.iteration == 30, Ordering::Relaxed);
        })
        .unwrap();
        stop.store(false, Ordering::Relaxed);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[25..]) < mean(&losses[..3]), "{losses:?}");
        let again = learn(&options(3), &stop, &mut |_| ()).unwrap();
        let same = learn(&options(3), &stop, &mut |_| ()).unwrap();
        assert_eq!(again[3].0, same[3].0, "a seed decides");

        for (weight, _) in &layers {
            let w = weight.view([weight.size()[0], -1]) / 2f64.sqrt();
            let (rows, columns) = w.size2().unwrap();
            let product = if rows <= columns {
                w.matmul(&w.transpose(0, 1))
            } else {
                w.transpose(0, 1).matmul(&w)
            };
            let off = product - Tensor::eye(rows.min(columns), (Kind::Float, Device::Cpu));
            let off = off.abs().max().double_value(&[]);
            assert!(off < 0.02, "{off}");
        }
    }
}
