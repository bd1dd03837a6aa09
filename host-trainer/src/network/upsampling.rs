//! Bilinear upsampling followed by a 3 × 3 convolution, merged into one transposed convolution of
//! 5 × 5 (see [`Architecture::upsampled`](super::Architecture::upsampled)).

use tch::{Device, TchError, Tensor};

use super::architecture::KERNEL;
use super::layer::LayerWeights;
use crate::tensor::floats;

/// Bilinear upsampling by 2 as the weights of a transposed convolution (sides n → 2n - 1), of size
/// 1 × 1 × 3 × 3.
pub(super) fn bilinear_kernel(device: Device) -> Result<Tensor, TchError> {
    let row = Tensor::f_from_slice(&[0.5f32, 1.0, 0.5])?;
    row.f_outer(&row)?
        .f_view([1, 1, KERNEL, KERNEL])?
        .f_to_device(device)
}

/// Merges upsampling with `bilinear_kernel` and a convolution of these weights (in × out × 3 × 3)
/// into the weights of one transposed convolution (in × out × 5 × 5).
pub(super) fn merge_upsampling(
    weight: &Tensor,
    bilinear_kernel: &Tensor,
) -> Result<Tensor, TchError> {
    let size = weight.size();
    let planes = weight.f_view([-1, 1, KERNEL, KERNEL])?;
    let one = [1i64; 2];
    planes
        .f_conv2d(bilinear_kernel, None::<&Tensor>, one, [2i64; 2], one, 1)?
        .f_view([size[0], size[1], KERNEL + 2, KERNEL + 2])
}

/// Turns trained layers into those that a package holds: in an upsampled network each pair of
/// upsampling and convolution becomes one transposed convolution.
pub fn inference_layers(
    mut layers: Vec<LayerWeights>,
    upsampled: bool,
) -> Result<Vec<LayerWeights>, TchError> {
    let kernel = bilinear_kernel(Device::Cpu)?;
    for layer in &mut layers {
        if upsampled && layer.shape.transposed {
            let weight = Tensor::f_from_slice(&layer.weight)?.f_view(layer.shape.weight_size())?;
            layer.weight = floats(&merge_upsampling(&weight, &kernel)?)?;
            layer.shape.kernel = KERNEL + 2;
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with libtorch's own upsampling followed by its convolution.
    #[test]
    fn a_merged_layer_equals_upsampling_followed_by_a_convolution() {
        tch::manual_seed(3);
        let options = (tch::Kind::Float, Device::Cpu);
        let (input, weight) = (
            Tensor::rand([1, 4, 9, 7], options),
            Tensor::rand([4, 2, 3, 3], options),
        );
        let merged = merge_upsampling(&weight, &bilinear_kernel(Device::Cpu).unwrap()).unwrap();
        assert_eq!(merged.size(), [4, 2, 5, 5]);
        let bias = None::<&Tensor>;
        let found = input.conv_transpose2d(&merged, bias, [2; 2], [2; 2], [0; 2], 1, [1; 2]);
        // A convolution has the weights of its transposed convolution, mirrored.
        let convolution = weight.transpose(0, 1).flip([2, 3]);
        let expected = input
            .upsample_bilinear2d([17, 13], true, None, None)
            .conv2d(&convolution, bias, [1; 2], [1; 2], [1; 2], 1);
        assert_eq!(found.size(), expected.size());
        // They differ at the edges: beyond them the convolution sees zeros, the merged layer what
        // upsampling would put there.
        let inner = |x: &Tensor| x.slice(2, 1, 16, 1).slice(3, 1, 12, 1);
        let off = (inner(&found) - inner(&expected))
            .abs()
            .max()
            .double_value(&[]);
        assert!(off < 1e-4, "{off}");
    }
}
