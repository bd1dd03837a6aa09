//! The same work on many items, on all cores. In: items. Out: results in the order of the items, so
//! that nothing depends on the number of cores.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{available_parallelism, scope};

/// Most threads, because each holds an image.
const MOST_THREADS: usize = 8;

/// Calls `work` with every item and its index. `on_progress` is called on this thread, with the
/// number of items done.
///
/// These are plain threads: one of a pool might begin another item while it waits inside one, and
/// then wait for [`Room`] that it holds itself.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    on_progress: &mut dyn FnMut(usize),
    work: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let threads = available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(MOST_THREADS).min(items.len());
    let next = AtomicUsize::new(0);
    let (sender, done) = channel();
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    scope(|scope| {
        let (next, work) = (&next, &work);
        let mut workers = Vec::new();
        for sender in vec![sender; threads] {
            workers.push(scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    // The receiver lives until all senders are gone.
                    sender.send((index, work(index, item))).ok();
                }
            }));
        }
        for (count, (index, result)) in (1..).zip(&done) {
            results[index] = Some(result);
            on_progress(count);
        }
        for worker in workers {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    results.into_iter().flatten().collect()
}

/// Bounds what threads hold at the same time, in any unit.
#[derive(Debug)]
pub(crate) struct Room {
    whole: usize,
    left: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    pub(crate) fn new(whole: usize) -> Self {
        Self {
            whole,
            left: Mutex::new(whole),
            freed: Condvar::new(),
        }
    }

    /// Waits for this much room and runs `work` in it. What is larger than the whole takes all.
    pub(crate) fn with<R>(&self, size: usize, work: impl FnOnce() -> R) -> R {
        let _taken = Taken::new(self, size.min(self.whole));
        work()
    }
}

/// Room that is given back when this is dropped, by a panic too.
struct Taken<'a> {
    room: &'a Room,
    size: usize,
}

impl<'a> Taken<'a> {
    fn new(room: &'a Room, size: usize) -> Self {
        let left = room.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = room.freed.wait_while(left, |left| *left < size);
        *left.unwrap_or_else(PoisonError::into_inner) -= size;
        Self { room, size }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let left = self.room.left.lock();
        *left.unwrap_or_else(PoisonError::into_inner) += self.size;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_progress_counts_every_item() {
        let items: Vec<usize> = (0..500).collect();
        let mut seen = Vec::new();
        let results = in_parallel(&items, &mut |done| seen.push(done), |index, item| {
            index + item
        });
        assert!(results.iter().copied().eq((0..500).map(|item| 2 * item)));
        assert!(seen.iter().copied().eq(1..=500));
    }

    #[test]
    #[should_panic(expected = "item 3")]
    fn a_panic_is_passed_on() {
        in_parallel(&[1, 2, 3], &mut |_| {}, |_, item| {
            assert!(*item < 3, "item {item}");
        });
    }

    #[test]
    fn what_threads_hold_together_never_exceeds_the_room() {
        let room = Room::new(10);
        let held = AtomicUsize::new(0);
        let sizes = [4, 7, 3, 50, 1, 6, 10, 5];
        in_parallel(&sizes, &mut |_| {}, |_, &size| {
            room.with(size, || {
                let before = held.fetch_add(size.min(10), Ordering::SeqCst);
                assert!(before + size.min(10) <= 10);
                std::thread::sleep(std::time::Duration::from_millis(3));
                held.fetch_sub(size.min(10), Ordering::SeqCst);
            });
        });
        assert_eq!(*room.left.lock().unwrap(), 10);
    }
}
