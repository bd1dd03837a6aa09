//! How the commands `package` and `calibrate` set a threshold.

use anyhow::{Result, bail};
use clap::Args;
use ed25519_dalek::SigningKey;
use host_trainer::package::{CalibrationFrame, Draft, ThresholdRule, calibrate_draft};

use super::notices::report_skipped;
use super::progress;
use super::text::promise;

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

/// Calibrates a draft on good frames, with a progress bar, and prints the promise.
pub(crate) fn set_threshold(
    draft: &mut Draft,
    frames: &[CalibrationFrame],
    rule: ThresholdRule,
    key: &SigningKey,
) -> Result<()> {
    let bar = progress::bar(frames.len(), "calibrating");
    let found = calibrate_draft(draft, frames, rule, key, &mut |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let skipped: Vec<_> = found.skipped.iter().collect();
    report_skipped(&skipped, frames.len());
    println!("{}", promise(&draft.manifest, &found.calibration));
    Ok(())
}
