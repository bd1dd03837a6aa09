//! The decision on a part.

use serde::Serialize;

use super::map::ScoreMap;

/// The decision on a part. A fault is not one of them: without a score there is no verdict,
/// whatever the gate then does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// No pixel scores above the threshold.
    Ok,
    /// At least one pixel does.
    Ng,
}

/// The score of a frame: the highest score of its map, after post-processing and inside the region
/// of interest. So a frame is NG exactly if it has a region above the threshold.
pub fn frame_score(map: &ScoreMap) -> f32 {
    map.peak()
}

/// OK exactly if the score is not greater than the threshold. A threshold or score of NaN never
/// passes.
pub fn decide(score: f32, threshold: f32) -> Verdict {
    if score <= threshold {
        Verdict::Ok
    } else {
        Verdict::Ng
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::region::regions;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ng_and_regions_go_together(data in proptest::collection::vec(0f32..2.0, 30), threshold in 0f32..2.0) {
            let map = ScoreMap { width_px: 6, height_px: 5, data };
            let ng = decide(frame_score(&map), threshold) == Verdict::Ng;
            prop_assert_eq!(ng, !regions(&map, threshold, [1.0, 1.0]).is_empty());
        }
    }

    #[test]
    fn the_threshold_itself_passes() {
        assert_eq!(decide(0.5, f32::NAN), Verdict::Ng);
        assert_eq!(decide(0.5, 0.5), Verdict::Ok);
        assert_eq!(decide(0.500_001, 0.5), Verdict::Ng);
    }
}
