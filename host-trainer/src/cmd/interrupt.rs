//! Ctrl-C during long work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Returns a flag that Ctrl-C sets: stop after the current `step` and keep the result. A second
/// Ctrl-C ends the program at once.
pub(crate) fn stop_on_ctrl_c(step: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this {step}; Ctrl-C again stops at once");
    })
    .context("catching Ctrl-C")?;
    Ok(stop)
}
