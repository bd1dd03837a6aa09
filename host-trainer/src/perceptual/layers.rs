//! The extractors' layers, and how they are run.

use tch::{TchError, Tensor};

/// A layer of an extractor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer {
    /// A 3 × 3 convolution with padding 1, and ReLU: name of its parameters, input and output
    /// channels.
    Conv(&'static str, usize, usize),
    /// The same with stride 2 and without padding.
    StridedConv(&'static str, usize, usize),
    /// A fire module (Iandola et al. 2016): name of its parameters, input channels, channels that it
    /// is squeezed to, and channels of each of its two expansions.
    Fire(&'static str, usize, usize, usize),
    /// Max-pooling of 2 × 2.
    MaxPool,
    /// Max-pooling of 3 × 3 with stride 2, also where it covers the image only in part.
    WideMaxPool,
}

/// A convolution followed by ReLU.
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Convolution {
    /// One that keeps the image's size.
    pub(crate) fn same(weight: Tensor, bias: Tensor) -> Self {
        let padding = weight.size()[2] / 2;
        Self {
            weight,
            bias,
            stride: 1,
            padding,
        }
    }

    /// One of stride 2 without padding.
    pub(super) fn strided(weight: Tensor, bias: Tensor) -> Self {
        Self {
            weight,
            bias,
            stride: 2,
            padding: 0,
        }
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Self {
            weight,
            bias,
            stride,
            padding,
        } = self;
        x.f_conv2d(
            weight,
            Some(bias),
            [*stride; 2],
            [*padding; 2],
            [1i64; 2],
            1,
        )?
        .f_relu()
    }
}

/// A layer with its weights.
#[derive(Debug)]
pub(crate) enum LoadedLayer {
    /// A convolution.
    Convolution(Convolution),
    /// The squeezing convolution, and the two expansions side by side.
    Fire([Convolution; 3]),
    /// Max-pooling of squares of this side, with stride 2.
    MaxPool(i64),
}

impl LoadedLayer {
    /// The convolution, if it is one.
    pub(crate) fn convolution(&self) -> Option<&Convolution> {
        match self {
            Self::Convolution(convolution) => Some(convolution),
            Self::Fire(_) | Self::MaxPool(_) => None,
        }
    }
}

/// torchvision's `vgg11().features[0..=10]` (paper, IV-E).
pub(super) const VGG11: [Layer; 7] = [
    Layer::Conv("features.0", 3, 64),
    Layer::MaxPool,
    Layer::Conv("features.3", 64, 128),
    Layer::MaxPool,
    Layer::Conv("features.6", 128, 256),
    Layer::Conv("features.8", 256, 256),
    Layer::MaxPool,
];

/// VGG-19 up to conv3_1.
pub(super) const VGG19: [Layer; 7] = [
    Layer::Conv("conv1_1", 3, 64),
    Layer::Conv("conv1_2", 64, 64),
    Layer::MaxPool,
    Layer::Conv("conv2_1", 64, 128),
    Layer::Conv("conv2_2", 128, 128),
    Layer::MaxPool,
    Layer::Conv("conv3_1", 128, 256),
];

/// The built-in extractor: VGG-11's layers at half their width, trained by `host-trainer pretrain`.
pub(crate) const BUILT_IN: [Layer; 7] = [
    Layer::Conv("surface1", 3, 32),
    Layer::MaxPool,
    Layer::Conv("surface2", 32, 64),
    Layer::MaxPool,
    Layer::Conv("surface3", 64, 128),
    Layer::Conv("surface4", 128, 128),
    Layer::MaxPool,
];

/// torchvision's `squeezenet1_1().features[0..=7]`: to the last layer before the third max-pool.
pub(super) const SQUEEZENET: [Layer; 7] = [
    Layer::StridedConv("features.0", 3, 64),
    Layer::WideMaxPool,
    Layer::Fire("features.3", 64, 16, 64),
    Layer::Fire("features.4", 128, 16, 64),
    Layer::WideMaxPool,
    Layer::Fire("features.6", 128, 32, 128),
    Layer::Fire("features.7", 256, 32, 128),
];

/// Runs all layers on `x` and passes the input of each max-pool to `before_pool`.
pub(crate) fn activations(
    layers: &[LoadedLayer],
    x: &Tensor,
    mut before_pool: impl FnMut(&Tensor),
) -> Result<Tensor, TchError> {
    let mut x = x.shallow_clone();
    for layer in layers {
        x = match layer {
            LoadedLayer::Convolution(convolution) => convolution.apply(&x)?,
            LoadedLayer::Fire([squeeze, small, large]) => {
                let squeezed = squeeze.apply(&x)?;
                Tensor::f_cat(&[small.apply(&squeezed)?, large.apply(&squeezed)?], 1)?
            }
            LoadedLayer::MaxPool(side) => {
                before_pool(&x);
                let partly = *side > 2;
                x.f_max_pool2d([*side; 2], [2i64; 2], [0i64; 2], [1i64; 2], partly)?
            }
        };
    }
    Ok(x)
}
