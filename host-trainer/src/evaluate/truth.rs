//! Ground-truth masks: reading, resizing, drawing.

use image::{GrayImage, Luma, RgbImage};
use scoring::inspect::frame::Frame;
use scoring::inspect::map::ScoreMap;

use crate::dataset::{DatasetError, TestItem, read_mask};

/// Reads an item's mask, which must have the frame's size. The mask of a good frame has no defects;
/// a defect frame without a file has no mask.
pub(super) fn read_truth(
    item: &TestItem,
    frame: &Frame,
) -> Result<Option<Vec<bool>>, DatasetError> {
    let (width_px, height_px) = (frame.width_px(), frame.height_px());
    match &item.mask {
        Some(path) => read_mask(path, width_px, height_px).map(Some),
        None if item.is_good() => Ok(Some(vec![false; width_px as usize * height_px as usize])),
        None => Ok(None),
    }
}

/// Resizes a mask to the size of the map by nearest neighbour, at pixel centres.
pub(super) fn resize_mask(mask: &[bool], width_px: usize, map: &ScoreMap) -> Vec<bool> {
    let height_px = mask.len() / width_px;
    let nearest = |index: usize, from: usize, to: usize| (2 * index + 1) * from / (2 * to);
    (0..map.height_px)
        .flat_map(|y| {
            let row = nearest(y, height_px, map.height_px) * width_px;
            (0..map.width_px).map(move |x| mask[row + nearest(x, width_px, map.width_px)])
        })
        .collect()
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
    use super::*;

    #[test]
    fn a_mask_is_resized_at_pixel_centres() {
        // From 4 to 2 pixels: the centres of the large pixels are in columns 1 and 3.
        let mask = [false, true, true, false];
        let found = resize_mask(&mask, 4, &ScoreMap::zeros(2, 1));
        assert_eq!(found, [true, false]);
        let same = resize_mask(&mask, 2, &ScoreMap::zeros(2, 2));
        assert_eq!(same, mask);
    }
}
