//! The threads that share the work on one frame.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads for one frame; the caller's own where there is one only.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Option<Arc<ThreadPool>>);

impl Pool {
    /// So many.
    pub(super) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        if threads < 2 {
            return Ok(Self(None));
        }
        let builder = ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder
            .thread_name(|index| format!("score {index}"))
            .build()?;
        Ok(Self(Some(Arc::new(pool))))
    }

    /// Runs `work` among these threads; it is told how many they are.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce(usize) -> T + Send) -> T {
        match &self.0 {
            Some(pool) => pool.install(|| work(pool.current_num_threads())),
            None => work(1),
        }
    }
}
