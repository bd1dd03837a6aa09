//! `station replay-compare`: compares the verdicts of two packages on the same frames.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};
use scoring::package::{self, Trust};
use scoring::render::overlay;
use scoring::source::replay::{Pace, Replay};
use scoring::source::{Delivery, RawFrame, Source, SourceError};
use serde::Serialize;

use super::print_json;

/// Compare the verdicts of two packages on a recording or a folder of images.
///
/// Scores the frames as a camera would, and lists those whose verdict changes. With --out, writes a
/// picture of each such frame: the regions that A marks beside those that B marks. Use it before
/// you flash a new package.
#[derive(Args)]
pub(crate) struct ReplayCompare {
    /// Package A, such as the one in use.
    a: PathBuf,
    /// Package B, such as a new one.
    b: PathBuf,
    /// A recording (of `edge-runtime record` or `station pull --recordings`) or a folder of images.
    recording: PathBuf,
    /// Folder for pictures of the frames whose verdict changes; none are written unless given.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The verdict of one package on a frame.
#[derive(Debug, Clone, Copy, Serialize)]
struct Decision {
    score: f32,
    ng: bool,
}

/// A frame whose verdict changes.
#[derive(Serialize)]
struct Change {
    frame: u64,
    a: Decision,
    b: Decision,
}

/// Numbers of frames by the verdicts of both packages.
#[derive(Debug, Default, Serialize)]
struct Counts {
    frames: u64,
    both_ok: u64,
    both_ng: u64,
    only_a_ng: u64,
    only_b_ng: u64,
    /// Frames that could not be read or scored.
    failed: u64,
}

#[derive(Serialize)]
struct Comparison {
    models: [String; 2],
    thresholds: [f32; 2],
    counts: Counts,
    changes: Vec<Change>,
}

/// One of the two packages.
struct Side {
    inspector: Inspector,
    threshold: f32,
    model: String,
}

impl Side {
    fn open(path: &Path) -> Result<Self> {
        let package = package::read(path, &Trust::AnySigner)?;
        let inspector = Inspector::new(&package).with_context(|| path.display().to_string())?;
        let Some(threshold) = inspector.threshold() else {
            bail!("package {} has no threshold: calibrate it", path.display());
        };
        let manifest = package.manifest();
        Ok(Self {
            model: format!("{} {}", manifest.name, manifest.version),
            inspector,
            threshold,
        })
    }
}

impl Side {
    /// Each side reads the frame as its package's files are read.
    fn inspect(&self, raw: &RawFrame) -> Result<Inspection> {
        Ok(self.inspector.inspect(&self.inspector.frame(raw)?)?)
    }
}

fn decision(inspection: &Inspection) -> Decision {
    Decision {
        score: inspection.score,
        ng: inspection.verdict == Some(Verdict::Ng),
    }
}

impl ReplayCompare {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let sides = [Side::open(&self.a)?, Side::open(&self.b)?];
        let mut source = Replay::open(&self.recording, Pace::Maximum, false)?;
        let bar = if json {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner().with_message("scoring")
        };
        let mut counts = Counts::default();
        let mut changes = Vec::new();
        loop {
            let captured = match source.next() {
                Ok(Delivery::Frame(captured)) => captured,
                Ok(Delivery::Damaged { .. }) => continue,
                Err(SourceError::Ended) => break,
                Err(error @ SourceError::Unreadable { .. }) => {
                    note!("{error}");
                    counts.failed += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let number = counts.frames;
            counts.frames += 1;
            bar.set_position(counts.frames);
            let [a, b] = &sides;
            let scored = a
                .inspect(&captured.raw)
                .and_then(|a| Ok((a, b.inspect(&captured.raw)?)));
            let (a, b) = match scored {
                Ok(scored) => scored,
                Err(error) => {
                    note!("frame {number}: {error:#}");
                    counts.failed += 1;
                    continue;
                }
            };
            let change = Change {
                frame: number,
                a: decision(&a),
                b: decision(&b),
            };
            match (change.a.ng, change.b.ng) {
                (false, false) => counts.both_ok += 1,
                (true, true) => counts.both_ng += 1,
                (true, false) => counts.only_a_ng += 1,
                (false, true) => counts.only_b_ng += 1,
            }
            if change.a.ng != change.b.ng {
                if let Some(out) = &self.out {
                    picture(out, number, [(&a, &sides[0]), (&b, &sides[1])])?;
                }
                changes.push(change);
            }
        }
        bar.finish_and_clear();
        if counts.frames == 0 {
            bail!("no frames in {}", self.recording.display());
        }
        let [a, b] = sides;
        let comparison = Comparison {
            models: [a.model, b.model],
            thresholds: [a.threshold, b.threshold],
            counts,
            changes,
        };
        if json {
            return print_json(&comparison);
        }
        comparison.print();
        Ok(())
    }
}

/// Writes a picture of a frame: the regions that A marks beside those that B marks.
fn picture(out: &Path, number: u64, sides: [(&Inspection, &Side); 2]) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let pictures = sides.map(|(inspection, side)| {
        let frame = inspection.prepared.to_rgb8();
        overlay(&frame, &inspection.map, side.threshold)
    });
    let width = pictures[0].width() + pictures[1].width();
    let height = pictures[0].height().max(pictures[1].height());
    let mut both = RgbImage::new(width, height);
    image::imageops::replace(&mut both, &pictures[0], 0, 0);
    image::imageops::replace(&mut both, &pictures[1], i64::from(pictures[0].width()), 0);
    let path = out.join(format!("{number:06}.png"));
    both.save(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

impl Comparison {
    fn print(&self) {
        let [a, b] = &self.models;
        let Counts {
            frames,
            both_ok,
            both_ng,
            only_a_ng,
            only_b_ng,
            failed,
        } = self.counts;
        say!("A: {a}, threshold {:.4}", self.thresholds[0]);
        say!("B: {b}, threshold {:.4}", self.thresholds[1]);
        say!(
            "{frames} frames: {both_ok} both OK, {both_ng} both NG, {only_a_ng} NG by A only, \
             {only_b_ng} NG by B only"
        );
        if failed > 0 {
            say!("{failed} frames could not be read or scored");
        }
        if self.changes.is_empty() {
            return;
        }
        say!("");
        say!("{:>8}  {:>10}  {:>10}", "FRAME", "A", "B");
        let side = |decision: Decision| {
            let verdict = if decision.ng { "NG" } else { "OK" };
            format!("{verdict} {:.4}", decision.score)
        };
        for change in &self.changes {
            say!(
                "{:>8}  {:>10}  {:>10}",
                change.frame,
                side(change.a),
                side(change.b)
            );
        }
    }
}
