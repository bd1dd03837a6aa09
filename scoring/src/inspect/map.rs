//! The anomaly map and its post-processing before the threshold.

use proto::manifest::PostProcessing;

/// One score per pixel, at the size that the frame was scored at. Scores are finite and not
/// negative: Σ|A| over the channels (paper, IV-G), or standard deviations if the package has a
/// normal map or a variation model.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMap {
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
    /// Scores, row-major.
    pub data: Vec<f32>,
}

impl ScoreMap {
    /// A map of zeros.
    pub fn zeros(width_px: usize, height_px: usize) -> Self {
        Self {
            width_px,
            height_px,
            data: vec![0.0; width_px * height_px],
        }
    }

    /// The highest score.
    pub fn peak(&self) -> f32 {
        self.data.iter().copied().fold(0.0, f32::max)
    }

    /// Pixels outside the region of interest score 0.
    pub fn apply_roi(&mut self, inside: &[bool]) {
        for (score, &inside) in self.data.iter_mut().zip(inside) {
            if !inside {
                *score = 0.0;
            }
        }
    }

    /// Smoothing, then opening, then closing, as far as they are configured.
    pub fn post_process(&mut self, post: &PostProcessing) {
        if post.smooth_sigma_px > 0.0 {
            self.smooth(post.smooth_sigma_px);
        }
        let (open, close) = (usize::from(post.open_px), usize::from(post.close_px));
        if open > 1 {
            self.extreme_filter(open, f32::min);
            self.extreme_filter(open, f32::max);
        }
        if close > 1 {
            self.extreme_filter(close, f32::max);
            self.extreme_filter(close, f32::min);
        }
    }

    /// Gaussian filter, cut off at three sigma. The border is repeated.
    pub(super) fn smooth(&mut self, sigma_px: f32) {
        let radius = (3.0 * sigma_px).ceil() as usize;
        let weight = |tap: usize| {
            let distance = tap as f32 - radius as f32;
            (-distance * distance / (2.0 * sigma_px * sigma_px)).exp()
        };
        let taps: Vec<f32> = (0..=2 * radius).map(weight).collect();
        let sum: f32 = taps.iter().sum();
        self.separable(radius, |out, shifted| {
            out.fill(0.0);
            for (tap, weight) in taps.iter().enumerate() {
                for (out, value) in out.iter_mut().zip(shifted(tap)) {
                    *out += weight * value;
                }
            }
            out.iter_mut().for_each(|out| *out /= sum);
        });
    }

    /// Minimum or maximum over a square window of odd side. The window is cut off at the border.
    fn extreme_filter(&mut self, side_px: usize, extreme: impl Fn(f32, f32) -> f32) {
        let radius = side_px / 2;
        self.separable(radius, |out, shifted| {
            out.copy_from_slice(shifted(radius));
            for tap in 0..=2 * radius {
                for (out, value) in out.iter_mut().zip(shifted(tap)) {
                    *out = extreme(*out, *value);
                }
            }
        });
    }

    /// Filters every row, then every column. `filter(out, shifted)` writes a row; `shifted(n)`
    /// gives the unfiltered row shifted by `n` places, from 0 to 2 × radius, where `radius` is no
    /// shift. Beyond the border the border is repeated. Columns are filtered as whole rows too, so
    /// that the compiler vectorises the loops.
    fn separable(
        &mut self,
        radius: usize,
        filter: impl for<'a> Fn(&mut [f32], &dyn Fn(usize) -> &'a [f32]),
    ) {
        let (width, last) = (self.width_px, self.height_px.saturating_sub(1));
        let mut line = Vec::with_capacity(width + 2 * radius);
        for row in self.data.chunks_exact_mut(width) {
            line.clear();
            line.extend(std::iter::repeat_n(row[0], radius));
            line.extend_from_slice(row);
            line.extend(std::iter::repeat_n(row[width - 1], radius));
            filter(row, &|tap| &line[tap..tap + width]);
        }
        let before = self.data.clone();
        for (y, row) in self.data.chunks_exact_mut(width).enumerate() {
            filter(row, &|tap| {
                let from = (y + tap).saturating_sub(radius).min(last) * width;
                &before[from..from + width]
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(smooth_sigma_px: f32, open_px: u16, close_px: u16) -> PostProcessing {
        PostProcessing {
            smooth_sigma_px,
            open_px,
            close_px,
        }
    }

    fn map(points: &[(usize, usize)]) -> ScoreMap {
        let mut map = ScoreMap::zeros(20, 15);
        for &(x, y) in points {
            map.data[y * 20 + x] = 1.0;
        }
        map
    }

    #[test]
    fn nothing_is_done_by_default() {
        let mut found = map(&[(3, 4), (0, 0)]);
        found.post_process(&PostProcessing::default());
        assert_eq!(found, map(&[(3, 4), (0, 0)]));
    }

    #[test]
    fn opening_removes_a_speck_and_keeps_a_block() {
        let block: Vec<_> = (5..8).flat_map(|x| (6..9).map(move |y| (x, y))).collect();
        let mut found = map(&[&block[..], &[(15, 3)]].concat());
        found.post_process(&post(0.0, 3, 0));
        assert_eq!(found, map(&block));
    }

    #[test]
    fn closing_fills_a_gap() {
        let ring: Vec<_> = (5..8)
            .flat_map(|x| (6..9).map(move |y| (x, y)))
            .filter(|&point| point != (6, 7))
            .collect();
        let mut found = map(&ring);
        found.post_process(&post(0.0, 0, 3));
        assert_eq!(found.data[7 * 20 + 6], 1.0);
        assert_eq!(found.data.iter().filter(|&&v| v > 0.0).count(), 9);
    }

    proptest! {
        /// Pixel by pixel, with every index clamped to the map.
        #[test]
        fn filtering_rows_equals_filtering_single_pixels(
            width in 1usize..20, height in 1usize..20, side in 1usize..9, sigma_px in 0.3f32..3.0, seed in any::<u32>(),
        ) {
            let value = |at: usize| ((at as u32 ^ seed).wrapping_mul(0x9e37_79b1) >> 20) as f32 / 64.0;
            let before = ScoreMap {
                width_px: width,
                height_px: height,
                data: (0..width * height).map(value).collect(),
            };
            let near = |map: &ScoreMap, at: usize, by: isize, down: bool| {
                let clamped = |at: usize, side: usize| at.saturating_add_signed(by).min(side - 1);
                let (x, y) = (at % width, at / width);
                let (x, y) = if down { (x, clamped(y, height)) } else { (clamped(x, width), y) };
                map.data[y * width + x]
            };
            let both = |filter: &dyn Fn(&ScoreMap, usize, bool) -> f32| {
                let mut map = before.clone();
                for down in [false, true] {
                    let data = (0..width * height).map(|at| filter(&map, at, down)).collect();
                    map.data = data;
                }
                map
            };
            let mut found = before.clone();
            found.smooth(sigma_px);
            let radius = (3.0 * sigma_px).ceil() as isize;
            let weight = |by: isize| (-(by as f32) * by as f32 / (2.0 * sigma_px * sigma_px)).exp();
            let sum = (-radius..=radius).map(weight).sum::<f32>();
            let expected = both(&|map, at, down| {
                (-radius..=radius).map(|by| weight(by) * near(map, at, by, down)).sum::<f32>() / sum
            });
            prop_assert_eq!(found, expected);
            let radius = side as isize / 2;
            for extreme in [f32::min, f32::max] {
                let mut found = before.clone();
                found.extreme_filter(side, extreme);
                let expected = both(&|map, at, down| {
                    (-radius..=radius).map(|by| near(map, at, by, down)).reduce(extreme).unwrap()
                });
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn smoothing_keeps_the_sum_and_is_gaussian() {
        let mut found = map(&[(10, 7)]);
        found.post_process(&post(1.0, 0, 0));
        assert!((found.data.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // The ratio of neighbours is exp(-1/2).
        let ratio = found.data[7 * 20 + 11] / found.data[7 * 20 + 10];
        assert!((ratio - (-0.5f32).exp()).abs() < 1e-5);
    }
}
