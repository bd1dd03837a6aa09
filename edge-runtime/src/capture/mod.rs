//! Captures frames from a camera. Sources that need no device (recordings, folders of images) are
//! in [`scoring::source`].

pub mod v4l2;
