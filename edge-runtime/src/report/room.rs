//! Memory for pictures that wait: for the report thread, and for the image store.
//!
//! Queues are bounded by their number of entries, and an entry may hold a frame of many megapixels.
//! While the disk stalls, pictures are given up first, so that the verdicts still fit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most bytes of waiting pictures.
pub const MAX_WAITING_BYTES: usize = 128 << 20;

#[derive(Debug)]
struct Shared {
    taken_bytes: Mutex<usize>,
    given_back: Condvar,
    max_bytes: usize,
}

/// Room for waiting pictures.
#[derive(Debug, Clone)]
pub struct PictureRoom(Arc<Shared>);

/// Room that is taken until it is dropped.
#[derive(Debug)]
pub struct Room {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl PictureRoom {
    /// Room for so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            taken_bytes: Mutex::new(0),
            given_back: Condvar::new(),
            max_bytes,
        }))
    }

    /// Takes room. Pictures that are larger than all room get it while nothing else waits. With
    /// `wait`, waits until there is room; otherwise returns `None` if there is none.
    pub fn take(&self, bytes: usize, wait: bool) -> Option<Room> {
        let fits = |taken: usize| taken == 0 || taken.saturating_add(bytes) <= self.0.max_bytes;
        let mut taken = self.0.lock();
        while !fits(*taken) {
            if !wait {
                return None;
            }
            let waited = self.0.given_back.wait(taken);
            taken = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *taken += bytes;
        Some(Room {
            shared: Arc::clone(&self.0),
            bytes,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.shared.lock() -= self.bytes;
        self.shared.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let room = PictureRoom::new(10);
        let first = room.take(6, false);
        assert!(first.is_some());
        assert!(room.take(5, false).is_none());
        let second = room.take(4, false);
        assert!(second.is_some());
        drop(first);
        assert!(room.take(6, false).is_some());
    }

    #[test]
    fn a_picture_that_is_too_large_goes_alone() {
        let room = PictureRoom::new(10);
        let large = room.take(20, false);
        assert!(large.is_some());
        assert!(room.take(1, false).is_none());
        drop(large);
        assert!(room.take(1, false).is_some());
    }

    #[test]
    fn a_replay_waits_for_room() {
        let room = PictureRoom::new(10);
        let first = room.take(10, true);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| room.take(10, true).is_some());
            drop(first);
            assert!(waiting.join().is_ok_and(|got| got));
        });
    }
}
