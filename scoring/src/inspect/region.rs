//! Connected regions of a map above the threshold.

use serde::Serialize;

use super::map::ScoreMap;

/// One defect region, in pixels of the captured frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Region {
    /// Left edge.
    pub x_px: u32,
    /// Upper edge.
    pub y_px: u32,
    /// Width of the bounding box.
    pub width_px: u32,
    /// Height of the bounding box.
    pub height_px: u32,
    /// Area in square pixels.
    pub area_px: f32,
    /// Highest score.
    pub peak: f32,
    /// Mean score.
    pub mean: f32,
    /// Centroid of the pixels (x, y), not weighted by score.
    pub centroid_px: [f32; 2],
}

/// Labels 8-connected components of `mask` (row-major, `width` wide). 0 is background, and
/// components count from 1 in reading order. Returns the labels and the number of components.
pub fn label_components(mask: &[bool], width: usize, height: usize) -> (Vec<u32>, usize) {
    let mut labels = vec![0u32; mask.len()];
    let mut count = 0u32;
    let mut open = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || labels[start] != 0 {
            continue;
        }
        count += 1;
        labels[start] = count;
        open.push(start);
        while let Some(pixel) = open.pop() {
            let (x, y) = (pixel % width, pixel / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let next = ny * width + nx;
                    if mask[next] && labels[next] == 0 {
                        labels[next] = count;
                        open.push(next);
                    }
                }
            }
        }
    }
    (labels, count as usize)
}

/// The regions whose scores are greater than `threshold`, largest peak first. `scale` is frame
/// pixels per map pixel, across and down.
pub fn regions(map: &ScoreMap, threshold: f32, scale: [f32; 2]) -> Vec<Region> {
    let above: Vec<bool> = map.data.iter().map(|&score| score > threshold).collect();
    let (labels, count) = label_components(&above, map.width_px, map.height_px);
    let mut sums = vec![Sum::default(); count];
    for (index, &label) in labels.iter().enumerate() {
        if label > 0 {
            let (x, y) = (index % map.width_px, index / map.width_px);
            sums[label as usize - 1].add(x, y, map.data[index]);
        }
    }
    let mut regions: Vec<Region> = sums.iter().map(|sum| sum.region(scale)).collect();
    regions.sort_by(|a, b| b.peak.total_cmp(&a.peak));
    regions
}

#[derive(Clone)]
struct Sum {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
    pixels: usize,
    peak: f32,
    total: f64,
    x: f64,
    y: f64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            left: usize::MAX,
            top: usize::MAX,
            right: 0,
            bottom: 0,
            pixels: 0,
            peak: 0.0,
            total: 0.0,
            x: 0.0,
            y: 0.0,
        }
    }
}

impl Sum {
    fn add(&mut self, x: usize, y: usize, score: f32) {
        self.left = self.left.min(x);
        self.top = self.top.min(y);
        self.right = self.right.max(x + 1);
        self.bottom = self.bottom.max(y + 1);
        self.pixels += 1;
        self.peak = self.peak.max(score);
        self.total += f64::from(score);
        self.x += x as f64 + 0.5;
        self.y += y as f64 + 0.5;
    }

    fn region(&self, [across, down]: [f32; 2]) -> Region {
        let left = (self.left as f32 * across).floor() as u32;
        let top = (self.top as f32 * down).floor() as u32;
        let count = self.pixels as f64;
        Region {
            x_px: left,
            y_px: top,
            width_px: (self.right as f32 * across).ceil() as u32 - left,
            height_px: (self.bottom as f32 * down).ceil() as u32 - top,
            area_px: self.pixels as f32 * across * down,
            peak: self.peak,
            mean: (self.total / count) as f32,
            centroid_px: [
                (self.x / count) as f32 * across,
                (self.y / count) as f32 * down,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagonal_neighbours_are_one_component() {
        #[rustfmt::skip]
        let mask = [
            true, false, false, true,
            false, true, false, true,
            false, false, false, false,
        ];
        let expected = vec![1, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0];
        assert_eq!(label_components(&mask, 4, 3), (expected, 2));
    }

    #[test]
    fn a_region_is_measured_in_frame_pixels() {
        let mut map = ScoreMap::zeros(10, 8);
        for (x, y, score) in [(2, 3, 1.0), (3, 3, 3.0), (2, 4, 2.0), (9, 0, 0.6)] {
            map.data[y * 10 + x] = score;
        }
        let found = regions(&map, 0.5, [2.0, 4.0]);
        assert_eq!(found.len(), 2);
        let first = &found[0];
        assert_eq!(
            (first.x_px, first.y_px, first.width_px, first.height_px),
            (4, 12, 4, 8)
        );
        assert_eq!((first.area_px, first.peak, first.mean), (24.0, 3.0, 2.0));
        let centroid = [(2.5 + 3.5 + 2.5) / 3.0 * 2.0, (3.5 + 3.5 + 4.5) / 3.0 * 4.0];
        assert!((first.centroid_px[0] - centroid[0]).abs() < 1e-5);
        assert!((first.centroid_px[1] - centroid[1]).abs() < 1e-5);
        assert!(
            regions(&map, 3.0, [1.0, 1.0]).is_empty(),
            "the threshold itself is no defect"
        );
    }
}
