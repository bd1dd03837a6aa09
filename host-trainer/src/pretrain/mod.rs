//! Trains the built-in features: a small VGG-like network that learns from procedural surfaces
//! alone, so that the product needs no photographs, licence or download. In: options. Out: the
//! bytes of a safetensors file. **Ours**: the paper's extractor was trained on ImageNet (IV-E).
//!
//! Its last layer is trained on three tasks, whose answers the generator knows:
//!
//! - which windows show the same surface (SimCLR's loss, Chen et al. 2020);
//! - which [`Algorithm`] corrupted a window, so that it responds to defects;
//! - the brightness of the window every 2 pixels, in each channel. Features that only distinguish
//!   surfaces ignore brightness, and a network trained with them turns every tile white.
//!
//! The filters start as random orthogonal ones and are kept orthogonal (Parseval networks, Cissé et
//! al. 2017), so that no pattern is amplified without bound.

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

use crate::arrays::{Array, encoded};
use crate::noise::{Algorithm, Corruption};
use crate::perceptual::{BUILT_IN, Convolution, Layer, LoadedLayer, activations, orthogonal};
use crate::prefetch::Prefetch;
use crate::seed::generator;
use crate::tensor::floats;
use crate::train::Adam;

/// Side of a window in pixels, the same as a tile's (IV-A).
const SIDE: usize = 65;
/// Length of the embedding that identifies surfaces.
const EMBEDDING: usize = 64;
/// SimCLR's temperature. The lower it is, the more strongly the nearest wrong surface is repelled.
const TEMPERATURE: f64 = 0.2;
/// Weight of the mean squared error of brightness. The other two losses have weight 1 and begin at
/// 4.6 and 2.5.
const BRIGHTNESS_WEIGHT: f64 = 10.0;
/// Highest learning rate, as a multiple of the paper's 2·10⁻⁴ (IV-F): training is meant to take
/// fewer steps than the paper's 3,500.
const RATE_FACTOR: f64 = 5.0;

/// Options of the training.
#[derive(Debug, Clone)]
pub struct PretrainOptions {
    /// Number of steps.
    pub iterations: usize,
    /// Surfaces per step. Each gives two windows and a third one that is corrupted.
    pub batch: usize,
    /// Seed of weights and surfaces.
    pub seed: u64,
    /// Where to compute.
    pub device: Device,
    /// Threads that paint surfaces.
    pub workers: usize,
}

/// Progress report of a step.
#[derive(Debug, Clone, Copy)]
pub struct PretrainStep {
    /// Its number, from 1.
    pub iteration: usize,
    /// The loss.
    pub loss: f64,
    /// Fraction of windows whose nearest window shows the same surface.
    pub surface_accuracy: f64,
    /// Fraction of corruptions that are recognised.
    pub corruption_accuracy: f64,
    /// Mean squared error of brightness, for values in [-1, 1].
    pub brightness_error: f64,
}

/// A layer's weight and bias.
type WeightsAndBias = (Tensor, Tensor);

/// Why there are no features.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The loss is NaN or infinite.
    #[error("the loss became {loss} at step {iteration}: try another --seed")]
    NotFinite {
        /// The step, from 1.
        iteration: usize,
        /// The loss.
        loss: f64,
    },
    /// A thread that paints ended early.
    #[error("the threads that paint surfaces ended at step {0}")]
    Workers(usize),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The weights cannot be encoded.
    #[error("cannot encode the weights")]
    Encode(#[from] SafeTensorError),
}

/// The windows of one step.
struct WindowBatch {
    /// Two windows of each surface and a third one that is corrupted, each B × 3 × 65 × 65 values.
    views: [Vec<f32>; 3],
    /// Number of the algorithm that corrupted each third window.
    corruptions: Vec<i64>,
}

/// Paints the windows of a step.
fn batch(options: &PretrainOptions, iteration: usize) -> WindowBatch {
    let mut rng = generator(options.seed, "pretrain", iteration as u64);
    let (mut views, mut corruptions) = ([vec![], vec![], vec![]], Vec::new());
    for _ in 0..options.batch {
        let pattern = Pattern::draw(&mut rng);
        let [first, second] = [0, 1].map(|_| pattern.window(SIDE, &mut rng));
        let mut corrupted = pattern.window(SIDE, &mut rng);
        let algorithm = rng.random_range(0..Algorithm::PAPER.len());
        Corruption::draw(Algorithm::PAPER[algorithm], &corrupted, &mut rng).apply(&mut corrupted);
        for (view, tile) in views.iter_mut().zip([first, second, corrupted]) {
            view.extend_from_slice(tile.values());
        }
        corruptions.push(algorithm as i64);
    }
    WindowBatch { views, corruptions }
}

/// The network in training, with a linear head for each task.
struct Student {
    layers: Vec<LoadedLayer>,
    surface_head: WeightsAndBias,
    corruption_head: WeightsAndBias,
    brightness_head: WeightsAndBias,
}

/// Trainable weights of this size, and a bias of zeros.
fn trainable(values: &[f32], size: &[i64], device: Device) -> Result<WeightsAndBias, TchError> {
    let weight = Tensor::f_from_slice(values)?
        .f_view(size)?
        .f_to_device(device)?
        .set_requires_grad(true);
    let bias = Tensor::f_zeros([size[0]], (Kind::Float, device))?.set_requires_grad(true);
    Ok((weight, bias))
}

/// A linear head with normally distributed weights for inputs after ReLU (He et al. 2015).
fn head(
    outputs: usize,
    inputs: usize,
    device: Device,
    rng: &mut ChaCha8Rng,
) -> Result<WeightsAndBias, TchError> {
    let deviation = (2.0 / inputs as f32).sqrt();
    let values: Vec<f32> = (0..outputs * inputs)
        .map(|_| {
            let value: f32 = StandardNormal.sample(rng);
            value * deviation
        })
        .collect();
    trainable(&values, &[outputs as i64, inputs as i64], device)
}

/// Moves a filter bank's weights back towards orthonormal rows, or columns where there are more
/// rows, times √2. One step of Björck and Bowie's iteration (1971) suffices after a small step of
/// the optimiser.
fn orthogonalise(weight: &mut Tensor) -> Result<(), TchError> {
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
            let Layer::Conv(_, inputs, outputs) = layer else {
                layers.push(LoadedLayer::MaxPool(2));
                continue;
            };
            channels = outputs;
            let size = [outputs as i64, inputs as i64, 3, 3];
            let values = orthogonal(outputs, inputs * 9, &mut rng);
            let (weight, bias) = trainable(&values, &size, device)?;
            layers.push(LoadedLayer::Convolution(Convolution::same(weight, bias)));
        }
        Ok(Self {
            layers,
            // From the mean, standard deviation and maximum of each channel.
            surface_head: head(EMBEDDING, 3 * channels, device, &mut rng)?,
            corruption_head: head(Algorithm::PAPER.len(), 3 * channels, device, &mut rng)?,
            // From the channels at each position.
            brightness_head: head(3 * 16, channels, device, &mut rng)?,
        })
    }

    /// All parameters with their names.
    fn parameters(&self) -> Vec<(String, Tensor)> {
        let heads = [
            &self.surface_head,
            &self.corruption_head,
            &self.brightness_head,
        ];
        let convolutions = self.layers.iter().filter_map(LoadedLayer::convolution);
        let convolutions = convolutions.map(|layer| (&layer.weight, &layer.bias));
        convolutions
            .chain(heads.map(|(weight, bias)| (weight, bias)))
            .enumerate()
            .flat_map(|(index, (weight, bias))| {
                [
                    (format!("{index}.weight"), weight.shallow_clone()),
                    (format!("{index}.bias"), bias.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Features of windows, N × channels × 8 × 8.
    fn features(&self, windows: &Tensor) -> Result<Tensor, TchError> {
        activations(&self.layers, windows, |_| ())
    }

    /// Mean squared error of the brightness every 2 pixels, as predicted from the features.
    fn brightness_loss(&self, features: &Tensor, windows: &Tensor) -> Result<Tensor, TchError> {
        let side = features.size()[2];
        let wanted = windows
            .f_adaptive_avg_pool2d([4 * side, 4 * side])?
            .f_pixel_unshuffle(4)?;
        let (weight, bias) = &self.brightness_head;
        let weight = weight.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let found = features.f_conv2d(&weight, Some(bias), [1i64; 2], [0i64; 2], [1i64; 2], 1)?;
        found.f_mse_loss(&wanted, tch::Reduction::Mean)
    }
}

/// Mean, standard deviation and maximum of each channel, N × (3 × channels).
fn channel_statistics(features: &Tensor) -> Result<Tensor, TchError> {
    let flat = features.f_flatten(2, -1)?;
    let mean = flat.f_mean_dim(2i64, false, Kind::Float)?;
    let square = flat.f_square()?.f_mean_dim(2i64, false, Kind::Float)?;
    let deviation = square
        .f_sub(&mean.f_square()?)?
        .f_clamp_min(1e-6)?
        .f_sqrt()?;
    Tensor::f_cat(&[mean, deviation, flat.f_amax(2i64, false)?], 1)
}

/// SimCLR's loss (its equation 1) over pairs of embeddings, where the second half has the partners
/// of the first. Also returns the fraction of embeddings whose nearest one is the partner.
fn pair_loss(embedded: &Tensor) -> Result<(Tensor, f64), TchError> {
    let count = embedded.size()[0];
    let norm = embedded.f_norm_scalaropt_dim(2.0, 1i64, true)?;
    let unit = embedded.f_div(&norm.f_clamp_min(1e-6)?)?;
    let itself = Tensor::f_eye(count, (Kind::Float, embedded.device()))?.f_mul_scalar(-1e4)?;
    let similarity = unit
        .f_matmul(&unit.f_transpose(0, 1)?)?
        .f_div_scalar(TEMPERATURE)?
        .f_add(&itself)?;
    let partner = Tensor::f_arange(count, (Kind::Int64, embedded.device()))?
        .f_add_scalar(count / 2)?
        .f_remainder(count)?;
    let correct = similarity.f_argmax(1, false)?.f_eq_tensor(&partner)?;
    let accuracy = correct.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
    let loss = similarity.f_cross_entropy_loss::<Tensor>(
        &partner,
        None,
        tch::Reduction::Mean,
        -100,
        0.0,
    )?;
    Ok((loss, accuracy.f_double_value(&[])?))
}

/// Trains the network and returns the bytes of a file for `--features`, with the convolutions as
/// f16. If `stop` is set, it ends early with the weights that it has.
pub fn pretrain(
    options: &PretrainOptions,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(PretrainStep),
) -> Result<Vec<u8>, PretrainError> {
    encode(&learn(options, stop, on_step)?)
}

/// Encodes the named weights and biases as f16.
fn encode(layers: &[WeightsAndBias]) -> Result<Vec<u8>, PretrainError> {
    let names = BUILT_IN.iter().filter_map(|layer| match layer {
        Layer::Conv(name, ..) => Some(*name),
        _ => None,
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

/// Trains the network and returns its convolutions.
fn learn(
    options: &PretrainOptions,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(PretrainStep),
) -> Result<Vec<WeightsAndBias>, PretrainError> {
    let student = Student::new(options.seed, options.device)?;
    let mut adam = Adam::new(student.parameters())?;
    let source = options.clone();
    let mut batches = Prefetch::start(0..options.iterations, options.workers, move |iteration| {
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
        let features = student.features(&windows)?;
        let brightness = student.brightness_loss(&features, &windows)?;
        let statistics = channel_statistics(&features)?;
        let views = statistics.f_split(2 * options.batch as i64, 0)?;
        let embedded = views[0].f_linear(&student.surface_head.0, Some(&student.surface_head.1))?;
        let (surface_loss, surface_accuracy) = pair_loss(&embedded)?;
        let head = &student.corruption_head;
        let logits = views[1].f_linear(&head.0, Some(&head.1))?;
        let target = Tensor::f_from_slice(&batch.corruptions)?.f_to_device(options.device)?;
        let correct = logits.f_argmax(1, false)?.f_eq_tensor(&target)?;
        let corruption_accuracy = correct.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
        let corruption_loss = logits.f_cross_entropy_loss::<Tensor>(
            &target,
            None,
            tch::Reduction::Mean,
            -100,
            0.0,
        )?;
        let loss = surface_loss
            .f_add(&corruption_loss)?
            .f_add(&brightness.f_mul_scalar(BRIGHTNESS_WEIGHT)?)?;
        loss.f_backward()?;
        let progress = iteration as f64 / options.iterations as f64;
        adam.step(RATE_FACTOR * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0)?;
        tch::no_grad(|| {
            let mut layers = student.layers.iter().filter_map(LoadedLayer::convolution);
            layers.try_for_each(|layer| orthogonalise(&mut layer.weight.shallow_clone()))
        })?;
        let loss = loss.f_double_value(&[])?;
        if !loss.is_finite() {
            let iteration = iteration + 1;
            return Err(PretrainError::NotFinite { iteration, loss });
        }
        on_step(PretrainStep {
            iteration: iteration + 1,
            loss,
            surface_accuracy,
            corruption_accuracy: corruption_accuracy.f_double_value(&[])?,
            brightness_error: brightness.f_double_value(&[])?,
        });
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let layers = student.layers.iter().filter_map(LoadedLayer::convolution);
    layers
        .map(|layer| Ok((layer.weight.f_detach()?, layer.bias.f_detach()?)))
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

    /// Cross-entropy over cosine similarities / 0.2 without the diagonal, computed by hand for two
    /// orthogonal pairs: each row has 1 / 0.2 for the partner and 0 for the two others.
    #[test]
    fn the_pair_loss_is_simclrs() {
        let embedded =
            Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0]).view([4, 2]);
        let (loss, accuracy) = pair_loss(&embedded).unwrap();
        let expected = (1.0 + 2.0 * (-5.0f64).exp()).ln();
        assert!((loss.double_value(&[]) - expected).abs() < 1e-6);
        assert_eq!(accuracy, 1.0);
    }

    #[test]
    fn learns_and_stays_orthogonal() {
        let mut losses = Vec::new();
        let stop = AtomicBool::new(false);
        // Stops while the learning rate is still high.
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
        assert_eq!(
            again[3].0, same[3].0,
            "the same seed gives the same weights"
        );

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
