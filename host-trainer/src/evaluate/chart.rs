//! Charts of the report as inline SVG.

use plotters::prelude::*;

/// Size of a chart in pixels.
const SIZE: (u32, u32) = (420, 300);
/// Colour of axes and text: a mid-grey that is legible on light and dark backgrounds.
const INK: RGBColor = RGBColor(120, 120, 120);
/// Colour of good frames, and of curves.
const GOOD: RGBColor = RGBColor(46, 125, 200);
/// Colour of defect frames.
const DEFECT: RGBColor = RGBColor(205, 60, 50);

/// Draws a curve over the false-positive rate up to `limit`.
pub(super) fn curve(points: &[[f64; 2]], limit: f64, y_label: &str) -> String {
    let mut svg = String::new();
    let drawn = draw_curve(&mut svg, points, limit, y_label);
    or_empty(svg, drawn)
}

/// Draws histograms of the scores of good and defect frames, with the threshold.
pub(super) fn histogram(good: &[f32], defect: &[f32], threshold: Option<f32>) -> String {
    let mut svg = String::new();
    let drawn = draw_histogram(&mut svg, good, defect, threshold);
    or_empty(svg, drawn)
}

/// The chart, or nothing if it could not be drawn; the figures are in the report in any case.
fn or_empty(svg: String, drawn: Result<(), Box<dyn std::error::Error>>) -> String {
    if drawn.is_ok() { svg } else { String::new() }
}

fn draw_curve(
    svg: &mut String,
    points: &[[f64; 2]],
    limit: f64,
    y_label: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..limit, 0.0..1.0)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.25))
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .x_desc("false-positive rate (pixels)")
        .y_desc(y_label)
        .draw()?;
    let line = points
        .iter()
        .filter(|p| p[0] <= limit)
        .map(|p| (p[0], p[1]));
    chart.draw_series(LineSeries::new(line, GOOD.stroke_width(2)))?;
    root.present()?;
    drop(chart);
    Ok(())
}

fn draw_histogram(
    svg: &mut String,
    good: &[f32],
    defect: &[f32],
    threshold: Option<f32>,
) -> Result<(), Box<dyn std::error::Error>> {
    const BINS: usize = 30;
    let all = good.iter().chain(defect).copied().chain(threshold);
    let top = f64::from(all.fold(0.0f32, f32::max)).max(1e-6) * 1.02;
    let width = top / BINS as f64;
    let counts = |scores: &[f32]| {
        let mut counts = [0u32; BINS];
        for &score in scores {
            counts[((f64::from(score) / width) as usize).min(BINS - 1)] += 1;
        }
        counts
    };
    let (good, defect) = (counts(good), counts(defect));
    let highest = f64::from(*good.iter().chain(&defect).max().unwrap_or(&1)) * 1.05;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..top, 0.0..highest)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.25))
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .x_desc("frame score")
        .y_desc("frames")
        .draw()?;
    // Distinguished by shape as well as by colour: good frames are filled, defect frames outlined.
    for (counts, colour, filled) in [(good, GOOD, true), (defect, DEFECT, false)] {
        let style = if filled {
            colour.mix(0.6).filled()
        } else {
            colour.stroke_width(2)
        };
        let bars = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        chart.draw_series(bars.map(|(bin, &count)| {
            let left = bin as f64 * width;
            let corners = [(left, 0.0), (left + width, f64::from(count))];
            Rectangle::new(corners, style)
        }))?;
    }
    if let Some(threshold) = threshold {
        let x = f64::from(threshold);
        let line = [(x, 0.0), (x, highest)];
        chart.draw_series(LineSeries::new(line, INK.stroke_width(2)))?;
    }
    root.present()?;
    drop(chart);
    Ok(())
}
