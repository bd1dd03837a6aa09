//! `host-trainer calibrate`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::dataset::{Groups, calibration_files};
use host_trainer::package::{CalibrationFrame, Draft};
use scoring::io::atomic::write_atomic;

use super::keys::{signing_key, verified_package};
use super::notices::report_ungrouped;
use super::threshold::{PromiseArgs, set_threshold};

/// Give a package a threshold from good images that it was not trained on, and sign it again.
#[derive(Args)]
pub(crate) struct Calibrate {
    /// The package.
    #[arg(long)]
    package: PathBuf,
    /// Folder of good images, or a data set in MVTec AD's layout, of which test/good is used.
    #[arg(long)]
    good: PathBuf,
    /// Signing key.
    #[arg(long)]
    key: PathBuf,
    /// File to write (default: the package is replaced).
    #[arg(long)]
    out: Option<PathBuf>,
    /// CSV (file,group) with paths relative to --good: images of one group show the same part and
    /// count as one.
    #[arg(long)]
    groups: Option<PathBuf>,
    #[command(flatten)]
    promise: PromiseArgs,
}

impl Calibrate {
    pub(crate) fn run(self) -> Result<()> {
        let key = signing_key(&self.key)?;
        let mut draft = Draft::from_package(&verified_package(&self.package, &[])?);
        let groups = match &self.groups {
            Some(path) => Groups::read(path, &self.good)?,
            None => Groups::default(),
        };
        let files = calibration_files(&self.good)?;
        report_ungrouped(&groups, &files)?;
        let frames: Vec<CalibrationFrame> = files
            .into_iter()
            .map(|file| CalibrationFrame {
                part: groups.part(&file),
                known_part: groups.known_part(&file).map(str::to_owned),
                digest: None,
                file,
            })
            .collect();
        set_threshold(&mut draft, &frames, self.promise.rule()?, &key)?;
        let out = self.out.as_ref().unwrap_or(&self.package);
        write_atomic(out, &draft.sign(&key)?)?;
        println!("{}: calibrated", out.display());
        Ok(())
    }
}
