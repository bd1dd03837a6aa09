//! Files: reading images, encoding pictures, writing files atomically, and records with checksums.

pub mod atomic;
pub mod decode;
pub mod image_file;
pub mod picture;
pub mod record;
pub mod values;
