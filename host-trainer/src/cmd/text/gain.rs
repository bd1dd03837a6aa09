//! What a segmentation network adds, in words.

use proto::manifest::SegmentationGain;

/// The gain, and what it says nothing about.
pub(crate) fn segmentation_gain(gain: &SegmentationGain) -> String {
    let kinds = if gain.unseen_kinds.is_empty() {
        "of kinds that it also learned from".to_owned()
    } else {
        format!(
            "of kinds that it did not learn from ({})",
            gain.unseen_kinds.join(", ")
        )
    };
    let parts = match gain.unseen_parts {
        Some(true) => "in images of parts that it did not learn from",
        Some(false) => {
            "in images that it did not learn from, though of some of its parts it learned"
        }
        None => {
            "in images that it did not learn from, of parts that it may have learned from (train --groups names the parts)"
        }
    };
    format!(
        "pixel AUROC on synthetic defects {:.3}, without it {:.3}: {kinds}, {parts}; real defects may be found better or worse",
        gain.with, gain.without
    )
}
