//! Two frames for a camera to inspect: a good one and a bad one, with a threshold between their
//! scores.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::devices::{Format, Pixels};
use super::material::{Material, raw_frame};

/// Frames whose scores differ clearly, and the threshold between them.
#[derive(Clone, Debug)]
pub(crate) struct Pictures {
    pub(crate) format: Format,
    pub(crate) good: Vec<u8>,
    pub(crate) bad: Vec<u8>,
    pub(crate) threshold: f32,
}

impl Pictures {
    /// Scores four candidates with `program`, the camera's program on the host: a good image in
    /// grey, the same with a drawn defect, and two that are nothing but defect. The model may
    /// hardly be trained, so the candidate with the lowest score is the good frame, and that with
    /// the highest is the bad one. Both are also written to `folder`, as good.png and bad.png.
    pub(crate) fn make(program: &Path, material: &Material, folder: &Path) -> Result<Self> {
        let images = material.images("good")?;
        let image = raw_frame(images.first().context("no images")?)?;
        let plain: Vec<u8> = match image.format.pixels {
            Pixels::Grey => image.bytes,
            // The green channel serves as grey.
            Pixels::Rgb => image.bytes.chunks(3).map(|pixel| pixel[1]).collect(),
        };
        let format = Format {
            pixels: Pixels::Grey,
            ..image.format
        };
        let drawn = draw_defect(&plain, format);
        let black = vec![0; plain.len()];
        let stripes = (0..plain.len())
            .map(|at| {
                if at % format.width_px % 16 < 8 {
                    0
                } else {
                    255
                }
            })
            .collect();
        let mut scored = Vec::new();
        for frame in [plain, drawn, black, stripes] {
            let path = folder.join("candidate.png");
            write_png(&path, &frame, format)?;
            scored.push((score(program, &material.package(), &path)?, frame));
        }
        scored.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (Some((high, bad)), Some((low, good))) = (scored.pop(), scored.into_iter().next())
        else {
            bail!("no pictures were scored");
        };
        // The guest's arithmetic may round differently.
        if high < low * 1.05 {
            bail!(
                "the model scores all pictures between {low} and {high}, which is too close to tell \
                 them apart"
            );
        }
        write_png(&folder.join("good.png"), &good, format)?;
        write_png(&folder.join("bad.png"), &bad, format)?;
        Ok(Self {
            format,
            good,
            bad,
            threshold: (low + high) / 2.0,
        })
    }
}

/// Draws a black hole with a white rim into a frame.
fn draw_defect(frame: &[u8], format: Format) -> Vec<u8> {
    let mut drawn = frame.to_vec();
    let radius = format.height_px.min(format.width_px) / 5;
    for y in 0..format.height_px {
        for x in 0..format.width_px {
            let (across, down) = (
                x.abs_diff(format.width_px / 2),
                y.abs_diff(format.height_px / 2),
            );
            let squared = across * across + down * down;
            if squared < radius * radius {
                let rim = squared > radius * radius * 3 / 4;
                drawn[y * format.width_px + x] = if rim { 255 } else { 0 };
            }
        }
    }
    drawn
}

fn write_png(path: &Path, frame: &[u8], format: Format) -> Result<()> {
    let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    let (width, height) = (format.width_px.try_into()?, format.height_px.try_into()?);
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(frame)?;
    Ok(())
}

/// The score of an image by the camera's program on the host.
fn score(program: &Path, package: &Path, image: &Path) -> Result<f32> {
    let started = Instant::now();
    let output = Command::new(program)
        .args(["score", "--json", "--package"])
        .arg(package)
        .arg(image)
        .output()
        .context("running edge-runtime score")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"score\": "));
    let value = line.and_then(|value| value.trim_end_matches(',').parse().ok());
    value.with_context(|| {
        let message = String::from_utf8_lossy(&output.stderr);
        format!(
            "edge-runtime score printed no score after {:.0} s: {}",
            started.elapsed().as_secs_f64(),
            message.trim()
        )
    })
}
