//! The region of interest as one flag a map pixel.

use proto::limits::{MAX_FRAME_SIDE_PX, MAX_POLYGON_CORNERS};
use proto::manifest::Roi;

/// Why a region of interest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoiError {
    /// Too few or too many corners, or one that is no number.
    #[error(
        "ROI polygon {index}: expected 3..={MAX_POLYGON_CORNERS} finite corners, found {found}"
    )]
    Polygon {
        /// Which one, from 0.
        index: usize,
        /// Its corners, or the reason.
        found: String,
    },
    /// Runs that do not add up to the bitmap's size.
    #[error("ROI bitmap {width}×{height}: expected runs of {expected} cells in all, found {found}")]
    Runs {
        /// Width in cells.
        width: u32,
        /// Height in cells.
        height: u32,
        /// Cells.
        expected: u64,
        /// Cells that the runs cover.
        found: u64,
    },
    /// Nothing is left to inspect.
    #[error("the ROI leaves no pixel to inspect")]
    Empty,
}

/// Whether a region of interest is well formed, whatever the size of the map.
pub fn check(roi: &Roi) -> Result<(), RoiError> {
    match roi {
        Roi::Whole => Ok(()),
        Roi::Polygons(polygons) => {
            for (index, polygon) in polygons.iter().enumerate() {
                let finite = polygon.iter().flatten().all(|value| value.is_finite());
                if !finite || !(3..=MAX_POLYGON_CORNERS).contains(&polygon.len()) {
                    let found = if finite {
                        format!("{}", polygon.len())
                    } else {
                        "one that is not finite".to_owned()
                    };
                    return Err(RoiError::Polygon { index, found });
                }
            }
            Ok(())
        }
        Roi::Bitmap {
            width,
            height,
            runs,
        } => {
            let expected = u64::from(*width) * u64::from(*height);
            let found = runs.iter().map(|&run| u64::from(run)).sum();
            if found != expected || expected == 0 || *width.max(height) > MAX_FRAME_SIDE_PX {
                return Err(RoiError::Runs {
                    width: *width,
                    height: *height,
                    expected,
                    found,
                });
            }
            // Runs alternate, beginning with cells that are not inspected.
            if runs.iter().skip(1).step_by(2).all(|&run| run == 0) {
                return Err(RoiError::Empty);
            }
            Ok(())
        }
    }
}

/// Which pixels of a `width_px` × `height_px` map are inspected: those whose centre lies inside. `None`: all of them.
pub fn rasterise(
    roi: &Roi,
    width_px: usize,
    height_px: usize,
) -> Result<Option<Vec<bool>>, RoiError> {
    check(roi)?;
    let inside: Box<dyn Fn(f32, f32) -> bool> = match roi {
        Roi::Whole => return Ok(None),
        Roi::Polygons(polygons) => {
            Box::new(move |x, y| polygons.iter().any(|polygon| contains(polygon, x, y)))
        }
        Roi::Bitmap {
            width,
            height,
            runs,
        } => {
            let cells = unpack(runs);
            let (width, height) = (*width as usize, *height as usize);
            Box::new(move |x, y| {
                let column = ((x * width as f32) as usize).min(width - 1);
                let row = ((y * height as f32) as usize).min(height - 1);
                cells[row * width + column]
            })
        }
    };
    let mask: Vec<bool> = (0..width_px * height_px)
        .map(|index| {
            let x = (index % width_px) as f32 + 0.5;
            let y = (index / width_px) as f32 + 0.5;
            inside(x / width_px as f32, y / height_px as f32)
        })
        .collect();
    if mask.contains(&true) {
        Ok(Some(mask))
    } else {
        Err(RoiError::Empty)
    }
}

/// Even-odd rule.
fn contains(polygon: &[[f32; 2]], x: f32, y: f32) -> bool {
    let mut inside = false;
    let mut previous = polygon[polygon.len() - 1];
    for &corner in polygon {
        let crosses = (corner[1] > y) != (previous[1] > y);
        let edge =
            (previous[0] - corner[0]) * (y - corner[1]) / (previous[1] - corner[1]) + corner[0];
        if crosses && x < edge {
            inside = !inside;
        }
        previous = corner;
    }
    inside
}

/// Cells of runs that are known to add up.
fn unpack(runs: &[u32]) -> Vec<bool> {
    let run =
        |(index, &length): (usize, &u32)| std::iter::repeat_n(index % 2 == 1, length as usize);
    runs.iter().enumerate().flat_map(run).collect()
}

/// A bitmap from a mask picture: cells above half brightness are inspected.
pub fn from_mask(mask: &image::GrayImage) -> Roi {
    let mut runs = vec![0u32];
    let mut inspected = false;
    for pixel in mask.pixels() {
        if (pixel.0[0] > 127) != inspected {
            inspected = !inspected;
            runs.push(0);
        }
        if let Some(run) = runs.last_mut() {
            *run += 1;
        }
    }
    Roi::Bitmap {
        width: mask.width(),
        height: mask.height(),
        runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polygon_covers_the_pixels_whose_centres_it_holds() {
        let left_half = Roi::Polygons(vec![vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]);
        let mask = rasterise(&left_half, 10, 4).unwrap().unwrap();
        for (index, inside) in mask.into_iter().enumerate() {
            assert_eq!(inside, index % 10 < 5);
        }
        let triangle = Roi::Polygons(vec![vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]);
        let mask = rasterise(&triangle, 100, 100).unwrap().unwrap();
        let area = mask.iter().filter(|&&inside| inside).count();
        assert!((4_900..=5_100).contains(&area), "{area}");
    }

    #[test]
    fn a_mask_picture_survives_its_encoding() {
        let picture = image::GrayImage::from_fn(7, 5, |x, y| {
            image::Luma([if (x + y) % 3 == 0 { 255 } else { 0 }])
        });
        let mask = rasterise(&from_mask(&picture), 7, 5).unwrap().unwrap();
        for (pixel, inside) in picture.pixels().zip(mask) {
            assert_eq!(pixel.0[0] > 127, inside);
        }
    }

    #[test]
    fn what_cannot_be_inspected_is_an_error() {
        let bad = |roi| rasterise(&roi, 10, 10).unwrap_err();
        assert_eq!(
            bad(from_mask(&image::GrayImage::new(4, 4))),
            RoiError::Empty
        );
        assert!(matches!(
            bad(Roi::Polygons(vec![vec![[0.0, 0.0]; 2]])),
            RoiError::Polygon { .. }
        ));
        let runs = Roi::Bitmap {
            width: 3,
            height: 3,
            runs: vec![4, 4],
        };
        assert!(bad(runs).to_string().contains("9 cells in all, found 8"));
    }
}
