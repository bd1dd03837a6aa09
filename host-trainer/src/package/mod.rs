//! From a training run to a model package ([`export`]), and from good frames to its threshold
//! ([`threshold`]).

mod digests;
mod draft;
mod error;
mod evaluation;
mod evidence;
mod export;
mod golden;
mod histogram;
mod normal_scores;
mod place_statistics;
mod segmentation;
mod threshold;
mod training_images;

pub use digests::{file_id, part_id};
pub use draft::Draft;
pub use error::PackagingError;
pub use evidence::{Evidence, Found, MapKind, Mixture, Share};
pub use export::{PackageOptions, draft};
pub use segmentation::SegmentationSource;
pub use threshold::{
    CalibrationFrame, CalibrationOutcome, GoodScore, ThresholdRule, calibrate_draft,
};
