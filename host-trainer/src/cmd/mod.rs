//! One file a group of commands: arguments in, library calls, text out.

pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod openmp;
pub(crate) mod package;
pub(crate) mod pretrain;
pub(crate) mod progress;
pub(crate) mod recommend;
pub(crate) mod reproduce;
pub(crate) mod train;
pub(crate) mod weights;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use host_trainer::dataset::{DatasetError, Groups, Skipped};

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints lines. A reader that has read enough (`| head`) ends the program, and is no error.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written,
    }
}

/// Set by Ctrl-C, to stop after this `step` and keep what there is; a second Ctrl-C does not wait for that.
pub(crate) fn stopped_by_ctrl_c(step: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this {step}; Ctrl-C again gives it up");
    })
    .context("catching Ctrl-C")?;
    Ok(stop)
}

/// A whole number above 0.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Skipped files named before they are only counted.
const NAMED: usize = 10;

/// Names what was skipped, and how many of `count` images.
pub(crate) fn say_skipped(skipped: &[&Skipped], count: usize) {
    for file in skipped.iter().take(NAMED) {
        eprintln!("skipped {}: {}", file.file.display(), file.reason);
    }
    if !skipped.is_empty() {
        eprintln!("skipped {} of {count} images", skipped.len());
    }
}

/// Says how many images a groups file does not name; an error if it names none of them.
pub(crate) fn say_ungrouped(groups: &Groups, files: &[PathBuf]) -> Result<(), DatasetError> {
    let alone = groups.ungrouped(files)?;
    if alone > 0 {
        eprintln!(
            "{alone} of {} images are in no group: each counts as a part of its own",
            files.len()
        );
    }
    Ok(())
}
