//! Sets up the guest's camera and GPIO devices for scenarios.

use std::time::Duration;

use anyhow::{Context, Result};

use super::boot::Guest;

/// Size and layout of raw frames without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) width_px: usize,
    pub(crate) height_px: usize,
    pub(crate) pixels: Pixels,
}

/// Channels of a pixel, 8 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pixels {
    Grey,
    Rgb,
}

impl Format {
    /// Size of a frame.
    pub(crate) fn bytes(self) -> usize {
        let channels = match self.pixels {
            Pixels::Grey => 1,
            Pixels::Rgb => 3,
        };
        self.width_px * self.height_px * channels
    }

    /// V4L2's code for the pixel format.
    pub(crate) fn code(self) -> &'static str {
        match self.pixels {
            Pixels::Grey => "GREY",
            Pixels::Rgb => "RGB3",
        }
    }
}

impl Guest {
    /// Loads vivid as /dev/video0: a camera that streams a test pattern at 320 × 180, 640 × 360,
    /// 640 × 480 and larger. `vivid_fault` makes it fail.
    pub(crate) fn load_vivid(&mut self) -> Result<()> {
        self.check("[ -c /dev/video0 ] || modprobe vivid n_devs=1 node_types=0x1")?;
        self.wait_until("[ -c /dev/video0 ]", Duration::from_secs(10))
    }

    /// Sets one of vivid's controls, such as the buttons (value 1) `disconnect`,
    /// `inject_fatal_streaming_error`, `inject_vidioc_qbuf_error`, `inject_v4l2_buf_flag_error`, or
    /// `percentage_of_dropped_buffers`; `v4l2-ctl -d /dev/video0 -L` in the guest lists them.
    pub(crate) fn vivid_fault(&mut self, control: &str, value: i32) -> Result<()> {
        self.check(&format!("v4l2-ctl -d /dev/video0 -c {control}={value}"))?;
        Ok(())
    }

    /// Loads v4l2loopback as /dev/video10, where a reader gets what `vm-feed` writes, byte for
    /// byte.
    ///
    /// Another call changes the format; no program may have the device open then. A new reader may
    /// first get the last frame that was written before it opened the device. Until the first
    /// write, programs do not see the device as a camera.
    pub(crate) fn load_loopback(&mut self, format: Format) -> Result<()> {
        self.check(
            "[ -c /dev/video10 ] || \
             modprobe v4l2loopback video_nr=10 exclusive_caps=0 max_buffers=8",
        )?;
        self.wait_until("[ -c /dev/video10 ]", Duration::from_secs(10))?;
        // The first command forgets the old format. The second keeps the new one when the last
        // program closes the device.
        let control = "v4l2-ctl -d /dev/video10";
        self.check(&format!(
            "{control} -c keep_format=0 && {control} -c keep_format=1 && {control} \
             --set-fmt-video-out=width={},height={},pixelformat={}",
            format.width_px,
            format.height_px,
            format.code()
        ))?;
        Ok(())
    }

    /// Makes a simulated GPIO chip and returns its name in /dev, such as `gpiochip0`.
    pub(crate) fn make_gpio(&mut self, lines: u32) -> Result<String> {
        Ok(self.check(&format!("gpio make {lines}"))?.text())
    }

    /// Whether a line is high: an output as it is driven, an input as it is pulled.
    pub(crate) fn gpio_level(&mut self, line: u32) -> Result<bool> {
        let text = self.check(&format!("gpio level {line}"))?.text();
        let level: u8 = text.parse().with_context(|| format!("level `{text}`"))?;
        Ok(level != 0)
    }

    /// Pulls an input high or low, as a light barrier does.
    pub(crate) fn gpio_pull(&mut self, line: u32, high: bool) -> Result<()> {
        let direction = if high { "up" } else { "down" };
        self.check(&format!("gpio pull {line} {direction}"))?;
        Ok(())
    }
}
