//! `report.html`: a self-contained page for people, without scripts or network access.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};
use scoring::inspect::verdict::Verdict;

use super::chart;
use super::evaluation::Evaluation;
use super::pixels::PRO_LIMIT;
use super::rate::Rate;
use super::rows::ReportRow;
use super::summary::{KindSummary, Summary};

/// The texts of the page that the evaluation does not give.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name and version of the model.
    pub title: String,
    /// Name and size of the data set.
    pub subtitle: String,
    /// Facts about the model and its threshold, as names and values.
    pub facts: Vec<(String, String)>,
}

/// The page's style sheet.
const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5c656e;--line:#d8dde2;--card:#f6f7f9;
--bad:#c0342b;--ok:#22713c}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a3abb3;--line:#3a4148;
--card:#1e2226;--bad:#ff8a80;--ok:#7fd59a}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);max-width:1100px;margin:0 auto;
padding:1rem}
h1{margin:.5rem 0 0;font-size:1.6rem}h2{margin:2rem 0 .5rem;font-size:1.2rem}p{margin:.3rem 0}
.soft,small{color:var(--soft)}td small{display:block;white-space:nowrap}
.cards{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;
min-width:9rem}
.card b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
.scroll{overflow-x:auto}dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.charts{display:flex;flex-wrap:wrap;gap:1rem}.charts figure{margin:0;max-width:100%}
svg{max-width:100%;height:auto}figcaption{font-size:.85rem;color:var(--soft)}
.row{border-top:1px solid var(--line);padding:.8rem 0;break-inside:avoid}
.row.wrong{border-left:4px solid var(--bad);padding-left:.7rem}
.pictures{display:grid;grid-template-columns:repeat(4,1fr);gap:.5rem}
.pictures img{width:100%;height:auto;image-rendering:auto;border-radius:4px}
.pictures figure{margin:0}@media(max-width:600px){.pictures{grid-template-columns:repeat(2,1fr)}}
.bad{color:var(--bad);font-weight:600}.ok{color:var(--ok);font-weight:600}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--card:#fff;
--bad:#a3231b;--ok:#1b5e31}body{max-width:none;padding:0;
font-size:11pt}h2{break-after:avoid}table,.card,.charts figure{break-inside:avoid}}";

/// Writes the page.
pub fn html(report: &Report, evaluation: &Evaluation) -> String {
    let summary = &evaluation.summary;
    let mut rows: Vec<&ReportRow> = evaluation.rows.iter().collect();
    rows.sort_by_key(|row| {
        (
            !row.is_wrong(),
            !row.defect,
            row.kind.clone(),
            row.name.clone(),
        )
    });
    let scores = |defect: bool| -> Vec<f32> {
        let of_class = evaluation
            .frames
            .iter()
            .filter(|frame| frame.defect == defect);
        of_class.map(|frame| frame.score).collect()
    };
    let body = markup! {
        h1 { (report.title) }
        p .soft { (report.subtitle) }
        (cards(summary))
        @if let Some(sentence) = decisions(summary) { p { (sentence) } }
        @for warning in summary.overlap.warnings(evaluation.images.len()) {
            p .bad { "Warning: " (warning) "." }
        }
        (outside(summary))
        h2 { "Model and threshold" }
        dl { @for (name, value) in &report.facts { dt { (name) } dd { (value) } } }
        h2 { "By kind of defect" }
        (kinds(summary))
        p .soft { (what_intervals_are(summary)) }
        (operating_points(summary))
        h2 { "Curves" }
        div .charts {
            @if !evaluation.roc.is_empty() {
                @let svg = chart::curve(&evaluation.roc, 1.0, "true-positive rate");
                (captioned("ROC curve over pixels", svg, "ROC over pixels"))
            }
            @if !evaluation.pro.is_empty() {
                @let svg = chart::curve(&evaluation.pro, PRO_LIMIT, "mean region overlap");
                @let caption = "Per-region overlap, up to a false-positive rate of 30 %";
                (captioned("Per-region-overlap curve", svg, caption))
            }
            @let svg = chart::histogram(&scores(false), &scores(true), summary.threshold);
            @let caption = "Frame scores: good frames filled in blue, defect frames \
                outlined in red, the threshold in grey";
            (captioned("Histogram of frame scores", svg, caption))
        }
        h2 { "Frames" }
        @if rows.len() < summary.total.images {
            p .soft {
                (rows.len()) " of " (summary.total.images) " are shown: as many wrong "
                "verdicts as there is room for, and some right ones of each kind."
            }
        }
        p .soft {
            "Wrong verdicts come first. Heat maps are brightest at four times what 99.9 % of good "
            "pixels stay below, or at twice the threshold if that is less; without a threshold "
            "at each frame's own peak."
        }
        @for row in rows { (frame(row)) }
    };
    page(&report.title, &body)
}

/// A page with the style of all reports.
pub(super) fn page(title: &str, body: &Markup) -> String {
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A chart with its description for screen readers and its caption.
pub(super) fn captioned(description: &str, svg: String, caption: &str) -> Markup {
    markup! {
        figure {
            span role="img" aria-label=(description) { (PreEscaped(svg)) }
            figcaption { (caption) }
        }
    }
}

/// A metric with three decimals.
fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

/// A fraction in percent.
fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

/// An interval of a metric with three decimals.
fn interval(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(String::new, |[low, high]| format!("{low:.3}–{high:.3}"))
}

/// The interval of a rate in percent.
fn percent_interval(rate: Option<Rate>) -> String {
    rate.map_or_else(String::new, |rate| {
        format!("{:.1}–{:.1} %", 100.0 * rate.low, 100.0 * rate.high)
    })
}

/// A table cell with a figure and its interval.
fn cell(value: String, interval: String) -> Markup {
    markup! { td { (value) @if !interval.is_empty() { small { (interval) } } } }
}

/// What intervals are, in a sentence.
fn what_intervals_are(summary: &Summary) -> &'static str {
    if summary.by_part {
        "Below the figures are 95 % intervals, in which images of one part count as one. Misses and \
         false rejects are counted by part: a part is rejected if any of its images is."
    } else {
        "Below the figures are 95 % intervals. They take each image for a part of its own; where \
         several images show one part they are too narrow, unless evaluate --groups names the parts."
    }
}

/// Defects outside of the inspected part, if not all is inspected.
fn outside(summary: &Summary) -> Markup {
    let inspected = summary.inspected_fraction.filter(|part| *part < 1.0);
    markup! {
        @if let Some(inspected) = inspected {
            p {
                "All figures are of the " (percent(Some(inspected))) " of the pixels that are "
                "inspected. Outside lie " (summary.total.regions_outside) " defect regions, and all "
                "of those of " (summary.total.frames_outside) " frames, which count for no figure."
            }
            @if !summary.outside.is_empty() {
                ul {
                    @for frame in &summary.outside {
                        li {
                            (frame.kind) " / " (frame.name) ": " (frame.regions)
                            @if frame.regions == 1 { " region" } @else { " regions" }
                            " outside" @if frame.entirely { ", none inside" }
                        }
                    }
                }
            }
        }
    }
}

/// The table of operating points.
fn operating_points(summary: &Summary) -> Markup {
    let counted = |rate: &Rate| format!("{} of {}", rate.count, rate.of);
    markup! {
        @if !summary.operating_points.is_empty() {
            h2 { "Defects found at other thresholds" }
            div .scroll {
                table {
                    thead { tr {
                        @for name in ["false rejects up to", "threshold", "false rejects here",
                            "defects found", "fraction found"] {
                            th scope="col" { (name) }
                        }
                    } }
                    tbody {
                        @for point in &summary.operating_points {
                            tr {
                                th scope="row" { (100.0 * point.allowed) " %" }
                                td { (format!("{:.4}", point.threshold)) }
                                (cell(counted(&point.false_rejects),
                                    percent_interval(Some(point.false_rejects))))
                                td { (counted(&point.found)) }
                                (cell(percent(Some(point.found.rate)),
                                    percent_interval(Some(point.found))))
                            }
                        }
                    }
                }
            }
            p .soft {
                "Each threshold is the lowest that rejects no more of the good ones in this data set. "
                "On other good ones it rejects as many as the interval says."
            }
        }
    }
}

/// The most important metrics.
fn cards(summary: &Summary) -> Markup {
    let total = &summary.total;
    let card = |name: &str, value: String| markup! { div .card { b { (value) } (name) } };
    let with = |name: &str, value: String, interval: String| {
        markup! {
            div .card { b { (value) } (name) @if !interval.is_empty() { " " small { (interval) } } }
        }
    };
    markup! {
        div .cards {
            (with("pixel AUROC", figure(total.pixel_auroc), interval(total.pixel_auroc_interval)))
            (with("AUPRO (30 %)", figure(total.aupro), interval(total.aupro_interval)))
            (with("image AUROC", figure(total.image_auroc), interval(total.image_auroc_interval)))
            (card(&f1_name(total), figure(total.f1_max)))
            @if total.seg_f1.is_some() {
                (card("F1 over pixels at the threshold (SegF1)", figure(total.seg_f1)))
            }
            @if let Some(normal) = &total.normal_scores {
                (card("99 % of defect-free pixels below", format!("{:.4}", normal.p99)))
            }
            @let ms = summary.frame_ms;
            @let ms = ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
            (card("ms a frame (median)", ms))
            (with("false rejects", percent(total.false_reject_rate),
                percent_interval(total.false_rejects)))
            (with("misses", percent(total.miss_rate), percent_interval(total.misses)))
        }
    }
}

/// Label of F1-max, with the threshold that gives it.
fn f1_name(total: &KindSummary) -> String {
    match total.f1_max_threshold {
        Some(threshold) => format!("F1-max over pixels, at {threshold:.3}"),
        None => "F1-max over pixels".to_owned(),
    }
}

/// A sentence about the verdicts at the package's threshold.
fn decisions(summary: &Summary) -> Option<String> {
    let (rejected, missed) = (summary.total.false_rejects?, summary.total.misses?);
    let what = if summary.by_part { "parts" } else { "frames" };
    Some(format!(
        "At the package's threshold, {} of {} good {what} are rejected and {} of {} defect {what} \
         pass.",
        rejected.count, rejected.of, missed.count, missed.of
    ))
}

/// Columns of the table by kind of defect.
const COLUMNS: [&str; 10] = [
    "kind",
    "frames",
    "with ground truth",
    "pixel AUROC",
    "AUPRO",
    "pixel AUPR",
    "F1-max",
    "image AUROC",
    "image AUPR",
    "misses",
];

/// The table of metrics by kind of defect.
fn kinds(summary: &Summary) -> Markup {
    let row = |name: &str, kind: &KindSummary| {
        markup! {
            tr {
                th scope="row" { (name) }
                td { (kind.images) } td { (kind.with_ground_truth) }
                (cell(figure(kind.pixel_auroc), interval(kind.pixel_auroc_interval)))
                (cell(figure(kind.aupro), interval(kind.aupro_interval)))
                td { (figure(kind.pixel_aupr)) } td { (figure(kind.f1_max)) }
                (cell(figure(kind.image_auroc), interval(kind.image_auroc_interval)))
                td { (figure(kind.image_aupr)) }
                (cell(percent(kind.miss_rate), percent_interval(kind.misses)))
            }
        }
    };
    markup! {
        div .scroll {
            table {
                thead { tr {
                    @for name in COLUMNS {
                        th scope="col" { (name) }
                    }
                } }
                tbody {
                    @for (name, kind) in &summary.kinds { (row(name, kind)) }
                    (row("all", &summary.total))
                }
            }
        }
    }
}

/// A frame with its pictures.
fn frame(row: &ReportRow) -> Markup {
    let wrong = row.is_wrong();
    let verdict = match (row.verdict, wrong) {
        (Some(_), _) if row.outside => "defects outside of the inspected part",
        (Some(Verdict::Ng), true) => "NG: false reject",
        (Some(Verdict::Ok), true) => "OK: missed",
        (Some(Verdict::Ng), false) => "NG",
        (Some(Verdict::Ok), false) => "OK",
        (None, _) => "no threshold",
    };
    let pictures = [
        ("input", Some(&row.pictures.input)),
        ("anomaly map", Some(&row.pictures.heat)),
        ("above the threshold", row.pictures.overlay.as_ref()),
        ("ground truth", row.pictures.truth.as_ref()),
    ];
    markup! {
        section .row .wrong[wrong] {
            p {
                b { (row.kind) " / " (row.name) } " · score " (format!("{:.3}", row.score)) " · "
                span .bad[wrong] .ok[!wrong && !row.outside && row.verdict.is_some()] { (verdict) }
                @if row.regions > 0 {
                    " · " (row.regions) @if row.regions == 1 { " region" } @else { " regions" }
                }
            }
            div .pictures {
                @for (name, picture) in pictures {
                    @if let Some(uri) = picture.and_then(data_uri) {
                        figure {
                            img src=(uri) alt={ (name) " of " (row.kind) " " (row.name) } loading="lazy";
                            figcaption { (name) }
                        }
                    }
                }
            }
        }
    }
}

/// A picture as a data URI; JPEG, so that hundreds of frames fit in a page. `None` if it cannot be
/// encoded; the row then lacks it.
pub(super) fn data_uri(picture: &RgbImage) -> Option<String> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).ok()?;
    Some(format!(
        "data:image/jpeg;base64,{}",
        STANDARD.encode(bytes.into_inner())
    ))
}
