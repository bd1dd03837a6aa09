//! The study as one HTML file that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use super::figure::{data_sets, scores, strengths};
use super::plan::{Experiment, papers_auroc};
use super::results::Row;

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 960px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
.claim { color: #777 }
";

/// Everything that has been run of some experiments; `conditions` says how.
pub fn html(experiments: &[Experiment], rows: &[Row], conditions: &str) -> String {
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
                p { "Adey, Akçay, Bordewich, Breckon: Autoencoders Without Reconstruction for Textural Anomaly Detection (2021). Here: " (conditions) "." }
                p.claim { "Dots are seeds, bars their means, boxes the middle half of four or more, dashed lines the paper's mean of a class (Table I, 3,500 iterations at width 128). Exact full-frame maps of exported packages, not smoothed." }
                @for experiment in experiments {
                    (section(*experiment, rows))
                }
            }
        }
    };
    page.into_string()
}

fn section(experiment: Experiment, rows: &[Row]) -> Markup {
    markup! {
        h2 { (experiment.title()) }
        p.claim { "The paper: " (experiment.claim()) }
        @let figure = scores(experiment, rows);
        @if figure.is_empty() {
            p { "Not run yet." }
        } @else {
            figure { (PreEscaped(figure)) }
            @if experiment.shows_normal_scores() {
                figure { (PreEscaped(strengths(experiment, rows))) }
            }
            (table(experiment, rows))
        }
    }
}

/// Mean and spread of a figure over seeds.
fn in_words(values: &[f64]) -> String {
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

fn table(experiment: Experiment, rows: &[Row]) -> Markup {
    let data = data_sets(rows);
    let of = |data: &str, setting: &str| -> Vec<&Row> {
        let rows = rows.iter();
        rows.filter(|row| row.data == data && row.setting == setting)
            .collect()
    };
    let words = |rows: &[&Row], value: &dyn Fn(&Row) -> Option<f64>| {
        in_words(
            &rows
                .iter()
                .filter_map(|row| value(row))
                .collect::<Vec<f64>>(),
        )
    };
    markup! {
        table {
            tr { th { "data" } th { "setting" } th { "seeds" } th { "pixel AUROC" } th { "paper" } th { "AUPRO" } th { "image AUROC" } th { "normal median" } th { "normal 99 %" } }
            @for data in &data {
                @for setting in experiment.settings() {
                    @let rows = of(data, setting);
                    @if !rows.is_empty() {
                        tr {
                            td { (data) } td { (setting) } td { (rows.len()) }
                            td { (words(&rows, &|row| row.pixel_auroc)) }
                            td { @if *setting == super::plan::PAPER { (papers_auroc(data).map_or("–".to_owned(), |auroc| format!("{auroc:.2}"))) } @else { "–" } }
                            td { (words(&rows, &|row| row.aupro)) }
                            td { (words(&rows, &|row| row.image_auroc)) }
                            td { (words(&rows, &|row| row.normal.map(|n| n[0]))) }
                            td { (words(&rows, &|row| row.normal.map(|n| n[1]))) }
                        }
                    }
                }
            }
        }
    }
}
