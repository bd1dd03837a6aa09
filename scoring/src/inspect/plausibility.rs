//! Whether a frame can show a part at all: a dead lamp, a covered lens, a sensor at its limit and
//! a frozen sensor give frames that the network may well call good.
//!
//! In: a prepared frame, what calibration saw, and fingerprints of raw frames. Out: why a frame is
//! implausible. The limits are wide: a good surface is never near them, however dark or bright it
//! is. Slow and small changes are the business of [`super::drift`]. Pure.

use proto::manifest::ImageStatistics;

use super::frame::{Channels, Frame, Pixels};

/// Values up to this fraction of full scale are black.
const BLACK: f32 = 0.02;
/// Fraction of black pixels from which a frame is black. Not all of them: a hot pixel is bright.
const BLACK_SHARE: f32 = 0.999;
/// Values from this fraction of full scale on are saturated: one step of 8 bits below it.
const SATURATED: f32 = 254.0 / 255.0;
/// Fraction of saturated pixels from which a frame is saturated.
const SATURATED_SHARE: f32 = 0.99;
/// Mean brightness at calibration below which good frames may be black, and 1 minus the one above
/// which they may be saturated.
const NEAR_LIMIT: f32 = 0.04;
/// Standard deviations of single frames at calibration within which a frame is plausible.
const SIGMAS: f32 = 10.0;
/// A frame is plausible down to this fraction of the brightness and the contrast at calibration,
/// however little they varied there; upwards, down to this fraction of the distance to white.
const FRACTION: f32 = 0.25;
/// Contrast above that at calibration up to which a frame is plausible in any case.
const MORE_CONTRAST: f32 = 0.25;

/// Brightness of a frame, from one pass over its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exposure {
    /// Mean brightness, from 0 to 1.
    pub brightness: f32,
    /// Standard deviation of brightness.
    pub contrast: f32,
    /// Fraction of pixels of which every channel is black.
    pub black: f32,
    /// Fraction of pixels of which every channel is saturated.
    pub saturated: f32,
}

impl Exposure {
    /// The exposure of a frame. Brightness and contrast are those of calibration if the frame has
    /// the size that it is scored at.
    pub fn of(frame: &Frame) -> Self {
        match frame.pixels() {
            Pixels::U8(values) => Self::of_values(values, frame.channels(), u8::MAX.into()),
            Pixels::U16(values) => Self::of_values(values, frame.channels(), u16::MAX.into()),
        }
    }

    fn of_values<T: Copy + Into<u32>>(values: &[T], channels: Channels, full: u32) -> Self {
        let black = (full as f32 * BLACK) as u32;
        let saturated = (full as f32 * SATURATED) as u32;
        let mut sums = Sums::default();
        match channels {
            Channels::Grey => values.iter().for_each(|&value| {
                let value = value.into();
                sums.add(value, value <= black, value >= saturated);
            }),
            Channels::Rgb => values.as_chunks::<3>().0.iter().for_each(|pixel| {
                let [r, g, b] = pixel.map(Into::into);
                let (least, most) = (r.min(g).min(b), r.max(g).max(b));
                sums.add(r + g + b, most <= black, least >= saturated);
            }),
        }
        let scale = f64::from(full) * channels.count() as f64;
        let count = sums.count.max(1) as f64;
        let mean = sums.sum as f64 / count;
        let variance = (sums.squares as f64 / count - mean * mean).max(0.0);
        Self {
            brightness: (mean / scale) as f32,
            contrast: (variance.sqrt() / scale) as f32,
            black: (sums.black as f64 / count) as f32,
            saturated: (sums.saturated as f64 / count) as f32,
        }
    }
}

/// Sums over pixels. None can overflow: a frame has fewer than 2^28 pixels of at most 18 bits.
#[derive(Debug, Default)]
struct Sums {
    count: u64,
    sum: u64,
    squares: u64,
    black: u64,
    saturated: u64,
}

impl Sums {
    #[inline]
    fn add(&mut self, value: u32, black: bool, saturated: bool) {
        let value = u64::from(value);
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        self.black += u64::from(black);
        self.saturated += u64::from(saturated);
    }
}

/// Why a frame cannot show a part.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Implausible {
    /// Nearly every pixel is black.
    #[error("the frame is black: check the light, the lens cap and the exposure")]
    Black,
    /// Nearly every pixel is saturated.
    #[error("the frame is saturated: check the exposure and the light")]
    Saturated,
    /// The brightness is far from that at calibration.
    #[error(
        "expected a mean brightness of {low:.3} to {high:.3}, found {found:.3}: check the light"
    )]
    Brightness {
        /// Mean brightness found.
        found: f32,
        /// Lowest plausible brightness.
        low: f32,
        /// Highest plausible brightness.
        high: f32,
    },
    /// The contrast is far from that at calibration.
    #[error(
        "expected a contrast of {low:.3} to {high:.3}, found {found:.3}: check the light and the lens"
    )]
    Contrast {
        /// Contrast found.
        found: f32,
        /// Lowest plausible contrast.
        low: f32,
        /// Highest plausible contrast.
        high: f32,
    },
    /// As many frames in a row had the same bytes, which no sensor does.
    #[error("{0} frames in a row are identical: the sensor or its driver is frozen")]
    Frozen(u32),
}

impl Implausible {
    /// Whether a gross defect alone can make a frame look like this. Then an NG verdict stands.
    pub fn may_be_a_defect(&self) -> bool {
        match self {
            Self::Brightness { .. } | Self::Contrast { .. } => true,
            Self::Black | Self::Saturated | Self::Frozen(_) => false,
        }
    }
}

/// Checks a frame's exposure against absolute limits and, where the package was calibrated,
/// against what calibration saw.
pub fn check(exposure: Exposure, calibrated: Option<&ImageStatistics>) -> Result<(), Implausible> {
    // Zeros stand for a calibration without images.
    let calibrated = calibrated.filter(|then| then.brightness[0] > 0.0);
    let may_be = |limit: fn(f32) -> bool| calibrated.is_some_and(|then| limit(then.brightness[0]));
    if exposure.black >= BLACK_SHARE && !may_be(|mean| mean <= NEAR_LIMIT) {
        return Err(Implausible::Black);
    }
    if exposure.saturated >= SATURATED_SHARE && !may_be(|mean| mean >= 1.0 - NEAR_LIMIT) {
        return Err(Implausible::Saturated);
    }
    let Some(then) = calibrated else {
        return Ok(());
    };
    let [mean, sigma] = then.brightness;
    let low = (mean - SIGMAS * sigma).min(FRACTION * mean);
    let high = (mean + SIGMAS * sigma).max(1.0 - FRACTION * (1.0 - mean));
    let found = exposure.brightness;
    if !(low..=high).contains(&found) {
        return Err(Implausible::Brightness { found, low, high });
    }
    let [mean, sigma] = then.contrast;
    let low = (mean - SIGMAS * sigma).min(FRACTION * mean);
    let high = mean + (SIGMAS * sigma).max(MORE_CONTRAST);
    let found = exposure.contrast;
    if !(low..=high).contains(&found) {
        return Err(Implausible::Contrast { found, low, high });
    }
    Ok(())
}

/// A fingerprint of a raw frame's bytes. It tells frames of a sensor apart, and is not made to
/// withstand anybody who wants to deceive it.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    // FNV's step on words of eight bytes; four of them at a time keep the multiplier busy.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [1, 2, 3, bytes.len() as u64];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let hash = lanes.into_iter().fold(0, step);
    rest.iter()
        .fold(hash, |hash, &byte| step(hash, byte.into()))
}

/// Finds a frozen sensor: frames in a row with the same bytes.
#[derive(Debug, Clone)]
pub struct FrozenWatch {
    /// Number of identical frames in a row from which on the sensor is frozen; 0 for never.
    limit: u32,
    last: Option<u64>,
    in_a_row: u32,
}

impl FrozenWatch {
    /// A watch that finds this many identical frames in a row; 0 turns it off.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            last: None,
            in_a_row: 0,
        }
    }

    /// Whether the watch is off.
    pub fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Takes the next frame's [`fingerprint`].
    pub fn add(&mut self, fingerprint: u64) -> Result<(), Implausible> {
        self.in_a_row = match self.last.replace(fingerprint) {
            Some(last) if last == fingerprint => self.in_a_row.saturating_add(1),
            _ => 1,
        };
        if self.is_off() || self.in_a_row < self.limit {
            return Ok(());
        }
        Err(Implausible::Frozen(self.in_a_row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::drift::{Appearance, image_statistics};

    fn grey(value: impl Fn(usize) -> u8) -> Frame {
        let pixels = (0..100 * 80).map(value).collect();
        Frame::new(100, 80, Channels::Grey, Pixels::U8(pixels)).unwrap()
    }

    /// A surface of this brightness with a little texture.
    fn surface(mean: u8) -> Frame {
        grey(|n| mean.saturating_add((n * 7_919 % 13) as u8))
    }

    fn calibrated(frames: &[Frame]) -> ImageStatistics {
        let seen: Vec<Appearance> = frames.iter().map(Appearance::of).collect();
        image_statistics(&seen)
    }

    fn judge(frame: &Frame, then: Option<&ImageStatistics>) -> Result<(), Implausible> {
        check(Exposure::of(frame), then)
    }

    #[test]
    fn exposure_is_what_drift_and_calibration_measure() {
        let value = |n: usize| (n * 7_919 % 256) as u8;
        let grey = grey(value);
        let rgb: Vec<u8> = (0..3 * 100 * 80).map(value).collect();
        let rgb = Frame::new(100, 80, Channels::Rgb, Pixels::U8(rgb)).unwrap();
        let wide = (0..100 * 80).map(|n| (n * 7_919 % 65_536) as u16).collect();
        let wide = Frame::new(100, 80, Channels::Grey, Pixels::U16(wide)).unwrap();
        for frame in [grey, rgb, wide] {
            let (exposure, seen) = (Exposure::of(&frame), Appearance::of(&frame));
            assert!((exposure.brightness - seen.brightness).abs() < 1e-5);
            assert!((exposure.contrast - seen.contrast).abs() < 1e-5);
        }
    }

    #[test]
    fn black_and_saturated_frames_are_implausible_also_without_a_calibration() {
        let one_hot = |n| if n == 1_000 { 255 } else { (n % 6) as u8 };
        assert_eq!(judge(&grey(one_hot), None), Err(Implausible::Black));
        let white = |n| if n % 128 == 0 { 90 } else { 255 };
        assert_eq!(judge(&grey(white), None), Err(Implausible::Saturated));
        for mean in [6, 20, 128, 240] {
            assert_eq!(judge(&surface(mean), None), Ok(()), "{mean}");
        }
    }

    #[test]
    fn a_good_surface_is_plausible_however_dark_or_bright_it_is() {
        for mean in (0..=u8::MAX).step_by(5) {
            let frames = [surface(mean), surface(mean), surface(mean)];
            let then = calibrated(&frames);
            assert_eq!(judge(&frames[0], Some(&then)), Ok(()), "{mean}");
            // A fifth brighter or darker is drift, and no fault.
            for shifted in [mean / 5 * 4, (mean / 5).saturating_mul(6)] {
                if shifted < 240 {
                    assert_eq!(judge(&surface(shifted), Some(&then)), Ok(()), "{mean}");
                }
            }
        }
    }

    #[test]
    fn a_dead_lamp_and_a_covered_lens_are_implausible() {
        let then = calibrated(&[surface(70), surface(72), surface(74)]);
        let dark = judge(&surface(8), Some(&then));
        assert!(
            matches!(dark, Err(Implausible::Brightness { .. })),
            "{dark:?}"
        );
        let flat = judge(&grey(|_| 75), Some(&then));
        assert!(
            matches!(flat, Err(Implausible::Contrast { .. })),
            "{flat:?}"
        );
        let torn = judge(&grey(|n| if n < 4_000 { 0 } else { 200 }), Some(&then));
        assert!(
            matches!(torn, Err(Implausible::Contrast { .. })),
            "{torn:?}"
        );
    }

    #[test]
    fn a_large_defect_is_no_fault() {
        let then = calibrated(&[surface(120), surface(122), surface(124)]);
        let hole = grey(|n| {
            if n % 100 < 30 {
                5
            } else {
                120 + (n % 13) as u8
            }
        });
        assert_eq!(judge(&hole, Some(&then)), Ok(()));
    }

    #[test]
    fn identical_frames_in_a_row_are_a_frozen_sensor() {
        let mut bytes = vec![17; 1_000];
        let same = fingerprint(&bytes);
        for at in [0, 31, 500, 992, 999] {
            bytes[at] ^= 1;
            assert_ne!(fingerprint(&bytes), same, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_ne!(fingerprint(&bytes[1..]), same);
        let mut watch = FrozenWatch::new(3);
        let mut found = |fingerprint| watch.add(fingerprint).is_err();
        assert_eq!(
            [1, 1, 2, 2, 2, 2, 1].map(&mut found),
            [false, false, false, false, true, true, false]
        );
        let mut off = FrozenWatch::new(0);
        assert!((0..9).all(|_| off.add(7).is_ok()));
    }
}
