//! The segmentation network: a U-Net (Ronneberger et al. 2015) over the cells of a whole frame, so
//! that each cell is seen beside all others. In: N × planes × 64 × 64
//! ([`scoring::inspect::segmentation`]). Out: N × 1 × 32 × 32 logits. **Ours**.
//!
//! The skip connections matter: without them it learns synthetic defects as well, but finds far
//! fewer real ones (`models/studies`).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, TchError, Tensor};

use crate::onnx::{Convolution, SegmentationLayer};
use crate::tensor::floats;

/// Channels at 128 cells a side. Thin lines need a finer resolution than the 4 × 4 pixels of an
/// input cell; there are few channels because there are many cells.
const FINE: i64 = 16;
/// Channels at 64, 32, 16, 8 and 4 cells a side.
const WIDTHS: [i64; 5] = [32, 48, 64, 64, 64];
/// Initial bias of the last layer: about the logit of the fraction of changed cells, which would
/// otherwise take hundreds of steps to learn.
const FIRST_BIAS: f32 = -2.5;
/// Side of the kernels, except the last one (1) and the one that splits cells.
const KERNEL: i64 = 3;
/// Cells that an input cell is split into, across and down; also the factor of each pooling.
const SPLIT: i64 = 2;
/// Momentum of batch normalisation (Ioffe and Szegedy 2015): PyTorch's default.
const MOMENTUM: f64 = 0.1;
/// Added to variances by batch normalisation: PyTorch's default.
const EPSILON: f64 = 1e-5;

/// What comes before, then two convolutions, each with batch normalisation and ReLU. After
/// [`Before::Split`] the first is a transposed convolution.
#[derive(Debug, Clone, Copy)]
struct Stage {
    name: &'static str,
    before: Before,
    inputs: i64,
    outputs: i64,
}

/// The input of a stage.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// The network's input, each cell split into 2 × 2.
    Split,
    /// Means of 2 × 2 cells, concatenated with the network's input.
    HalveBesideInput,
    /// Means of 2 × 2 cells.
    Halve,
    /// Enlarged to twice the side, concatenated with the output of the stage of this index.
    EnlargeBeside(usize),
}

/// All stages; only the last convolution follows them.
fn stages(planes: i64) -> [Stage; 9] {
    let stage = |name, before, inputs, outputs| Stage {
        name,
        before,
        inputs,
        outputs,
    };
    let [a, b, c, d, e] = WIDTHS;
    [
        stage("fine", Before::Split, planes, FINE),
        stage("down0", Before::HalveBesideInput, FINE + planes, a),
        stage("down1", Before::Halve, a, b),
        stage("down2", Before::Halve, b, c),
        stage("down3", Before::Halve, c, d),
        stage("down4", Before::Halve, d, e),
        stage("up3", Before::EnlargeBeside(4), e + d, d),
        stage("up2", Before::EnlargeBeside(3), d + c, c),
        stage("up1", Before::EnlargeBeside(2), c + b, b),
    ]
}

/// A convolution with batch normalisation.
#[derive(Debug)]
struct Normalised {
    name: String,
    weight: Tensor,
    gain: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

/// A segmentation network in training.
#[derive(Debug)]
pub struct SegmentationNet {
    stages: [Stage; 9],
    /// Two for each stage.
    layers: Vec<Normalised>,
    last_weight: Tensor,
    last_bias: Tensor,
}

impl Stage {
    /// Weight sizes of the two convolutions, each with the number of values that a sum takes in.
    fn weights(&self) -> [([i64; 4], i64); 2] {
        let Self {
            inputs, outputs, ..
        } = *self;
        let taps = KERNEL * KERNEL;
        let plain = |inputs| ([outputs, inputs, KERNEL, KERNEL], inputs * taps);
        let first = match self.before {
            // A transposed convolution's inputs come first.
            Before::Split => ([inputs, outputs, SPLIT, SPLIT], inputs),
            _ => plain(inputs),
        };
        [first, plain(outputs)]
    }
}

impl Normalised {
    /// Normalises the sums of the convolution and applies ReLU.
    fn apply(&self, sums: &Tensor, training: bool) -> Result<Tensor, TchError> {
        sums.f_batch_norm(
            Some(&self.gain),
            Some(&self.shift),
            Some(&self.mean),
            Some(&self.variance),
            training,
            MOMENTUM,
            EPSILON,
            false,
        )?
        .f_relu()
    }

    /// Folds normalisation into the convolution.
    fn folded(&self, split: bool) -> Result<Convolution, TchError> {
        let by = (&self.variance + EPSILON)
            .f_sqrt()?
            .f_reciprocal()?
            .f_mul(&self.gain)?;
        // A transposed convolution's outputs come second.
        let shape = if split { [1, -1, 1, 1] } else { [-1, 1, 1, 1] };
        let weight = self.weight.f_mul(&by.f_view(shape)?)?;
        let bias = self.shift.f_sub(&self.mean.f_mul(&by)?)?;
        Ok(Convolution {
            name: self.name.clone(),
            size: weight.size(),
            weight: floats(&weight)?,
            bias: floats(&bias)?,
        })
    }
}

impl SegmentationNet {
    /// Draws initial weights as PyTorch does: uniform within ±1/√n, where n values enter a sum.
    pub fn new(planes: i64, device: Device, rng: &mut ChaCha8Rng) -> Result<Self, TchError> {
        let mut draw = |size: &[i64], inputs: i64| -> Result<Tensor, TchError> {
            let bound = 1.0 / (inputs as f32).sqrt();
            let count = size.iter().product::<i64>();
            let values = (0..count).map(|_| rng.random_range(-bound..bound));
            let values = values.collect::<Vec<f32>>();
            Ok(Tensor::f_from_slice(&values)?
                .f_view(size)?
                .f_to_device(device)?
                .set_requires_grad(true))
        };
        let constant = |value: f32, count: i64| {
            Tensor::f_from_slice(&vec![value; count as usize])?.f_to_device(device)
        };
        let stages = stages(planes);
        let mut layers = Vec::new();
        for stage in &stages {
            for (number, (size, inputs)) in stage.weights().into_iter().enumerate() {
                layers.push(Normalised {
                    name: format!("{}.{number}", stage.name),
                    weight: draw(&size, inputs)?,
                    gain: constant(1.0, stage.outputs)?.set_requires_grad(true),
                    shift: constant(0.0, stage.outputs)?.set_requires_grad(true),
                    mean: constant(0.0, stage.outputs)?,
                    variance: constant(1.0, stage.outputs)?,
                });
            }
        }
        let last = WIDTHS[1];
        Ok(Self {
            stages,
            layers,
            last_weight: draw(&[1, last, 1, 1], last)?,
            last_bias: constant(FIRST_BIAS, 1)?.set_requires_grad(true),
        })
    }

    /// Parameters by name, in a fixed order.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let layers = self.layers.iter().flat_map(|layer| {
            let of = |what: &str, tensor: &Tensor| {
                (format!("{}.{what}", layer.name), tensor.shallow_clone())
            };
            [
                of("weight", &layer.weight),
                of("gain", &layer.gain),
                of("shift", &layer.shift),
            ]
        });
        let last = [
            ("last.weight".to_owned(), self.last_weight.shallow_clone()),
            ("last.bias".to_owned(), self.last_bias.shallow_clone()),
        ];
        layers.chain(last).collect()
    }

    /// Running means and variances of batch normalisation by name, in a fixed order.
    pub fn statistics(&self) -> Vec<(String, Tensor)> {
        let of = |layer: &Normalised| {
            let name = &layer.name;
            [
                (format!("{name}.mean"), layer.mean.shallow_clone()),
                (format!("{name}.variance"), layer.variance.shallow_clone()),
            ]
        };
        self.layers.iter().flat_map(of).collect()
    }

    /// Computes logits, N × 1 × side × side, of half the input's side. With `training`, batches are
    /// normalised by their own statistics, and all convolutions but the last are computed in this
    /// number format.
    pub fn forward(&self, input: &Tensor, training: Option<Kind>) -> Result<Tensor, TchError> {
        let kind = training.unwrap_or(Kind::Float);
        // Channels last: the memory layout that CPUs and GPUs convolve fastest.
        let input = input
            .f_to_kind(kind)?
            .f_permute([0, 2, 3, 1])?
            .f_contiguous()?
            .f_permute([0, 3, 1, 2])?;
        let halved = |x: &Tensor| x.f_avg_pool2d([SPLIT; 2], [SPLIT; 2], [0; 2], false, true, None);
        let convolved = |x: &Tensor, weight: &Tensor| {
            let padding = [KERNEL / 2; 2];
            x.f_conv2d(weight, None::<&Tensor>, [1; 2], padding, [1; 2], 1)
        };
        let mut made: Vec<Tensor> = Vec::new();
        let mut x = input.shallow_clone();
        for (stage, [first, second]) in self.stages.iter().zip(self.layers.as_chunks().0) {
            x = match stage.before {
                Before::Split => x,
                Before::HalveBesideInput => Tensor::f_cat(&[&halved(&x)?, &input], 1)?,
                Before::Halve => halved(&x)?,
                Before::EnlargeBeside(number) => {
                    let size = x.size();
                    let size = [2 * size[2], 2 * size[3]];
                    let x = x.f_upsample_bilinear2d(size, false, None, None)?;
                    Tensor::f_cat(&[&x, &made[number]], 1)?
                }
            };
            let weight = first.weight.f_to_kind(kind)?;
            let sums = match stage.before {
                Before::Split => {
                    let (stride, none) = ([SPLIT; 2], [0; 2]);
                    x.f_conv_transpose2d(&weight, None::<&Tensor>, stride, none, none, 1, [1; 2])?
                }
                _ => convolved(&x, &weight)?,
            };
            x = first.apply(&sums, training.is_some())?;
            let sums = convolved(&x, &second.weight.f_to_kind(kind)?)?;
            x = second.apply(&sums, training.is_some())?;
            made.push(x.shallow_clone());
        }
        x.f_to_kind(Kind::Float)?.f_conv2d(
            &self.last_weight,
            Some(&self.last_bias),
            [1; 2],
            [0; 2],
            [1; 2],
            1,
        )
    }

    /// The steps to export, with normalisation folded into the convolutions.
    pub fn steps(&self) -> Result<Vec<SegmentationLayer>, TchError> {
        let mut steps = Vec::new();
        for (stage, [first, second]) in self.stages.iter().zip(self.layers.as_chunks().0) {
            let split = matches!(stage.before, Before::Split);
            let (first, second) = (first.folded(split)?, second.folded(false)?);
            match stage.before {
                Before::Split => (),
                Before::HalveBesideInput => {
                    steps.extend([SegmentationLayer::Pool, SegmentationLayer::ConcatInput]);
                }
                Before::Halve => steps.push(SegmentationLayer::Pool),
                Before::EnlargeBeside(number) => {
                    steps.push(SegmentationLayer::UpsampleConcat(
                        self.stages[number].name.to_owned(),
                    ));
                }
            }
            let step = if split {
                SegmentationLayer::Upsample
            } else {
                SegmentationLayer::Convolve
            };
            steps.extend([
                step(first),
                SegmentationLayer::Convolve(second),
                SegmentationLayer::Save(stage.name.to_owned()),
            ]);
        }
        steps.push(SegmentationLayer::Output(Convolution {
            name: "last".to_owned(),
            size: self.last_weight.size(),
            weight: floats(&self.last_weight)?,
            bias: floats(&self.last_bias)?,
        }));
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use scoring::infer::SegmentationEngine;

    use super::*;
    use crate::onnx::export_segmentation;
    use crate::seed::generator;

    /// The exported graph (normalisation folded in, enlarging and all) in tract against libtorch.
    #[test]
    fn the_exported_graph_gives_the_same_logits() {
        let net = SegmentationNet::new(40, Device::Cpu, &mut generator(3, "test", 0)).unwrap();
        tch::manual_seed(5);
        // Training moves the running means and variances away from 0 and 1.
        for _ in 0..20 {
            let batch = Tensor::randn([8, 40, 64, 64], (Kind::Float, Device::Cpu)) * 2.0 + 0.5;
            let logits = tch::no_grad(|| net.forward(&batch, Some(Kind::Float))).unwrap();
            assert_eq!(logits.size(), [8, 1, 32, 32]);
        }
        let onnx = export_segmentation(&net.steps().unwrap(), 40);
        let engine = SegmentationEngine::new(&onnx, 40).unwrap();
        let input = Tensor::randn([1, 40, 64, 64], (Kind::Float, Device::Cpu));
        let expected = tch::no_grad(|| net.forward(&input, None)).unwrap();
        let expected = floats(&expected).unwrap();
        let found = engine.logits(&floats(&input).unwrap()).unwrap();
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 1e-4);
        let [low, high] = [f32::min, f32::max].map(|f| expected.iter().copied().reduce(f).unwrap());
        assert!(high - low > 0.1, "{low} to {high}");
    }

    /// bfloat16 has 8 significant bits instead of 24; 19 convolutions add up their rounding.
    #[test]
    fn training_in_16_bits_gives_nearly_the_same_logits() {
        let net = SegmentationNet::new(40, Device::Cpu, &mut generator(3, "test", 0)).unwrap();
        tch::manual_seed(5);
        let batch = Tensor::randn([8, 40, 64, 64], (Kind::Float, Device::Cpu));
        let [exact, short] = [Kind::Float, Kind::BFloat16].map(|kind| {
            let logits = tch::no_grad(|| net.forward(&batch, Some(kind))).unwrap();
            assert_eq!(logits.kind(), Kind::Float);
            logits
        });
        let off = (&short - &exact).std(true).double_value(&[]);
        let spread = exact.std(true).double_value(&[]);
        assert!(off > 0.0 && off < 0.05 * spread, "{off} of {spread}");
    }
}
