//! Things made ahead of their use by worker threads.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Things that may wait a worker.
const AHEAD: usize = 4;

/// What was made, in the order of its numbers.
#[derive(Debug)]
pub struct Ahead<T> {
    receivers: Vec<Receiver<T>>,
    next: usize,
}

impl<T: Send + 'static> Ahead<T> {
    /// `make` of each number of `range`, in order, by so many threads (at least one): worker k makes every k-th, so that the
    /// order never depends on their speed. Threads end when the receiver goes or the range is done.
    pub fn start<M>(range: std::ops::Range<usize>, workers: usize, make: M) -> Self
    where
        M: FnMut(usize) -> T + Clone + Send + 'static,
    {
        let workers = workers.max(1);
        let receivers = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(AHEAD);
                let (range, mut make) = (range.clone(), make.clone());
                thread::spawn(move || {
                    for number in range.skip(worker).step_by(workers) {
                        if sender.send(make(number)).is_err() {
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

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let made = self.receivers[self.next].recv().ok();
        self.next = (self.next + 1) % self.receivers.len();
        made
    }
}
