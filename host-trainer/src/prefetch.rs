//! Prefetching: worker threads make items ahead of their use.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Finished items that each worker may hold.
const QUEUE_LENGTH: usize = 4;

/// Yields the items in the order of their indices.
#[derive(Debug)]
pub struct Prefetch<T> {
    receivers: Vec<Receiver<T>>,
    next: usize,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads (at least one) that call `make` for each index of `range`. Worker k
    /// of n makes every n-th item, starting with the k-th, so the order never depends on speed. The
    /// threads end when the range is done or this iterator is dropped.
    pub fn start<M>(range: std::ops::Range<usize>, workers: usize, make: M) -> Self
    where
        M: FnMut(usize) -> T + Clone + Send + 'static,
    {
        let workers = workers.max(1);
        let receivers = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(QUEUE_LENGTH);
                let (range, mut make) = (range.clone(), make.clone());
                thread::spawn(move || {
                    for index in range.skip(worker).step_by(workers) {
                        if sender.send(make(index)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        Self { receivers, next: 0 }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let made = self.receivers[self.next].recv().ok();
        self.next = (self.next + 1) % self.receivers.len();
        made
    }
}
