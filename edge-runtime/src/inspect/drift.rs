//! Do good parts still look as they did when the model was calibrated? Lighting, focus and surface are told apart, and
//! none of them is a defect.
//!
//! In: the frame and score of every OK part. Out: a [`Drift`] when a statistic over the last parts has left what
//! calibration saw, once, until it is back. Pure.

use std::collections::VecDeque;

use proto::manifest::{Histogram, ImageStatistics, NormalScores};
use proto::report::DriftKind;

use super::frame::{Channels, Frame, Pixels};

/// A statistic is out beyond so many standard deviations of single frames: the mean over a window of good parts never
/// comes near that by chance.
const OUT_SIGMA: f32 = 3.0;
/// And back below so many.
const BACK_SIGMA: f32 = 2.0;
/// Smallest standard deviations assumed, relative to the mean for sharpness: calibration images taken within a minute
/// vary less than a line does in a day.
const FLOOR: f32 = 0.01;
/// Kolmogorov-Smirnov distance beyond which two sets of scores are different surfaces, whatever their number.
const SURFACE_OUT: f32 = 0.3;
/// And below which they are the same again.
const SURFACE_BACK: f32 = 0.2;

/// Brightness, contrast and sharpness of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Mean, 0..=1.
    pub brightness: f32,
    /// Standard deviation.
    pub contrast: f32,
    /// Mean square of the 4-neighbour Laplacian.
    pub sharpness: f32,
}

impl Look {
    /// Of a frame, at the size it is scored at.
    pub fn of(frame: &Frame) -> Self {
        let (width, height) = (frame.width_px() as usize, frame.height_px() as usize);
        let bright = brightness(frame);
        let count = bright.len() as f64;
        let mean = bright.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = bright
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / count;
        let mut sum = 0.0f64;
        for y in 1..height.saturating_sub(1) {
            let row = |y: usize| &bright[y * width..(y + 1) * width];
            let (above, here, below) = (row(y - 1), row(y), row(y + 1));
            for x in 1..width.saturating_sub(1) {
                let laplacian = here[x - 1] + here[x + 1] + above[x] + below[x] - 4.0 * here[x];
                sum += f64::from(laplacian * laplacian);
            }
        }
        let inner = width.saturating_sub(2) * height.saturating_sub(2);
        Self {
            brightness: mean as f32,
            contrast: variance.sqrt() as f32,
            sharpness: (sum / inner.max(1) as f64) as f32,
        }
    }
}

/// Brightness of every pixel, 0..=1: the mean of its channels.
fn brightness(frame: &Frame) -> Vec<f32> {
    fn mean<T: Copy + Into<f32>>(values: &[T], channels: Channels, full: f32) -> Vec<f32> {
        match channels {
            Channels::Grey => values.iter().map(|&v| v.into() / full).collect(),
            Channels::Rgb => {
                let (pixels, _) = values.as_chunks::<3>();
                pixels
                    .iter()
                    .map(|&[r, g, b]| (r.into() + g.into() + b.into()) / (3.0 * full))
                    .collect()
            }
        }
    }
    match frame.pixels() {
        Pixels::U8(values) => mean(values, frame.channels(), 255.0),
        Pixels::U16(values) => mean(values, frame.channels(), 65_535.0),
    }
}

/// Mean and standard deviation of each statistic over frames; zeros for none.
pub fn image_statistics(looks: &[Look]) -> ImageStatistics {
    let of = |value: fn(&Look) -> f32| {
        let count = looks.len().max(1) as f64;
        let mean = looks.iter().map(|look| f64::from(value(look))).sum::<f64>() / count;
        let variance = looks
            .iter()
            .map(|look| (f64::from(value(look)) - mean).powi(2))
            .sum::<f64>()
            / count;
        [mean as f32, variance.sqrt() as f32]
    };
    ImageStatistics {
        brightness: of(|look| look.brightness),
        contrast: of(|look| look.contrast),
        sharpness: of(|look| look.sharpness),
    }
}

/// Something moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// What.
    pub kind: DriftKind,
    /// Mean of the statistic over the window; for the surface, the median score.
    pub found: f32,
    /// What it was at calibration.
    pub expected: f32,
}

/// Watches the last good parts.
#[derive(Debug)]
pub struct DriftWatch {
    normal: NormalScores,
    window: usize,
    parts: VecDeque<(Look, f32)>,
    since: usize,
    out: Vec<DriftKind>,
}

impl DriftWatch {
    /// Watches windows of so many parts against what calibration saw.
    pub fn new(normal: NormalScores, window: usize) -> Self {
        Self {
            normal,
            window: window.max(1),
            parts: VecDeque::new(),
            since: 0,
            out: Vec::new(),
        }
    }

    /// Takes a good part; judges when a tenth of the window is new.
    pub fn add(&mut self, look: Look, score: f32) -> Vec<Drift> {
        self.parts.push_back((look, score));
        if self.parts.len() > self.window {
            self.parts.pop_front();
        }
        self.since += 1;
        if self.parts.len() < self.window || self.since < self.window.div_ceil(10) {
            return Vec::new();
        }
        self.since = 0;
        self.judge()
    }

    /// Whether a statistic is out at the moment.
    pub fn is_out(&self, kind: DriftKind) -> bool {
        self.out.contains(&kind)
    }

    fn judge(&mut self) -> Vec<Drift> {
        let looks: Vec<Look> = self.parts.iter().map(|(look, _)| *look).collect();
        let now = image_statistics(&looks);
        let then = self.normal.images;
        let mut news = Vec::new();
        let statistics = [
            (
                DriftKind::Brightness,
                now.brightness,
                then.brightness,
                FLOOR,
            ),
            (DriftKind::Contrast, now.contrast, then.contrast, FLOOR),
            (
                DriftKind::Sharpness,
                now.sharpness,
                then.sharpness,
                then.sharpness[0] * 10.0 * FLOOR,
            ),
        ];
        for (kind, [found, _], [expected, sigma], floor) in statistics {
            let sigmas = (found - expected).abs() / sigma.max(floor).max(f32::MIN_POSITIVE);
            if self.moved(kind, sigmas, BACK_SIGMA, OUT_SIGMA) {
                news.push(Drift {
                    kind,
                    found,
                    expected,
                });
            }
        }
        let mut scores: Vec<f32> = self.parts.iter().map(|(_, score)| *score).collect();
        scores.sort_by(f32::total_cmp);
        let distance = ks_distance(&scores, &self.normal.frames);
        let looks_moved = self.out.iter().any(|&kind| kind != DriftKind::Surface);
        // Scores follow lighting and focus: only what these do not explain is the surface.
        if !looks_moved && self.moved(DriftKind::Surface, distance, SURFACE_BACK, SURFACE_OUT) {
            news.push(Drift {
                kind: DriftKind::Surface,
                found: scores[scores.len() / 2],
                expected: median(&self.normal.frames),
            });
        }
        news
    }

    /// Whether this is news: a statistic that was in is out.
    fn moved(&mut self, kind: DriftKind, value: f32, back: f32, out: f32) -> bool {
        let was_out = self.is_out(kind);
        if was_out && value < back {
            self.out.retain(|&other| other != kind);
        }
        if !was_out && value > out {
            self.out.push(kind);
            return true;
        }
        false
    }
}

/// Largest difference of the cumulative distributions at the histogram's bin edges (a bin's inside cannot be seen).
fn ks_distance(sorted: &[f32], histogram: &Histogram) -> f32 {
    let total: u64 = histogram.counts.iter().sum();
    if total == 0 || sorted.is_empty() {
        return 0.0;
    }
    let mut below = 0u64;
    let mut largest = 0.0f32;
    // The last bin is open above, so its upper edge is no edge.
    for (bin, count) in histogram.counts.iter().enumerate() {
        below += count;
        if bin + 1 == histogram.counts.len() {
            break;
        }
        let edge = (bin + 1) as f32 * histogram.bin_width;
        let found = sorted.partition_point(|&score| score < edge) as f32 / sorted.len() as f32;
        largest = largest.max((found - below as f32 / total as f32).abs());
    }
    largest
}

fn median(histogram: &Histogram) -> f32 {
    let total: u64 = histogram.counts.iter().sum();
    let mut below = 0;
    for (bin, count) in histogram.counts.iter().enumerate() {
        below += count;
        if 2 * below >= total {
            return (bin as f32 + 0.5) * histogram.bin_width;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(value: impl Fn(usize, usize) -> u8) -> Frame {
        let pixels = (0..80 * 80).map(|i| value(i % 80, i / 80)).collect();
        Frame::new(80, 80, Channels::Grey, Pixels::U8(pixels)).unwrap()
    }

    fn board(low: u8, high: u8) -> Frame {
        frame(|x, y| if (x + y) % 2 == 0 { low } else { high })
    }

    #[test]
    fn looks_are_what_they_are_by_hand() {
        let look = Look::of(&board(0, 255));
        assert!((look.brightness - 0.5).abs() < 1e-6);
        assert!((look.contrast - 0.5).abs() < 1e-6);
        // A white pixel's four neighbours are black: 0 - 4 · 1, squared.
        assert!((look.sharpness - 16.0).abs() < 1e-4);
        let flat = Look::of(&frame(|_, _| 51));
        assert!((flat.brightness - 0.2).abs() < 1e-6 && flat.contrast < 1e-6);
    }

    fn normal(looks: &[Look]) -> NormalScores {
        // Scores between 0.4 and 0.6.
        let mut counts = vec![0; 20];
        counts[4] = 50;
        counts[5] = 50;
        let histogram = Histogram {
            bin_width: 0.1,
            counts,
        };
        NormalScores {
            frames: histogram.clone(),
            pixels: histogram,
            images: image_statistics(looks),
        }
    }

    fn kinds(frame: &Frame, score: impl Fn(usize) -> f32) -> Vec<DriftKind> {
        let good = Look::of(&board(100, 120));
        let mut watch = DriftWatch::new(normal(&[good; 10]), 50);
        for n in 0..50 {
            assert!(watch.add(good, 0.41 + 0.18 * n as f32 / 50.0).is_empty());
        }
        let look = Look::of(frame);
        let news = (0..200).flat_map(|n| watch.add(look, score(n)));
        news.map(|drift| drift.kind).collect()
    }

    fn usual(n: usize) -> f32 {
        0.41 + 0.18 * (n % 50) as f32 / 50.0
    }

    #[test]
    fn what_moved_is_named_once() {
        assert_eq!(kinds(&board(100, 120), usual), []);
        assert_eq!(kinds(&board(160, 180), usual), [DriftKind::Brightness]);
        let blurred = frame(|x, _| 100 + (x / 4 % 2 * 20) as u8);
        assert_eq!(kinds(&blurred, usual), [DriftKind::Sharpness]);
        assert_eq!(
            kinds(&board(100, 120), |n| usual(n) + 0.25),
            [DriftKind::Surface]
        );
    }

    #[test]
    fn scores_that_follow_the_light_are_no_other_surface() {
        let found = kinds(&board(160, 180), |n| usual(n) + 0.25);
        assert_eq!(found, [DriftKind::Brightness]);
    }

    #[test]
    fn drift_that_went_away_is_told_again_when_it_returns() {
        let good = Look::of(&board(100, 120));
        let dark = Look::of(&board(20, 40));
        // A window holds every usual score once.
        let mut watch = DriftWatch::new(normal(&[good; 10]), 50);
        let mut count = 0;
        for round in 0..4 {
            for n in 0..100 {
                let look = if round % 2 == 0 { good } else { dark };
                count += watch.add(look, usual(n)).len();
            }
        }
        assert_eq!(count, 2);
    }
}
