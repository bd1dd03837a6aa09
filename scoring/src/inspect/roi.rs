//! The region of interest as one flag per map pixel.

use proto::limits::{MAX_FRAME_SIDE_PX, MAX_POLYGON_CORNERS};
use proto::manifest::Roi;

/// Why a region of interest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoiError {
    /// A polygon has too few or too many corners, or one that is not finite.
    #[error(
        "ROI polygon {index}: expected 3..={MAX_POLYGON_CORNERS} finite corners, found {found}"
    )]
    Polygon {
        /// Index of the polygon, from 0.
        index: usize,
        /// Number of its corners, or the reason.
        found: String,
    },
    /// The runs do not add up to the bitmap's size.
    #[error("ROI bitmap {width}×{height}: expected runs of {expected} cells in all, found {found}")]
    Runs {
        /// Width in cells.
        width: u32,
        /// Height in cells.
        height: u32,
        /// Cells expected.
        expected: u64,
        /// Cells that the runs cover.
        found: u64,
    },
    /// Nothing is left to inspect.
    #[error("the ROI leaves no pixel to inspect")]
    Empty,
}

/// Checks that a region of interest is well formed, independent of the map's size.
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
            // Runs alternate and begin with cells that are not inspected.
            if runs.iter().skip(1).step_by(2).all(|&run| run == 0) {
                return Err(RoiError::Empty);
            }
            Ok(())
        }
    }
}

/// Side of the square on which two regions are compared.
const COMPARED_PX: usize = 512;

/// Share of the first region by which another may exceed it and still count as no larger: the same
/// outline drawn as a bitmap and as a polygon differs at its edge.
const SAME_EDGE: f32 = 0.01;

/// Whether `other` takes in places outside of `calibrated`. A threshold says nothing about scores
/// there. A region that cannot be used widens nothing.
pub fn widens(calibrated: &Roi, other: &Roi) -> bool {
    let flags = |roi| rasterise(roi, COMPARED_PX, COMPARED_PX);
    let Ok(Some(calibrated)) = flags(calibrated) else {
        return false;
    };
    let all = COMPARED_PX * COMPARED_PX;
    let inside = calibrated.iter().filter(|inside| **inside).count();
    let outside = match flags(other) {
        Ok(Some(other)) => {
            let pairs = calibrated.iter().zip(&other);
            pairs.filter(|(before, after)| !**before && **after).count()
        }
        Ok(None) => all - inside,
        Err(_) => return false,
    };
    outside as f32 > inside as f32 * SAME_EDGE
}

/// Flags the pixels of a `width_px` × `height_px` map that are inspected: those whose centre is
/// inside. `None` means all of them.
///
/// A station may send a region, so memory and time are bounded by the map, whatever the region
/// claims: polygons are filled line by line, and bitmaps are never unpacked.
pub fn rasterise(
    roi: &Roi,
    width_px: usize,
    height_px: usize,
) -> Result<Option<Vec<bool>>, RoiError> {
    check(roi)?;
    if matches!(roi, Roi::Whole) {
        return Ok(None);
    }
    let mut mask = vec![false; width_px * height_px];
    let centres_x: Vec<f32> = (0..width_px)
        .map(|column| (column as f32 + 0.5) / width_px as f32)
        .collect();
    let lines = mask.chunks_exact_mut(width_px.max(1)).enumerate();
    let lines = lines.map(|(row, line)| ((row as f32 + 0.5) / height_px as f32, line));
    match roi {
        Roi::Whole => return Ok(None),
        Roi::Polygons(polygons) => {
            let mut crossings = Vec::new();
            for (y, line) in lines {
                for polygon in polygons {
                    fill(polygon, y, &centres_x, &mut crossings, line);
                }
            }
        }
        Roi::Bitmap {
            width,
            height,
            runs,
        } => {
            let (width, height) = (*width as usize, *height as usize);
            let ends: Vec<usize> = runs
                .iter()
                .scan(0, |end, &run| {
                    *end += run as usize;
                    Some(*end)
                })
                .collect();
            for (y, line) in lines {
                let row = ((y * height as f32) as usize).min(height - 1);
                for (&x, inside) in centres_x.iter().zip(line) {
                    let column = ((x * width as f32) as usize).min(width - 1);
                    let run = ends.partition_point(|&end| end <= row * width + column);
                    *inside = run % 2 == 1;
                }
            }
        }
    }
    if mask.contains(&true) {
        Ok(Some(mask))
    } else {
        Err(RoiError::Empty)
    }
}

/// Flags the pixels inside a polygon on the line at `y` (even-odd rule). `crossings` is a buffer.
fn fill(
    polygon: &[[f32; 2]],
    y: f32,
    centres_x: &[f32],
    crossings: &mut Vec<f32>,
    line: &mut [bool],
) {
    crossings.clear();
    let Some(mut previous) = polygon.last() else {
        return;
    };
    for corner in polygon {
        if (corner[1] > y) != (previous[1] > y) {
            let slope = (previous[0] - corner[0]) * (y - corner[1]) / (previous[1] - corner[1]);
            let edge = slope + corner[0];
            // Corners near the largest f32 may give NaN.
            if !edge.is_nan() {
                crossings.push(edge);
            }
        }
        previous = corner;
    }
    crossings.sort_unstable_by(f32::total_cmp);
    // A pixel is inside if an odd number of edges is to its right.
    let mut right = crossings.len();
    let mut from = 0;
    for &edge in crossings.iter() {
        let to = centres_x.partition_point(|&x| x < edge);
        if right % 2 == 1 {
            line[from..to].fill(true);
        }
        (from, right) = (to, right - 1);
    }
}

/// A bitmap from a mask image: cells above half brightness are inspected.
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
    use proptest::prelude::*;

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

    /// The even-odd rule, corner by corner.
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

    proptest! {
        #[test]
        fn filled_lines_equal_tested_points(
            polygons in proptest::collection::vec(
                proptest::collection::vec([-0.2f32..1.2, -0.2f32..1.2], 3..12), 1..4),
            (width, height) in (1usize..40, 1usize..40),
        ) {
            let mask = rasterise(&Roi::Polygons(polygons.clone()), width, height);
            let expected: Vec<bool> = (0..width * height)
                .map(|index| {
                    let x = ((index % width) as f32 + 0.5) / width as f32;
                    let y = ((index / width) as f32 + 0.5) / height as f32;
                    polygons.iter().any(|polygon| contains(polygon, x, y))
                })
                .collect();
            match mask {
                Ok(mask) => prop_assert_eq!(mask, Some(expected)),
                Err(error) => {
                    prop_assert_eq!(error, RoiError::Empty);
                    prop_assert!(!expected.contains(&true));
                }
            }
        }
    }

    #[test]
    fn a_huge_region_costs_no_more_than_the_map() {
        let started = std::time::Instant::now();
        let bitmap = Roi::Bitmap {
            width: MAX_FRAME_SIDE_PX,
            height: MAX_FRAME_SIDE_PX,
            runs: vec![0, MAX_FRAME_SIDE_PX * MAX_FRAME_SIDE_PX],
        };
        let mask = rasterise(&bitmap, 64, 64).unwrap().unwrap();
        assert!(mask.iter().all(|&inside| inside));
        // As many corners as a message may have: testing each of them for each pixel would take 60
        // thousand million steps.
        let corner = |n: usize| [(n % 2) as f32, n as f32 / MAX_POLYGON_CORNERS as f32];
        let polygon: Vec<_> = (0..MAX_POLYGON_CORNERS).map(corner).collect();
        rasterise(&Roi::Polygons(vec![polygon; 15]), 2_000, 2_000).unwrap();
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
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
    fn unusable_regions_are_errors() {
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

    #[test]
    fn a_region_widens_another_if_it_takes_in_more_than_its_edge() {
        let rectangle = |left: f32, right: f32| {
            let corners = vec![[left, 0.0], [right, 0.0], [right, 1.0], [left, 1.0]];
            Roi::Polygons(vec![corners])
        };
        let calibrated = rectangle(0.25, 0.75);
        assert!(!widens(&calibrated, &calibrated));
        assert!(!widens(&calibrated, &rectangle(0.3, 0.7)));
        assert!(!widens(&calibrated, &rectangle(0.249, 0.751)), "its edge");
        assert!(widens(&calibrated, &rectangle(0.2, 0.7)), "moved");
        assert!(widens(&calibrated, &Roi::Whole));
        assert!(!widens(&Roi::Whole, &calibrated));
        let bitmap = Roi::Bitmap {
            width: 4,
            height: 1,
            runs: vec![1, 2, 1],
        };
        assert!(!widens(&calibrated, &bitmap) && !widens(&bitmap, &calibrated));
    }
}
