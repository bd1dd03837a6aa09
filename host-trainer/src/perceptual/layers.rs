//! The extractors' layers, and how they are run.

use tch::{TchError, Tensor};

/// A layer of an extractor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer {
    /// A 3 × 3 convolution with padding 1, and ReLU: name of its parameters, input and output
    /// channels.
    Conv(&'static str, usize, usize),
    /// Max-pooling of 2 × 2.
    MaxPool,
}

/// Weight and bias of a layer; `None` for a max-pool.
pub(crate) type LayerTensors = Option<(Tensor, Tensor)>;

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

/// Runs all layers on `x` and passes the input of each max-pool to `before_pool`.
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
