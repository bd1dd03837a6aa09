//! The anomaly map, and what may be done to it before it is thresholded.

use proto::manifest::PostProcessing;

/// One score a pixel, at the size that the frame was scored at. Scores are finite and not negative: Σ|A| over the
/// channels (paper, IV-G), or standard deviations where a package has a normal map or a variation model.
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

    /// Smoothing, then opening, then closing; each only if asked for.
    pub fn post_process(&mut self, post: &PostProcessing) {
        if post.smooth_sigma_px > 0.0 {
            self.smooth(post.smooth_sigma_px);
        }
        let (open, close) = (usize::from(post.open_px), usize::from(post.close_px));
        if open > 1 {
            self.window(open, f32::min);
            self.window(open, f32::max);
        }
        if close > 1 {
            self.window(close, f32::max);
            self.window(close, f32::min);
        }
    }

    /// Gaussian, cut off at three sigma, the border repeated.
    fn smooth(&mut self, sigma_px: f32) {
        let radius = (3.0 * sigma_px).ceil() as usize;
        let weight = |tap: usize| {
            let distance = tap as f32 - radius as f32;
            (-distance * distance / (2.0 * sigma_px * sigma_px)).exp()
        };
        let taps: Vec<f32> = (0..=2 * radius).map(weight).collect();
        let sum: f32 = taps.iter().sum();
        self.separable(|line, centre| {
            let last = line.len() - 1;
            let at = |tap: usize| line[(centre + tap).saturating_sub(radius).min(last)];
            taps.iter()
                .enumerate()
                .map(|(tap, weight)| weight * at(tap))
                .sum::<f32>()
                / sum
        });
    }

    /// The extreme value in a square window of odd side; the window is cut at the border.
    fn window(&mut self, side_px: usize, extreme: fn(f32, f32) -> f32) {
        let radius = side_px / 2;
        self.separable(|line, centre| {
            let window =
                &line[centre.saturating_sub(radius)..(centre + radius + 1).min(line.len())];
            window.iter().copied().fold(line[centre], extreme)
        });
    }

    /// Replaces every value by `filter(line, position)`, along rows, then along columns.
    fn separable(&mut self, filter: impl Fn(&[f32], usize) -> f32) {
        let (width, height) = (self.width_px, self.height_px);
        let mut line = Vec::new();
        for row in self.data.chunks_exact_mut(width) {
            line.clear();
            line.extend_from_slice(row);
            for (x, value) in row.iter_mut().enumerate() {
                *value = filter(&line, x);
            }
        }
        for x in 0..width {
            line.clear();
            line.extend((0..height).map(|y| self.data[y * width + x]));
            for y in 0..height {
                self.data[y * width + x] = filter(&line, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn smoothing_keeps_the_sum_and_spreads_as_a_gaussian() {
        let mut found = map(&[(10, 7)]);
        found.post_process(&post(1.0, 0, 0));
        assert!((found.data.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // exp(-1/2) between neighbours.
        let ratio = found.data[7 * 20 + 11] / found.data[7 * 20 + 10];
        assert!((ratio - (-0.5f32).exp()).abs() < 1e-5);
    }
}
