//! Where an extractor's weights come from: safetensors files, or random numbers.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, TchError, Tensor};

use super::input::InputConvention;
use super::layers::{BUILT_IN, Convolution, Layer, LoadedLayer, SQUEEZENET, VGG11, VGG19};
use super::orthogonal::orthogonal;

/// Why there is no feature extractor.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file cannot be read.
    #[error("cannot read feature weights {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a safetensors file.
    #[error("{path} is not a valid safetensors file")]
    Format {
        /// The file.
        path: String,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is missing, or has another type or shape.
    #[error("{path}: expected tensor {name} as f32 or f16 of shape {expected:?}, found {found}")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// The expected shape.
        expected: Vec<usize>,
        /// What the file has instead.
        found: String,
    },
    /// The file has the tensor names of no known architecture.
    #[error(
        "{path} holds neither torchvision's VGG-11 or SqueezeNet 1.1 (features.0.weight …), nor \
         VGG-19 to conv3_1 (conv1_1.weight …), nor features of `host-trainer pretrain` (surface1.weight …); \
         `host-trainer import-weights` converts torchvision's .pth files"
    )]
    Unknown {
        /// The file.
        path: String,
    },
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// The paper's architecture in words.
pub(super) const VGG11_LABEL: &str = "VGG-11 to pool 3";

/// An extractor read from a file.
pub(super) struct Loaded {
    /// Its layers.
    pub(super) layers: Vec<LoadedLayer>,
    /// How it expects its input.
    pub(super) input: InputConvention,
    /// Its architecture in words.
    pub(super) architecture: &'static str,
}

/// Reads the bytes of a safetensors file; `path` is only for errors. The names of its tensors say
/// which architecture it is.
pub(super) fn load(bytes: &[u8], path: &str, device: Device) -> Result<Loaded, FeatureError> {
    let tensors =
        safetensors::SafeTensors::deserialize(bytes).map_err(|source| FeatureError::Format {
            path: path.to_owned(),
            source,
        })?;
    let has = |name: &str| tensors.tensor(name).is_ok();
    let (plan, input, architecture) = if has("features.3.squeeze.weight") {
        let input = InputConvention::torchvision(device)?;
        (
            SQUEEZENET,
            input,
            "SqueezeNet 1.1 to its fourth fire module",
        )
    } else if has("features.0.weight") {
        (VGG11, InputConvention::torchvision(device)?, VGG11_LABEL)
    } else if has("conv1_1.weight") {
        (VGG19, InputConvention::caffe(device)?, "VGG-19 to conv3_1")
    } else if has("surface1.weight") {
        (
            BUILT_IN,
            InputConvention::built_in(device)?,
            "VGG-11's layers at half width, procedural surfaces",
        )
    } else {
        return Err(FeatureError::Unknown {
            path: path.to_owned(),
        });
    };
    let read = |name: String, expected: Vec<usize>| {
        let wrong = |found: String| FeatureError::Tensor {
            path: path.to_owned(),
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
    let convolution = |name: &str, inputs, outputs, side| {
        let weight = read(format!("{name}.weight"), vec![outputs, inputs, side, side])?;
        let bias = read(format!("{name}.bias"), vec![outputs])?;
        Ok::<_, FeatureError>((weight, bias))
    };
    let same = |name: &str, inputs, outputs, side| {
        let (weight, bias) = convolution(name, inputs, outputs, side)?;
        Ok::<_, FeatureError>(Convolution::same(weight, bias))
    };
    let layers = plan.iter().map(|layer| {
        Ok(match *layer {
            Layer::MaxPool => LoadedLayer::MaxPool(2),
            Layer::WideMaxPool => LoadedLayer::MaxPool(3),
            Layer::Conv(name, inputs, outputs) => {
                LoadedLayer::Convolution(same(name, inputs, outputs, 3)?)
            }
            Layer::StridedConv(name, inputs, outputs) => {
                let (weight, bias) = convolution(name, inputs, outputs, 3)?;
                LoadedLayer::Convolution(Convolution::strided(weight, bias))
            }
            Layer::Fire(name, inputs, squeezed, expanded) => {
                let part = |part: &str| format!("{name}.{part}");
                LoadedLayer::Fire([
                    same(&part("squeeze"), inputs, squeezed, 1)?,
                    same(&part("expand1x1"), squeezed, expanded, 1)?,
                    same(&part("expand3x3"), squeezed, expanded, 3)?,
                ])
            }
        })
    });
    let layers = layers.collect::<Result<_, FeatureError>>()?;
    Ok(Loaded {
        layers,
        input,
        architecture,
    })
}

/// Draws random orthogonal weights (Saxe et al. 2014) of gain √2, without bias, for VGG-11's
/// layers.
pub(super) fn random_vgg11(seed: u64, device: Device) -> Result<Vec<LoadedLayer>, FeatureError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layers = VGG11.iter().map(|layer| {
        let Layer::Conv(_, inputs, outputs) = *layer else {
            return Ok(LoadedLayer::MaxPool(2));
        };
        let values = orthogonal(outputs, inputs * 9, &mut rng);
        let size = [outputs as i64, inputs as i64, 3, 3];
        let weight = Tensor::f_from_slice(&values)?
            .f_view(size)?
            .f_to_device(device)?;
        let bias = Tensor::f_zeros([outputs as i64], (tch::Kind::Float, device))?;
        Ok(LoadedLayer::Convolution(Convolution::same(weight, bias)))
    });
    layers.collect()
}
