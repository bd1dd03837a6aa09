//! The study's figures as SVG, and as PNG for use elsewhere.

use plotters::coord::Shift;
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use super::plan::{Experiment, papers_auroc};
use super::results::RunResult;

/// Size of a figure in pixels.
const SIZE: (u32, u32) = (860, 420);
/// Colour of axes and text: a mid-grey that is legible on light and dark backgrounds.
const INK: RGBColor = RGBColor(120, 120, 120);
/// Colours of data sets, distinguishable with any colour vision (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Whether drawing succeeded.
type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// What is shown of a run: a value, where `low` and `high` are the same, or a range.
struct Dot<'a> {
    /// The data set.
    data: &'a str,
    /// Number of the setting, from 0.
    setting: usize,
    low: f64,
    high: f64,
}

/// Names of the data sets, sorted.
pub(super) fn data_sets(rows: &[RunResult]) -> Vec<&str> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.data.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The dots of an experiment's runs for which `range` returns something.
fn dots<'a>(
    rows: &'a [RunResult],
    experiment: Experiment,
    range: impl Fn(&RunResult) -> Option<[f64; 2]>,
) -> Vec<Dot<'a>> {
    let settings = experiment.settings();
    rows.iter()
        .filter_map(|row| {
            let [low, high] = range(row)?;
            Some(Dot {
                data: &row.data,
                setting: settings.iter().position(|name| *name == row.setting)?,
                low,
                high,
            })
        })
        .collect()
}

/// Draws the pixel AUROC of an experiment's settings: a dot per seed, a bar for their mean, a box
/// around the middle half of four or more, and, if the features are the paper's, a dashed line for
/// its mean of the class (Table I). Empty if there are no runs.
pub fn scores(experiment: Experiment, rows: &[RunResult], papers_features: bool) -> String {
    let dots = dots(rows, experiment, |row| {
        row.pixel_auroc.map(|auroc| [auroc; 2])
    });
    let lowest = dots.iter().fold(1.0f64, |lowest, dot| lowest.min(dot.low));
    let range = ((lowest - 0.02).max(0.0) * 20.0).floor() / 20.0..1.0;
    let mut svg = String::new();
    let axis = Axis {
        range,
        label: "pixel AUROC",
        tick: |value| format!("{value:.2}"),
        papers: papers_features,
    };
    let drawn = draw(&mut svg, experiment, rows, &dots, &axis);
    or_empty(svg, drawn, &dots)
}

/// Draws the scores of normal pixels for an experiment's settings on a logarithmic scale, from the
/// median to the 99th percentile. Empty if there are no runs.
pub fn normal_scores(experiment: Experiment, rows: &[RunResult]) -> String {
    let dots = dots(rows, experiment, |row| {
        let [median, p99, _] = row.normal?;
        Some([median, p99].map(|score| score.max(1e-4).log10()))
    });
    let lowest = dots.iter().fold(0.0f64, |lowest, dot| lowest.min(dot.low));
    let highest = dots
        .iter()
        .fold(lowest, |highest, dot| highest.max(dot.high));
    let axis = Axis {
        range: lowest - 0.1..highest + 0.1,
        label: "score of normal pixels: median to 99 %",
        tick: |power| match 10f64.powf(*power) {
            score if score < 0.1 => format!("{score:.3}"),
            score => format!("{score:.2}"),
        },
        papers: false,
    };
    let mut svg = String::new();
    let drawn = draw(&mut svg, experiment, rows, &dots, &axis);
    or_empty(svg, drawn, &dots)
}

/// The vertical axis.
struct Axis {
    range: std::ops::Range<f64>,
    label: &'static str,
    tick: fn(&f64) -> String,
    /// Whether to draw the paper's values.
    papers: bool,
}

/// The figure, or nothing if it has no dots or could not be drawn; the table has its values.
fn or_empty(svg: String, drawn: DrawResult, dots: &[Dot<'_>]) -> String {
    if drawn.is_ok() && !dots.is_empty() {
        svg
    } else {
        String::new()
    }
}

fn draw(
    svg: &mut String,
    experiment: Experiment,
    rows: &[RunResult],
    dots: &[Dot<'_>],
    axis: &Axis,
) -> DrawResult {
    let settings = experiment.settings();
    let data_sets = data_sets(rows);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let low = axis.range.start;
    let count = settings.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .margin_top(28)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.5..count - 0.5, axis.range.clone())?;
    let name = |x: &f64| {
        let near = (x - x.round()).abs() < 0.01;
        let name = settings.get(x.round() as usize).filter(|_| near);
        name.map_or_else(String::new, |name| (*name).to_owned())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.25))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_labels(2 * settings.len() + 1)
        .x_label_formatter(&name)
        .y_label_formatter(&axis.tick)
        .y_desc(axis.label)
        .draw()?;
    let step = 0.7 / data_sets.len().max(1) as f64;
    for (index, data) in data_sets.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let offset = (index as f64 + 0.5) * step - 0.35;
        for setting in 0..settings.len() {
            let x = setting as f64 + offset;
            let own = dots
                .iter()
                .filter(|dot| dot.data == *data && dot.setting == setting);
            let own: Vec<&Dot<'_>> = own.collect();
            if own.iter().any(|dot| dot.high > dot.low) {
                let spacing = step * 0.5 / own.len() as f64;
                for (index, dot) in own.iter().enumerate() {
                    let x = x + (index as f64 - (own.len() - 1) as f64 / 2.0) * spacing;
                    let ends = [(x, dot.low), (x, dot.high)];
                    chart.draw_series(LineSeries::new(ends, colour.stroke_width(3)))?;
                    chart.draw_series([Circle::new(ends[0], 4, colour.filled())])?;
                    chart.draw_series([Circle::new(ends[1], 4, colour.stroke_width(2))])?;
                }
                continue;
            }
            let mut values: Vec<f64> = own.iter().map(|dot| dot.low).collect();
            values.sort_unstable_by(f64::total_cmp);
            if values.is_empty() {
                continue;
            }
            if values.len() >= 4 {
                let quartile =
                    |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
                let corners = [
                    (x - step * 0.3, quartile(0.25)),
                    (x + step * 0.3, quartile(0.75)),
                ];
                chart.draw_series([Rectangle::new(corners, colour.mix(0.25).filled())])?;
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let bar = [(x - step * 0.35, mean), (x + step * 0.35, mean)];
            chart.draw_series(LineSeries::new(bar, colour.stroke_width(3)))?;
            chart.draw_series(
                values
                    .iter()
                    .map(|value| Circle::new((x, *value), 3, colour.filled())),
            )?;
        }
        if let Some(auroc) = papers_auroc(data).filter(|auroc| axis.papers && *auroc > low) {
            let dashes = (0..).map(|dash| f64::from(dash) * 0.1 - 0.5);
            for from in dashes.take_while(|from| *from < count - 0.55) {
                let dash = [(from, auroc), (from + 0.05, auroc)];
                chart.draw_series(LineSeries::new(dash, colour.stroke_width(1)))?;
            }
        }
    }
    legend(&root, &data_sets)?;
    root.present()?;
    drop(chart);
    Ok(())
}

/// Draws the data sets' names above the figure.
fn legend(root: &DrawingArea<SVGBackend<'_>, Shift>, names: &[&str]) -> DrawResult {
    let mut x = 70;
    for (index, name) in names.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        root.draw(&Circle::new((x, 14), 5, colour.filled()))?;
        let style = ("sans-serif", 14).into_font().color(&INK);
        root.draw(&Text::new((*name).to_owned(), (x + 10, 7), style))?;
        x += 40 + 8 * name.len() as i32;
    }
    Ok(())
}

/// Renders a figure as a PNG file; `None` if it cannot be rendered. It brings its own font, because
/// servers often have none.
pub fn png(svg: &str) -> Option<Vec<u8>> {
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next()?.families.first()?.0.clone();
    fonts.set_sans_serif_family(family);
    let tree = usvg::Tree::from_str(svg, &options).ok()?;
    let size = tree.size().to_int_size();
    let mut pixels = tiny_skia::Pixmap::new(2 * size.width(), 2 * size.height())?;
    let twice = tiny_skia::Transform::from_scale(2.0, 2.0);
    resvg::render(&tree, twice, &mut pixels.as_mut());
    pixels.encode_png().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(setting: &str, seed: u64, auroc: f64) -> RunResult {
        RunResult {
            run: format!("leather-{setting}-{seed}"),
            data: "leather".to_owned(),
            setting: setting.to_owned(),
            seed,
            width: 128,
            iterations: 3_500,
            pixel_auroc: Some(auroc),
            aupro: None,
            image_auroc: None,
            normal: Some([0.01, 0.1, 0.3]),
            train_s: 1.0,
        }
    }

    #[test]
    fn a_figure_has_a_dot_per_seed_and_the_papers_value() {
        let rows: Vec<RunResult> = (0..5)
            .flat_map(|seed| {
                let better = 0.001 * seed as f64;
                [
                    row("direct", seed, 0.95 + better),
                    row("tanh", seed, 0.90 + better),
                ]
            })
            .collect();
        let svg = scores(Experiment::Activation, &rows, true);
        assert_eq!(
            svg.matches("<circle").count(),
            10 + 1,
            "one more in the legend"
        );
        let dashes = svg.matches("stroke-width=\"1\"").count();
        assert!(dashes > 20, "leather's line: {dashes}");
        assert!(svg.contains("no activation") && svg.contains("leather"));
        let with_text = png(&svg).unwrap();
        assert!(with_text.starts_with(b"\x89PNG"));
        // The text is rendered, whatever fonts the machine has.
        let without_text: String = svg
            .lines()
            .filter(|line| !line.contains("no activation"))
            .collect();
        assert_ne!(png(&without_text).unwrap(), with_text);
        assert!(normal_scores(Experiment::Direct, &rows).contains("0.10"));
        assert_eq!(scores(Experiment::Resize, &[], true), "");
        // With other features nothing is compared with the paper.
        let others = scores(Experiment::Activation, &rows, false);
        assert!(others.matches("stroke-width=\"1\"").count() < dashes - 20);
    }
}
