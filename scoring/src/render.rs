//! Draws anomaly maps: as a heat map, and over the picture.

use colorous::INFERNO;
use image::{Rgb, RgbImage};

use crate::inspect::map::ScoreMap;

/// Draws the map in colour, from black (0) to pale yellow (`full_scale` and above).
pub fn heat_map(map: &ScoreMap, full_scale: f32) -> RgbImage {
    let scale = if full_scale > 0.0 { full_scale } else { 1.0 };
    RgbImage::from_fn(map.width_px as u32, map.height_px as u32, |x, y| {
        let score = map.data[y as usize * map.width_px + x as usize];
        Rgb(INFERNO
            .eval_continuous(f64::from((score / scale).clamp(0.0, 1.0)))
            .into_array())
    })
}

/// Draws the picture with every pixel above `threshold` tinted red, and the outlines of these
/// regions in full red.
pub fn overlay(picture: &RgbImage, map: &ScoreMap, threshold: f32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let marked = |x: i64, y: i64| {
        if x < 0 || y < 0 || x >= i64::from(width) || y >= i64::from(height) {
            return false;
        }
        let column = x as usize * map.width_px / width as usize;
        let row = y as usize * map.height_px / height as usize;
        map.data[row * map.width_px + column] > threshold
    };
    RgbImage::from_fn(width, height, |x, y| {
        let &Rgb([red, green, blue]) = picture.get_pixel(x, y);
        let (x, y) = (i64::from(x), i64::from(y));
        if !marked(x, y) {
            return Rgb([red, green, blue]);
        }
        let inner = [(-1, 0), (1, 0), (0, -1), (0, 1)]
            .into_iter()
            .all(|(dx, dy)| marked(x + dx, y + dy));
        if inner {
            let blend = |value: u8, red: u16| ((u16::from(value) * 3 + red * 2) / 5) as u8;
            Rgb([blend(red, 255), blend(green, 0), blend(blue, 0)])
        } else {
            Rgb([255, 0, 0])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pixels_above_the_threshold_are_red() {
        let mut map = ScoreMap::zeros(4, 4);
        map.data[5] = 1.0;
        let picture = RgbImage::from_pixel(8, 8, Rgb([10, 20, 30]));
        let found = overlay(&picture, &map, 0.5);
        for (x, y, pixel) in found.enumerate_pixels() {
            let inside = (2..4).contains(&x) && (2..4).contains(&y);
            assert_eq!(
                *pixel,
                if inside {
                    Rgb([255, 0, 0])
                } else {
                    Rgb([10, 20, 30])
                }
            );
        }
    }

    #[test]
    fn heat_runs_from_dark_to_bright() {
        let map = ScoreMap {
            width_px: 3,
            height_px: 1,
            data: vec![0.0, 0.5, 2.0],
        };
        let sum = |x| {
            heat_map(&map, 1.0)
                .get_pixel(x, 0)
                .0
                .map(u32::from)
                .iter()
                .sum::<u32>()
        };
        assert!(sum(0) < sum(1) && sum(1) < sum(2));
    }
}
