//! Keeps the threads that help with a frame off the processor of the thread that they help.
//!
//! After a pause of some tens of milliseconds Linux often wakes a thread on the very processor of the one that wakes it, though another
//! is idle (30 of 40 times after 50 ms, on a virtual machine of two), and there it waits until that one's time is over: a frame then
//! takes as long on two threads as on one.

#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Threads that help.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Helpers {
    /// Where they may run by what the process was told.
    allowed: Option<CpuSet>,
    /// Each with the processor that it is kept off.
    threads: Mutex<Vec<(Pid, Option<usize>)>>,
}

#[cfg(target_os = "linux")]
impl Helpers {
    /// None yet. They will run where the calling thread may.
    pub(super) fn new() -> Self {
        Self {
            allowed: sched_getaffinity(None).ok(),
            threads: Mutex::default(),
        }
    }

    /// The calling thread is one of them from now on.
    pub(super) fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push((gettid(), None));
    }

    /// Keeps them off the processor that the calling thread runs on, if there is another. Where the system refuses, they run anywhere:
    /// only time is lost.
    pub(super) fn keep_off(&self) {
        let here = sched_getcpu();
        let Some(mut others) = self.allowed.filter(|_| here < CpuSet::MAX_CPU) else {
            return;
        };
        others.unset(here);
        if others.count() == 0 {
            return;
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for (thread, off) in threads.iter_mut().filter(|(_, off)| *off != Some(here)) {
            let _ = sched_setaffinity(Some(*thread), &others);
            *off = Some(here);
        }
    }
}

/// On other systems they run where the system puts them.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Helpers;

#[cfg(not(target_os = "linux"))]
impl Helpers {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn join(&self) {}

    pub(super) fn keep_off(&self) {}
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{scope, sleep};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_helper_may_run_anywhere_but_beside_whom_it_helps() {
        let allowed = sched_getaffinity(None).unwrap();
        let processors = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number));
        let helpers = Helpers::new();
        let (stop, stopped) = channel::<()>();
        scope(|scope| {
            let joining = &helpers;
            scope.spawn(move || {
                joining.join();
                let _ = stopped.recv();
            });
            while helpers.threads.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(1));
            }
            let helper = helpers.threads.lock().unwrap()[0].0;
            // In a thread of its own, because it is bound to a processor.
            let bound = scope.spawn(move || {
                for here in processors.take(2) {
                    let mut only = CpuSet::new();
                    only.set(here);
                    sched_setaffinity(None, &only).unwrap();
                    joining.keep_off();
                    let found = sched_getaffinity(Some(helper)).unwrap();
                    let mut expected = allowed;
                    if allowed.count() > 1 {
                        expected.unset(here);
                    }
                    assert!(found == expected, "{found:?} for {expected:?}");
                }
            });
            let outcome = bound.join();
            drop(stop);
            outcome.unwrap();
        });
    }
}
