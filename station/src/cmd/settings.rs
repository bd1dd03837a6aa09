//! Settings of a camera, read and changed. Changes carry a reason, are journalled with the station's name, and hold until
//! the camera's program ends or another package is activated.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use edge_runtime::io::image_file::read_roi_mask;
use proto::manifest::Roi;
use proto::message::{Answer, Command, Mode};
use serde_json::json;

use super::{ask, print_json, unexpected};
use crate::client::Place;

fn done(answer: &Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        other => unexpected(other),
    }
}

/// Read the threshold in force, or set another one.
#[derive(Args)]
pub(crate) struct Threshold {
    /// The camera.
    camera: Place,
    /// Decide by this from now on.
    #[arg(long, requires = "reason")]
    set: Option<f32>,
    /// Why; it is journalled.
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
                println!("{value}");
                Ok(())
            }
            Answer::Threshold(None) => bail!("no threshold is in force"),
            other => unexpected(&other),
        }
    }
}

/// Read which part of the frame is inspected, or set another one.
#[derive(Args)]
pub(crate) struct Mask {
    /// The camera.
    camera: Place,
    /// Inspect where this picture is white; it is stretched over the frame.
    #[arg(long, requires = "reason", conflicts_with = "whole")]
    set: Option<PathBuf>,
    /// Inspect the whole frame.
    #[arg(long, requires = "reason")]
    whole: bool,
    /// Why; it is journalled.
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
                println!("the whole frame");
                Ok(())
            }
            Answer::Mask(Roi::Polygons(polygons)) => {
                for polygon in polygons {
                    let corners: Vec<String> =
                        polygon.iter().map(|[x, y]| format!("{x},{y}")).collect();
                    println!("{}", corners.join(" "));
                }
                Ok(())
            }
            Answer::Mask(Roi::Bitmap { width, height, .. }) => {
                println!("a mask of {width}×{height} cells");
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// What a camera does with verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Drives the gate.
    Inspect,
    /// Lets every part pass.
    Observe,
}

/// Read the mode in force, or change it.
#[derive(Args)]
pub(crate) struct ModeCommand {
    /// The camera.
    camera: Place,
    /// Change it to this.
    #[arg(long, requires = "reason")]
    set: Option<ModeName>,
    /// Why; it is journalled.
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
                println!("{}", format!("{mode:?}").to_lowercase());
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// Run a camera's golden-sample check.
#[derive(Args)]
pub(crate) struct Golden {
    /// The camera.
    camera: Place,
}

impl Golden {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        match ask(&self.camera, Command::GoldenCheck)? {
            Answer::Golden(result) => {
                if json {
                    print_json(&result)?;
                } else {
                    println!("{}", result.detail);
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
