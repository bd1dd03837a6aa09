//! Model packages: one file with a manifest, an ONNX graph and a signature over both.
//!
//! A package is loaded (its bytes make sense), then verified (signature, hash, consistency), and only a verified one
//! can be put to work by the [`crate::inspector`], which runs the parity gate first.

mod check;
mod container;
mod file;
pub mod incoming;
mod keys;
mod parity;
pub mod slots;
pub mod store;

pub use container::{Loaded, PackageError, Trust, Verified, encode};
pub use file::{FileError, MAX_PACKAGE_BYTES, read};
pub use keys::{KeyError, key_id, read_public_key, read_signing_key, write_key_pair};
pub use parity::{
    BLOCK_PX, BLOCKS, GoldenScores, ParityError, area_golden, check_areas, check_parity,
    golden_scores,
};
