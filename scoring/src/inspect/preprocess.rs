//! Turns a captured frame into what the network takes: colour, size and value range (paper, IV-A).
//! Training images and live frames go through the same code.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use proto::manifest::{ColourMode, Input, InputSize, TILE_PX};

use super::frame::{Channels, Frame, FrameError, Pixels};

/// Why a frame cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The frame is smaller than a tile.
    #[error("expected at least {TILE_PX}×{TILE_PX} px to score, found {width_px}×{height_px}")]
    TooSmall {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
    /// The frame has an invalid size.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The resizer failed.
    #[error("cannot resize: {0}")]
    Resize(String),
}

/// Converts the colour, then resizes with an antialiased bilinear filter at the frame's bit depth.
/// The filter is Pillow's BILINEAR (**ours**; the paper names none).
pub fn prepare(frame: &Frame, input: &Input) -> Result<Frame, PreprocessError> {
    let coloured = recolour(frame, input.colour)?;
    let sized = match input.size {
        InputSize::Native => coloured,
        InputSize::Fixed {
            width_px,
            height_px,
        } => resize(coloured, width_px, height_px)?,
    };
    if sized.width_px() < TILE_PX || sized.height_px() < TILE_PX {
        return Err(PreprocessError::TooSmall {
            width_px: sized.width_px(),
            height_px: sized.height_px(),
        });
    }
    Ok(sized)
}

fn recolour(frame: &Frame, colour: ColourMode) -> Result<Frame, FrameError> {
    let (channels, pixels) = match (frame.channels(), colour) {
        (Channels::Grey, ColourMode::Grey) | (Channels::Rgb, ColourMode::Rgb) => {
            return Ok(frame.clone());
        }
        (Channels::Grey, ColourMode::Rgb) => (
            Channels::Rgb,
            match frame.pixels() {
                Pixels::U8(values) => Pixels::U8(values.iter().flat_map(|&v| [v; 3]).collect()),
                Pixels::U16(values) => Pixels::U16(values.iter().flat_map(|&v| [v; 3]).collect()),
            },
        ),
        (Channels::Rgb, ColourMode::Grey) => (
            Channels::Grey,
            match frame.pixels() {
                Pixels::U8(values) => {
                    let (pixels, _) = values.as_chunks::<3>();
                    Pixels::U8(
                        pixels
                            .iter()
                            .map(|p| luminance(p.map(u32::from)) as u8)
                            .collect(),
                    )
                }
                Pixels::U16(values) => {
                    let (pixels, _) = values.as_chunks::<3>();
                    Pixels::U16(
                        pixels
                            .iter()
                            .map(|p| luminance(p.map(u32::from)) as u16)
                            .collect(),
                    )
                }
            },
        ),
    };
    Frame::new(frame.width_px(), frame.height_px(), channels, pixels)
}

/// Luma as in ITU-R BT.601, rounded to nearest.
fn luminance([red, green, blue]: [u32; 3]) -> u32 {
    (299 * red + 587 * green + 114 * blue + 500) / 1000
}

fn resize(frame: Frame, width_px: u32, height_px: u32) -> Result<Frame, PreprocessError> {
    if (frame.width_px(), frame.height_px()) == (width_px, height_px) {
        return Ok(frame);
    }
    let refused = |error: &dyn std::fmt::Display| PreprocessError::Resize(error.to_string());
    let kind = match (frame.pixels(), frame.channels()) {
        (Pixels::U8(_), Channels::Grey) => PixelType::U8,
        (Pixels::U8(_), Channels::Rgb) => PixelType::U8x3,
        (Pixels::U16(_), Channels::Grey) => PixelType::U16,
        (Pixels::U16(_), Channels::Rgb) => PixelType::U16x3,
    };
    let bytes: Vec<u8> = match frame.pixels() {
        Pixels::U8(values) => values.clone(),
        Pixels::U16(values) => values
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect(),
    };
    // A u16 image must start at an even address, which a byte vector need not do; `Image` aligns
    // its own buffer.
    let mut source = Image::new(frame.width_px(), frame.height_px(), kind);
    source.buffer_mut().copy_from_slice(&bytes);
    let source = ImageRef::new(source.width(), source.height(), source.buffer(), kind)
        .map_err(|error| refused(&error))?;
    let mut target = Image::new(width_px, height_px, kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&source, &mut target, &options)
        .map_err(|error| refused(&error))?;
    let bytes = target.into_vec();
    let pixels = match frame.pixels() {
        Pixels::U8(_) => Pixels::U8(bytes),
        Pixels::U16(_) => {
            let (pairs, _) = bytes.as_chunks::<2>();
            Pixels::U16(pairs.iter().map(|pair| u16::from_ne_bytes(*pair)).collect())
        }
    };
    Ok(Frame::new(width_px, height_px, frame.channels(), pixels)?)
}

/// Values in the network's range, one plane after the other: `channels` × height × width.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Number of planes.
    pub channels: usize,
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
    /// Values in [-1, 1] (paper, IV-A).
    pub data: Vec<f32>,
}

impl Planes {
    /// One plane, row-major.
    pub fn plane(&self, channel: usize) -> &[f32] {
        let area = self.width_px * self.height_px;
        &self.data[channel * area..(channel + 1) * area]
    }

    /// Crops every plane to a rectangle. Beyond the right or lower edge, the edge's pixels are
    /// repeated.
    pub fn crop(&self, x_px: usize, y_px: usize, width_px: usize, height_px: usize) -> Self {
        let mut data = Vec::with_capacity(self.channels * width_px * height_px);
        for channel in 0..self.channels {
            let plane = self.plane(channel);
            for y in y_px..y_px + height_px {
                let row = &plane[y.min(self.height_px - 1) * self.width_px..][..self.width_px];
                let inside = (self.width_px - x_px).min(width_px);
                data.extend_from_slice(&row[x_px..x_px + inside]);
                data.extend(std::iter::repeat_n(
                    row[self.width_px - 1],
                    width_px - inside,
                ));
            }
        }
        Self {
            channels: self.channels,
            width_px,
            height_px,
            data,
        }
    }
}

/// Scales a prepared frame to [-1, 1]. A grey frame is replicated to `channels` planes (paper,
/// IV-A).
pub fn to_planes(frame: &Frame, channels: usize) -> Planes {
    let (width_px, height_px) = (frame.width_px() as usize, frame.height_px() as usize);
    let pixels = width_px * height_px;
    let mut data = Vec::with_capacity(channels * pixels);
    let present = frame.channels().count().min(channels);
    match frame.pixels() {
        Pixels::U8(values) => {
            let scaled: [f32; 256] = std::array::from_fn(|value| value as f32 / 127.5 - 1.0);
            let scale = |value: u8| scaled[usize::from(value)];
            extend(&mut data, values, frame.channels(), present, scale);
        }
        Pixels::U16(values) => {
            let scale = |value: u16| f32::from(value) / 32767.5 - 1.0;
            extend(&mut data, values, frame.channels(), present, scale);
        }
    }
    for _ in present..channels {
        data.extend_from_within((present - 1) * pixels..present * pixels);
    }
    Planes {
        channels,
        width_px,
        height_px,
        data,
    }
}

/// Appends the first `wanted` channels of interleaved values, one plane after the other.
fn extend<T: Copy>(
    data: &mut Vec<f32>,
    values: &[T],
    channels: Channels,
    wanted: usize,
    scale: impl Fn(T) -> f32,
) {
    match channels {
        Channels::Grey => data.extend(values.iter().map(|&value| scale(value))),
        Channels::Rgb => {
            let (pixels, _) = values.as_chunks::<3>();
            for channel in 0..wanted {
                data.extend(pixels.iter().map(|pixel| scale(pixel[channel])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE_GREY: Input = Input {
        size: InputSize::Native,
        colour: ColourMode::Grey,
    };

    fn grey(width: u32, height: u32, value: impl Fn(u32, u32) -> u16) -> [Frame; 2] {
        let at = |i: u32| value(i % width, i / width);
        let wide: Vec<u16> = (0..width * height).map(at).collect();
        let narrow = wide.iter().map(|&v| (v / 257) as u8).collect();
        [Pixels::U8(narrow), Pixels::U16(wide)]
            .map(|pixels| Frame::new(width, height, Channels::Grey, pixels).unwrap())
    }

    #[test]
    fn black_is_minus_one_and_white_is_one_at_either_depth() {
        for frame in grey(65, 65, |x, _| if x == 0 { 0 } else { 65_535 }) {
            let planes = to_planes(&prepare(&frame, &NATIVE_GREY).unwrap(), 3);
            assert_eq!(planes.data.len(), 3 * 65 * 65);
            for channel in 0..3 {
                assert_eq!(planes.plane(channel)[0], -1.0);
                assert!((planes.plane(channel)[1] - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn resizing_averages_and_keeps_the_depth() {
        // Halving a checkerboard of single pixels gives its mean away from the border.
        for frame in grey(200, 160, |x, y| if (x + y) % 2 == 0 { 0 } else { 65_535 }) {
            let input = Input {
                size: InputSize::Fixed {
                    width_px: 100,
                    height_px: 80,
                },
                colour: ColourMode::Grey,
            };
            let small = prepare(&frame, &input).unwrap();
            assert_eq!((small.width_px(), small.height_px()), (100, 80));
            assert_eq!(
                std::mem::discriminant(small.pixels()),
                std::mem::discriminant(frame.pixels())
            );
            let middle = to_planes(&small, 1).data[40 * 100 + 50];
            assert!(middle.abs() < 0.01, "{middle}");
        }
    }

    #[test]
    fn colour_becomes_luma_and_grey_is_replicated() {
        let pixels = Pixels::U8([255, 0, 0].repeat(65 * 65));
        let red = Frame::new(65, 65, Channels::Rgb, pixels).unwrap();
        let Pixels::U8(luma) = prepare(&red, &NATIVE_GREY).unwrap().pixels().clone() else {
            panic!("8 bit stays 8 bit")
        };
        assert_eq!(luma[0], 76); // ITU-R BT.601: 0.299 · 255
    }

    #[test]
    fn smaller_than_a_tile_is_an_error() {
        let [frame, _] = grey(64, 200, |_, _| 0);
        let error = prepare(&frame, &NATIVE_GREY).unwrap_err().to_string();
        assert!(
            error.contains("65×65") && error.contains("64×200"),
            "{error}"
        );
    }
}
