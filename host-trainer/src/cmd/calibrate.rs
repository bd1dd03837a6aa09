//! `host-trainer calibrate`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::dataset::{Found, Groups, Survey, calibration_files};
use host_trainer::package::{CalibrationFrame, Draft};
use scoring::io::atomic::write_atomic;

use super::keys::{signing_key, verified_package};
use super::notices::{report_account, report_ungrouped};
use super::progress;
use super::threshold::{PromiseArgs, print_package, set_threshold};

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
    /// Go on if more than a tenth of the images cannot be read.
    #[arg(long)]
    allow_unreadable: bool,
    /// Print JSON: what was used of the images, and the threshold.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    promise: PromiseArgs,
}

impl Calibrate {
    pub(crate) fn run(self) -> Result<()> {
        let key = signing_key(&self.key)?;
        let mut draft = Draft::from_package(&verified_package(&self.package, &[])?);
        let mut groups = match &self.groups {
            Some(path) => Groups::read(path, &self.good)?,
            None => Groups::default(),
        };
        let Found { items, mut account } = calibration_files(&self.good)?;
        let bar = progress::bar(items.len(), "looking at images");
        let (size, reading) = (draft.manifest.input.size, draft.manifest.reading);
        let survey = Survey::of(&items, size, &reading, &mut |done| {
            bar.set_position(done as u64)
        });
        bar.finish_and_clear();
        let mut suited = survey.account(&mut account, self.allow_unreadable);
        account.bits = survey.bits();
        if suited.is_ok() {
            suited = survey.check_suitable(reading.bits, &mut account);
        }
        report_account("calibration set", &account);
        suited?;
        let files = survey.files();
        report_ungrouped(&groups, &files)?;
        groups.join_copies(&survey);
        let frames: Vec<CalibrationFrame> = files
            .into_iter()
            .map(|file| CalibrationFrame {
                part: groups.part(&file),
                known_part: groups.known_part(&file).map(str::to_owned),
                digest: None,
                file,
            })
            .collect();
        let (promise, _) = set_threshold(
            &mut draft,
            &frames,
            self.promise.rule()?,
            &key,
            &mut account,
        )?;
        let out = self.out.as_ref().unwrap_or(&self.package);
        write_atomic(out, &draft.sign(&key)?)?;
        print_package(
            self.json,
            out,
            "calibrated",
            &draft,
            &account,
            Some(&promise),
        )
    }
}
