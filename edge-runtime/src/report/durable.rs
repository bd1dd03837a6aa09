//! The signal that records have become durable: the report thread gives it, links wait for it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Wakes the threads that wait for durable records.
#[derive(Debug, Default)]
pub struct DurableSignal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl DurableSignal {
    /// Wakes all threads that wait.
    pub fn notify(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits for a notification after `seen`, or for the time-out. Returns the value of `seen` for
    /// the next call.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(count, timeout, |count| *count == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
