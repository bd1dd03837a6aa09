//! The perceptual loss (paper, IV-E): mean squared distance of deep features of two images in [-1, 1].
//!
//! The paper's extractor is VGG-11 to the max-pool after its fourth convolution. Features of our own, learned from procedural
//! surfaces ([`crate::pretrain`]), are built in; the VGG-19 file with rescaled activations and random orthogonal weights are
//! accepted too.

use crate::dataset::hex;
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};
use tch::{Device, TchError, Tensor};

/// Why there is no feature extractor.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file cannot be read.
    #[error("cannot read feature weights {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("{path} is not a valid safetensors file")]
    Format {
        /// The file.
        path: String,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// The file lacks a tensor or has it in another shape.
    #[error("{path}: expected tensor {name} as f32 or f16 of shape {expected:?}, found {found}")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// What is there.
        found: String,
    },
    /// Neither architecture's names are in the file.
    #[error(
        "{path} holds neither torchvision's VGG-11 (features.0.weight …), nor VGG-19 to conv3_1 (conv1_1.weight …), nor \
         features of `host-trainer pretrain` (surface1.weight …); \
         `host-trainer import-weights` converts torchvision's .pth"
    )]
    Unknown {
        /// The file.
        path: String,
    },
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// Least mean square that the distance of images is measured against. Values are in [-1, 1], so a product that is all
/// mid-grey has next to none, and its images alone would make the loss.
const IMAGE_POWER_FLOOR: f64 = 0.05;

/// A layer of an extractor; every convolution is 3 × 3 with padding 1 and followed by ReLU.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer {
    /// Name of its parameters, channels in and out.
    Conv(&'static str, usize, usize),
    /// 2 × 2.
    MaxPool,
}

/// A layer's weights and bias; `None` is a max-pool.
pub(crate) type LayerTensors = Option<(Tensor, Tensor)>;

/// torchvision's `vgg11().features[0..=10]`.
const VGG11: [Layer; 7] = [
    Layer::Conv("features.0", 3, 64),
    Layer::MaxPool,
    Layer::Conv("features.3", 64, 128),
    Layer::MaxPool,
    Layer::Conv("features.6", 128, 256),
    Layer::Conv("features.8", 256, 256),
    Layer::MaxPool,
];

/// VGG-19 to conv3_1.
const VGG19: [Layer; 7] = [
    Layer::Conv("conv1_1", 3, 64),
    Layer::Conv("conv1_2", 64, 64),
    Layer::MaxPool,
    Layer::Conv("conv2_1", 64, 128),
    Layer::Conv("conv2_2", 128, 128),
    Layer::MaxPool,
    Layer::Conv("conv3_1", 128, 256),
];

/// The built-in one: VGG-11's layers at half their width. Its weights: `host-trainer pretrain`.
pub(crate) const BUILT_IN: [Layer; 7] = [
    Layer::Conv("surface1", 3, 32),
    Layer::MaxPool,
    Layer::Conv("surface2", 32, 64),
    Layer::MaxPool,
    Layer::Conv("surface3", 64, 128),
    Layer::Conv("surface4", 128, 128),
    Layer::MaxPool,
];

/// What all layers make of `x`; `before_pool` gets what goes into each max-pool.
pub(crate) fn activations(
    layers: &[LayerTensors],
    x: &Tensor,
    mut before_pool: impl FnMut(&Tensor),
) -> Result<Tensor, TchError> {
    let mut x = x.shallow_clone();
    for layer in layers {
        x = match layer {
            Some((weight, bias)) => x
                .f_conv2d(weight, Some(bias), [1i64; 2], [1i64; 2], [1i64; 2], 1)?
                .f_relu()?,
            None => {
                before_pool(&x);
                x.f_max_pool2d([2i64; 2], [2i64; 2], [0i64; 2], [1i64; 2], false)?
            }
        };
    }
    Ok(x)
}

/// Which activations of the extractor the loss compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Depth {
    /// The last only (paper, IV-E).
    Last,
    /// Also the ReLU before every max-pool; at each, the squared distance over the mean square of the clean
    /// image's activations, averaged. Ours: an extractor that pools less than the paper's leaves patterns of a
    /// few pixels in the anomaly map that its last layer does not see (measured in ARCHITECTURE.md).
    EachScale,
}

/// What an extractor expects: per channel, `x * scale + shift` of a value in [-1, 1], in RGB or BGR order.
#[derive(Debug)]
struct InputConvention {
    scale: Tensor,
    shift: Tensor,
    bgr: bool,
}

impl InputConvention {
    /// torchvision: RGB in 0..1, minus the ImageNet mean, over the deviation.
    fn torchvision(device: Device) -> Result<Self, TchError> {
        let (mean, deviation) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
        let scale = deviation.map(|d| 0.5 / d);
        let shift = [0, 1, 2].map(|c| (0.5 - mean[c]) / deviation[c]);
        Self::new(scale, shift, false, device)
    }

    /// Caffe's: BGR in 0..255, minus the mean.
    fn caffe(device: Device) -> Result<Self, TchError> {
        let mean = [103.939f32, 116.779, 123.68];
        Self::new([127.5; 3], mean.map(|m| 127.5 - m), true, device)
    }

    /// The built-in one's: RGB in -1..1, as it is.
    fn ours(device: Device) -> Result<Self, TchError> {
        Self::new([1.0; 3], [0.0; 3], false, device)
    }

    fn new(scale: [f32; 3], shift: [f32; 3], bgr: bool, device: Device) -> Result<Self, TchError> {
        let place = |values: [f32; 3]| {
            Tensor::f_from_slice(&values)?
                .f_view([1, 3, 1, 1])?
                .f_to_device(device)
        };
        Ok(Self {
            scale: place(scale)?,
            shift: place(shift)?,
            bgr,
        })
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor, TchError> {
        let ordered = if self.bgr {
            image.f_flip([1])?
        } else {
            image.shallow_clone()
        };
        ordered.f_mul(&self.scale)?.f_add(&self.shift)
    }
}

/// A frozen feature extractor.
#[derive(Debug)]
pub struct Features {
    layers: Vec<LayerTensors>,
    input: InputConvention,
    depth: Depth,
    label: String,
}

impl Features {
    /// Sets what the loss compares; [`Depth::Last`] unless told.
    pub fn compared_at(mut self, depth: Depth) -> Self {
        if depth == Depth::EachScale {
            self.label.push_str(", compared at each scale");
        }
        self.depth = depth;
        self
    }

    /// Weights from a safetensors file: torchvision's VGG-11 names, or the VGG-19 file's.
    pub fn from_file(path: &Path, device: Device) -> Result<Self, FeatureError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| FeatureError::Read {
            path: shown.clone(),
            source,
        })?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Self::from_bytes(&bytes, &shown, &file, device)
    }

    /// The weights that come with the program: learned from procedural surfaces (`host-trainer pretrain`), free of anybody's
    /// photographs.
    pub fn built_in(device: Device) -> Result<Self, FeatureError> {
        let bytes = include_bytes!("../../models/features/surfaces.safetensors");
        Self::from_bytes(bytes, "the built-in file", "built in", device)
    }

    /// As [`Self::from_file`]; `shown` is for errors, `file` for the label.
    fn from_bytes(
        bytes: &[u8],
        shown: &str,
        file: &str,
        device: Device,
    ) -> Result<Self, FeatureError> {
        let tensors = safetensors::SafeTensors::deserialize(bytes).map_err(|source| {
            FeatureError::Format {
                path: shown.to_owned(),
                source,
            }
        })?;
        let has = |name: &str| tensors.tensor(name).is_ok();
        let (plan, input, architecture) = if has("features.0.weight") {
            (
                VGG11,
                InputConvention::torchvision(device)?,
                "VGG-11 to pool 3",
            )
        } else if has("conv1_1.weight") {
            (VGG19, InputConvention::caffe(device)?, "VGG-19 to conv3_1")
        } else if has("surface1.weight") {
            (
                BUILT_IN,
                InputConvention::ours(device)?,
                "VGG-11's layers at half width, procedural surfaces",
            )
        } else {
            return Err(FeatureError::Unknown {
                path: shown.to_owned(),
            });
        };
        let read = |name: String, expected: Vec<usize>| {
            let wrong = |found: String| FeatureError::Tensor {
                path: shown.to_owned(),
                name: name.clone(),
                expected: expected.clone(),
                found,
            };
            let view = tensors
                .tensor(&name)
                .map_err(|_| wrong("nothing of that name".into()))?;
            let kind = match view.dtype() {
                safetensors::Dtype::F32 => tch::Kind::Float,
                safetensors::Dtype::F16 => tch::Kind::Half,
                other => return Err(wrong(format!("{other:?} {:?}", view.shape()))),
            };
            if view.shape() != expected {
                return Err(wrong(format!("{:?} {:?}", view.dtype(), view.shape())));
            }
            let size: Vec<i64> = expected.iter().map(|&side| side as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &size, kind)?;
            let tensor = tensor.f_to_kind(tch::Kind::Float)?;
            if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(wrong("values that are not finite".into()));
            }
            Ok(tensor.f_to_device(device)?)
        };
        let layers = plan
            .iter()
            .map(|layer| match *layer {
                Layer::MaxPool => Ok(None),
                Layer::Conv(name, inputs, outputs) => Ok(Some((
                    read(format!("{name}.weight"), vec![outputs, inputs, 3, 3])?,
                    read(format!("{name}.bias"), vec![outputs])?,
                ))),
            })
            .collect::<Result<_, FeatureError>>()?;
        let digest = Sha256::digest(bytes);
        let digest = hex(&digest[..4]);
        Ok(Self {
            layers,
            input,
            depth: Depth::Last,
            label: format!("{architecture}, {file}, sha256 {digest}…"),
        })
    }

    /// VGG-11's layers with random orthogonal weights (Saxe et al. 2014) of gain √2 and no bias: needs no file.
    pub fn random(seed: u64, device: Device) -> Result<Self, FeatureError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let layers = VGG11
            .iter()
            .map(|layer| match *layer {
                Layer::MaxPool => Ok(None),
                Layer::Conv(_, inputs, outputs) => {
                    let rows = outputs;
                    let columns = inputs * 9;
                    let values = orthogonal(rows, columns, &mut rng);
                    let size = [outputs as i64, inputs as i64, 3, 3];
                    let weight = Tensor::f_from_slice(&values)?
                        .f_view(size)?
                        .f_to_device(device)?;
                    let bias = Tensor::f_zeros([outputs as i64], (tch::Kind::Float, device))?;
                    Ok(Some((weight, bias)))
                }
            })
            .collect::<Result<_, FeatureError>>()?;
        Ok(Self {
            layers,
            input: InputConvention::torchvision(device)?,
            depth: Depth::Last,
            label: format!("random:{seed} (VGG-11 layers, orthogonal, not trained on anything)"),
        })
    }

    /// What it is, for the package.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Features of images N × 3 × H × W in [-1, 1], at the places that the loss compares, deepest last.
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

    /// Mean squared distance of the features of `repaired` and `clean`; no gradient flows to `clean`.
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
            // The first is the image itself. An all-zero activation would divide by zero.
            let floor = if level == 0 { IMAGE_POWER_FLOOR } else { 1e-12 };
            let power = power.f_clamp_min(floor)?;
            sum = sum.f_add(&distance((found, wanted))?.f_div(&power)?)?;
        }
        sum.f_div_scalar(wanted.len() as f64)
    }
}

/// A `rows` × `columns` matrix with orthonormal rows (or columns, where there are more rows), times √2, by
/// Gram-Schmidt in double precision.
pub(crate) fn orthogonal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| StandardNormal.sample(rng)).collect();
        // Twice is enough (Kahan and Parlett).
        for _ in 0..2 {
            for other in &vectors {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector
                    .iter_mut()
                    .zip(other)
                    .for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|a| *a /= norm);
        vectors.push(vector);
    }
    let gain = 2f64.sqrt();
    (0..rows * columns)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            let value = if rows <= columns {
                vectors[row][column]
            } else {
                vectors[column][row]
            };
            (value * gain) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            shapes(&features.compared_at(Depth::EachScale)),
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
    fn the_built_in_features_are_whole_and_see_texture_and_brightness() {
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
    fn comparing_at_each_scale_leaves_no_pattern_unseen() {
        let options = (tch::Kind::Float, Device::Cpu);
        let parity = (Tensor::arange(64, options).remainder(2.0) - 0.5) * 2.0;
        let board = parity.view([1, 64, 1]) * parity.view([1, 1, 64]);
        let colours = Tensor::from_slice(&[1.0f32, -0.5, -0.5]).view([3, 1, 1]);
        let patterns = [
            board.expand([3, 64, 64], true),
            &board * &colours,
            Tensor::ones([3, 64, 64], options),
        ];
        // Grey has a mean square of 0, brown of 0.1: the distance of images counts a fifth, over that or the floor.
        for (level, power) in [(0.0, IMAGE_POWER_FLOOR), (-(0.1f64.sqrt()), 0.1)] {
            let clean = Tensor::full([1, 3, 64, 64], level, options);
            let features = Features::random(0, Device::Cpu).unwrap();
            let features = features.compared_at(Depth::EachScale);
            for pattern in &patterns {
                let image = &clean + pattern.unsqueeze(0) * 0.1;
                let mse = (&image - &clean)
                    .square()
                    .mean(tch::Kind::Float)
                    .double_value(&[]);
                let loss = features.loss(&image, &clean).unwrap().double_value(&[]);
                let least = mse / power / 5.0;
                assert!(loss > 0.99 * least, "{loss} for at least {least}");
                assert!(loss.is_finite());
            }
        }
    }

    /// Weights that PyTorch was given too; see tests/fixtures/train/make.py.
    fn write_weights(path: &Path, plan: &[Layer]) {
        let mut tensors = Vec::new();
        for (number, layer) in plan.iter().enumerate() {
            let Layer::Conv(name, inputs, outputs) = *layer else {
                continue;
            };
            let scale = (2.0 / (9 * inputs) as f64).sqrt();
            let wave = |count: usize, speed: f64, scale: f64| -> Vec<u8> {
                let value = |k| (f64::from(k) * speed + number as f64).sin() * scale;
                let values = (0..count as u32).map(|k| value(k) as f32);
                values.flat_map(f32::to_le_bytes).collect()
            };
            let weight = wave(outputs * inputs * 9, 0.7, scale);
            let shape = vec![outputs, inputs, 3, 3];
            tensors.push((format!("{name}.weight"), shape, weight));
            tensors.push((
                format!("{name}.bias"),
                vec![outputs],
                wave(outputs, 1.3, 0.1),
            ));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            (name, view.unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn features_of_files_agree_with_pytorch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/train/features.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..3 * 65 * 65)
            .map(|k| (f64::from(k) * 0.37).sin() as f32)
            .collect();
        let image = Tensor::from_slice(&values).view([1, 3, 65, 65]);
        for (name, plan) in [("vgg11", VGG11), ("vgg19", VGG19)] {
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
                    "{name}, {what}: {found} for {expected}"
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

    #[test]
    fn input_conventions_map_black_and_white_as_published() {
        let image = Tensor::from_slice(&[-1.0f32, -1.0, -1.0, 1.0, 1.0, 1.0]).view([2, 3, 1, 1]);
        let map = |convention: InputConvention| {
            Vec::<f32>::try_from(convention.apply(&image).unwrap().flatten(0, -1)).unwrap()
        };
        let near = |found: Vec<f32>, expected: [f32; 6]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-3, "{found:?} for {expected:?}");
            }
        };
        // (0 - mean) / deviation and (1 - mean) / deviation of torchvision's Normalize.
        near(
            map(InputConvention::torchvision(Device::Cpu).unwrap()),
            [-2.1179, -2.0357, -1.8044, 2.2489, 2.4286, 2.64],
        );
        near(
            map(InputConvention::caffe(Device::Cpu).unwrap()),
            [-103.939, -116.779, -123.68, 151.061, 138.221, 131.32],
        );
        let red = Tensor::from_slice(&[1.0f32, -1.0, -1.0]).view([1, 3, 1, 1]);
        let ordered = InputConvention::caffe(Device::Cpu)
            .unwrap()
            .apply(&red)
            .unwrap();
        assert!(
            ordered.double_value(&[0, 2, 0, 0]) > 0.0,
            "red comes last in BGR"
        );
    }

    #[test]
    fn random_weights_are_orthogonal() {
        for (rows, columns) in [(4, 9), (9, 4)] {
            let matrix = orthogonal(rows, columns, &mut ChaCha8Rng::seed_from_u64(1));
            let at = |row: usize, column: usize| f64::from(matrix[row * columns + column]);
            let count = rows.min(columns);
            for i in 0..count {
                for j in 0..count {
                    let dot: f64 = if rows <= columns {
                        (0..columns).map(|k| at(i, k) * at(j, k)).sum()
                    } else {
                        (0..rows).map(|k| at(k, i) * at(k, j)).sum()
                    };
                    let expected = if i == j { 2.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5);
                }
            }
        }
    }
}
