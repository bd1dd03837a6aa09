//! Ground-truth masks: reading, reducing to the map's size, drawing.

use image::{GrayImage, Luma, RgbImage};
use scoring::inspect::frame::Frame;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::region::label_components;

use crate::dataset::{DatasetError, TestItem};

/// Reads an item's mask, which must have the frame's size. The mask of a good frame has no defects;
/// a defect frame without a file has no mask.
pub(super) fn read_truth(
    item: &TestItem,
    frame: &Frame,
) -> Result<Option<Vec<bool>>, DatasetError> {
    let (width_px, height_px) = (frame.width_px(), frame.height_px());
    match &item.mask {
        Some(mask) => Ok(Some(mask.read(width_px, height_px)?.defects)),
        None if item.is_good() => Ok(Some(vec![false; width_px as usize * height_px as usize])),
        None => Ok(None),
    }
}

/// A mask at the size of the map.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReducedMask {
    /// `true` for defects, row-major.
    pub(super) defects: Vec<bool>,
    /// Regions too small or too thin for the map's pixels.
    pub(super) small_regions: usize,
}

/// Reduces a mask to the size of the map. A pixel of the map is a defect if its centre is in one.
/// That keeps areas, but loses what is smaller or thinner than a pixel of the map: a region of which
/// the centres show less than half of the pixels that it touches counts as all of these, so that no
/// defect vanishes.
pub(super) fn reduce_mask(mask: &[bool], width_px: usize, map: &ScoreMap) -> ReducedMask {
    let height_px = mask.len() / width_px;
    let nearest = |index: usize, from: usize, to: usize| (2 * index + 1) * from / (2 * to);
    let (labels, regions) = label_components(mask, width_px, height_px);
    let mut defects = Vec::with_capacity(map.data.len());
    let mut seen = vec![0usize; regions + 1];
    for y in 0..map.height_px {
        let row = nearest(y, height_px, map.height_px) * width_px;
        for x in 0..map.width_px {
            let at = row + nearest(x, width_px, map.width_px);
            defects.push(mask[at]);
            seen[labels[at] as usize] += 1;
        }
    }
    let mut touched: Vec<(u32, usize)> = labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label > 0)
        .map(|(at, label)| {
            let x = nearest(at % width_px, map.width_px, width_px);
            let y = nearest(at / width_px, map.height_px, height_px);
            (*label, y * map.width_px + x)
        })
        .collect();
    touched.sort_unstable();
    touched.dedup();
    let mut small_regions = 0;
    for region in touched.chunk_by(|a, b| a.0 == b.0) {
        if 2 * seen[region[0].0 as usize] < region.len() {
            small_regions += 1;
            region.iter().for_each(|(_, at)| defects[*at] = true);
        }
    }
    ReducedMask {
        defects,
        small_regions,
    }
}

/// A mask as a picture: defects white, everything else black.
pub(super) fn draw_mask(mask: &[bool], width_px: u32, height_px: u32) -> RgbImage {
    let grey = GrayImage::from_fn(width_px, height_px, |x, y| {
        Luma([if mask[(y * width_px + x) as usize] {
            255
        } else {
            0
        }])
    });
    image::DynamicImage::ImageLuma8(grey).into_rgb8()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reduced(mask: &[bool], width: usize, to: (usize, usize)) -> ReducedMask {
        reduce_mask(mask, width, &ScoreMap::zeros(to.0, to.1))
    }

    /// A mask of 16×16 pixels.
    fn of(defect: impl Fn(usize, usize) -> bool) -> Vec<bool> {
        (0..256).map(|at| defect(at % 16, at / 16)).collect()
    }

    #[test]
    fn a_large_region_is_reduced_at_pixel_centres() {
        // From 4 to 2 pixels: the centres of the large pixels are in columns 1 and 3.
        let mask = [true, true, true, false];
        let found = reduced(&mask, 4, (2, 1));
        assert_eq!((found.defects, found.small_regions), (vec![true, false], 0));
        let same = reduced(&mask, 2, (2, 2));
        assert_eq!(same.defects, mask);
        let half = reduced(&of(|x, _| x < 8), 16, (4, 4));
        let expected = [true, true, false, false].repeat(4);
        assert_eq!((half.defects, half.small_regions), (expected, 0));
    }

    #[test]
    fn no_region_vanishes_however_small_or_thin() {
        // Between all centres, which are at 2, 6, 10 and 14.
        let speck = reduced(&of(|x, y| x == 4 && y == 8), 16, (4, 4));
        assert_eq!(speck.small_regions, 1);
        let marked = speck.defects.iter().position(|defect| *defect);
        assert_eq!(
            (marked, speck.defects.iter().filter(|d| **d).count()),
            (Some(9), 1)
        );
        let line = reduced(&of(|x, _| x == 5), 16, (4, 4));
        assert_eq!(line.defects, [false, true, false, false].repeat(4));
        // A diagonal line, which passes between all centres too.
        let diagonal = reduced(&of(|x, y| x + y == 15), 16, (4, 4));
        assert_eq!(diagonal.small_regions, 1);
        assert_eq!(diagonal.defects.iter().filter(|defect| **defect).count(), 4);
    }

    proptest! {
        #[test]
        fn every_region_touches_the_reduced_mask(
            mask in prop::collection::vec(prop::bool::weighted(0.2), 15 * 11),
            width in 1usize..15,
            height in 1usize..11,
        ) {
            let found = reduced(&mask, 15, (width, height));
            let (labels, regions) = label_components(&mask, 15, 11);
            let centre = |index: usize, from: usize, to: usize| (2 * index + 1) * from / (2 * to);
            for region in 1..=regions as u32 {
                let shown = (0..width * height).any(|at| {
                    let x = centre(at % width, 15, width);
                    let y = centre(at / width, 11, height);
                    found.defects[at] && labels[y * 15 + x] == region
                });
                let touched = labels.iter().enumerate().any(|(at, label)| {
                    let x = centre(at % 15, width, 15);
                    let y = centre(at / 15, height, 11);
                    *label == region && found.defects[y * width + x]
                });
                prop_assert!(shown || touched, "region {region} of {regions}");
            }
            prop_assert!(found.small_regions <= regions);
        }

        #[test]
        fn a_mask_of_the_maps_size_stays_as_it_is(
            mask in prop::collection::vec(any::<bool>(), 9 * 7),
        ) {
            let found = reduced(&mask, 9, (9, 7));
            prop_assert_eq!(found, ReducedMask { defects: mask, small_regions: 0 });
        }
    }
}
