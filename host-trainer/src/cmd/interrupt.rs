//! Ctrl-C during long work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// What Ctrl-C sets, once it is caught.
static CAUGHT: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

/// Returns a flag that Ctrl-C sets: stop after the current `step` and keep the result. A second
/// Ctrl-C ends the program at once. Later calls return the same flag.
pub(crate) fn stop_on_ctrl_c(step: &'static str) -> Result<Arc<AtomicBool>> {
    let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stop) = &*caught {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this {step}; Ctrl-C again stops at once");
    })
    .context("catching Ctrl-C")?;
    *caught = Some(Arc::clone(&stop));
    Ok(stop)
}
