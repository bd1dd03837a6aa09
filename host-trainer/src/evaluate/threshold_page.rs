//! The page of `fit`: why the threshold is what it is, which good frames come near it, and what was
//! decided. Self-contained, without scripts or network access.

use std::path::Path;

use maud::{Markup, html as markup};
use scoring::inspector::{InspectError, Inspector};
use scoring::io::image_file::{ImageFileError, read_frame_as};
use scoring::io::text::path_text;

use super::chart;
use super::pictures::{draw, full_scale};
use super::report::{captioned, data_uri, page};
use super::rows::Pictures;

/// Why a good frame cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdPageError {
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// It cannot be inspected.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// A good frame with its pictures.
#[derive(Debug)]
pub struct GoodPicture {
    name: String,
    score: f32,
    pictures: Pictures,
}

impl GoodPicture {
    /// Inspects a good frame by a package and draws it.
    pub fn draw(inspector: &Inspector, file: &Path) -> Result<Self, ThresholdPageError> {
        let frame = read_frame_as(file, inspector.reading())?;
        let found = inspector.inspect(&frame)?;
        let threshold = inspector.threshold();
        let scale = full_scale(inspector.manifest(), threshold);
        Ok(Self {
            name: path_text(file),
            score: found.score,
            pictures: draw(&frame, &found, None, threshold, scale),
        })
    }
}

/// A way to judge frames that was tried: its name and its figures, as text.
#[derive(Debug, Clone)]
pub struct Tried {
    /// What it is.
    pub name: String,
    /// Pixel AUROC, AUPRO and image AUROC on synthetic defects.
    pub figures: [f64; 3],
}

/// What the page says.
#[derive(Debug)]
pub struct ThresholdPage {
    /// Name and version of the model.
    pub title: String,
    /// The threshold.
    pub threshold: Option<f32>,
    /// What the threshold promises, in words.
    pub promise: Option<String>,
    /// Scores of the good frames that it was calibrated on.
    pub scores: Vec<f32>,
    /// The median of them.
    pub median: Option<f32>,
    /// The highest of them.
    pub highest: Vec<GoodPicture>,
    /// What was decided, and why.
    pub decisions: Vec<String>,
    /// What was tried, the best first.
    pub tried: Vec<Tried>,
}

impl ThresholdPage {
    /// Writes the page.
    pub fn html(&self) -> String {
        let body = markup! {
            h1 { (self.title) }
            h2 { "Why this threshold" }
            (self.why())
            @if !self.highest.is_empty() {
                h2 { "The good frames that come nearest to it" }
                p .soft {
                    "If one of them shows a defect, leave it out (fit --leave-out): it hides "
                    "other defects. If it is good and rare, give more images like it. Maps are "
                    "brightest at four times what 99.9 % of good pixels stay below, or at twice "
                    "the threshold if that is less."
                }
                @for good in &self.highest { (self.good(good)) }
            }
            h2 { "What was decided" }
            ul { @for decision in &self.decisions { li { (decision) } } }
            (self.table())
        };
        page(&self.title, &body)
    }

    fn why(&self) -> Markup {
        let (Some(threshold), Some(median)) = (self.threshold, self.median) else {
            return markup! {
                p { "There is none: too few images to hold any out. Calibrate the package with other \
                     good images." }
            };
        };
        let svg = chart::histogram(&self.scores, &[], Some(threshold));
        markup! {
            p {
                "The threshold is " b { (format!("{threshold:.4}")) } ". A good frame scores "
                (format!("{median:.4}")) " in the median; " (self.scores.len()) " good frames were held "
                "out of training to find it."
            }
            @if let Some(promise) = &self.promise { p { (promise) } }
            div .charts {
                (captioned("Histogram of good frames' scores", svg,
                    "Scores of good frames, the threshold in grey"))
            }
        }
    }

    fn good(&self, good: &GoodPicture) -> Markup {
        let times = good.score / self.median.unwrap_or(1.0).max(f32::MIN_POSITIVE);
        let pictures = [
            ("input", Some(&good.pictures.input)),
            ("anomaly map", Some(&good.pictures.heat)),
            ("above the threshold", good.pictures.overlay.as_ref()),
        ];
        markup! {
            section .row {
                p {
                    b { (good.name) } " · score " (format!("{:.4}", good.score)) " · "
                    (format!("{times:.1}")) " × the median"
                }
                div .pictures {
                    @for (name, picture) in pictures {
                        @if let Some(uri) = picture.and_then(data_uri) {
                            figure {
                                img src=(uri) alt={ (name) " of " (good.name) } loading="lazy";
                                figcaption { (name) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        markup! {
            @if !self.tried.is_empty() {
                h2 { "What was tried on synthetic defects" }
                div .scroll {
                    table {
                        thead { tr {
                            @for name in ["map", "pixel AUROC", "AUPRO", "image AUROC"] {
                                th scope="col" { (name) }
                            }
                        } }
                        tbody {
                            @for tried in &self.tried {
                                tr {
                                    th scope="row" { (tried.name) }
                                    @for figure in tried.figures { td { (format!("{figure:.3}")) } }
                                }
                            }
                        }
                    }
                }
                p .soft {
                    "Drawn into good images that were held out of training. Real defects may be found "
                    "better or worse."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_was_measured_and_escapes_names() {
        let page = ThresholdPage {
            title: "<b>fabric</b> 1".to_owned(),
            threshold: Some(1.25),
            promise: Some("at most 5 of 100".to_owned()),
            scores: vec![0.5, 0.25, 1.25],
            median: Some(0.5),
            highest: vec![GoodPicture {
                name: "a&b.png".to_owned(),
                score: 1.25,
                pictures: Pictures {
                    input: image::RgbImage::new(8, 8),
                    heat: image::RgbImage::new(8, 8),
                    overlay: None,
                    truth: None,
                },
            }],
            decisions: vec!["--size 256x256: because".to_owned()],
            tried: vec![Tried {
                name: "scores alone".to_owned(),
                figures: [0.9, 0.8, 0.7],
            }],
        };
        let html = page.html();
        for expected in [
            "&lt;b&gt;fabric&lt;/b&gt; 1",
            "<b>1.2500</b>",
            "scores 0.5000 in the median",
            "at most 5 of 100",
            "a&amp;b.png",
            "2.5 × the median",
            "--size 256x256: because",
            "0.800",
            "<svg",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        let none = ThresholdPage {
            threshold: None,
            ..page
        };
        assert!(none.html().contains("There is none"));
    }
}
