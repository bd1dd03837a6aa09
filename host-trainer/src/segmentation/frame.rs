//! A good frame that synthetic defects are drawn into: its pixels, the scale of its lengths, and
//! what a defect has to fit (brightness, texture, grain).

use std::f32::consts::FRAC_PI_2;

use proto::manifest::PostProcessing;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::preprocess::Planes;

/// Lengths of synthetic defects are given in pixels of a frame whose shorter side has this many.
pub(super) const REFERENCE_SIDE_PX: f32 = 256.0;
/// Standard deviation of the Gaussian that separates brightness (coarser) from texture (finer), in
/// reference pixels.
const TEXTURE_PX: f32 = 6.0;

/// A frame without defects.
#[derive(Debug, Clone)]
pub struct GoodFrame {
    pub(super) planes: Planes,
    /// Pixels of this frame in one pixel of the reference size.
    pub(super) unit_px: f32,
}

impl GoodFrame {
    /// Takes a frame with values in [-1, 1].
    pub fn new(planes: Planes) -> Self {
        let unit_px = planes.width_px.min(planes.height_px) as f32 / REFERENCE_SIDE_PX;
        Self { planes, unit_px }
    }

    /// The frame as it is.
    pub fn planes(&self) -> &Planes {
        &self.planes
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> [f32; 2] {
        [self.planes.width_px, self.planes.height_px].map(|side| side as f32)
    }

    /// Draws a point of the frame.
    pub(super) fn random_point(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        let [width, height] = self.size();
        (rng.random_range(0.0..width), rng.random_range(0.0..height))
    }

    /// Mean brightness, from 0 to 2.
    pub(super) fn brightness(&self) -> f32 {
        let plane = self.planes.plane(0);
        1.0 + plane.iter().sum::<f32>() / plane.len() as f32
    }

    /// The frame without its texture.
    pub(super) fn without_texture(&self) -> Vec<f32> {
        blurred(&self.planes, TEXTURE_PX * self.unit_px)
    }

    /// Direction of the grain in radians from a row: the one along which the frame changes least,
    /// from the structure tensor of the whole frame.
    pub(super) fn grain(&self) -> f32 {
        let (plane, width) = (self.planes.plane(0), self.planes.width_px);
        let [mut across, mut down, mut both] = [0.0; 3];
        for three in plane.windows(3 * width).step_by(width) {
            let (above, rest) = three.split_at(width);
            let (here, below) = rest.split_at(width);
            let beside = here.windows(3).zip(&above[1..]).zip(&below[1..]);
            for ((beside, above), below) in beside {
                let (x, y) = (beside[2] - beside[0], below - above);
                across += x * x;
                down += y * y;
                both += x * y;
            }
        }
        0.5 * (2.0 * both).atan2(across - down) + FRAC_PI_2
    }
}

/// Smooths every plane with a Gaussian.
pub(super) fn blurred(planes: &Planes, sigma_px: f32) -> Vec<f32> {
    let post = PostProcessing {
        smooth_sigma_px: sigma_px,
        ..PostProcessing::default()
    };
    let smooth = |channel: usize| {
        let mut map = ScoreMap {
            width_px: planes.width_px,
            height_px: planes.height_px,
            data: planes.plane(channel).to_vec(),
        };
        map.post_process(&post);
        map.data
    };
    (0..planes.channels).flat_map(smooth).collect()
}
