//! Resizing against Pillow (fixtures/make_resize.py).

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use proto::manifest::{ColourMode, Input, InputSize};
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::preprocess::prepare;
use serde::Deserialize;

#[derive(Deserialize)]
struct Resized {
    width_px: u32,
    height_px: u32,
    at: Vec<usize>,
    values: Vec<u8>,
}

const WIDTH_PX: usize = 301;
const HEIGHT_PX: usize = 199;

/// The picture that make_resize.py draws.
fn value(index: usize) -> u8 {
    let (pixel, channel) = (index / 3, index % 3);
    let (x, y) = (pixel % WIDTH_PX, pixel / WIDTH_PX);
    ((x * x / 7 + y * (3 + channel) + index * 7919 % 61) % 256) as u8
}

fn resized(pixels: Pixels, width_px: u32, height_px: u32) -> Pixels {
    let frame = Frame::new(WIDTH_PX as u32, HEIGHT_PX as u32, Channels::Rgb, pixels).unwrap();
    let input = Input {
        size: InputSize::Fixed {
            width_px,
            height_px,
        },
        colour: ColourMode::Rgb,
    };
    prepare(&frame, &input).unwrap().pixels().clone()
}

#[test]
fn resizing_is_pillows_bilinear_at_either_depth() {
    let cases: Vec<Resized> = serde_json::from_str(include_str!("fixtures/resize.json")).unwrap();
    assert_eq!(cases.len(), 3);
    let narrow: Vec<u8> = (0..3 * WIDTH_PX * HEIGHT_PX).map(value).collect();
    let wide: Vec<u16> = narrow.iter().map(|&value| u16::from(value) * 257).collect();
    for case in cases {
        let Pixels::U8(narrow) = resized(Pixels::U8(narrow.clone()), case.width_px, case.height_px)
        else {
            panic!("8 bit stays 8 bit")
        };
        let Pixels::U16(wide) = resized(Pixels::U16(wide.clone()), case.width_px, case.height_px)
        else {
            panic!("16 bit stays 16 bit")
        };
        for (&at, &expected) in case.at.iter().zip(&case.values) {
            // Both round to fixed point twice, once along each side: one level apart at most.
            assert!(
                narrow[at].abs_diff(expected) <= 1,
                "at {at}: {}, not {expected}",
                narrow[at]
            );
            let wide = f32::from(wide[at]) / 257.0;
            assert!(
                (wide - f32::from(expected)).abs() <= 1.0,
                "at {at}: {wide}, not {expected}"
            );
        }
    }
}
