//! Free list of buffers for later frames. It grows to the highest number used at the same time.

use std::sync::{Mutex, PoisonError};

/// Buffers that are not in use.
#[derive(Debug)]
pub(super) struct BufferPool<T>(Mutex<Vec<T>>);

impl<T> Default for BufferPool<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> BufferPool<T> {
    /// A free buffer, if there is one.
    pub(super) fn take(&self) -> Option<T> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop()
    }

    /// Returns a buffer to the list.
    pub(super) fn put_back(&self, buffer: T) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(buffer);
    }
}
