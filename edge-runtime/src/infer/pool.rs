//! The threads that share the work on one frame: the caller's, and some that wait for it.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::apart::Helpers;

/// Threads for one frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Option<Arc<Others>>);

/// Those beside the caller's.
#[derive(Debug)]
struct Others {
    pool: ThreadPool,
    helpers: Arc<Helpers>,
}

impl Pool {
    /// So many, the caller's included.
    pub(super) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if threads < 2 {
            return Ok(Self(None));
        }
        let helpers = Arc::new(Helpers::new());
        let joining = Arc::clone(&helpers);
        let builder = ThreadPoolBuilder::new().num_threads(threads - 1);
        let pool = builder
            .thread_name(|index| format!("score {index}"))
            .start_handler(move |_| joining.join())
            .build()?;
        Ok(Self(Some(Arc::new(Others { pool, helpers }))))
    }

    /// How many they are.
    pub(super) fn threads(&self) -> usize {
        self.0
            .as_ref()
            .map_or(1, |others| others.pool.current_num_threads() + 1)
    }

    /// Works on all items, in any order. The caller begins at once: where there is little to do, it is done before the
    /// others have woken up. The first error ends it.
    pub(super) fn share<T: Send, E: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let Some(others) = &self.0 else {
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
        others.helpers.keep_off();
        others.pool.in_place_scope(|scope| {
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
    fn every_item_is_worked_on_once_and_an_error_comes_back() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).expect("threads can be had");
            assert_eq!(pool.threads(), threads);
            let done = Mutex::new(Vec::new());
            let note = |item: u32| {
                done.lock().expect("nothing panics").push(item);
                Ok::<_, ()>(())
            };
            assert_eq!(pool.share(0..100, note), Ok(()));
            let mut done = done.into_inner().expect("nothing panics");
            done.sort_unstable();
            assert!(done.into_iter().eq(0..100));
            let fail = |item| if item == 50 { Err(item) } else { Ok(()) };
            assert_eq!(pool.share(0..100, fail), Err(50));
        }
    }
}
