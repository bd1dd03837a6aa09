//! How the commands `package` and `calibrate` set a threshold.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use ed25519_dalek::SigningKey;
use host_trainer::dataset::Account;
use host_trainer::package::{
    CalibrationFrame, CalibrationOutcome, Draft, GoodScore, ThresholdRule, calibrate_draft,
};

use proto::manifest::Threshold;
use scoring::io::text::path_text;
use serde::Serialize;

use super::progress;
use super::text::promise;

/// Most outliers to name.
const NAMED: usize = 5;

/// The promise that a threshold shall carry.
#[derive(Args)]
pub(crate) struct PromiseArgs {
    /// Promise wanted: at most this many false rejects per 10,000 parts. The threshold is the
    /// lowest one that carries it; refused if there are too few good parts. Without it the
    /// threshold is the highest good score, and the promise that it carries is printed.
    #[arg(long)]
    promise: Option<f64>,
    /// Confidence of the promise, between 0 and 1.
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
}

impl PromiseArgs {
    /// Whether a promise is asked for.
    pub(crate) fn is_given(&self) -> bool {
        self.promise.is_some()
    }

    pub(crate) fn rule(&self) -> Result<ThresholdRule> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            bail!(
                "--confidence expects a number between 0 and 1, found {}",
                self.confidence
            );
        }
        Ok(match self.promise {
            Some(per_10_000) => ThresholdRule::Promise {
                per_10_000,
                confidence: self.confidence,
            },
            None => ThresholdRule::Highest {
                confidence: self.confidence,
            },
        })
    }
}

/// Calibrates a draft on good frames, with a progress bar. Frames that cannot be scored are added
/// to the account. Returns the promise in words, and what was measured.
pub(crate) fn set_threshold(
    draft: &mut Draft,
    frames: &[CalibrationFrame],
    rule: ThresholdRule,
    key: &SigningKey,
    account: &mut Account,
) -> Result<(String, CalibrationOutcome)> {
    let bar = progress::bar(frames.len(), "calibrating");
    let found = calibrate_draft(draft, frames, rule, key, &mut |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    for skipped in &found.skipped {
        account.images.unreadable(&skipped.file, &skipped.reason);
    }
    account.images.used = frames.len() - found.skipped.len();
    let median = found.median().unwrap_or_default();
    let outliers = found.outliers();
    for GoodScore { file, score } in outliers.iter().take(NAMED) {
        eprintln!(
            "note: {} scores {score:.3}, {:.0} × the median of the good images ({median:.3}): is it good?",
            file.display(),
            score / median.max(f32::MIN_POSITIVE)
        );
    }
    if outliers.len() > NAMED {
        let more = outliers.len() - NAMED;
        eprintln!("note: {more} more good images score as high");
    }
    let words = promise(&draft.manifest, &found.calibration);
    Ok((words, found))
}

/// What `calibrate --json` and `package --json` print.
#[derive(Serialize)]
pub(crate) struct PackageOutput<'a> {
    schema: u32,
    package: String,
    account: &'a Account,
    threshold: Option<&'a Threshold>,
    promise: Option<&'a str>,
}

/// Prints what was made: as JSON, or the promise, and the package in `words`.
pub(crate) fn print_package(
    json: bool,
    package: &Path,
    words: &str,
    draft: &Draft,
    account: &Account,
    promise: Option<&str>,
) -> Result<()> {
    if json {
        let output = PackageOutput {
            schema: 1,
            package: path_text(package),
            account,
            threshold: draft.manifest.threshold.as_ref(),
            promise,
        };
        println!("{}", serde_json::to_string_pretty(&output)?);
    } else {
        promise
            .into_iter()
            .for_each(|promise| println!("{promise}"));
        println!("{}: {words}", package.display());
    }
    Ok(())
}
