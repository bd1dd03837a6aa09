//! Memory that is kept for later frames: as much as there were uses at the same time.

use std::sync::{Mutex, PoisonError};

/// Pieces of memory that nobody uses at the moment.
#[derive(Debug)]
pub(super) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    /// One, if there is any.
    pub(super) fn take(&self) -> Option<T> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    /// Keeps one.
    pub(super) fn keep(&self, piece: T) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(piece);
    }
}
