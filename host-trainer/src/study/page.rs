//! The study as one self-contained HTML file.

use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use super::figure::{data_sets, normal_scores, scores};
use super::plan::{DIRECT, Experiment, papers_auroc};
use super::results::RunResult;

/// The page's style sheet.
const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 960px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
.claim { color: #777 }
";

/// Writes the page with the results of some experiments; `conditions` says how they were run. Figures
/// stand beside the paper's only if its features were used.
pub fn html(
    experiments: &[Experiment],
    rows: &[RunResult],
    conditions: &str,
    papers_features: bool,
) -> String {
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Study" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "The paper's experiments" }
                p {
                    "Adey, Akçay, Bordewich, Breckon: Autoencoders Without Reconstruction for "
                    "Textural Anomaly Detection (2021). Here: " (conditions) "."
                }
                p.claim {
                    "Dots are seeds, bars their means, and boxes the middle half of four or more. "
                    @if papers_features {
                        "Dashed lines are the paper's mean of a class (Table I, 3,500 iterations at "
                        "width 128). "
                    } @else {
                        "The features are not the paper's, which are VGG-11's, so these figures do "
                        "not stand beside its own. "
                    }
                    "Maps are those of exported packages, computed on the whole frame "
                    "and not smoothed."
                }
                @for experiment in experiments {
                    (section(*experiment, rows, papers_features))
                }
            }
        }
    };
    page.into_string()
}

/// The section of an experiment.
fn section(experiment: Experiment, rows: &[RunResult], papers_features: bool) -> Markup {
    markup! {
        h2 { (experiment.title()) }
        p.claim { "The paper: " (experiment.claim()) }
        @let figure = scores(experiment, rows, papers_features);
        @if figure.is_empty() {
            p { "Not run yet." }
        } @else {
            figure { (PreEscaped(figure)) }
            @if experiment.shows_normal_scores() {
                figure { (PreEscaped(normal_scores(experiment, rows))) }
            }
            (table(experiment, rows, papers_features))
        }
    }
}

/// Mean and standard deviation of a metric over seeds, as text.
fn mean_and_deviation(values: &[f64]) -> String {
    if values.is_empty() {
        return "–".to_owned();
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() == 1 {
        return format!("{mean:.3}");
    }
    let squares = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>();
    format!("{mean:.3} ± {:.3}", (squares / (count - 1.0)).sqrt())
}

/// The table of an experiment: a row per data set and setting.
fn table(experiment: Experiment, rows: &[RunResult], papers_features: bool) -> Markup {
    let data = data_sets(rows);
    let of = |data: &str, setting: &str| -> Vec<&RunResult> {
        let rows = rows.iter();
        rows.filter(|row| row.data == data && row.setting == setting)
            .collect()
    };
    let text = |rows: &[&RunResult], value: &dyn Fn(&RunResult) -> Option<f64>| {
        mean_and_deviation(
            &rows
                .iter()
                .filter_map(|row| value(row))
                .collect::<Vec<f64>>(),
        )
    };
    let papers = |data: &str, setting: &str| {
        let auroc = papers_auroc(data).filter(|_| papers_features && setting == DIRECT);
        auroc.map_or_else(|| "–".to_owned(), |auroc| format!("{auroc:.2}"))
    };
    markup! {
        table {
            tr {
                th { "data" } th { "setting" } th { "seeds" } th { "pixel AUROC" } th { "paper" }
                th { "AUPRO" } th { "image AUROC" } th { "normal median" } th { "normal 99 %" }
            }
            @for data in &data {
                @for setting in experiment.settings() {
                    @let rows = of(data, setting);
                    @if !rows.is_empty() {
                        tr {
                            td { (data) } td { (setting) } td { (rows.len()) }
                            td { (text(&rows, &|row| row.pixel_auroc)) }
                            td { (papers(data, setting)) }
                            td { (text(&rows, &|row| row.aupro)) }
                            td { (text(&rows, &|row| row.image_auroc)) }
                            td { (text(&rows, &|row| row.normal.map(|n| n[0]))) }
                            td { (text(&rows, &|row| row.normal.map(|n| n[1]))) }
                        }
                    }
                }
            }
        }
    }
}
