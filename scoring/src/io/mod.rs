//! Files: listing folders and reading images, with an account of what was used; encoding pictures,
//! writing files atomically, and records with checksums.

pub mod account;
pub mod atomic;
pub mod decode;
pub mod image_file;
pub mod listing;
pub mod picture;
pub mod record;
pub mod text;
pub mod values;
