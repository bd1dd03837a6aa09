//! Which camera to open, and its settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use scoring::source::FourCc;

use super::controls::ControlValue;

/// Which camera to open, and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraOptions {
    /// The device file, preferably one that names the port or the camera (`/dev/v4l/by-id/…`).
    pub device: PathBuf,
    /// Pixel format; `None` takes the first of [`scoring::source::pixel_format::SUPPORTED`] that
    /// the device offers.
    pub format: Option<FourCc>,
    /// Width in pixels; `None` keeps the driver's setting.
    pub width_px: Option<u32>,
    /// Height in pixels; `None` keeps the driver's setting.
    pub height_px: Option<u32>,
    /// Time between two frames, met within 1 %; `None` keeps the driver's setting.
    pub frame_interval: Option<Duration>,
    /// Longest wait for a frame.
    pub timeout: Duration,
    /// Time from the start of the exposure to the driver's time stamp. `None` means zero if the
    /// driver says that it stamps the start of the exposure, and one frame interval otherwise.
    pub exposure_to_stamp: Option<Duration>,
    /// Buffers shared with the driver, at least 2; the driver may use more. More buffers bridge
    /// longer pauses of this program, at the price of older frames after a pause.
    pub buffers: u32,
    /// Controls by name, spelt as by the device or by `v4l2-ctl --list-ctrls`
    /// (`exposure_time_absolute`).
    pub controls: BTreeMap<String, ControlValue>,
}

impl CameraOptions {
    /// The device with its driver's settings, 4 buffers and a time-out of 2 s.
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
