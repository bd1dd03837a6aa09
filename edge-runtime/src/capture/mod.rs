//! Where frames come from: what every source (camera, folder, recording) gives, and how it may fail.
//!
//! A source gives *raw* frames, as the driver has them; `pixel_format` makes [`crate::inspect::frame::Frame`]s of
//! them. So a recording holds what the camera said, and its replay goes through the very conversion that ran live.

mod bayer;
mod mono;
pub mod pixel_format;
pub mod recording;
pub mod replay;
pub use pixel_format::to_frame;
#[cfg(feature = "v4l2")]
pub mod v4l2;

use std::time::Duration;

/// A V4L2 pixel format code, e.g. `GREY` (four ASCII characters, kernel documentation "Image Formats").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl std::fmt::Display for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        f.write_str(text.trim_end())
    }
}

/// Pixels as the driver gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// How `data` is to be read.
    pub format: FourCc,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Bytes from one row of the first plane to the next; 0 for compressed formats.
    pub stride_bytes: u32,
    /// The used part of the buffer.
    pub data: Vec<u8>,
}

/// A raw frame with what the driver says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The pixels.
    pub raw: RawFrame,
    /// The driver's counter; a gap means that the driver dropped frames.
    pub sequence: u32,
    /// The driver's time stamp, on its own clock (V4L2: CLOCK_MONOTONIC where the driver says so).
    pub timestamp: Duration,
}

/// What a source gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A frame.
    Frame(Captured),
    /// A frame that the driver marked as damaged (V4L2_BUF_FLAG_ERROR); its content was discarded.
    Damaged {
        /// The driver's counter.
        sequence: u32,
        /// The driver's time stamp; zero in a recording, which does not keep it.
        timestamp: Duration,
    },
}

/// What a source delivers, for recordings and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Pixel format.
    pub format: FourCc,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Controls by name and value, as read back from the device.
    pub controls: Vec<(String, i64)>,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// All frames were delivered: the end of a replay.
    #[error("no more frames")]
    Ended,
    /// No frame came in time; the source must be opened anew.
    #[error("no frame for {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Another program has the device.
    #[error("{device} is in use by another program")]
    Busy {
        /// The device.
        device: String,
    },
    /// The device is not there, or is no more.
    #[error("{device} is not there")]
    Gone {
        /// The device.
        device: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Reading failed; the source must be opened anew.
    #[error("{device}")]
    Device {
        /// The device.
        device: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The device cannot do what the configuration asks for; trying again will not help.
    #[error("{device}: {reason}")]
    Unsupported {
        /// The device.
        device: String,
        /// What was asked for and what it offers instead.
        reason: String,
    },
    /// One frame could not be read; the next one may be.
    #[error("{what}")]
    Unreadable {
        /// Which frame and why.
        what: String,
    },
}

/// A stream of frames. After any error but [`SourceError::Unreadable`] it is to be dropped and, except after
/// [`SourceError::Ended`] and [`SourceError::Unsupported`], opened anew after a pause.
pub trait Source: Send {
    /// The next frame; waits no longer than the source's time-out.
    fn next(&mut self) -> Result<Delivery, SourceError>;
    /// What is delivered.
    fn info(&self) -> &StreamInfo;
    /// How long before its time stamp the exposure of the last frame began at the earliest.
    fn exposure_to_stamp(&self) -> Duration {
        Duration::ZERO
    }
}
