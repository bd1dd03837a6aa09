//! A package's manifest in words.

use ed25519_dalek::VerifyingKey;
use host_trainer::calibrate::{format_bound, format_confidence};
use proto::manifest::{
    EvaluationSummary, InputSize, Manifest, PlaceMeans, PostProcessing, Roi, Scoring, Threshold,
    Training,
};
use scoring::package::key_id;

use super::segmentation_gain;

/// What a manifest says, as names and values.
///
/// `manifest` has the overrides in force applied; `threshold_applies` is false if one of them
/// invalidates its threshold.
pub(crate) fn manifest_facts(
    manifest: &Manifest,
    signer: &VerifyingKey,
    threshold_applies: bool,
) -> Vec<(String, String)> {
    let network = manifest.network;
    let input = manifest.input;
    let gain = manifest
        .segmentation_gain
        .as_ref()
        .map(|gain| ("segmentation network", segmentation_gain(gain)));
    let facts = [
        ("model", format!("{} {}", manifest.name, manifest.version)),
        ("signed by", key_id(signer)),
        (
            "threshold",
            threshold(manifest.threshold.as_ref(), threshold_applies),
        ),
        (
            "input",
            format!("{}, {:?}", size(input.size), input.colour).to_lowercase(),
        ),
        ("scoring", scoring(manifest.scoring)),
        ("region of interest", roi(&manifest.roi)),
        ("post-processing", post_processing(&manifest.post)),
        ("scores", unit_of_scores(manifest)),
        (
            "network",
            format!("width {}, {} channels", network.width, network.channels),
        ),
        ("training", training(&manifest.training)),
        ("features", manifest.training.features.clone()),
        ("noise", manifest.training.noise.clone()),
        ("golden tiles", golden(manifest)),
        ("evaluated", evaluation(manifest.evaluation.as_ref())),
    ];
    let compared = |frames: u32, means: &PlaceMeans| {
        format!(
            "compared with {frames} good frames at {}×{} places",
            means.columns, means.rows
        )
    };
    let layers = manifest.layers.as_ref();
    let layers = layers.map(|layers| ("layers", compared(layers.frames, &layers.second)));
    let grain = manifest.grain.as_ref();
    let grain = grain.map(|grain| ("grain", compared(grain.frames, &grain.means)));
    let decisions = manifest.decisions.iter();
    let decisions = decisions.map(|decision| ("decided", decision.clone()));
    let facts = facts
        .into_iter()
        .chain(gain)
        .chain(layers)
        .chain(grain)
        .chain(decisions);
    facts
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn golden(manifest: &Manifest) -> String {
    let tiles = manifest.golden.len();
    match manifest.golden_frame {
        Some(_) => format!("{tiles}, and a golden frame through all stages"),
        None => format!("{tiles} (packaged before golden frames)"),
    }
}

fn threshold(threshold: Option<&Threshold>, applies: bool) -> String {
    let Some(threshold) = threshold else {
        return "none: not calibrated".to_owned();
    };
    if !applies {
        return "none in force: the package's belongs to another scoring mode".to_owned();
    }
    let promise = threshold.promise.map_or_else(
        || "no promise".to_owned(),
        |promise| {
            format!(
                "at most {} false rejects per 10,000 parts at {} % confidence",
                format_bound(promise.max_false_rejects_per_10_000),
                format_confidence(promise.confidence)
            )
        },
    );
    format!(
        "{:.4}, {promise} ({}; {} good parts)",
        threshold.value, threshold.note, threshold.parts
    )
}

fn size(size: InputSize) -> String {
    match size {
        InputSize::Native => "as captured".to_owned(),
        InputSize::Fixed {
            width_px,
            height_px,
        } => format!("{width_px}×{height_px} px"),
    }
}

fn scoring(scoring: Scoring) -> String {
    match scoring {
        Scoring::FullyConvolutional => "one fully-convolutional pass".to_owned(),
        Scoring::AveragedTiles { stride_px } => format!("tiles at stride {stride_px} px, averaged"),
    }
}

fn roi(roi: &Roi) -> String {
    match roi {
        Roi::Whole => "the whole frame".to_owned(),
        Roi::Polygons(polygons) => format!("{} polygons", polygons.len()),
        Roi::Bitmap { width, height, .. } => format!("a mask of {width}×{height} cells"),
    }
}

fn post_processing(post: &PostProcessing) -> String {
    if *post == PostProcessing::default() {
        return "none".to_owned();
    }
    format!(
        "smooth {} px, open {} px, close {} px",
        post.smooth_sigma_px, post.open_px, post.close_px
    )
}

/// What the map's scores are, with the shares of layers and grain if there are any.
fn unit_of_scores(manifest: &Manifest) -> String {
    let stages = unit_without_places(manifest);
    let layers = manifest.layers.as_ref();
    let layers = layers.map(|layers| (&layers.distances, layers.map_weight));
    let grain = manifest.grain.as_ref();
    let grain = grain.map(|grain| (&grain.distances, grain.map_weight));
    // The weight of what came before applies to all of it.
    let mut parts = vec![(1.0, stages)];
    let what = ["the network's layers", "the surface's grain"];
    for (statistics, what) in [layers, grain].into_iter().zip(what) {
        if let Some((distances, map_weight)) = statistics {
            parts
                .iter_mut()
                .for_each(|(weight, _)| *weight *= map_weight);
            let what = format!("standard deviations of {what} from good places");
            parts.push((distances.weight, what));
        }
    }
    let parts = parts.into_iter().filter(|(weight, _)| *weight > 0.0);
    let parts = parts.map(|(weight, what)| match weight {
        1.0 => what,
        weight => format!("{weight:.3} × {what}"),
    });
    parts.collect::<Vec<_>>().join(", plus ")
}

fn unit_without_places(manifest: &Manifest) -> String {
    match (&manifest.normal_map, &manifest.variation) {
        (None, None) => "sum of |A| over channels".to_owned(),
        (Some(normal), _) => format!(
            "standard deviations above what {} good images score at the same place",
            normal.frames
        ),
        (None, Some(model)) => {
            let mut text = format!(
                "standard deviations from how {} good images look at the same place",
                model.frames
            );
            if let Some(network) = &manifest.segmentation {
                text += &format!(
                    ", and a segmentation network's of weight {}",
                    network.weight
                );
                if network.local_contrast > 0.0 {
                    text += &format!(", local contrast {}", network.local_contrast);
                }
            }
            text
        }
    }
}

fn training(training: &Training) -> String {
    format!(
        "{:?}, {} loss, {} activation, {} iterations of {} tiles, seed {}, {:.1} min, {} images ({} held out)",
        training.mode,
        training.loss,
        training.activation,
        training.iterations,
        training.batch,
        training.seed,
        f64::from(training.seconds) / 60.0,
        training.file_ids.len(),
        training.held_out_images
    )
}

fn evaluation(evaluation: Option<&EvaluationSummary>) -> String {
    let Some(found) = evaluation else {
        return "not recorded (host-trainer evaluate --record)".to_owned();
    };
    let figure =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    format!(
        "on {} ({} images): pixel AUROC {}, AUPRO {}, image AUROC {}",
        found.data,
        found.images,
        figure(found.pixel_auroc),
        figure(found.aupro),
        figure(found.image_auroc)
    )
}
