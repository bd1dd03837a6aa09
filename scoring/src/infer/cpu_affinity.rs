//! Keeps worker threads off the caller's CPU.
//!
//! After a pause of some tens of milliseconds Linux often wakes a thread on the CPU of the thread
//! that wakes it, although another is idle. The worker then waits for the caller, and two threads
//! take as long as one.

#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Worker threads, and the CPUs that they may use.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct WorkerAffinity {
    /// CPUs that the process may use; unknown if the system does not say.
    allowed: Option<CpuSet>,
    /// Each thread with the CPU that it is kept off.
    threads: Mutex<Vec<(Pid, Option<usize>)>>,
}

#[cfg(target_os = "linux")]
impl WorkerAffinity {
    /// No threads yet. They will use the CPUs that the calling thread may use.
    pub(super) fn new() -> Self {
        Self {
            allowed: sched_getaffinity(None).ok(),
            threads: Mutex::default(),
        }
    }

    /// Adds the calling thread to the workers.
    pub(super) fn register(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push((gettid(), None));
    }

    /// Keeps the workers off the CPU of the calling thread, if they may use another. If the system
    /// refuses, they run on any CPU and only time is lost.
    pub(super) fn avoid_caller(&self) {
        let here = sched_getcpu();
        let Some(mut others) = self.allowed.filter(|_| here < CpuSet::MAX_CPU) else {
            return;
        };
        others.unset(here);
        if others.count() == 0 {
            return;
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for (thread, avoided) in threads
            .iter_mut()
            .filter(|(_, avoided)| *avoided != Some(here))
        {
            let _ = sched_setaffinity(Some(*thread), &others);
            *avoided = Some(here);
        }
    }
}

/// Other systems schedule the workers as they like.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct WorkerAffinity;

#[cfg(not(target_os = "linux"))]
impl WorkerAffinity {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn register(&self) {}

    pub(super) fn avoid_caller(&self) {}
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{scope, sleep};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_may_use_any_cpu_but_the_callers() {
        let allowed = sched_getaffinity(None).unwrap();
        let cpus = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number));
        let affinity = WorkerAffinity::new();
        let (stop, stopped) = channel::<()>();
        scope(|scope| {
            let joining = &affinity;
            scope.spawn(move || {
                joining.register();
                let _ = stopped.recv();
            });
            while affinity.threads.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(1));
            }
            let worker = affinity.threads.lock().unwrap()[0].0;
            // In its own thread, because that thread is pinned to a CPU.
            let bound = scope.spawn(move || {
                for here in cpus.take(2) {
                    let mut only = CpuSet::new();
                    only.set(here);
                    sched_setaffinity(None, &only).unwrap();
                    joining.avoid_caller();
                    let found = sched_getaffinity(Some(worker)).unwrap();
                    let mut expected = allowed;
                    if allowed.count() > 1 {
                        expected.unset(here);
                    }
                    assert!(found == expected, "{found:?} instead of {expected:?}");
                }
            });
            let outcome = bound.join();
            drop(stop);
            outcome.unwrap();
        });
    }
}
