//! A camera through V4L2: single-planar capture into memory-mapped buffers.
//!
//! What the configuration asks for is given exactly or refused with what the device offers instead: a camera that
//! quietly picks another size or exposure moves every score. Not done here: conversion (`pixel_format`), opening anew
//! (the caller), multi-planar and interlaced devices.
//!
//! The `v4l` crate panics where a driver says something that it does not know, and in destructors; nothing of that
//! passes beyond this file.

mod controls;
mod negotiate;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use v4l::buffer;
use v4l::capability;
use v4l::device::Device;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};

use super::{Captured, Delivery, FourCc, RawFrame, Source, SourceError, StreamInfo};

pub use controls::ControlValue;

/// Which camera, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraOptions {
    /// The device file, best one that names the port or the camera (`/dev/v4l/by-id/…`).
    pub device: PathBuf,
    /// Pixel format; `None` takes the first of [`super::pixel_format::SUPPORTED`] that the device offers.
    pub format: Option<FourCc>,
    /// Width in pixels; `None` takes what the driver has set.
    pub width_px: Option<u32>,
    /// Height in pixels; `None` takes what the driver has set.
    pub height_px: Option<u32>,
    /// Time from frame to frame, met within 1 %; `None` takes what the driver has set.
    pub frame_interval: Option<Duration>,
    /// The longest wait for a frame.
    pub timeout: Duration,
    /// From the start of the exposure to the driver's time stamp; `None` takes what the driver says: nothing where it
    /// stamps the start of the exposure, else a frame interval.
    pub exposure_to_stamp: Option<Duration>,
    /// Buffers shared with the driver, 2 or more; the driver may take more. More bridge longer pauses of ours, at the
    /// price of older frames after them.
    pub buffers: u32,
    /// Controls by name, as the device or `v4l2-ctl --list-ctrls` spells it (`exposure_time_absolute`).
    pub controls: BTreeMap<String, ControlValue>,
}

impl CameraOptions {
    /// The device as its driver has it set, with 4 buffers and a time-out of 2 s.
    pub fn new(device: impl Into<PathBuf>) -> Self {
        Self {
            device: device.into(),
            format: None,
            width_px: None,
            height_px: None,
            frame_interval: None,
            timeout: Duration::from_secs(2),
            exposure_to_stamp: None,
            buffers: 4,
            controls: BTreeMap::new(),
        }
    }
}

/// A streaming camera.
///
/// Dropping it never panics. Should a driver refuse to stop streaming, its buffers stay mapped and the device stays
/// open: opening it again then says [`SourceError::Busy`] until the program starts anew.
pub struct Camera {
    /// `None` only while it is dropped.
    stream: Option<Stream<'static>>,
    info: StreamInfo,
    stride_bytes: u32,
    device: String,
    timeout: Duration,
    exposure: Exposure,
    exposure_to_stamp: Duration,
}

/// What is known of the time from the start of an exposure to the frame's time stamp.
#[derive(Debug, Clone, Copy)]
struct Exposure {
    given: Option<Duration>,
    frame_interval: Duration,
}

impl Exposure {
    fn to_stamp(self, flags: buffer::Flags) -> Duration {
        let stamps_start = flags & buffer::Flags::TSTAMP_SRC_MASK == buffer::Flags::TSTAMP_SRC_SOE;
        match self.given {
            Some(given) => given,
            None if stamps_start => Duration::ZERO,
            // Stamped at the end of the frame.
            None => self.frame_interval,
        }
    }
}

impl Camera {
    /// Opens and sets the camera; frames are asked for with the first [`Source::next`].
    pub fn open(options: &CameraOptions) -> Result<Self, SourceError> {
        let opened = catch_unwind(AssertUnwindSafe(|| open(options)));
        opened.unwrap_or_else(|_| {
            Err(SourceError::Device {
                device: options.device.display().to_string(),
                source: io::Error::other("the driver's answer could not be understood"),
            })
        })
    }
}

fn open(options: &CameraOptions) -> Result<Camera, SourceError> {
    let name = options.device.display().to_string();
    let failed = |error| source_error(&name, error, options.timeout);
    let refuse = |reason| SourceError::Unsupported {
        device: name.clone(),
        reason,
    };
    let device = Device::with_path(&options.device).map_err(failed)?;
    let can = device.query_caps().map_err(failed)?.capabilities;
    if !can.contains(capability::Flags::VIDEO_CAPTURE | capability::Flags::STREAMING) {
        return Err(refuse(format!(
            "expected a device for single-planar capture by streaming, found {can:?}"
        )));
    }
    // The frame interval's choices depend on the format, and the exposure's range on the interval.
    negotiate::set_format(&device, options)
        .and_then(|format| negotiate::set_interval(&device, options, format))
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    let controls = controls::apply(&device, &options.controls)
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    // Flipping the picture changes the Bayer order, so the format counts that stands after all controls.
    let format = negotiate::check_format(&device, options)
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    let frame_interval = negotiate::interval(&device).or(options.frame_interval);
    if frame_interval.is_none() && options.exposure_to_stamp.is_none() {
        tracing::warn!(
            device = name,
            "no frame interval known, so a frame may be taken for a part triggered during its exposure: \
             set capture.exposure_to_stamp_us if there is a trigger"
        );
    }
    let buffers = options.buffers.max(2);
    let mut stream =
        Stream::with_buffers(&device, buffer::Type::VideoCapture, buffers).map_err(failed)?;
    // The crate counts milliseconds in an i32.
    stream.set_timeout(options.timeout.min(Duration::from_millis(i32::MAX as u64)));
    Ok(Camera {
        stream: Some(stream),
        info: StreamInfo {
            format: FourCc(format.fourcc.repr),
            width_px: format.width,
            height_px: format.height,
            controls,
        },
        stride_bytes: format.stride,
        device: name,
        timeout: options.timeout,
        exposure: Exposure {
            given: options.exposure_to_stamp,
            frame_interval: frame_interval.unwrap_or_default(),
        },
        exposure_to_stamp: Duration::ZERO,
    })
}

impl Source for Camera {
    fn next(&mut self) -> Result<Delivery, SourceError> {
        let next = match self.stream.as_mut() {
            Some(stream) => CaptureStream::next(stream),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        };
        let (buffer, meta) =
            next.map_err(|error| source_error(&self.device, error, self.timeout))?;
        self.exposure_to_stamp = self.exposure.to_stamp(meta.flags);
        let timestamp = timestamp(meta.timestamp.sec, meta.timestamp.usec);
        // The buffer is as long as the largest frame; a driver that claims more has written nonsense.
        let used = buffer.get(..meta.bytesused as usize);
        let Some(data) = used.filter(|_| !meta.flags.contains(buffer::Flags::ERROR)) else {
            return Ok(Delivery::Damaged {
                sequence: meta.sequence,
                timestamp,
            });
        };
        Ok(Delivery::Frame(Captured {
            raw: RawFrame {
                format: self.info.format,
                width_px: self.info.width_px,
                height_px: self.info.height_px,
                stride_bytes: self.stride_bytes,
                data: data.to_vec(),
            },
            sequence: meta.sequence,
            timestamp,
        }))
    }

    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn exposure_to_stamp(&self) -> Duration {
        self.exposure_to_stamp
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        // The stream's destructor panics if it cannot stop, and its buffers' destructor, running during that panic,
        // would panic too: that aborts the program and no catch_unwind helps. So it runs only once stopping works.
        match stream.stop() {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => std::mem::forget(stream),
            _ => drop(catch_unwind(AssertUnwindSafe(|| drop(stream)))),
        }
    }
}

/// The driver's time; zero where it gives none that makes sense.
fn timestamp(seconds: i64, microseconds: i64) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    seconds.saturating_add(Duration::from_micros(
        u64::try_from(microseconds).unwrap_or(0),
    ))
}

/// What a failed call means for the source.
fn source_error(device: &str, error: io::Error, timeout: Duration) -> SourceError {
    let device = device.to_owned();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::TimedOut, _) => SourceError::TimedOut(timeout),
        (_, Some(libc::EBUSY)) => SourceError::Busy { device },
        (_, Some(libc::ENODEV | libc::ENXIO | libc::ENOENT)) => SourceError::Gone {
            device,
            source: error,
        },
        _ => SourceError::Device {
            device,
            source: error,
        },
    }
}

/// Why setting the camera did not work: a call failed, or the device cannot.
#[derive(Debug)]
enum Refusal {
    Failed(io::Error),
    Cannot(String),
}

impl Refusal {
    fn into_source_error(self, device: &str, timeout: Duration) -> SourceError {
        match self {
            Self::Failed(error) => source_error(device, error, timeout),
            Self::Cannot(reason) => SourceError::Unsupported {
                device: device.to_owned(),
                reason,
            },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_say_what_to_do_next() {
        let of = |code| {
            let error = io::Error::from_raw_os_error(code);
            source_error("/dev/video0", error, Duration::from_secs(2))
        };
        assert!(matches!(of(libc::ENODEV), SourceError::Gone { .. }));
        assert!(matches!(of(libc::ENXIO), SourceError::Gone { .. }));
        assert!(matches!(of(libc::ENOENT), SourceError::Gone { .. }));
        assert!(matches!(of(libc::EBUSY), SourceError::Busy { .. }));
        assert!(matches!(of(libc::EIO), SourceError::Device { .. }));
        assert!(matches!(of(libc::EINVAL), SourceError::Device { .. }));
        assert!(matches!(of(libc::EACCES), SourceError::Device { .. }));
        assert!(matches!(
            of(libc::ETIMEDOUT),
            SourceError::TimedOut(waited) if waited == Duration::from_secs(2)
        ));
        // As the crate's poll says it, without a system error behind it.
        let poll = io::Error::new(io::ErrorKind::TimedOut, "VIDIOC_DQBUF");
        assert!(matches!(
            source_error("/dev/video0", poll, Duration::from_millis(7)),
            SourceError::TimedOut(_)
        ));
        assert_eq!(
            of(libc::EBUSY).to_string(),
            "/dev/video0 is in use by another program"
        );
    }

    #[test]
    fn nonsense_times_are_zero_and_never_panic() {
        assert_eq!(timestamp(3, 250_000), Duration::from_millis(3250));
        assert_eq!(timestamp(-1, -1), Duration::ZERO);
        timestamp(i64::MAX, i64::MAX);
    }

    #[test]
    fn a_stamp_at_the_end_of_the_frame_is_later_than_the_exposure() {
        let (ms, end) = (Duration::from_millis, buffer::Flags::DONE);
        let start = end | buffer::Flags::TSTAMP_SRC_SOE;
        let of = |given| Exposure {
            given,
            frame_interval: ms(33),
        };
        assert_eq!(of(None).to_stamp(end), ms(33));
        assert_eq!(of(None).to_stamp(start), ms(0));
        assert_eq!(of(Some(ms(5))).to_stamp(end), ms(5));
        assert_eq!(of(Some(ms(5))).to_stamp(start), ms(5));
    }

    #[test]
    fn a_device_that_is_not_there_is_gone_and_a_file_is_no_camera() {
        let open = |path: &str| Camera::open(&CameraOptions::new(path)).err();
        assert!(matches!(
            open("/dev/no-such-camera"),
            Some(SourceError::Gone { device, .. }) if device == "/dev/no-such-camera"
        ));
        assert!(matches!(
            open("/dev/null"),
            Some(SourceError::Device { .. })
        ));
        // The crate unwraps here.
        assert!(matches!(open("/dev/\0"), Some(SourceError::Device { .. })));
    }

    #[test]
    fn a_camera_can_move_to_its_thread() {
        fn is_send<T: Send>() {}
        is_send::<Camera>();
    }
}
