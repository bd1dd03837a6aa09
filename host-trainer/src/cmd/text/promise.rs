//! A threshold and its promise in words.

use host_trainer::calibrate::{Calibration, format_bound, format_confidence, parts_needed};
use proto::manifest::Manifest;

/// Number of parts in the second promise.
const LOT: usize = 100;
/// Bound, per 10,000 parts, above which the text says how many parts it would take to reach it.
const GOOD_BOUND: f64 = 100.0;

/// The threshold of a manifest that was calibrated like this.
pub(crate) fn promise(manifest: &Manifest, found: &Calibration) -> String {
    let threshold = manifest.threshold.as_ref();
    let parts = threshold.map_or(0, |threshold| threshold.parts);
    let mut text = format!("threshold {:.4} from {parts} good parts", found.threshold);
    match threshold.and_then(|threshold| threshold.promise) {
        None => text.push_str(": from training images, no promise"),
        Some(promise) => {
            let bound = promise.max_false_rejects_per_10_000;
            text.push_str(&format!(
                ": at most {} false rejects per 10,000 good parts in the long run, and at most {} of the next {LOT}, each at {} % confidence",
                format_bound(bound),
                found.most_rejects_in_lot(LOT, parts as usize),
                format_confidence(promise.confidence)
            ));
            if bound > GOOD_BOUND {
                let needed = parts_needed(GOOD_BOUND, promise.confidence);
                text.push_str(&format!(
                    " ({GOOD_BOUND} per 10,000 would need {needed} good parts held out)"
                ));
            }
        }
    }
    text
}
