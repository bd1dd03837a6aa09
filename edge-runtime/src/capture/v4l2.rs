//! Captures from a camera through V4L2: single-planar, into memory-mapped buffers.
//!
//! The camera is set up exactly as configured, or refused with a list of what the device offers: a
//! camera that silently chooses another size or exposure would move every score. Conversion is done
//! by [`scoring::source::pixel_format`], and reopening by the caller. Multi-planar and interlaced
//! devices are not supported.
//!
//! The `v4l` crate panics on unexpected answers of a driver, and in destructors. No such panic
//! leaves this file.

mod controls;
mod negotiate;
mod options;
mod refusal;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use scoring::source::{Captured, Delivery, FourCc, RawFrame, Source, SourceError, StreamInfo};
use v4l::buffer;
use v4l::capability;
use v4l::device::Device;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};

pub use controls::ControlValue;
pub use options::CameraOptions;
use refusal::source_error;

/// A streaming camera.
///
/// Dropping it never panics. If a driver refuses to stop streaming, its buffers stay mapped and the
/// device stays open; opening it again then fails with [`SourceError::Busy`] until the program is
/// restarted.
pub struct Camera {
    /// `None` only while the camera is being dropped.
    stream: Option<Stream<'static>>,
    info: StreamInfo,
    stride_bytes: u32,
    device: String,
    timeout: Duration,
    exposure: Exposure,
    exposure_to_stamp: Duration,
}

/// Determines the time from the start of an exposure to the frame's time stamp.
#[derive(Debug, Clone, Copy)]
struct Exposure {
    configured: Option<Duration>,
    frame_interval: Duration,
}

impl Exposure {
    fn to_stamp(self, flags: buffer::Flags) -> Duration {
        let stamps_start = flags & buffer::Flags::TSTAMP_SRC_MASK == buffer::Flags::TSTAMP_SRC_SOE;
        match self.configured {
            Some(configured) => configured,
            None if stamps_start => Duration::ZERO,
            // The frame is stamped at its end.
            None => self.frame_interval,
        }
    }
}

impl Camera {
    /// Opens and sets up the camera. Streaming starts with the first [`Source::next`].
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
    // The intervals on offer depend on the format, and the exposure's range depends on the
    // interval.
    negotiate::set_format(&device, options)
        .and_then(|format| negotiate::set_interval(&device, options, format))
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    let controls = controls::apply(&device, &options.controls)
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    // A control that flips the picture changes the Bayer order, so the format is checked again
    // after all controls are set.
    let format = negotiate::check_format(&device, options)
        .map_err(|refusal| refusal.into_source_error(&name, options.timeout))?;
    let frame_interval = negotiate::interval(&device).or(options.frame_interval);
    if frame_interval.is_none() && options.exposure_to_stamp.is_none() {
        tracing::warn!(
            device = name,
            "no frame interval known, so a frame may be taken for a part triggered during its \
             exposure: set capture.exposure_to_stamp_us if there is a trigger"
        );
    }
    let buffers = options.buffers.max(2);
    let mut stream =
        Stream::with_buffers(&device, buffer::Type::VideoCapture, buffers).map_err(failed)?;
    // The crate keeps the time-out in milliseconds as an i32.
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
            configured: options.exposure_to_stamp,
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
        // The buffer is as long as the largest frame. If the driver claims more bytes than that,
        // the frame is damaged.
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
        // The stream's destructor panics if it cannot stop streaming. Its buffers' destructor then
        // panics during that panic, which aborts the program; catch_unwind cannot prevent that. So
        // the destructor runs only after stopping has succeeded.
        match stream.stop() {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => std::mem::forget(stream),
            _ => drop(catch_unwind(AssertUnwindSafe(|| drop(stream)))),
        }
    }
}

/// The driver's time stamp; zero if it is not a valid time.
fn timestamp(seconds: i64, microseconds: i64) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    seconds.saturating_add(Duration::from_micros(
        u64::try_from(microseconds).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_map_to_source_errors() {
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
        // The crate's poll reports a time-out without a system error.
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
    fn invalid_times_are_zero_and_never_panic() {
        assert_eq!(timestamp(3, 250_000), Duration::from_millis(3250));
        assert_eq!(timestamp(-1, -1), Duration::ZERO);
        timestamp(i64::MAX, i64::MAX);
    }

    #[test]
    fn a_stamp_at_the_end_of_the_frame_is_one_interval_after_the_start_of_the_exposure() {
        let (ms, end) = (Duration::from_millis, buffer::Flags::DONE);
        let start = end | buffer::Flags::TSTAMP_SRC_SOE;
        let of = |configured| Exposure {
            configured,
            frame_interval: ms(33),
        };
        assert_eq!(of(None).to_stamp(end), ms(33));
        assert_eq!(of(None).to_stamp(start), ms(0));
        assert_eq!(of(Some(ms(5))).to_stamp(end), ms(5));
        assert_eq!(of(Some(ms(5))).to_stamp(start), ms(5));
    }

    #[test]
    fn a_missing_device_is_gone_and_a_file_is_not_a_camera() {
        let open = |path: &str| Camera::open(&CameraOptions::new(path)).err();
        assert!(matches!(
            open("/dev/no-such-camera"),
            Some(SourceError::Gone { device, .. }) if device == "/dev/no-such-camera"
        ));
        assert!(matches!(
            open("/dev/null"),
            Some(SourceError::Device { .. })
        ));
        // The crate panics here.
        assert!(matches!(open("/dev/\0"), Some(SourceError::Device { .. })));
    }

    #[test]
    fn a_camera_can_be_sent_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Camera>();
    }
}
