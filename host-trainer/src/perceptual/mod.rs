//! The perceptual loss (paper, IV-E): mean squared distance between deep features of two images.
//! In: images N × 3 × H × W in [-1, 1]. Out: a scalar tensor.
//!
//! The paper's extractor is VGG-11 up to the max-pool after its fourth convolution. The built-in
//! one has learned from procedural surfaces ([`crate::pretrain`]). VGG-19 files with rescaled
//! activations and random orthogonal weights are accepted too.

mod input;
mod layers;
mod load;
mod orthogonal;

pub(crate) use layers::{BUILT_IN, Convolution, Layer, LoadedLayer, activations};
pub use load::FeatureError;
pub(crate) use orthogonal::orthogonal;

use std::path::Path;

use sha2::{Digest, Sha256};
use tch::{Device, TchError, Tensor};

use crate::dataset::hex;
use input::InputConvention;
use load::{Loaded, load, random_vgg11};

/// Smallest mean square that the distance between the images themselves is divided by. A product
/// that is mid-grey all over has values near 0, and without a floor its images alone would
/// determine the loss.
const IMAGE_POWER_FLOOR: f64 = 0.05;
/// Smallest mean square that the distance between activations is divided by, because they may all
/// be zero.
const ACTIVATION_POWER_FLOOR: f64 = 1e-12;

/// Which activations of the extractor the loss compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Depth {
    /// Only the last ones, as in the paper (IV-E).
    Last,
    /// The images, the input of every max-pool and the last ones (not in the paper). The squared
    /// distance at each is divided by the mean square for the clean image; the loss is their mean.
    /// Use it with an extractor that pools less than the paper's: patterns of a few pixels that its
    /// last layer does not see would stay in the anomaly map.
    EachScale,
}

/// A frozen feature extractor.
#[derive(Debug)]
pub struct Features {
    layers: Vec<LoadedLayer>,
    input: InputConvention,
    depth: Depth,
    label: String,
}

impl Features {
    /// Sets which activations the loss compares; the default is [`Depth::Last`].
    pub fn with_depth(mut self, depth: Depth) -> Self {
        if depth == Depth::EachScale {
            self.label.push_str(", compared at each scale");
        }
        self.depth = depth;
        self
    }

    /// Reads a safetensors file with torchvision's VGG-11 or SqueezeNet 1.1, a VGG-19, or features of
    /// `host-trainer pretrain`; the names of its tensors say which.
    pub fn from_file(path: &Path, device: Device) -> Result<Self, FeatureError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| FeatureError::Read {
            path: shown.clone(),
            source,
        })?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Self::from_bytes(&bytes, &shown, &file, device)
    }

    /// The weights that come with the program, which have learned from procedural surfaces
    /// (`host-trainer pretrain`) and from no photographs.
    pub fn built_in(device: Device) -> Result<Self, FeatureError> {
        let bytes = include_bytes!("../../../models/features/surfaces.safetensors");
        Self::from_bytes(bytes, "the built-in file", "built in", device)
    }

    /// Like [`Self::from_file`]; `path` is for errors, `file` for the label.
    fn from_bytes(
        bytes: &[u8],
        path: &str,
        file: &str,
        device: Device,
    ) -> Result<Self, FeatureError> {
        let Loaded {
            layers,
            input,
            architecture,
        } = load(bytes, path, device)?;
        let digest = Sha256::digest(bytes);
        let digest = hex(&digest[..4]);
        Ok(Self {
            layers,
            input,
            depth: Depth::Last,
            label: format!("{architecture}, {file}, sha256 {digest}…"),
        })
    }

    /// VGG-11's layers with random orthogonal weights, which need no file.
    pub fn random(seed: u64, device: Device) -> Result<Self, FeatureError> {
        Ok(Self {
            layers: random_vgg11(seed, device)?,
            input: InputConvention::torchvision(device)?,
            depth: Depth::Last,
            label: format!("random:{seed} (VGG-11 layers, orthogonal, not trained on anything)"),
        })
    }

    /// A description of the extractor, for the package.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether these are the paper's layers (IV-E), trained on photographs.
    pub fn are_papers(&self) -> bool {
        self.label.starts_with(load::VGG11_LABEL) && self.depth == Depth::Last
    }

    /// Extracts the activations that the loss compares, deepest last.
    pub fn extract(&self, image: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let mut compared = Vec::new();
        let each_scale = self.depth == Depth::EachScale;
        if each_scale {
            compared.push(image.shallow_clone());
        }
        let last = activations(&self.layers, &self.input.apply(image)?, |x| {
            compared.extend(each_scale.then(|| x.shallow_clone()));
        })?;
        compared.push(last);
        Ok(compared)
    }

    /// Computes the distance between the features of `repaired` and `clean`, without a gradient for
    /// `clean`.
    pub fn loss(&self, repaired: &Tensor, clean: &Tensor) -> Result<Tensor, TchError> {
        let wanted = tch::no_grad(|| self.extract(clean))?;
        let found = self.extract(repaired)?;
        let distance =
            |(found, wanted): (&Tensor, &Tensor)| found.f_mse_loss(wanted, tch::Reduction::Mean);
        if let ([found], [wanted]) = (&found[..], &wanted[..]) {
            return distance((found, wanted));
        }
        let mut sum = Tensor::f_zeros([], (tch::Kind::Float, repaired.device()))?;
        for (level, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let power = wanted.f_square()?.f_mean(tch::Kind::Float)?;
            let floor = match level {
                0 => IMAGE_POWER_FLOOR,
                _ => ACTIVATION_POWER_FLOOR,
            };
            let power = power.f_clamp_min(floor)?;
            sum = sum.f_add(&distance((found, wanted))?.f_div(&power)?)?;
        }
        sum.f_div_scalar(wanted.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layers::{SQUEEZENET, VGG11, VGG19};

    #[test]
    fn features_of_a_tile_have_the_papers_shape() {
        let features = Features::random(0, Device::Cpu).unwrap();
        let tile = Tensor::zeros([1, 3, 65, 65], (tch::Kind::Float, Device::Cpu));
        let shapes = |features: &Features| -> Vec<Vec<i64>> {
            let compared = features.extract(&tile).unwrap();
            compared.iter().map(Tensor::size).collect()
        };
        assert_eq!(shapes(&features), [[1, 256, 8, 8]]);
        assert_eq!(
            shapes(&features.with_depth(Depth::EachScale)),
            [
                [1, 3, 65, 65],
                [1, 64, 65, 65],
                [1, 128, 32, 32],
                [1, 256, 16, 16],
                [1, 256, 8, 8]
            ]
        );
    }

    #[test]
    fn the_built_in_features_load_and_respond_to_texture_and_brightness() {
        let features = Features::built_in(Device::Cpu).unwrap();
        assert!(
            features.label().contains("built in, sha256"),
            "{}",
            features.label()
        );
        let options = (tch::Kind::Float, Device::Cpu);
        let board = (Tensor::arange(65, options).remainder(2.0) - 0.5) * 0.4;
        let board = board.view([1, 65, 1]) * Tensor::ones([3, 1, 65], options);
        let grey = Tensor::zeros([1, 3, 65, 65], options);
        let seen = |image: &Tensor| features.extract(image).unwrap().remove(0);
        assert_eq!(seen(&grey).size(), [1, 128, 8, 8]);
        for (what, other) in [
            ("stripes", &grey + board.unsqueeze(0)),
            ("brightness", &grey + 0.3),
        ] {
            let distance = (seen(&other) - seen(&grey)).square().mean(tch::Kind::Float);
            let distance = distance.double_value(&[]);
            assert!((1e-3..10.0).contains(&distance), "{what}: {distance}");
        }
    }

    #[test]
    fn comparing_at_each_scale_sees_every_pattern() {
        let options = (tch::Kind::Float, Device::Cpu);
        let parity = (Tensor::arange(64, options).remainder(2.0) - 0.5) * 2.0;
        let board = parity.view([1, 64, 1]) * parity.view([1, 1, 64]);
        let colours = Tensor::from_slice(&[1.0f32, -0.5, -0.5]).view([3, 1, 1]);
        let patterns = [
            board.expand([3, 64, 64], true),
            &board * &colours,
            Tensor::ones([3, 64, 64], options),
        ];
        // Mid-grey has a mean square of 0, the darker grey of 0.1. The distance between the images
        // is divided by that, or by the floor, and is one of five levels.
        for (level, power) in [(0.0, IMAGE_POWER_FLOOR), (-(0.1f64.sqrt()), 0.1)] {
            let clean = Tensor::full([1, 3, 64, 64], level, options);
            let features = Features::random(0, Device::Cpu).unwrap();
            let features = features.with_depth(Depth::EachScale);
            for pattern in &patterns {
                let image = &clean + pattern.unsqueeze(0) * 0.1;
                let mse = (&image - &clean)
                    .square()
                    .mean(tch::Kind::Float)
                    .double_value(&[]);
                let loss = features.loss(&image, &clean).unwrap().double_value(&[]);
                let least = mse / power / 5.0;
                assert!(loss > 0.99 * least, "{loss}, expected at least {least}");
                assert!(loss.is_finite());
            }
        }
    }

    /// Writes the weights that PyTorch and onnxruntime were given too, see
    /// tests/fixtures/train/make.py and make_squeezenet.py.
    fn write_weights(path: &Path, plan: &[Layer]) {
        let mut tensors = Vec::new();
        let mut add = |name: &str, phase: f64, [outputs, inputs, side]: [usize; 3]| {
            let scale = (2.0 / (9 * inputs) as f64).sqrt();
            let wave = |count: usize, speed: f64, scale: f64| -> Vec<u8> {
                let value = |k| (f64::from(k) * speed + phase).sin() * scale;
                let values = (0..count as u32).map(|k| value(k) as f32);
                values.flat_map(f32::to_le_bytes).collect()
            };
            let shape = vec![outputs, inputs, side, side];
            let weight = wave(shape.iter().product(), 0.7, scale);
            let bias = wave(outputs, 1.3, 0.1);
            tensors.push((format!("{name}.weight"), shape, weight));
            tensors.push((format!("{name}.bias"), vec![outputs], bias));
        };
        for (number, layer) in plan.iter().enumerate() {
            let phase = number as f64;
            match *layer {
                Layer::MaxPool | Layer::WideMaxPool => {}
                Layer::Conv(name, inputs, outputs) | Layer::StridedConv(name, inputs, outputs) => {
                    add(name, phase, [outputs, inputs, 3]);
                }
                Layer::Fire(name, inputs, squeezed, expanded) => {
                    let part = |part: &str| format!("{name}.{part}");
                    add(&part("squeeze"), phase, [squeezed, inputs, 1]);
                    add(&part("expand1x1"), phase + 0.25, [expanded, squeezed, 1]);
                    add(&part("expand3x3"), phase + 0.5, [expanded, squeezed, 3]);
                }
            }
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            (name, view.unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn features_of_files_agree_with_pytorch_and_onnxruntime() {
        let read = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let vgg = read(include_str!("../../tests/fixtures/train/features.json"));
        let squeezenet = read(include_str!("../../tests/fixtures/train/squeezenet.json"));
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..3 * 65 * 65)
            .map(|k| (f64::from(k) * 0.37).sin() as f32)
            .collect();
        let image = Tensor::from_slice(&values).view([1, 3, 65, 65]);
        for (name, plan, golden) in [
            ("vgg11", VGG11, &vgg),
            ("vgg19", VGG19, &vgg),
            ("squeezenet", SQUEEZENET, &squeezenet),
        ] {
            let path = folder.path().join(name);
            write_weights(&path, &plan);
            let features = Features::from_file(&path, Device::Cpu).unwrap();
            let found = features.extract(&image).unwrap().remove(0);
            let expected = &golden[name];
            assert_eq!(
                found.size(),
                serde_json::from_value::<Vec<i64>>(expected["shape"].clone()).unwrap()
            );
            let flat = found.flatten(0, -1);
            let peak = expected["peak"].as_f64().unwrap();
            let near = |found: f64, expected: f64, what: &str| {
                assert!(
                    (found - expected).abs() < 1e-4 * peak,
                    "{name}, {what}: {found}, expected {expected}"
                );
            };
            near(flat.max().double_value(&[]), peak, "peak");
            let mean = flat.mean(tch::Kind::Float).double_value(&[]);
            near(mean, expected["mean"].as_f64().unwrap(), "mean");
            for point in expected["points"].as_array().unwrap() {
                let at = point[0].as_i64().unwrap();
                near(
                    flat.double_value(&[at]),
                    point[1].as_f64().unwrap(),
                    "a point",
                );
            }
        }
    }
}
