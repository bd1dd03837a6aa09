//! Sources of frames: what every source (camera, folder, recording) delivers, and how it can fail.
//!
//! A source delivers *raw* frames, as the driver gives them; `pixel_format` converts them to
//! [`crate::inspect::frame::Frame`]s. So a recording contains what the camera delivered, and its
//! replay goes through the same conversion as the live frames.

mod bayer;
mod mono;
pub mod pixel_format;
pub mod recording;
pub mod replay;

use std::time::Duration;

/// A V4L2 pixel format code of four ASCII characters, for example `GREY` (kernel documentation,
/// "Image Formats").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl std::fmt::Display for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        f.write_str(text.trim_end())
    }
}

/// Pixels as the driver delivers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Pixel format of `data`.
    pub format: FourCc,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Bytes from the start of one row of the first plane to that of the next; 0 for compressed
    /// formats.
    pub stride_bytes: u32,
    /// The used part of the driver's buffer.
    pub data: Vec<u8>,
}

/// A raw frame with the driver's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The pixels.
    pub raw: RawFrame,
    /// The driver's frame counter. A gap means that the driver dropped frames.
    pub sequence: u32,
    /// The driver's time stamp on its own clock (V4L2: CLOCK_MONOTONIC if the driver says so).
    pub timestamp: Duration,
}

/// What a source delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A frame.
    Frame(Captured),
    /// A frame that the driver marked as damaged (V4L2_BUF_FLAG_ERROR). Its content was discarded.
    Damaged {
        /// The driver's frame counter.
        sequence: u32,
        /// The driver's time stamp; zero in a recording, which does not store it.
        timestamp: Duration,
    },
}

/// Format and settings of a source, for recordings and for display.
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
    /// No frame came in time. The source must be opened again.
    #[error("no frame for {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Another program uses the device.
    #[error("{device} is in use by another program")]
    Busy {
        /// The device.
        device: String,
    },
    /// The device is not there, or no longer.
    #[error("{device} is not there")]
    Gone {
        /// The device.
        device: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Reading failed. The source must be opened again.
    #[error("{device}")]
    Device {
        /// The device.
        device: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The device cannot do what the configuration asks for. Trying again does not help.
    #[error("{device}: {reason}")]
    Unsupported {
        /// The device.
        device: String,
        /// What was asked for, and what the device offers instead.
        reason: String,
    },
    /// One frame could not be read. The next one may be readable.
    #[error("{what}")]
    Unreadable {
        /// Which frame, and why.
        what: String,
    },
}

/// A stream of frames. After [`SourceError::Unreadable`] it may be read on. After any other error
/// it must be dropped and, except after [`SourceError::Ended`] and [`SourceError::Unsupported`],
/// opened again after a pause.
pub trait Source: Send {
    /// The next frame. Waits at most for the source's time-out.
    fn next(&mut self) -> Result<Delivery, SourceError>;
    /// Format and settings of the source.
    fn info(&self) -> &StreamInfo;
    /// Time from the start of the last frame's exposure to its time stamp; `None` if it is not
    /// known, so that nobody can say which trigger the frame belongs to.
    fn exposure_to_stamp(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}
