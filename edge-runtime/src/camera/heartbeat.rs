//! A thread's sign of life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_runtime::clock::monotonic;

/// When a thread last beat, in milliseconds of the monotonic clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    pub(super) fn beat(&self) {
        let now = monotonic().as_millis() as u64;
        self.0.store(now, Ordering::Relaxed);
    }

    pub(super) fn age(&self) -> Duration {
        let now = monotonic().as_millis() as u64;
        Duration::from_millis(now.saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}
