//! What was tried on synthetic defects, in words.

use host_trainer::package::{Evidence, Found, Mixture};

/// Mixtures to name besides the one chosen: those of one map alone.
fn alone(evidence: &Evidence, share: f32) -> Option<&Found> {
    evidence
        .found
        .iter()
        .find(|found| found.mixture.share == share)
}

/// A mixture of maps in words.
pub(crate) fn mixture_in_words(mixture: &Mixture) -> String {
    let Mixture {
        smooth_sigma_px,
        smooth_sigma_places,
        share,
    } = mixture;
    match *share {
        share if share <= 0.0 => format!("scores alone, smoothed by {smooth_sigma_px} px"),
        share if share >= 1.0 => {
            format!("the network's layers alone, smoothed by {smooth_sigma_places} places")
        }
        share => format!(
            "scores (smoothed by {smooth_sigma_px} px) and the network's layers (by {smooth_sigma_places} places), {:.0} : {:.0}",
            100.0 * (1.0 - share),
            100.0 * share
        ),
    }
}

fn figures(found: &Found) -> String {
    let Found {
        pixel_auroc,
        aupro,
        image_auroc,
        ..
    } = found;
    format!("pixel AUROC {pixel_auroc:.3}, AUPRO {aupro:.3}, image AUROC {image_auroc:.3}")
}

/// What was chosen, and what each map alone would have found.
pub(crate) fn evidence_in_words(evidence: &Evidence) -> String {
    let Some(best) = evidence.found.first() else {
        return "map: nothing was tried".to_owned();
    };
    let mut text = format!(
        "map: {}: {} on {} images with synthetic defects beside {} good ones",
        mixture_in_words(&best.mixture),
        figures(best),
        evidence.defects,
        evidence.images
    );
    for share in [0.0, 1.0] {
        if let Some(found) = alone(evidence, share).filter(|found| *found != best) {
            text += &format!("; {}: {}", mixture_in_words(&found.mixture), figures(found));
        }
    }
    text
}
