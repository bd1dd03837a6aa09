//! Model packages: one file with a manifest, an ONNX graph and a signature over both.
//!
//! A package is first loaded (its container is well-formed), then verified (signature, signer,
//! hash, consistency). Only a verified package can be used by [`crate::inspector`], which runs the
//! parity gate first.

mod check;
mod container;
mod file;
mod keys;
mod parity;

pub use container::{Loaded, PackageError, Trust, Verified, encode};
pub use file::{FileError, MAX_PACKAGE_BYTES, read};
pub use keys::{
    KeyError, exposed_key_warning, key_id, read_public_key, read_signing_key, write_key_pair,
};
pub use parity::{
    BLOCK_PX, BLOCKS, GOLDEN_CELLS, GoldenScores, MOST_TOLERANCE, ParityError, check_frame_parity,
    check_parity, check_segmentation_parity, golden_frame, golden_scores,
};
