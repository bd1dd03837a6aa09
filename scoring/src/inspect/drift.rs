//! Detects whether good parts still look as they did at calibration. Lighting, focus and surface
//! are distinguished; none of them is a defect.
//!
//! In: appearance and score of every OK part. Out: a [`Drift`], once, when a statistic over the
//! last parts leaves the range of calibration; and again only after it was back. Pure.

use std::collections::VecDeque;

use proto::manifest::{Histogram, ImageStatistics, NormalScores};
use proto::report::DriftKind;

use super::frame::{Channels, Frame, Pixels};

/// A statistic counts as out beyond this many standard deviations of single frames. The mean over a
/// window of good parts does not get there by chance.
const OUT_SIGMA: f32 = 3.0;
/// A statistic that is out counts as back below this many standard deviations.
const BACK_SIGMA: f32 = 2.0;
/// Smallest standard deviation to assume, for sharpness relative to the mean: calibration images
/// taken within a minute vary less than a line does in a day.
const LEAST_SIGMA: f32 = 0.01;
/// Kolmogorov-Smirnov distance above which two sets of scores count as different surfaces, whatever
/// their size.
const SURFACE_OUT: f32 = 0.3;
/// Kolmogorov-Smirnov distance below which they count as the same surface again.
const SURFACE_BACK: f32 = 0.2;

/// Brightness, contrast and sharpness of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appearance {
    /// Mean brightness, from 0 to 1.
    pub brightness: f32,
    /// Standard deviation of brightness.
    pub contrast: f32,
    /// Mean square of the 4-neighbour Laplacian.
    pub sharpness: f32,
}

impl Appearance {
    /// Statistics of a frame at the size it is scored at.
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

/// Brightness of every pixel, from 0 to 1: the mean of its channels.
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

/// Mean and standard deviation of each statistic over frames; zeros if there are none.
pub fn image_statistics(appearances: &[Appearance]) -> ImageStatistics {
    let of = |value: fn(&Appearance) -> f32| {
        let count = appearances.len().max(1) as f64;
        let mean = appearances
            .iter()
            .map(|appearance| f64::from(value(appearance)))
            .sum::<f64>()
            / count;
        let variance = appearances
            .iter()
            .map(|appearance| (f64::from(value(appearance)) - mean).powi(2))
            .sum::<f64>()
            / count;
        [mean as f32, variance.sqrt() as f32]
    };
    ImageStatistics {
        brightness: of(|appearance| appearance.brightness),
        contrast: of(|appearance| appearance.contrast),
        sharpness: of(|appearance| appearance.sharpness),
    }
}

/// A statistic that has left the range of calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Which statistic.
    pub kind: DriftKind,
    /// Mean of the statistic over the window; for the surface, the median score.
    pub found: f32,
    /// Its value at calibration.
    pub expected: f32,
}

/// Watches the last good parts.
#[derive(Debug)]
pub struct DriftWatch {
    normal: NormalScores,
    window: usize,
    parts: VecDeque<(Appearance, f32)>,
    since: usize,
    out: Vec<DriftKind>,
}

impl DriftWatch {
    /// Watches windows of this many parts and compares them with calibration.
    pub fn new(normal: NormalScores, window: usize) -> Self {
        Self {
            normal,
            window: window.max(1),
            parts: VecDeque::new(),
            since: 0,
            out: Vec::new(),
        }
    }

    /// Takes a good part. Evaluates the window whenever a tenth of it is new.
    pub fn add(&mut self, appearance: Appearance, score: f32) -> Vec<Drift> {
        self.parts.push_back((appearance, score));
        if self.parts.len() > self.window {
            self.parts.pop_front();
        }
        self.since += 1;
        if self.parts.len() < self.window || self.since < self.window.div_ceil(10) {
            return Vec::new();
        }
        self.since = 0;
        self.evaluate()
    }

    /// Whether a statistic is out at the moment.
    pub fn is_out(&self, kind: DriftKind) -> bool {
        self.out.contains(&kind)
    }

    fn evaluate(&mut self) -> Vec<Drift> {
        let appearances: Vec<Appearance> = self
            .parts
            .iter()
            .map(|(appearance, _)| *appearance)
            .collect();
        let now = image_statistics(&appearances);
        let then = self.normal.images;
        let mut news = Vec::new();
        let statistics = [
            (
                DriftKind::Brightness,
                now.brightness,
                then.brightness,
                LEAST_SIGMA,
            ),
            (
                DriftKind::Contrast,
                now.contrast,
                then.contrast,
                LEAST_SIGMA,
            ),
            (
                DriftKind::Sharpness,
                now.sharpness,
                then.sharpness,
                then.sharpness[0] * 10.0 * LEAST_SIGMA,
            ),
        ];
        for (kind, [found, _], [expected, sigma], floor) in statistics {
            let sigmas = (found - expected).abs() / sigma.max(floor).max(f32::MIN_POSITIVE);
            if self.newly_out(kind, sigmas, BACK_SIGMA, OUT_SIGMA) {
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
        let appearance_is_out = self.out.iter().any(|&kind| kind != DriftKind::Surface);
        // Scores follow lighting and focus, so only a change that these do not explain is the
        // surface.
        if !appearance_is_out
            && self.newly_out(DriftKind::Surface, distance, SURFACE_BACK, SURFACE_OUT)
        {
            news.push(Drift {
                kind: DriftKind::Surface,
                found: scores[scores.len() / 2],
                expected: median(&self.normal.frames),
            });
        }
        news
    }

    /// Updates whether a statistic is out; true if it has just gone out.
    fn newly_out(&mut self, kind: DriftKind, value: f32, back: f32, out: f32) -> bool {
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

/// Largest difference of the cumulative distributions at the histogram's bin edges; within a bin
/// they are unknown.
fn ks_distance(sorted: &[f32], histogram: &Histogram) -> f32 {
    let total: u64 = histogram.counts.iter().sum();
    if total == 0 || sorted.is_empty() {
        return 0.0;
    }
    let mut below = 0u64;
    let mut largest = 0.0f32;
    // The last bin is open above and has no upper edge.
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
    fn statistics_are_those_worked_out_by_hand() {
        let appearance = Appearance::of(&board(0, 255));
        assert!((appearance.brightness - 0.5).abs() < 1e-6);
        assert!((appearance.contrast - 0.5).abs() < 1e-6);
        // A white pixel's four neighbours are black: (0 - 4 · 1)².
        assert!((appearance.sharpness - 16.0).abs() < 1e-4);
        let flat = Appearance::of(&frame(|_, _| 51));
        assert!((flat.brightness - 0.2).abs() < 1e-6 && flat.contrast < 1e-6);
    }

    fn normal(appearances: &[Appearance]) -> NormalScores {
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
            images: image_statistics(appearances),
        }
    }

    fn kinds(frame: &Frame, score: impl Fn(usize) -> f32) -> Vec<DriftKind> {
        let good = Appearance::of(&board(100, 120));
        let mut watch = DriftWatch::new(normal(&[good; 10]), 50);
        for n in 0..50 {
            assert!(watch.add(good, 0.41 + 0.18 * n as f32 / 50.0).is_empty());
        }
        let appearance = Appearance::of(frame);
        let news = (0..200).flat_map(|n| watch.add(appearance, score(n)));
        news.map(|drift| drift.kind).collect()
    }

    fn usual(n: usize) -> f32 {
        0.41 + 0.18 * (n % 50) as f32 / 50.0
    }

    #[test]
    fn what_drifted_is_reported_once() {
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
    fn scores_that_follow_the_light_are_not_surface_drift() {
        let found = kinds(&board(160, 180), |n| usual(n) + 0.25);
        assert_eq!(found, [DriftKind::Brightness]);
    }

    #[test]
    fn drift_that_went_away_is_reported_again_when_it_returns() {
        let good = Appearance::of(&board(100, 120));
        let dark = Appearance::of(&board(20, 40));
        // A window contains every usual score once.
        let mut watch = DriftWatch::new(normal(&[good; 10]), 50);
        let mut count = 0;
        for round in 0..4 {
            for n in 0..100 {
                let appearance = if round % 2 == 0 { good } else { dark };
                count += watch.add(appearance, usual(n)).len();
            }
        }
        assert_eq!(count, 2);
    }
}
