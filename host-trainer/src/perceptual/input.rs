//! How each extractor expects its input.

use tch::{Device, TchError, Tensor};

/// How an extractor expects its input: `x * scale + shift` of each channel's values x in [-1, 1],
/// with the channels in RGB or BGR order.
#[derive(Debug)]
pub(super) struct InputConvention {
    scale: Tensor,
    shift: Tensor,
    bgr: bool,
}

impl InputConvention {
    /// torchvision's: RGB in 0..1, minus the ImageNet mean, divided by its standard deviation.
    pub(super) fn torchvision(device: Device) -> Result<Self, TchError> {
        let (mean, deviation) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
        let scale = deviation.map(|d| 0.5 / d);
        let shift = [0, 1, 2].map(|c| (0.5 - mean[c]) / deviation[c]);
        Self::new(scale, shift, false, device)
    }

    /// Caffe's: BGR in 0..255, minus the ImageNet mean.
    pub(super) fn caffe(device: Device) -> Result<Self, TchError> {
        let mean = [103.939f32, 116.779, 123.68];
        Self::new([127.5; 3], mean.map(|m| 127.5 - m), true, device)
    }

    /// The built-in extractor's: RGB in -1..1, unchanged.
    pub(super) fn built_in(device: Device) -> Result<Self, TchError> {
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

    /// Converts images N × 3 × H × W.
    pub(super) fn apply(&self, image: &Tensor) -> Result<Tensor, TchError> {
        let ordered = if self.bgr {
            image.f_flip([1])?
        } else {
            image.shallow_clone()
        };
        ordered.f_mul(&self.scale)?.f_add(&self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_conventions_map_black_and_white_as_published() {
        let image = Tensor::from_slice(&[-1.0f32, -1.0, -1.0, 1.0, 1.0, 1.0]).view([2, 3, 1, 1]);
        let map = |convention: InputConvention| {
            Vec::<f32>::try_from(convention.apply(&image).unwrap().flatten(0, -1)).unwrap()
        };
        let near = |found: Vec<f32>, expected: [f32; 6]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-3, "{found:?}, expected {expected:?}");
            }
        };
        // torchvision's Normalize: (0 - mean) / deviation and (1 - mean) / deviation.
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
}
