//! Commands that read and change a camera's settings.
//!
//! The camera journals each change with its reason and the station's name, and keeps it over
//! restarts. Threshold and mask belong to the package that is active.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use proto::manifest::Roi;
use proto::message::{Answer, Command, Mode};
use scoring::io::image_file::read_roi_mask;
use serde_json::json;

use super::{ask, print_json, unexpected};
use crate::client::Endpoint;

/// Expects that the camera has done it.
fn done(answer: &Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        other => unexpected(other),
    }
}

/// Show the threshold in force, or change it.
///
/// A change belongs to the active package and lasts over restarts, until `camera.toml` changes the
/// same setting. `station status` shows it.
#[derive(Args)]
pub(crate) struct Threshold {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// New threshold, in the unit of the package's scores. A part is NG if its score exceeds it.
    #[arg(long, requires = "reason")]
    set: Option<f32>,
    /// Reason, for the camera's journal.
    #[arg(long, requires = "set")]
    reason: Option<String>,
}

impl Threshold {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        if let (Some(value), Some(reason)) = (self.set, self.reason.clone()) {
            return done(&ask(&self.camera, Command::SetThreshold { value, reason })?);
        }
        match ask(&self.camera, Command::ReadThreshold)? {
            Answer::Threshold(value) if json => print_json(json!({ "threshold": value })),
            Answer::Threshold(Some(value)) => {
                say!("{value}");
                Ok(())
            }
            Answer::Threshold(None) => {
                bail!("no threshold is in force: set one with --set, or calibrate the package")
            }
            other => unexpected(&other),
        }
    }
}

/// Show which part of the frame is inspected, or change it.
///
/// A change belongs to the active package and lasts over restarts, until `camera.toml` changes the
/// same setting. `station status` shows it.
#[derive(Args)]
pub(crate) struct Mask {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// Picture whose white pixels are inspected. It is stretched over the frame.
    #[arg(long, requires = "reason", conflicts_with = "whole")]
    set: Option<PathBuf>,
    /// Inspect the whole frame.
    #[arg(long, requires = "reason")]
    whole: bool,
    /// Reason, for the camera's journal.
    #[arg(long)]
    reason: Option<String>,
}

impl Mask {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let roi = match &self.set {
            Some(path) => Some(read_roi_mask(path)?),
            None => self.whole.then_some(Roi::Whole),
        };
        if let (Some(roi), Some(reason)) = (roi, self.reason.clone()) {
            return done(&ask(&self.camera, Command::SetMask { roi, reason })?);
        }
        match ask(&self.camera, Command::ReadMask)? {
            Answer::Mask(roi) if json => print_json(json!({ "mask": roi })),
            Answer::Mask(Roi::Whole) => {
                say!("the whole frame");
                Ok(())
            }
            Answer::Mask(Roi::Polygons(polygons)) => {
                for polygon in polygons {
                    let corners: Vec<String> =
                        polygon.iter().map(|[x, y]| format!("{x},{y}")).collect();
                    say!("{}", corners.join(" "));
                }
                Ok(())
            }
            Answer::Mask(Roi::Bitmap { width, height, .. }) => {
                say!("a mask of {width}×{height} cells");
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// What a camera does with its verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Drive the reject gate.
    Inspect,
    /// Score and report, but let every part pass.
    Observe,
}

/// Show the mode in force, or change it.
///
/// A change lasts over restarts, until `camera.toml` changes the mode. `station status` shows it.
#[derive(Args)]
pub(crate) struct ModeCommand {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// New mode.
    #[arg(long, requires = "reason")]
    set: Option<ModeName>,
    /// Reason, for the camera's journal.
    #[arg(long, requires = "set")]
    reason: Option<String>,
}

impl ModeCommand {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        if let (Some(mode), Some(reason)) = (self.set, self.reason.clone()) {
            let mode = match mode {
                ModeName::Inspect => Mode::Inspect,
                ModeName::Observe => Mode::Observe,
            };
            return done(&ask(&self.camera, Command::SetMode { mode, reason })?);
        }
        match ask(&self.camera, Command::ReadMode)? {
            Answer::Mode(mode) if json => print_json(json!({ "mode": mode })),
            Answer::Mode(mode) => {
                say!("{}", format!("{mode:?}").to_lowercase());
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// Run a camera's golden-sample check.
///
/// Fails if the check does. Use it after work on optics or lighting.
#[derive(Args)]
pub(crate) struct Golden {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
}

impl Golden {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        match ask(&self.camera, Command::GoldenCheck)? {
            Answer::Golden(result) => {
                if json {
                    print_json(&result)?;
                } else {
                    say!("{}", result.detail);
                }
                if !result.passed {
                    bail!("the golden-sample check failed");
                }
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}
