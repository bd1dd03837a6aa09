//! Frames from outside.

pub mod image_file;
