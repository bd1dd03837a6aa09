//! Why a segmentation network cannot be trained or used.

use scoring::infer::InferError;
use tch::TchError;

use crate::evaluate::PixelError;
use crate::train::CheckpointError;

/// Fewest good frames that a network is trained on.
pub(super) const LEAST_FRAMES: usize = 40;

/// Why there is no segmentation network.
#[derive(Debug, thiserror::Error)]
pub enum SegmentationError {
    /// Too few good frames.
    #[error(
        "expected at least {LEAST_FRAMES} good images for a segmentation network, found {0}: package without --segmentation"
    )]
    Frames(usize),
    /// The network finds no more than the variation model alone.
    #[error(
        "the segmentation network brings nothing here: pixel AUROC on synthetic defects {with:.3}, without it {without:.3}; package without --segmentation"
    )]
    Useless {
        /// Pixel AUROC with it.
        with: f64,
        /// Pixel AUROC of the variation model alone.
        without: f64,
    },
    /// A good image cannot be read or scored.
    #[error("a good image cannot be used")]
    Image(#[source] Cause),
    /// A worker thread ended early.
    #[error("the threads that read images and draw defects ended early")]
    Workers,
    /// The network cannot be run.
    #[error("the segmentation network does not run")]
    Infer(#[from] InferError),
    /// The checkpoint of an earlier session cannot be used.
    #[error("cannot resume the segmentation network; remove its checkpoint to start again")]
    Resume(#[source] CheckpointError),
    /// The checkpoint cannot be written.
    #[error("cannot save the segmentation network's checkpoint")]
    Save(#[source] CheckpointError),
    /// The improvement cannot be measured.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// Why an image cannot be used.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;
