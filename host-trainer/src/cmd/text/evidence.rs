//! What was tried on synthetic defects, in words.

use host_trainer::package::{Evidence, Found, MapKind, Mixture, Share};

fn name(map: MapKind) -> &'static str {
    match map {
        MapKind::Scores => "the network's scores",
        MapKind::Layers => "its layers",
        MapKind::Grain => "the surface's grain",
    }
}

fn smoothed(share: &Share) -> String {
    let sigma = share.smooth_sigma;
    match share.map {
        _ if sigma <= 0.0 => String::new(),
        MapKind::Scores => format!(" (smoothed by {sigma} px)"),
        _ if sigma == 1.0 => " (smoothed by 1 place)".to_owned(),
        MapKind::Layers | MapKind::Grain => format!(" (smoothed by {sigma} places)"),
    }
}

/// A mixture of maps in words.
pub(crate) fn mixture_in_words(mixture: &Mixture) -> String {
    if let [share] = &mixture.shares[..] {
        return format!("{} alone{}", name(share.map), smoothed(share));
    }
    let parts = mixture.shares.iter().map(|share| {
        let per_cent = 100.0 * share.share;
        format!("{per_cent:.0} % {}{}", name(share.map), smoothed(share))
    });
    parts.collect::<Vec<_>>().join(", ")
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
    for map in MapKind::ALL {
        let alone = |found: &&Found| found.mixture.only() == Some(map);
        // The best of this map comes first.
        if let Some(found) = evidence
            .found
            .iter()
            .find(alone)
            .filter(|found| *found != best)
        {
            text += &format!("; {}: {}", mixture_in_words(&found.mixture), figures(found));
        }
    }
    text
}
