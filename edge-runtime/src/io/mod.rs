//! What lies outside: files, and with the features `gpio` and `serial` the camera's lines and port.

pub mod atomic;
#[cfg(feature = "gpio")]
pub mod gpio;
pub mod image_file;
pub mod picture;
#[cfg(feature = "serial")]
pub mod serial;
