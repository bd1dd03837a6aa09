//! The network (paper, IV-C): three convolutions, three transposed convolutions, and what follows its output
//! (IV-D). In: N × C × H × W in [-1, 1]. Out: the shift A of the same shape.

use proto::manifest::{Network as NetworkShape, TILE_PX};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use crate::onnx::LayerWeights;
use crate::train::floats;

/// Slope of LeakyReLU for negative inputs, and of RefReLU outside [-1, 1] (IV-C, IV-D).
pub const LEAK: f64 = 0.01;
/// Kernel side of every layer (IV-C).
pub const KERNEL: i64 = 3;
/// Stride of every layer (IV-C).
pub const STRIDE: i64 = 2;
/// Image channels: grey is replicated (IV-A).
pub const CHANNELS: i64 = 3;

/// How a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Channels after the first convolution.
    pub width: i64,
    /// **Ours**: each transposed convolution is bilinear upsampling and a convolution of 3 × 3 after it (Odena et al. 2016), as one of
    /// 5 × 5.
    pub upsampled: bool,
}

impl Architecture {
    /// The paper's, of a width (IV-C).
    pub fn paper(width: i64) -> Self {
        Self {
            width,
            upsampled: false,
        }
    }

    /// What a package says of it.
    pub fn shape(&self) -> NetworkShape {
        // Three layers of stride 2, each seeing 1 px to each side at its scale: 1 + 2 + 4; and back, upsampled 2 px.
        let reach = if self.upsampled { 2 } else { 1 };
        NetworkShape {
            channels: CHANNELS as u8,
            width: self.width as u16,
            tile_px: TILE_PX as u16,
            align_px: 8,
            halo_px: 7 * (1 + reach),
        }
    }
}

/// One layer's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShape {
    /// Name of its parameters in checkpoints and in the ONNX graph.
    pub name: &'static str,
    /// Whether it is a transposed convolution.
    pub transposed: bool,
    /// Channels in.
    pub inputs: i64,
    /// Channels out.
    pub outputs: i64,
    /// Side of its kernel.
    pub kernel: i64,
}

impl LayerShape {
    /// PyTorch's order: out × in × side × side, for a transposed convolution in × out × side × side.
    pub fn weight_size(&self) -> [i64; 4] {
        if self.transposed {
            [self.inputs, self.outputs, self.kernel, self.kernel]
        } else {
            [self.outputs, self.inputs, self.kernel, self.kernel]
        }
    }

    /// Padding on each side.
    pub fn padding(&self) -> i64 {
        self.kernel / 2
    }
}

/// C → w → 2w → 4w → 2w → w → C, w = 128 in the paper (IV-C).
pub fn layer_shapes(channels: i64, width: i64) -> [LayerShape; 6] {
    let layer = |name, transposed, inputs, outputs| LayerShape {
        name,
        transposed,
        inputs,
        outputs,
        kernel: KERNEL,
    };
    [
        layer("conv1", false, channels, width),
        layer("conv2", false, width, 2 * width),
        layer("conv3", false, 2 * width, 4 * width),
        layer("deconv1", true, 4 * width, 2 * width),
        layer("deconv2", true, 2 * width, width),
        layer("deconv3", true, width, channels),
    ]
}

/// What is applied to the repaired image I_n + A (IV-D); alternatives for the ablation (VI-E).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputActivation {
    /// x on [-1, 1], 0.01x - 0.99 below, 0.01x + 0.99 above.
    #[value(name = "refrelu")]
    RefRelu,
    /// Hyperbolic tangent.
    Tanh,
    /// The identity.
    None,
}

impl OutputActivation {
    /// Name as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefRelu => "refrelu",
            Self::Tanh => "tanh",
            Self::None => "none",
        }
    }

    /// Applies it element by element.
    pub fn apply(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::RefRelu => {
                let inside = x.f_clamp(-1.0, 1.0)?;
                inside.f_add(&x.f_sub(&inside)?.f_mul_scalar(LEAK)?)
            }
            Self::Tanh => x.f_tanh(),
            Self::None => Ok(x.shallow_clone()),
        }
    }
}

/// The network with its parameters on a device.
#[derive(Debug)]
pub struct Network {
    layers: Vec<(LayerShape, Tensor, Tensor)>,
    /// What upsamples, see [`Architecture::upsampled`]: the weights are the convolutions' then.
    tent: Option<Tensor>,
}

/// Bilinear upsampling by 2 as the weights of a transposed convolution (sides n → 2n - 1), 1 × 1 × 3 × 3.
fn tent(device: Device) -> Result<Tensor, TchError> {
    let row = Tensor::f_from_slice(&[0.5f32, 1.0, 0.5])?;
    row.f_outer(&row)?
        .f_view([1, 1, KERNEL, KERNEL])?
        .f_to_device(device)
}

/// A trained network's layers as they are run: of an upsampled one, each pair as one transposed convolution.
pub fn as_run(
    mut layers: Vec<LayerWeights>,
    upsampled: bool,
) -> Result<Vec<LayerWeights>, TchError> {
    let tent = tent(Device::Cpu)?;
    for layer in &mut layers {
        if upsampled && layer.shape.transposed {
            let weight = Tensor::f_from_slice(&layer.weight)?.f_view(layer.shape.weight_size())?;
            layer.weight = floats(&upsampling(&weight, &tent)?)?;
            layer.shape.kernel = KERNEL + 2;
        }
    }
    Ok(layers)
}

/// Upsampling and a convolution of these weights, in × out × 3 × 3, as one transposed convolution: in × out × 5 × 5.
fn upsampling(weight: &Tensor, tent: &Tensor) -> Result<Tensor, TchError> {
    let size = weight.size();
    let planes = weight.f_view([-1, 1, KERNEL, KERNEL])?;
    let one = [1i64; 2];
    planes
        .f_conv2d(tent, None::<&Tensor>, one, [2i64; 2], one, 1)?
        .f_view([size[0], size[1], KERNEL + 2, KERNEL + 2])
}

impl Network {
    /// Fresh weights as PyTorch's Conv2d and ConvTranspose2d draw theirs (**ours**; the paper gives none):
    /// uniform within ±1/√fan_in, where PyTorch counts fan_in as dimension 1 of the weight times the kernel area.
    /// Drawn by our own generator, so that a seed means the same on every device and thread count.
    pub fn initialise(
        channels: i64,
        architecture: &Architecture,
        seed: u64,
        device: Device,
    ) -> Result<Self, TchError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = Vec::new();
        for shape in layer_shapes(channels, architecture.width) {
            let size = shape.weight_size();
            let bound = 1.0 / ((size[1] * KERNEL * KERNEL) as f32).sqrt();
            let mut draw = |count: i64| -> Vec<f32> {
                (0..count)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect()
            };
            let weight = draw(size.iter().product());
            let bias = draw(shape.outputs);
            let place = |values: &[f32], size: &[i64]| -> Result<Tensor, TchError> {
                Ok(Tensor::f_from_slice(values)?
                    .f_view(size)?
                    .f_to_device(device)?
                    .set_requires_grad(true))
            };
            layers.push((
                shape.clone(),
                place(&weight, &size)?,
                place(&bias, &[shape.outputs])?,
            ));
        }
        Ok(Self {
            layers,
            tent: if architecture.upsampled {
                Some(tent(device)?)
            } else {
                None
            },
        })
    }

    /// The network that has these weights.
    pub fn of(layers: &[LayerWeights], device: Device) -> Result<Self, TchError> {
        let place = |values: &[f32], size: &[i64]| {
            Tensor::f_from_slice(values)?
                .f_view(size)?
                .f_to_device(device)
        };
        let layers = layers.iter().map(|layer| {
            let weight = place(&layer.weight, &layer.shape.weight_size())?;
            let bias = place(&layer.bias, &[layer.shape.outputs])?;
            Ok((layer.shape.clone(), weight, bias))
        });
        Ok(Self {
            layers: layers.collect::<Result<_, TchError>>()?,
            tent: None,
        })
    }

    /// The shift A.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.forward_through(input, &mut |_, _| {})
    }

    /// The shift A; `passed` sees what comes out of each layer, by its number from 0, LeakyReLU included.
    pub fn forward_through(
        &self,
        input: &Tensor,
        passed: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Tensor, TchError> {
        let (stride, one) = ([STRIDE; 2], [1i64; 2]);
        let mut x = input.shallow_clone();
        for (index, (shape, weight, bias)) in self.layers.iter().enumerate() {
            let tent = self.tent.as_ref().filter(|_| shape.transposed);
            let widened = tent.map(|tent| upsampling(weight, tent)).transpose()?;
            let weight = widened.as_ref().unwrap_or(weight);
            let padding = [weight.size()[3] / 2; 2];
            x = if shape.transposed {
                x.f_conv_transpose2d(weight, Some(bias), stride, padding, [0i64; 2], 1, one)?
            } else {
                x.f_conv2d(weight, Some(bias), stride, padding, one, 1)?
            };
            if index + 1 < self.layers.len() {
                // The generated binding of leaky_relu has no slope parameter; 0.01 is libtorch's default.
                x = x.f_leaky_relu()?;
            }
            passed(index, &x);
        }
        Ok(x)
    }

    /// The weights as plain arrays, layer by layer.
    pub fn weights(&self) -> Result<Vec<LayerWeights>, TchError> {
        let layers = self.layers.iter();
        layers
            .map(|(shape, weight, bias)| {
                Ok(LayerWeights {
                    shape: shape.clone(),
                    weight: floats(weight)?,
                    bias: floats(bias)?,
                })
            })
            .collect()
    }

    /// Parameters by name, in a fixed order.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.layers
            .iter()
            .flat_map(|(shape, weight, bias)| {
                [
                    (format!("{}.weight", shape.name), weight.shallow_clone()),
                    (format!("{}.bias", shape.name), bias.shallow_clone()),
                ]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_papers_size() {
        let shapes = layer_shapes(3, 128);
        let channels: Vec<i64> = shapes.iter().map(|layer| layer.outputs).collect();
        assert_eq!(channels, [128, 256, 512, 256, 128, 3]);
        let parameters: i64 = shapes
            .iter()
            .map(|layer| layer.weight_size().iter().product::<i64>() + layer.outputs)
            .sum();
        // IV-C: about 2.96 million.
        assert_eq!(parameters, 2_957_315);
        // IV-C: 65 → 33 → 17 → 9 → 17 → 33 → 65, counted in multiplications: 0.37 GMAC a tile.
        let sides = [33_i64, 17, 9, 9, 17, 33];
        let macs: i64 = shapes
            .iter()
            .zip(sides)
            .map(|(layer, side)| layer.weight_size().iter().product::<i64>() * side * side)
            .sum();
        assert!((360_000_000..380_000_000).contains(&macs), "{macs}");
    }

    /// Strides, paddings, order of layers and LeakyReLU against `torch.nn` 2.13 with the same weights; see
    /// tests/fixtures/train/make.py.
    #[test]
    fn computes_what_pytorch_computes() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/train/network.json")).unwrap();
        let wave = |count: i64, speed: f64, phase: f64, scale: f64| -> Tensor {
            let values: Vec<f32> = (0..count)
                .map(|k| ((k as f64 * speed + phase).sin() * scale) as f32)
                .collect();
            Tensor::from_slice(&values)
        };
        let network = Network::initialise(3, &Architecture::paper(4), 0, Device::Cpu).unwrap();
        tch::no_grad(|| {
            for (number, (shape, weight, bias)) in network.layers.iter().enumerate() {
                let size = shape.weight_size();
                let scale = (2.0 / (9 * shape.inputs) as f64).sqrt();
                let values = wave(size.iter().product(), 0.7, number as f64, scale);
                weight.shallow_clone().copy_(&values.view(size));
                let values = wave(shape.outputs, 1.3, number as f64, 0.1);
                bias.shallow_clone().copy_(&values);
            }
        });
        let input = wave(3 * 65 * 65, 0.37, 0.0, 1.0).view([1, 3, 65, 65]);
        let found = network.forward(&input).unwrap();
        assert_eq!(found.size(), [1, 3, 65, 65]);
        let flat = found.flatten(0, -1);
        for point in golden["points"].as_array().unwrap() {
            let found = flat.double_value(&[point[0].as_i64().unwrap()]);
            let expected = point[1].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
        }
        let total = found.abs().sum(tch::Kind::Double).double_value(&[]);
        let expected = golden["sum_of_magnitudes"].as_f64().unwrap();
        assert!(
            (total / expected - 1.0).abs() < 1e-5,
            "{total} for {expected}"
        );
    }

    /// Against libtorch's own upsampling followed by its convolution.
    #[test]
    fn an_upsampled_layer_is_upsampling_and_a_convolution() {
        tch::manual_seed(3);
        let options = (tch::Kind::Float, Device::Cpu);
        let (input, weight) = (
            Tensor::rand([1, 4, 9, 7], options),
            Tensor::rand([4, 2, 3, 3], options),
        );
        let whole = upsampling(&weight, &tent(Device::Cpu).unwrap()).unwrap();
        assert_eq!(whole.size(), [4, 2, 5, 5]);
        let bias = None::<&Tensor>;
        let found = input.conv_transpose2d(&whole, bias, [2; 2], [2; 2], [0; 2], 1, [1; 2]);
        // A convolution's weights are those of its transposed one, mirrored.
        let convolution = weight.transpose(0, 1).flip([2, 3]);
        let expected = input
            .upsample_bilinear2d([17, 13], true, None, None)
            .conv2d(&convolution, bias, [1; 2], [1; 2], [1; 2], 1);
        assert_eq!(found.size(), expected.size());
        // At its edges the one sees what upsampling would put beyond them, the other 0.
        let inner = |x: &Tensor| x.slice(2, 1, 16, 1).slice(3, 1, 12, 1);
        let off = (inner(&found) - inner(&expected))
            .abs()
            .max()
            .double_value(&[]);
        assert!(off < 1e-4, "{off}");
    }

    #[test]
    fn an_upsampled_network_is_exported_as_it_was_trained_and_sees_what_it_says() {
        let built = Architecture {
            upsampled: true,
            ..Architecture::paper(4)
        };
        let trained = Network::initialise(3, &built, 1, Device::Cpu).unwrap();
        let layers = as_run(trained.weights().unwrap(), true).unwrap();
        let run = Network::of(&layers, Device::Cpu).unwrap();
        tch::manual_seed(4);
        let input = Tensor::rand([1, 3, 129, 129], (tch::Kind::Float, Device::Cpu));
        let (a, b) = (
            trained.forward(&input).unwrap(),
            run.forward(&input).unwrap(),
        );
        assert!((&a - &b).abs().max().double_value(&[]) < 1e-5);
        // A column that sees as far as any (2 more than a multiple of 8): what is beyond the halo changes nothing.
        let (column, halo_px) = (58, i64::from(built.shape().halo_px));
        for (distance_px, changes) in [(halo_px + 1, false), (halo_px, true)] {
            let other = input.copy();
            let _ = other.slice(3, column + distance_px, 129, 1).fill_(-1.0);
            let other = run.forward(&other).unwrap();
            let change = (&other - &b)
                .slice(3, column, column + 1, 1)
                .abs()
                .max()
                .double_value(&[]);
            assert_eq!(change > 0.0, changes, "{distance_px} px: {change}");
        }
    }

    #[test]
    fn keeps_the_size_of_a_tile() {
        let network = Network::initialise(3, &Architecture::paper(4), 1, Device::Cpu).unwrap();
        let input = Tensor::zeros([2, 3, 65, 65], (tch::Kind::Float, Device::Cpu));
        assert_eq!(network.forward(&input).unwrap().size(), [2, 3, 65, 65]);
    }

    #[test]
    fn refrelu_follows_the_papers_formula() {
        let x = Tensor::from_slice(&[-3.0f32, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5]);
        let y = OutputActivation::RefRelu.apply(&x).unwrap();
        let expected = [
            0.01 * -3.0 - 0.99,
            -1.0,
            -0.4,
            0.0,
            0.7,
            1.0,
            0.01 * 2.5 + 0.99,
        ];
        for (found, expected) in Vec::<f32>::try_from(y).unwrap().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn a_seed_is_a_network() {
        let first = |seed| {
            let network =
                Network::initialise(3, &Architecture::paper(4), seed, Device::Cpu).unwrap();
            Vec::<f32>::try_from(network.parameters()[0].1.flatten(0, -1)).unwrap()
        };
        assert_eq!(first(5), first(5));
        assert_ne!(first(5), first(6));
    }
}
