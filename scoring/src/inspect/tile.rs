//! Positions of tiles on a frame (paper, IV-G).

/// Tile origins along one side of a frame: every `stride_px`, and the last one flush with the far
/// edge, so that every pixel is in at least one tile. For 256 px at stride 32 they are 0, 32, …,
/// 160, 191.
///
/// The list is empty if no such cover exists: `length_px` must be at least `tile_px`, and
/// `stride_px` from 1 to `tile_px`.
pub fn origins(length_px: usize, tile_px: usize, stride_px: usize) -> Vec<usize> {
    if length_px < tile_px || stride_px == 0 || stride_px > tile_px {
        return Vec::new();
    }
    let last = length_px - tile_px;
    let mut origins: Vec<usize> = (0..last).step_by(stride_px).collect();
    origins.push(last);
    origins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_papers_frame_has_49_tiles() {
        assert_eq!(origins(256, 65, 32), [0, 32, 64, 96, 128, 160, 191]);
        assert_eq!(origins(65, 65, 32), [0]);
        assert_eq!(origins(66, 65, 32), [0, 1]);
        assert!(origins(64, 65, 32).is_empty());
    }

    proptest! {
        #[test]
        fn every_pixel_is_covered(length in 65usize..700, stride in 1usize..=65) {
            let origins = origins(length, 65, stride);
            let covered = |pixel: usize| origins.iter().any(|&o| (o..o + 65).contains(&pixel));
            prop_assert!((0..length).all(covered));
            prop_assert!(origins.iter().all(|&o| o + 65 <= length));
            prop_assert!(origins.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= stride));
        }
    }
}
