//! An evaluation as a table.

use host_trainer::evaluate::Summary;

/// The figures of each kind of defect and of all frames, then those of the whole data set.
pub(crate) fn evaluation_table(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{:<12} {:>6} {:>11} {:>6} {:>10} {:>11} {:>10} {:>7}",
        "kind",
        "frames",
        "pixel AUROC",
        "AUPRO",
        "pixel AUPR",
        "image AUROC",
        "image AUPR",
        "misses"
    )];
    for (name, kind) in summary
        .kinds
        .iter()
        .map(|(n, k)| (n.as_str(), k))
        .chain([("all", &summary.total)])
    {
        lines.push(format!(
            "{name:<12} {:>6} {:>11} {:>6} {:>10} {:>11} {:>10} {:>7}",
            kind.images,
            figure(kind.pixel_auroc),
            figure(kind.aupro),
            figure(kind.pixel_aupr),
            figure(kind.image_auroc),
            figure(kind.image_aupr),
            percent(kind.miss_rate)
        ));
    }
    if summary.half_precision {
        lines.push("scored in half precision".to_owned());
    }
    lines.push(format!(
        "F1-max over pixels {}",
        figure(summary.total.f1_max)
    ));
    if let Some(normal) = &summary.total.normal_scores {
        lines.push(format!(
            "scores of defect-free pixels: median {:.4}, 99 % below {:.4}, 99.9 % below {:.4}",
            normal.median, normal.p99, normal.p99_9
        ));
    }
    lines.push(match summary.threshold {
        Some(threshold) => format!(
            "threshold {threshold:.4}: false rejects {}, misses {}",
            percent(summary.total.false_reject_rate),
            percent(summary.total.miss_rate)
        ),
        None => "no threshold in force: there are no false rejects and misses to count".to_owned(),
    });
    if let Some(ms) = summary.frame_ms {
        lines.push(format!("{ms:.1} ms a frame (median)"));
    }
    lines.join("\n")
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}
