//! Shapes and weights of the network's layers as plain data, without libtorch.

use super::architecture::KERNEL;

/// Shape of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShape {
    /// Name of its parameters in checkpoints and in the ONNX graph.
    pub name: &'static str,
    /// Whether it is a transposed convolution.
    pub transposed: bool,
    /// Input channels.
    pub inputs: i64,
    /// Output channels.
    pub outputs: i64,
    /// Side of its kernel.
    pub kernel: i64,
}

impl LayerShape {
    /// Size of the weights in PyTorch's order: out × in × side × side, or in × out × side × side
    /// for a transposed convolution.
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

/// One layer with its weights in PyTorch's order.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Its shape.
    pub shape: LayerShape,
    /// The weights, of size [`LayerShape::weight_size`].
    pub weight: Vec<f32>,
    /// One value per output channel.
    pub bias: Vec<f32>,
}

/// The six layers. Channels go C → w → 2w → 4w → 2w → w → C, with w = 128 in the paper (IV-C).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_the_papers_size() {
        let shapes = layer_shapes(3, 128);
        let channels: Vec<i64> = shapes.iter().map(|layer| layer.outputs).collect();
        assert_eq!(channels, [128, 256, 512, 256, 128, 3]);
        let parameters: i64 = shapes
            .iter()
            .map(|layer| layer.weight_size().iter().product::<i64>() + layer.outputs)
            .sum();
        // IV-C: about 2.96 million.
        assert_eq!(parameters, 2_957_315);
        // IV-C: sides 65 → 33 → 17 → 9 → 17 → 33 → 65, and 0.37 G multiplications per tile.
        let sides = [33_i64, 17, 9, 9, 17, 33];
        let macs: i64 = shapes
            .iter()
            .zip(sides)
            .map(|(layer, side)| layer.weight_size().iter().product::<i64>() * side * side)
            .sum();
        assert!((360_000_000..380_000_000).contains(&macs), "{macs}");
    }
}
