//! The loss: the method's perceptual distance, or the pixel losses of the baselines.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::perceptual::Features;

/// The loss to minimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// Mean squared distance between deep features; the method's (paper, IV-E).
    Perceptual,
    /// Mean squared difference between pixels.
    L2,
    /// 1 - SSIM (Wang et al. 2004), as used by Bergmann et al. 2019.
    Ssim,
}

impl LossKind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perceptual => "perceptual",
            Self::L2 => "l2",
            Self::Ssim => "ssim",
        }
    }
}

/// A loss that can be computed on images N × 3 × H × W in [-1, 1].
#[derive(Debug)]
pub enum Loss {
    /// See [`LossKind::Perceptual`].
    Perceptual(Features),
    /// See [`LossKind::L2`].
    L2,
    /// See [`LossKind::Ssim`].
    Ssim(Ssim),
}

impl Loss {
    /// Computes the loss between the repaired image and the clean one, as a scalar tensor.
    pub fn compute(&self, repaired: &Tensor, clean: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Perceptual(features) => features.loss(repaired, clean),
            Self::L2 => repaired.f_mse_loss(clean, tch::Reduction::Mean),
            Self::Ssim(ssim) => ssim.index(repaired, clean)?.f_neg()?.f_add_scalar(1.0),
        }
    }
}

/// Mean of |A| with all corrupted pixels set to 0: on the others A should be 0. **Ours**: the
/// perceptual loss hardly sees colour patterns of a few pixels, which would then fill the anomaly
/// map of good surfaces.
pub fn shift_on_clean_pixels(
    shift: &Tensor,
    clean: &Tensor,
    noisy: &Tensor,
) -> Result<Tensor, TchError> {
    let untouched = clean.f_eq_tensor(noisy)?.f_to_kind(Kind::Float)?;
    shift.f_abs()?.f_mul(&untouched)?.f_mean(Kind::Float)
}

/// Mean structural similarity with the published constants: a Gaussian window of 11 × 11 px and
/// sigma 1.5 px, K1 = 0.01, K2 = 0.03.
#[derive(Debug)]
pub struct Ssim {
    window: Tensor,
}

impl Ssim {
    /// Side of the window in pixels.
    const WINDOW_PX: i64 = 11;
    /// Range of values in [-1, 1].
    const RANGE: f64 = 2.0;

    /// Prepares the window on `device`.
    pub fn new(device: Device) -> Result<Self, TchError> {
        let taps: Vec<f32> = (0..Self::WINDOW_PX)
            .map(|tap| {
                let distance = (tap - Self::WINDOW_PX / 2) as f32;
                (-distance * distance / (2.0 * 1.5 * 1.5)).exp()
            })
            .collect();
        let row = Tensor::f_from_slice(&taps)?;
        let square = row.f_outer(&row)?;
        let window = square
            .f_div(&square.f_sum(Kind::Float)?)?
            .f_view([1, 1, Self::WINDOW_PX, Self::WINDOW_PX])?
            .f_repeat([3, 1, 1, 1])?
            .f_to_device(device)?;
        Ok(Self { window })
    }

    /// Computes the mean index of two batches of images.
    pub fn index(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
        let blur = |x: &Tensor| {
            x.f_conv2d(
                &self.window,
                None::<&Tensor>,
                [1i64; 2],
                [0i64; 2],
                [1i64; 2],
                3,
            )
        };
        let (c1, c2) = ((0.01 * Self::RANGE).powi(2), (0.03 * Self::RANGE).powi(2));
        let (mean_a, mean_b) = (blur(a)?, blur(b)?);
        let product = mean_a.f_mul(&mean_b)?;
        let squares = mean_a.f_square()?.f_add(&mean_b.f_square()?)?;
        let covariance = blur(&a.f_mul(b)?)?.f_sub(&product)?;
        let variances = blur(&a.f_square()?)?
            .f_add(&blur(&b.f_square()?)?)?
            .f_sub(&squares)?;
        let above = product
            .f_mul_scalar(2.0)?
            .f_add_scalar(c1)?
            .f_mul(&covariance.f_mul_scalar(2.0)?.f_add_scalar(c2)?)?;
        let below = squares
            .f_add_scalar(c1)?
            .f_mul(&variances.f_add_scalar(c2)?)?;
        above.f_div(&below)?.f_mean(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssim_of_an_image_with_itself_is_one_and_less_with_another() {
        let ssim = Ssim::new(Device::Cpu).unwrap();
        tch::manual_seed(0);
        let a = Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
        let same = ssim.index(&a, &a).unwrap().double_value(&[]);
        assert!((same - 1.0).abs() < 1e-5, "{same}");
        let other = ssim.index(&a, &a.flip([2])).unwrap().double_value(&[]);
        assert!(other.abs() < 0.2, "unrelated noise: {other}");
        // Of flat images only the luminance matters: (2ab + c1) / (a² + b² + c1).
        let flat = |value: f64| Tensor::full([1, 3, 16, 16], value, (Kind::Float, Device::Cpu));
        let found = ssim
            .index(&flat(0.5), &flat(0.25))
            .unwrap()
            .double_value(&[]);
        let expected = (0.25 + 0.0004) / (0.3125 + 0.0004);
        assert!(
            (found - expected).abs() < 1e-4,
            "{found}, expected {expected}"
        );
    }
}
