//! Folders of images as training and test data.
//!
//! In: a folder in MVTec AD's layout, or a bare folder of good images. Out: prepared frames, tiles
//! cut from them on demand, labelled test items, and an account of what was used and what was left
//! out. Nothing here scores or trains.

mod account;
mod digest;
mod error;
mod groups;
mod holdout;
mod layout;
mod mask_files;
mod masks;
mod names;
mod parallel;
mod pixel_digest;
mod rarity;
mod survey;
mod table;
mod test_set;
mod tile_store;
mod tiles;
mod training;

pub use account::{Account, MaskAccount};
pub use digest::{digest_of_files, file_digest, hex};
pub use error::DatasetError;
pub(crate) use error::chain;
pub use groups::Groups;
pub use holdout::{Split, split};
pub use layout::{Found, calibration_files, training_files};
pub use mask_files::{MaskFiles, check_masks};
pub use masks::Mask;
pub(crate) use parallel::{Room, in_parallel};
pub use pixel_digest::pixel_digest;
pub use rarity::CellAppearance;
pub use survey::{ImageFacts, Survey, Surveyed};
pub use test_set::{TestItem, test_items};
pub use tile_store::TileStore;
pub use tiles::{Coordinates, cut_tile};
pub use training::{Colour, Kept, Skipped, TrainingImage, TrainingSet, UsableImage, usable};
