//! Starting threads and waiting for them to end.

use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use edge_runtime::stage::supervise::panic_text;

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the {name} thread"))
}

pub(super) fn join<T>(name: &str, thread: JoinHandle<T>) -> Result<T> {
    thread
        .join()
        .map_err(|panic| anyhow::anyhow!("the {name} thread failed: {}", panic_text(&*panic)))
}

/// Waits up to `limit` for a thread to end. Returns whether it has.
pub(super) fn ends_within<T>(thread: &JoinHandle<T>, limit: Duration) -> bool {
    let started = Instant::now();
    while !thread.is_finished() && started.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

pub(super) fn join_within<T>(name: &str, thread: JoinHandle<T>, limit: Duration) -> Result<T> {
    if !ends_within(&thread, limit) {
        bail!("the {name} thread hangs");
    }
    join(name, thread)
}
