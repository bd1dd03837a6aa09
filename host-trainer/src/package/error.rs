//! Why no package can be made.

use std::path::PathBuf;

use scoring::infer::InferError;
use scoring::inspect::preprocess::PreprocessError;
use scoring::inspector::InspectError;
use scoring::io::image_file::ImageFileError;
use scoring::package::PackageError;

use crate::calibrate::CalibrationError;
use crate::dataset::DatasetError;
use crate::evaluate::PixelError;
use crate::place_statistics::PlaceStatisticsError;
use crate::quantise::QuantiseError;
use crate::run_folder::RunError;
use crate::segmentation::SegmentationError;
use crate::train::CheckpointError;
use crate::variation::VariationError;

/// Why no package can be made.
#[derive(Debug, thiserror::Error)]
pub enum PackagingError {
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run's checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the data set cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// An image cannot be prepared.
    #[error("{}", path.display())]
    Prepare {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: PreprocessError,
    },
    /// An image cannot be scored.
    #[error("{}", path.display())]
    Inspect {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: InspectError,
    },
    /// The exported graph does not run.
    #[error("the exported graph does not run")]
    Infer(#[from] InferError),
    /// The package does not work.
    #[error("the package does not work")]
    Inspector(#[source] InspectError),
    /// The package cannot be encoded or verified.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// There are no statistics of good places.
    #[error(transparent)]
    PlaceStatistics(#[from] PlaceStatisticsError),
    /// Synthetic defects cannot be measured.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// There can be no threshold.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// No good image can be used.
    #[error("none of {count} good images can be used; the first: {first}")]
    NothingLeft {
        /// Number of images.
        count: usize,
        /// Why the first cannot be used.
        first: String,
    },
    /// Good images score 0 everywhere.
    #[error(
        "good images score 0 everywhere, so nothing can be relative to them: package without --normalise"
    )]
    NoScores,
    /// There can be no variation model.
    #[error(transparent)]
    Variation(#[from] VariationError),
    /// There can be no segmentation network.
    #[error(transparent)]
    Segmentation(#[from] SegmentationError),
    /// The draft has no variation model for a segmentation network to stand beside.
    #[error("a segmentation network needs a variation model beside it: package with --variation")]
    NoVariation,
    /// The draft has no golden tile, which the parity gate compares.
    #[error(
        "a segmentation network needs a golden tile, and the draft has none: the run has no images left"
    )]
    NoGolden,
    /// The package to take a segmentation network from has none.
    #[error(
        "expected a package with a segmentation network, found one without: train one with --segmentation"
    )]
    NoSegmentation,
    /// The package to take a segmentation network from was made of something else.
    #[error(
        "the package to take the segmentation network from was made of other training images or another input size than this run: train one with --segmentation"
    )]
    OtherImages,
    /// The 8-bit kernels take channels by four.
    #[error("int8 needs a width that is a multiple of 4, found {0}; train with another --width")]
    Width(i64),
    /// The network cannot be quantised.
    #[error(transparent)]
    Quantise(#[from] QuantiseError),
    /// A calibration image is one of the training images, or has the same pixels.
    #[error(
        "{} was trained on, or is a copy of such an image: a threshold from such images is too low on others. Use images \
         held out of training", .0.display()
    )]
    TrainedOn(PathBuf),
    /// A calibration image shows a part that was trained on.
    #[error(
        "{} shows {part}, which was trained on: a threshold from such parts is too low on others. Use other parts; if this \
         is another part of the same name, rename its group", path.display()
    )]
    TrainedPart {
        /// The image.
        path: PathBuf,
        /// The part, by its name in the groups file.
        part: String,
    },
    /// An image of the run is gone.
    #[error(
        "{} is gone: the run was made with it. Put it back, or train again without it", .0.display()
    )]
    Missing(PathBuf),
    /// An image of the run is not what it was.
    #[error(
        "{} has changed since the run was made: expected SHA-256 {expected}…, found {found}…. Put the image back, or train \
         again", path.display()
    )]
    Changed {
        /// The image.
        path: PathBuf,
        /// The beginning of its SHA-256 then, in hexadecimal.
        expected: String,
        /// The beginning of its SHA-256 now, in hexadecimal.
        found: String,
    },
}
