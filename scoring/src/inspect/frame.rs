//! A captured image, the input of every stage.

use proto::limits::MAX_FRAME_SIDE_PX;

/// Colour channels of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One value per pixel.
    Grey,
    /// Red, green, blue.
    Rgb,
}

impl Channels {
    /// Values per pixel: 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

/// Pixel values, interleaved, row-major, over the full range: 0 is black and the type's maximum is
/// white.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pixels {
    /// 8 bit.
    U8(Vec<u8>),
    /// 16 bit.
    U16(Vec<u16>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why pixels do not make a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A side is zero or beyond the limit.
    #[error("expected a frame of 1..={MAX_FRAME_SIDE_PX} px a side, found {width_px}×{height_px}")]
    Size {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
    /// There are too few or too many values.
    #[error("expected {expected} values for {width_px}×{height_px} px, found {found}")]
    Length {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
}

/// An image whose size, channels and values fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    width_px: u32,
    height_px: u32,
    channels: Channels,
    pixels: Pixels,
}

impl Frame {
    /// Checks the size and the number of values.
    pub fn new(
        width_px: u32,
        height_px: u32,
        channels: Channels,
        pixels: Pixels,
    ) -> Result<Self, FrameError> {
        let valid = 1..=MAX_FRAME_SIDE_PX;
        if !valid.contains(&width_px) || !valid.contains(&height_px) {
            return Err(FrameError::Size {
                width_px,
                height_px,
            });
        }
        let expected = width_px as usize * height_px as usize * channels.count();
        if pixels.len() != expected {
            return Err(FrameError::Length {
                width_px,
                height_px,
                expected,
                found: pixels.len(),
            });
        }
        Ok(Self {
            width_px,
            height_px,
            channels,
            pixels,
        })
    }

    /// Width in pixels.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// Height in pixels.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// Colour channels.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// The values.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The values, without a copy.
    pub fn into_pixels(self) -> Pixels {
        self.pixels
    }

    /// The frame with its values changed by `change`, which is given 16-bit values only. Their
    /// number stays, so that nothing needs to be checked again.
    pub(crate) fn map_u16(mut self, change: impl Fn(u16) -> u16) -> Self {
        if let Pixels::U16(values) = &mut self.pixels {
            values.iter_mut().for_each(|value| *value = change(*value));
        }
        self
    }

    /// As 8-bit RGB, for display.
    pub fn to_rgb8(&self) -> image::RgbImage {
        let channels = self.channels.count();
        image::RgbImage::from_fn(self.width_px, self.height_px, |x, y| {
            let at = (y as usize * self.width_px as usize + x as usize) * channels;
            let value = |channel: usize| {
                let index = at + channel.min(channels - 1);
                match &self.pixels {
                    Pixels::U8(values) => values[index],
                    Pixels::U16(values) => (values[index] >> 8) as u8,
                }
            };
            image::Rgb([value(0), value(1), value(2)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_length_must_fit() {
        let new = |w, h, n: usize| Frame::new(w, h, Channels::Rgb, Pixels::U8(vec![0; n]));
        assert!(new(2, 3, 18).is_ok());
        assert_eq!(
            new(2, 3, 17).unwrap_err().to_string(),
            "expected 18 values for 2×3 px, found 17"
        );
        assert!(matches!(new(0, 3, 0), Err(FrameError::Size { .. })));
        assert!(matches!(new(20_000, 3, 0), Err(FrameError::Size { .. })));
    }
}
