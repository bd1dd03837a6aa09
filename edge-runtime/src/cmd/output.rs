//! The output of `score`: a table or JSON, and pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{Cursor, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use proto::manifest::Scoring;
use scoring::inspect::frame::Frame;
use scoring::inspect::region::Region;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};
use scoring::io::account::ImageAccount;
use scoring::io::atomic::write_atomic;
use scoring::io::text::path_text;
use scoring::render::{heat_map, overlay};
use serde::Serialize;

/// Version of the JSON object; raised when a key changes its meaning or is removed.
const SCHEMA: u32 = 1;
/// Most regions listed in the table for one image, highest score first.
const LISTED_REGIONS: usize = 5;

/// The package and the settings, which are the same for all images.
#[derive(Serialize)]
pub(super) struct Header {
    name: String,
    version: String,
    signer: String,
    scoring: &'static str,
    threshold: Option<f32>,
}

impl Header {
    pub(super) fn new(inspector: &Inspector, signer: String) -> Self {
        let manifest = inspector.manifest();
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            signer,
            scoring: match manifest.scoring {
                Scoring::FullyConvolutional => "full",
                Scoring::AveragedTiles { .. } => "tiles",
            },
            threshold: inspector.threshold(),
        }
    }
}

/// The result of one image: a score, or an error.
#[derive(Serialize)]
pub(super) struct Entry {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    verdict: Option<Verdict>,
    score: Option<f32>,
    elapsed_ms: Option<f64>,
    regions: Vec<Region>,
    #[serde(flatten)]
    pictures: Option<PictureFiles>,
}

impl Entry {
    pub(super) fn scored(path: &Path, found: &Inspection, pictures: Option<PictureFiles>) -> Self {
        Self {
            image: path_text(path),
            error: None,
            verdict: found.verdict,
            score: Some(found.score),
            elapsed_ms: Some(found.elapsed.as_secs_f64() * 1e3),
            regions: found.regions.clone(),
            pictures,
        }
    }

    pub(super) fn failed(path: &Path, error: &anyhow::Error) -> Self {
        Self {
            image: path_text(path),
            error: Some(format!("{error:#}")),
            verdict: None,
            score: None,
            elapsed_ms: None,
            regions: Vec::new(),
            pictures: None,
        }
    }

    fn row(&self) -> String {
        let word = match self.verdict {
            _ if self.error.is_some() => "FAILED",
            Some(Verdict::Ok) => "OK",
            Some(Verdict::Ng) => "NG",
            None => "-",
        };
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mut text = format!(
            "{word:<7} {:>8} {:>7} {:>8}  {}\n",
            number(self.score.map(f64::from), 4),
            self.regions.len(),
            number(self.elapsed_ms, 1),
            self.image
        );
        for region in self.regions.iter().take(LISTED_REGIONS) {
            text += &format!(
                "          at ({}, {}) {}×{} px, area {:.0} px², peak {:.4}, mean {:.4}\n",
                region.x_px,
                region.y_px,
                region.width_px,
                region.height_px,
                region.area_px,
                region.peak,
                region.mean
            );
        }
        if self.regions.len() > LISTED_REGIONS {
            let more = self.regions.len() - LISTED_REGIONS;
            text += &format!("          and {more} more (--json lists all)\n");
        }
        text
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    package: &'a Header,
    images: &'a [Entry],
    account: &'a ImageAccount,
}

/// Prints each row at once, or the JSON object at the end.
pub(super) struct Output {
    json: bool,
    header: Header,
    images: Vec<Entry>,
}

impl Output {
    pub(super) fn begin(json: bool, header: Header) -> Result<Self> {
        if !json {
            let threshold = header
                .threshold
                .map_or_else(|| "none".to_owned(), |value| format!("{value:.4}"));
            print(&format!(
                "{} {}, scoring {}, threshold {threshold}\n{:<7} {:>8} {:>7} {:>8}  IMAGE\n",
                header.name, header.version, header.scoring, "VERDICT", "SCORE", "REGIONS", "MS"
            ))?;
        }
        Ok(Self {
            json,
            header,
            images: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, entry: Entry) -> Result<()> {
        if self.json {
            self.images.push(entry);
            return Ok(());
        }
        print(&entry.row())
    }

    pub(super) fn finish(self, account: &ImageAccount) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&Document {
            schema: SCHEMA,
            package: &self.header,
            images: &self.images,
            account,
        })?;
        print(&format!("{text}\n"))
    }
}

/// Prints text. Unlike `print!`, it does not panic if the reader of a pipe has gone.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Paths of the pictures of an image, as text.
#[derive(Serialize)]
pub(super) struct PictureFiles {
    heat_map: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<String>,
}

impl PictureFiles {
    /// Writes the heat map, at the size of the score map, and, if there is a threshold, the
    /// overlay, at the size of the frame.
    ///
    /// Colours end at twice the threshold, so that pictures of one package can be compared. Without
    /// a threshold they end at the image's highest score.
    pub(super) fn write(
        folder: &Path,
        name: &OsStr,
        frame: &Frame,
        found: &Inspection,
        threshold: Option<f32>,
    ) -> Result<Self> {
        let full_scale = threshold.map_or(found.score, |threshold| 2.0 * threshold);
        let file = |ending: &str| {
            let mut file = name.to_owned();
            file.push(ending);
            folder.join(file)
        };
        let heat = file(".heat.png");
        write_png(&heat, &heat_map(&found.map, full_scale))?;
        let overlay = match threshold {
            Some(threshold) => {
                let path = file(".overlay.png");
                write_png(&path, &overlay(&frame.to_rgb8(), &found.map, threshold))?;
                Some(path_text(&path))
            }
            None => None,
        };
        Ok(Self {
            heat_map: path_text(&heat),
            overlay,
        })
    }
}

fn write_png(path: &Path, picture: &RgbImage) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .with_context(|| format!("cannot encode {}", path.display()))?;
    Ok(write_atomic(path, bytes.get_ref())?)
}

/// A unique file name, without extension, for the pictures of every image. It is the image's own
/// name unless another image has the same one (MVTec's folders all contain a 000.png); then it is
/// made of the whole path. Names are bytes: two that are not UTF-8 differ although they look alike.
pub(super) fn picture_names(images: &[PathBuf]) -> Vec<OsString> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_owned();
    let mut stems: BTreeMap<OsString, usize> = BTreeMap::new();
    for path in images {
        *stems.entry(stem(path)).or_default() += 1;
    }
    let alone = |name: &OsString| stems.get(name).is_some_and(|count| *count == 1);
    let mut taken: BTreeSet<OsString> = BTreeSet::new();
    let name = |path: &PathBuf| {
        let own = stem(path);
        if alone(&own) {
            return own;
        }
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        });
        let whole = parts.collect::<Vec<_>>().join(OsStr::new("_"));
        let mut name = whole.clone();
        let mut number = 1;
        // An image whose own name is this one keeps it.
        while alone(&name) || !taken.insert(name.clone()) {
            number += 1;
            name.clone_from(&whole);
            name.push(format!("~{number}"));
        }
        name
    };
    images.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn pictures_of_different_images_have_different_names() {
        let images = [
            "a/cut/000.png",
            "a/fold/000.png",
            "b/001.png",
            "./a/cut/000.png",
        ]
        .map(PathBuf::from);
        assert_eq!(
            picture_names(&images),
            ["a_cut_000.png", "a_fold_000.png", "001", "a_cut_000.png~2"]
        );
        let bytes = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let alike = [
            bytes(b"l\xf6t/0.png"),
            bytes(b"l\xf5t/0.png"),
            bytes(b"\xf6.png"),
            bytes(b"\xf5.png"),
            bytes(b"a/1.png"),
            bytes(b"a/1.jpg"),
            bytes(b"./a/1.jpg"),
            bytes(b"a_1.jpg~2.png"),
        ];
        let mut names = picture_names(&alike);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), alike.len(), "{names:?}");
    }
}
