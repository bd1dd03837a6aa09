//! Files: frames from outside, results to outside.

pub mod atomic;
pub mod image_file;
