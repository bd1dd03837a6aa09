//! Folders of images as training and test data.
//!
//! In: a folder in MVTec AD's layout, or a bare folder of good images. Out: prepared frames, tiles
//! cut from them on demand, and labelled test items. Nothing here scores or trains.

mod digest;
mod error;
mod holdout;
mod layout;
mod parallel;
mod tile_store;
mod tiles;
mod training;

pub use digest::{digest_of_files, file_digest, hex};
pub use error::DatasetError;
pub(crate) use error::chain;
pub use holdout::{Groups, Split, split};
pub use layout::{TestItem, calibration_files, read_mask, test_items, training_files};
pub(crate) use parallel::{Room, in_parallel};
pub use tile_store::TileStore;
pub use tiles::{Coordinates, cut_tile};
pub use training::{Colour, Skipped, TrainingImage, TrainingSet, usable};
