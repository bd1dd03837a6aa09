//! An evaluation as a table.

use host_trainer::evaluate::{KindSummary, OperatingPoint, Rate, Summary};

/// Most frames with defects outside of the inspected part that are named.
const MOST_NAMED: usize = 5;

/// The figures of each kind of defect and of all frames, then those of the whole data set.
pub(crate) fn evaluation_table(summary: &Summary) -> String {
    let mut lines = vec![columns([
        "kind",
        "frames",
        "pixel AUROC",
        "AUPRO",
        "pixel AUPR",
        "image AUROC",
        "image AUPR",
        "misses",
    ])];
    for (name, kind) in summary
        .kinds
        .iter()
        .map(|(n, k)| (n.as_str(), k))
        .chain([("all", &summary.total)])
    {
        lines.push(columns([
            name,
            &kind.images.to_string(),
            &figure(kind.pixel_auroc),
            &figure(kind.aupro),
            &figure(kind.pixel_aupr),
            &figure(kind.image_auroc),
            &figure(kind.image_aupr),
            &percent(kind.miss_rate),
        ]));
        lines.extend(intervals(kind));
    }
    lines.push(format!(
        "below the figures: 95 % intervals, {}",
        if summary.by_part {
            "with images of one part taken as one; misses and false rejects are counted by part"
        } else {
            "each image taken as a part of its own (--groups says which images show the same part)"
        }
    ));
    if summary.half_precision {
        lines.push("scored in half precision".to_owned());
    }
    lines.extend(outside(summary));
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
            "threshold {threshold:.4}: false rejects {}, misses {}, F1 over pixels (SegF1) {}",
            rate(summary.total.false_rejects),
            rate(summary.total.misses),
            figure(summary.total.seg_f1)
        ),
        None => "no threshold in force: there are no false rejects and misses to count".to_owned(),
    });
    lines.extend(operating_points(&summary.operating_points));
    if let Some(ms) = summary.frame_ms {
        lines.push(format!("{ms:.1} ms a frame (median)"));
    }
    lines.join("\n")
}

fn columns(texts: [&str; 8]) -> String {
    let [
        kind,
        frames,
        auroc,
        aupro,
        aupr,
        image_auroc,
        image_aupr,
        misses,
    ] = texts;
    format!(
        "{kind:<12} {frames:>6} {auroc:>11} {aupro:>11} {aupr:>10} {image_auroc:>11} {image_aupr:>10} {misses:>11}"
    )
}

/// The line of intervals under the figures, if there are any.
fn intervals(kind: &KindSummary) -> Option<String> {
    let found = [
        kind.pixel_auroc_interval,
        kind.aupro_interval,
        kind.image_auroc_interval,
    ];
    let misses = kind.misses.map(|rate| percent_interval(&rate));
    (found.iter().any(Option::is_some) || misses.is_some()).then(|| {
        let [auroc, aupro, image_auroc] = found.map(|interval| {
            interval.map_or_else(String::new, |[low, high]| format!("{low:.3}–{high:.3}"))
        });
        columns([
            "",
            "",
            &auroc,
            &aupro,
            "",
            &image_auroc,
            "",
            &misses.unwrap_or_default(),
        ])
    })
}

/// What lies outside of the inspected part, if not all is inspected.
fn outside(summary: &Summary) -> Vec<String> {
    let Some(inspected) = summary.inspected_fraction.filter(|part| *part < 1.0) else {
        return Vec::new();
    };
    let total = &summary.total;
    let mut lines = vec![format!(
        "all figures are of the {:.1} % of the pixels that are inspected; {} defect regions lie outside, {} frames with all of theirs",
        100.0 * inspected,
        total.regions_outside,
        total.frames_outside
    )];
    for frame in summary.outside.iter().take(MOST_NAMED) {
        lines.push(format!(
            "  outside: {}/{}, {} {}",
            frame.kind,
            frame.name,
            if frame.entirely { "all" } else { "some" },
            match frame.regions {
                1 => "of it (1 region)".to_owned(),
                regions => format!("of them ({regions} regions)"),
            }
        ));
    }
    if summary.outside.len() > MOST_NAMED {
        lines.push(format!(
            "  and {} more (--json lists all)",
            summary.outside.len() - MOST_NAMED
        ));
    }
    lines
}

/// The operating points as a table.
fn operating_points(points: &[OperatingPoint]) -> Vec<String> {
    if points.is_empty() {
        return Vec::new();
    }
    let row = |allowed: &str, threshold: &str, rejected: &str, found: &str| {
        format!("{allowed:>19}  {threshold:>9}  {rejected:<31}  {found}")
    };
    let mut lines = vec![row(
        "false rejects up to",
        "threshold",
        "false rejects here",
        "defects found",
    )];
    for point in points {
        lines.push(row(
            &format!("{} %", 100.0 * point.allowed),
            &format!("{:.4}", point.threshold),
            &counted(&point.false_rejects),
            &counted(&point.found),
        ));
    }
    lines
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

fn percent_interval(rate: &Rate) -> String {
    format!("{:.1}–{:.1} %", 100.0 * rate.low, 100.0 * rate.high)
}

/// A rate with its interval.
fn rate(rate: Option<Rate>) -> String {
    rate.map_or_else(
        || "–".to_owned(),
        |rate| format!("{} ({})", percent(Some(rate.rate)), percent_interval(&rate)),
    )
}

/// A rate as numbers, with its interval.
fn counted(rate: &Rate) -> String {
    format!("{} of {} ({})", rate.count, rate.of, percent_interval(rate))
}
