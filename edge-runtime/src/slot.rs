//! The one place where frames are dropped: a slot for the latest frame, in front of scoring.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A waiting taker shows that it lives so often.
const BEAT: Duration = Duration::from_millis(500);

/// What happens to a frame that is still in the slot when the next one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The newer one takes its place: a live camera must not fall behind.
    Displace,
    /// The newer one waits: a replay must not lose any.
    Wait,
}

#[derive(Debug)]
struct Inside<T> {
    item: Option<T>,
    closed: bool,
}

/// Room for one item between two threads.
#[derive(Debug)]
pub struct Slot<T> {
    inside: Mutex<Inside<T>>,
    changed: Condvar,
    when_full: WhenFull,
}

impl<T> Slot<T> {
    /// An empty slot.
    pub fn new(when_full: WhenFull) -> Self {
        Self {
            inside: Mutex::new(Inside {
                item: None,
                closed: false,
            }),
            changed: Condvar::new(),
            when_full,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        // The lock is never held over code that can panic.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item in. What comes back was dropped: the older item, or this one if the slot is closed.
    pub fn put(&self, item: T) -> Option<T> {
        let mut inside = self.lock();
        while self.when_full == WhenFull::Wait && inside.item.is_some() && !inside.closed {
            inside = self
                .changed
                .wait(inside)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if inside.closed {
            return Some(item);
        }
        let displaced = inside.item.replace(item);
        self.changed.notify_all();
        displaced
    }

    /// Waits for an item; `None` when the slot is closed and empty. `beat` is called now and then meanwhile.
    pub fn take(&self, beat: &dyn Fn()) -> Option<T> {
        let mut inside = self.lock();
        loop {
            if let Some(item) = inside.item.take() {
                self.changed.notify_all();
                return Some(item);
            }
            if inside.closed {
                return None;
            }
            beat();
            let waited = self.changed.wait_timeout(inside, BEAT);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets nothing more in; what is inside can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_frame_displaces_an_older_one() {
        let slot = Slot::new(WhenFull::Displace);
        assert_eq!(slot.put(1), None);
        assert_eq!(slot.put(2), Some(1));
        assert_eq!(slot.take(&|| ()), Some(2));
        slot.put(3);
        slot.close();
        assert_eq!(slot.put(4), Some(4));
        assert_eq!((slot.take(&|| ()), slot.take(&|| ())), (Some(3), None));
    }

    #[test]
    fn a_replay_loses_nothing() {
        let slot = Slot::new(WhenFull::Wait);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..1_000 {
                    assert_eq!(slot.put(n), None);
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
