//! The threads that share the work on one frame: the caller's and a pool of workers.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::cpu_affinity::WorkerAffinity;

/// Threads for one frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Option<Arc<Workers>>);

/// The threads besides the caller's.
#[derive(Debug)]
struct Workers {
    pool: ThreadPool,
    affinity: Arc<WorkerAffinity>,
}

impl Pool {
    /// A pool of this number of threads, the caller's included.
    pub(super) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if threads < 2 {
            return Ok(Self(None));
        }
        let affinity = Arc::new(WorkerAffinity::new());
        let joining = Arc::clone(&affinity);
        let builder = ThreadPoolBuilder::new().num_threads(threads - 1);
        let pool = builder
            .thread_name(|index| format!("score {index}"))
            .start_handler(move |_| joining.register())
            .build()?;
        Ok(Self(Some(Arc::new(Workers { pool, affinity }))))
    }

    /// Number of threads, the caller's included.
    pub(super) fn threads(&self) -> usize {
        self.0
            .as_ref()
            .map_or(1, |workers| workers.pool.current_num_threads() + 1)
    }

    /// Works on all items, in any order. An error ends the work and is returned. The caller starts
    /// at once, so that little work is done before the workers wake up.
    pub(super) fn for_each<T: Send, E: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let Some(workers) = &self.0 else {
            return items.into_iter().try_for_each(work);
        };
        let items = Mutex::new(items);
        let failed = Mutex::new(None);
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        let take_part = || {
            while let Some(item) = next() {
                if let Err(error) = work(item) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    while next().is_some() {}
                }
            }
        };
        workers.affinity.avoid_caller();
        workers.pool.in_place_scope(|scope| {
            for _ in 1..self.threads() {
                scope.spawn(|_| take_part());
            }
            take_part();
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_an_error_is_returned() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).expect("threads can be had");
            assert_eq!(pool.threads(), threads);
            let done = Mutex::new(Vec::new());
            let note = |item: u32| {
                done.lock().expect("nothing panics").push(item);
                Ok::<_, ()>(())
            };
            assert_eq!(pool.for_each(0..100, note), Ok(()));
            let mut done = done.into_inner().expect("nothing panics");
            done.sort_unstable();
            assert!(done.into_iter().eq(0..100));
            let fail = |item| if item == 50 { Err(item) } else { Ok(()) };
            assert_eq!(pool.for_each(0..100, fail), Err(50));
        }
    }
}
