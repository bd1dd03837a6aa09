//! The network (paper, IV-C): three convolutions and three transposed convolutions. In: images
//! N × C × H × W in [-1, 1]. Out: the shift A, of the same shape.

mod activation;
mod architecture;
mod layer;
mod upsampling;

pub use activation::OutputActivation;
pub use architecture::{Architecture, CHANNELS, KERNEL, LEAK, STRIDE};
pub use layer::{LayerShape, LayerWeights, layer_shapes};
pub use upsampling::inference_layers;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, TchError, Tensor};

use crate::tensor::floats;
use upsampling::{bilinear_kernel, merge_upsampling};

/// The network with its parameters on a device.
#[derive(Debug)]
pub struct Network {
    /// Shape, weight and bias of each layer.
    layers: Vec<(LayerShape, Tensor, Tensor)>,
    /// Kernel of the upsampling that precedes each convolution of the second half, if the
    /// architecture has it (see [`Architecture::upsampled`]).
    bilinear_kernel: Option<Tensor>,
}

impl Network {
    /// Draws fresh weights as PyTorch's Conv2d and ConvTranspose2d do (**ours**: the paper does not
    /// say how): uniformly within ±1/√fan_in, where fan_in is dimension 1 of the weight times the
    /// kernel's area. They come from a generator of our own, so that a seed gives the same weights
    /// on every device and with any number of threads.
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
            bilinear_kernel: if architecture.upsampled {
                Some(bilinear_kernel(device)?)
            } else {
                None
            },
        })
    }

    /// A network with the given weights, as [`inference_layers`] returns them.
    pub fn from_weights(layers: &[LayerWeights], device: Device) -> Result<Self, TchError> {
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
            bilinear_kernel: None,
        })
    }

    /// Computes the shift A.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.forward_observed(input, &mut |_, _| {})
    }

    /// Computes the shift A and passes each layer's index, from 0, and its output after LeakyReLU
    /// to `observe`.
    pub fn forward_observed(
        &self,
        input: &Tensor,
        observe: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Tensor, TchError> {
        let (stride, one) = ([STRIDE; 2], [1i64; 2]);
        let mut x = input.shallow_clone();
        for (index, (shape, weight, bias)) in self.layers.iter().enumerate() {
            let kernel = self.bilinear_kernel.as_ref();
            let merged = kernel
                .filter(|_| shape.transposed)
                .map(|kernel| merge_upsampling(weight, kernel))
                .transpose()?;
            let weight = merged.as_ref().unwrap_or(weight);
            let padding = [weight.size()[3] / 2; 2];
            x = if shape.transposed {
                x.f_conv_transpose2d(weight, Some(bias), stride, padding, [0i64; 2], 1, one)?
            } else {
                x.f_conv2d(weight, Some(bias), stride, padding, one, 1)?
            };
            if index + 1 < self.layers.len() {
                // The binding of leaky_relu takes no slope; libtorch's default is 0.01.
                x = x.f_leaky_relu()?;
            }
            observe(index, &x);
        }
        Ok(x)
    }

    /// The weights of each layer as plain arrays.
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

    /// The parameters with their names, in a fixed order.
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

    /// Compares strides, paddings, the order of layers and LeakyReLU with `torch.nn` 2.13 on the
    /// same weights, see tests/fixtures/train/make.py.
    #[test]
    fn agrees_with_pytorch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/train/network.json")).unwrap();
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
            assert!(
                (found - expected).abs() < 1e-5,
                "{found}, expected {expected}"
            );
        }
        let total = found.abs().sum(tch::Kind::Double).double_value(&[]);
        let expected = golden["sum_of_magnitudes"].as_f64().unwrap();
        assert!(
            (total / expected - 1.0).abs() < 1e-5,
            "{total}, expected {expected}"
        );
    }

    #[test]
    fn an_upsampled_network_infers_as_it_was_trained_and_has_the_stated_halo() {
        let architecture = Architecture {
            upsampled: true,
            ..Architecture::paper(4)
        };
        let trained = Network::initialise(3, &architecture, 1, Device::Cpu).unwrap();
        let layers = inference_layers(trained.weights().unwrap(), true).unwrap();
        let merged = Network::from_weights(&layers, Device::Cpu).unwrap();
        tch::manual_seed(4);
        let input = Tensor::rand([1, 3, 129, 129], (tch::Kind::Float, Device::Cpu));
        let (a, b) = (
            trained.forward(&input).unwrap(),
            merged.forward(&input).unwrap(),
        );
        assert!((&a - &b).abs().max().double_value(&[]) < 1e-5);
        // A column 2 px past a multiple of 8 sees as far as any. Changes beyond the halo must not
        // reach it.
        let (column, halo_px) = (58, i64::from(architecture.shape().halo_px));
        for (distance_px, changes) in [(halo_px + 1, false), (halo_px, true)] {
            let other = input.copy();
            let _ = other.slice(3, column + distance_px, 129, 1).fill_(-1.0);
            let other = merged.forward(&other).unwrap();
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
    fn the_seed_decides_the_weights() {
        let first = |seed| {
            let network =
                Network::initialise(3, &Architecture::paper(4), seed, Device::Cpu).unwrap();
            Vec::<f32>::try_from(network.parameters()[0].1.flatten(0, -1)).unwrap()
        };
        assert_eq!(first(5), first(5));
        assert_ne!(first(5), first(6));
    }
}
