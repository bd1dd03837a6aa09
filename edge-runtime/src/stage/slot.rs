//! The slot between capture and scoring. It holds the latest frame; frames that come faster than
//! they are scored are dropped here and nowhere else.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scoring::source::Captured;

use crate::line::parts::PartId;

/// Longest interval between two heartbeats of a thread that waits.
const BEAT: Duration = Duration::from_millis(500);

/// A frame on its way to scoring.
#[derive(Debug)]
pub struct Job {
    pub(super) part: PartId,
    pub(super) captured: Captured,
    pub(super) arrived: Duration,
    pub(super) unix_ms: u64,
}

/// What happens when a frame comes while the slot is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It evicts the older one, because a live camera must not fall behind.
    Evict,
    /// It waits, because a replay must not lose a frame.
    Wait,
}

#[derive(Debug)]
struct State<T> {
    item: Option<T>,
    closed: bool,
}

/// A queue of length one between two threads.
#[derive(Debug)]
pub struct FrameSlot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    when_full: WhenFull,
}

impl<T> FrameSlot<T> {
    /// An empty slot.
    pub fn new(when_full: WhenFull) -> Self {
        Self {
            state: Mutex::new(State {
                item: None,
                closed: false,
            }),
            changed: Condvar::new(),
            when_full,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The lock is never held over code that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item in, calling `beat` at intervals while it waits. Returns the dropped item: the
    /// older one, or this one if the slot is closed.
    pub fn put(&self, item: T, beat: &dyn Fn()) -> Option<T> {
        let mut state = self.lock();
        while self.when_full == WhenFull::Wait && state.item.is_some() && !state.closed {
            beat();
            let waited = self.changed.wait_timeout(state, BEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.closed {
            return Some(item);
        }
        let evicted = state.item.replace(item);
        self.changed.notify_all();
        evicted
    }

    /// Waits for an item, calling `beat` at intervals. `None` when the slot is closed and empty.
    pub fn take(&self, beat: &dyn Fn()) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.item.take() {
                self.changed.notify_all();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            beat();
            let waited = self.changed.wait_timeout(state, BEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets no further item in. The one inside can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_frame_evicts_an_older_one() {
        let slot = FrameSlot::new(WhenFull::Evict);
        let put = |item| slot.put(item, &|| ());
        assert_eq!(put(1), None);
        assert_eq!(put(2), Some(1));
        assert_eq!(slot.take(&|| ()), Some(2));
        put(3);
        slot.close();
        assert_eq!(put(4), Some(4));
        assert_eq!((slot.take(&|| ()), slot.take(&|| ())), (Some(3), None));
    }

    #[test]
    fn a_replay_loses_nothing() {
        let slot = FrameSlot::new(WhenFull::Wait);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..1_000 {
                    assert_eq!(slot.put(n, &|| ()), None);
                }
                slot.close();
            });
            for n in 0..1_000 {
                assert_eq!(slot.take(&|| ()), Some(n));
            }
            assert_eq!(slot.take(&|| ()), None);
        });
    }
}
