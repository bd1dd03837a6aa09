//! The network's dimensions (paper, IV-A, IV-C), and the two ways to build its second half.

use proto::manifest::{Network as NetworkShape, TILE_PX};

/// Slope of LeakyReLU for negative inputs, and of RefReLU outside [-1, 1] (IV-C, IV-D).
pub const LEAK: f64 = 0.01;
/// Side of every layer's kernel (IV-C).
pub const KERNEL: i64 = 3;
/// Stride of every layer (IV-C).
pub const STRIDE: i64 = 2;
/// Channels of the image; grey is replicated (IV-A).
pub const CHANNELS: i64 = 3;

/// How a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Channels after the first convolution.
    pub width: i64,
    /// **Ours**: each transposed convolution is bilinear upsampling followed by a 3 × 3
    /// convolution (Odena et al. 2016). For inference the two are merged into one transposed
    /// convolution of 5 × 5.
    pub upsampled: bool,
}

impl Architecture {
    /// The paper's architecture at the given width (IV-C).
    pub fn paper(width: i64) -> Self {
        Self {
            width,
            upsampled: false,
        }
    }

    /// The architecture as a package's manifest describes it.
    pub fn shape(&self) -> NetworkShape {
        // Three layers of stride 2, each reaching 1 px to either side at its own scale:
        // 1 + 2 + 4. The second half reaches as far again, or twice as far if upsampled.
        let reach = if self.upsampled { 2 } else { 1 };
        NetworkShape {
            channels: CHANNELS as u8,
            width: self.width as u16,
            tile_px: TILE_PX as u16,
            align_px: 8,
            halo_px: 7 * (1 + reach),
        }
    }
}
