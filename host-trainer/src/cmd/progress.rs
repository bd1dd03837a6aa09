//! Progress bars on a terminal; nothing elsewhere.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps, with a message and the time left.
pub(crate) fn bar(total: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len}  {msg}  ETA {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64)
        .with_style(style)
        .with_prefix(what)
}

/// Shows a bar during `work`, which reports the steps done and how many there are.
pub(crate) fn during<T, E: Into<anyhow::Error>>(
    what: &'static str,
    work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T, E>,
) -> Result<T> {
    let bar = bar(1, what);
    let found = work(&mut |done, count| {
        bar.set_length(count as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    found.map_err(Into::into)
}
