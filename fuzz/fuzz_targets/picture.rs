//! Fuzzes the reader of picture files with arbitrary bytes, and that of a camera's Motion JPEG. They
//! must never panic, and what they return must fit together. A picture that is larger than
//! [`MOST_PX`] is not decoded: it would only take time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scoring::inspect::frame::FrameError;
use scoring::io::decode::{DecodeError, Page, count_pages, decode};
use scoring::source::pixel_format::to_frame;
use scoring::source::{FourCc, RawFrame};

/// Pixels beyond which a picture is not decoded.
const MOST_PX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&page, bytes)) = data.split_first() else {
        return;
    };
    if claims_too_much(bytes) {
        return;
    }
    let pages = count_pages(bytes);
    let page = match page {
        0 => Page::Only,
        number => Page::Number(number.into()),
    };
    match decode(bytes, page, true) {
        Ok(picture) => {
            let pixels = picture.frame.width_px() as usize * picture.frame.height_px() as usize;
            assert!(pages.is_ok_and(|pages| pages >= 1));
            assert!(picture.palette_indices.is_none_or(|indices| indices.len() == pixels));
            assert!(picture.alpha.is_none_or(|alpha| alpha.len() == pixels));
            let stored = decode(bytes, page, false).expect("it was decoded before");
            assert_eq!(stored.frame.pixels().len(), picture.frame.pixels().len());
        }
        // A size of 0 is refused; another number of values than the size asks for is a mistake.
        Err(DecodeError::Frame(error @ FrameError::Length { .. })) => {
            panic!("a decoder that gives no frame: {error}")
        }
        Err(_) => {}
    }
    let raw = RawFrame {
        format: FourCc(*b"MJPG"),
        width_px: 64,
        height_px: 48,
        stride_bytes: 0,
        data: bytes.to_vec(),
    };
    to_frame(&raw).ok();
});

/// Whether a size that the file may state, at any of the places where formats have it, is larger
/// than is worth decoding.
fn claims_too_much(bytes: &[u8]) -> bool {
    let sides = |at: usize, big: bool| {
        let side = |at: usize| {
            let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u64::from(if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }))
        };
        Some(side(at)? * side(at + 4)?)
    };
    let png = bytes.starts_with(b"\x89PNG").then(|| sides(16, true)).flatten();
    let bmp = bytes.starts_with(b"BM").then(|| sides(18, false)).flatten();
    let frames = bytes.windows(9).filter(|head| head[0] == 0xff && (0xc0..=0xc2).contains(&head[1]));
    let jpeg = frames
        .map(|head| {
            let side = |at: usize| u64::from(u16::from_be_bytes([head[at], head[at + 1]]));
            side(5) * side(7)
        })
        .max();
    [png, bmp, jpeg].into_iter().flatten().any(|pixels| pixels > MOST_PX)
}
