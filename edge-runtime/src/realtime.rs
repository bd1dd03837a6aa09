//! How the operating system schedules the program's threads.
//!
//! The threads on which the time of a reject pulse depends (gate, trigger, encoder) run before all
//! others, and those that serve stations after them. Nothing here is needed for inspection: what
//! the system does not allow is logged once.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::geteuid;
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue,
    ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// The priority of threads that serve stations: a nice value of about 10.
const BACKGROUND: u8 = 25;

/// What threads ask the operating system for.
#[derive(Debug)]
pub struct RealTime {
    priority: u8,
    refused: AtomicBool,
}

impl RealTime {
    /// Real-time threads get this priority of SCHED_FIFO, from 1 to 99; with 0 they run as others
    /// do.
    pub fn new(priority: u8) -> Self {
        Self {
            priority,
            refused: AtomicBool::new(false),
        }
    }

    /// Makes the calling thread a real-time thread. Returns whether it is one.
    pub fn raise(&self, thread: &str) -> bool {
        if self.priority == 0 {
            return false;
        }
        match set_fifo(self.priority) {
            Ok(()) => {
                tracing::debug!(thread, priority = self.priority, "real-time thread");
                true
            }
            Err(reason) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        reason,
                        "expected leave to run the gate in real time, found none; a loaded \
                         processor can delay reject pulses: set LimitRTPRIO in the systemd unit, \
                         or realtime.priority = 0"
                    );
                }
                false
            }
        }
    }
}

fn set_fifo(priority: u8) -> Result<(), String> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_policy(priority, policy)
}

fn set_policy(priority: u8, policy: ThreadSchedulePolicy) -> Result<(), String> {
    let priority = ThreadPriorityValue::try_from(priority).map(ThreadPriority::Crossplatform)?;
    set_thread_priority_and_policy(thread_native_id(), priority, policy).map_err(
        |error| match error {
            thread_priority::Error::OS(code) => std::io::Error::from_raw_os_error(code).to_string(),
            other => other.to_string(),
        },
    )
}

/// Lets all other threads of the program run before the calling one, and before those that it
/// starts.
pub fn lower() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    if let Err(reason) = set_policy(BACKGROUND, policy) {
        tracing::debug!(reason, "cannot lower the priority of a thread");
    }
}

/// Keeps the program's memory from being swapped out, now and when it grows. Logs why not.
pub fn lock_memory() {
    // Under a limit, memory that is needed later would be refused.
    let limited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(limit, _)| limit != RLIM_INFINITY);
    if limited && !geteuid().is_root() {
        tracing::warn!(
            "expected no limit of locked memory, found one; memory can be swapped out: set \
             LimitMEMLOCK=infinity in the systemd unit"
        );
        return;
    }
    // Only pages in use: thread stacks would take several MiB each.
    let in_use = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | in_use;
    match mlockall(flags) {
        Ok(()) => tracing::info!("memory is locked"),
        Err(error) => tracing::warn!(%error, "cannot lock memory; it can be swapped out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Policy and nice value of the calling thread, as the kernel has them.
    fn scheduling() -> (u64, i64) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Fields are counted from the end of the name, which may hold spaces (proc(5)).
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        (fields[38].parse().unwrap(), fields[16].parse().unwrap())
    }

    #[test]
    fn a_thread_is_in_real_time_where_that_is_allowed_and_goes_on_where_it_is_not() {
        const FIFO: u64 = 1;
        std::thread::spawn(|| {
            let raised = RealTime::new(10).raise("test");
            assert_eq!(raised, scheduling().0 == FIFO);
        })
        .join()
        .unwrap();
        std::thread::spawn(|| {
            assert!(!RealTime::new(0).raise("test"));
            assert_ne!(scheduling().0, FIFO);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn threads_for_stations_and_those_that_they_start_come_after_the_others() {
        std::thread::spawn(|| {
            let before = scheduling().1;
            lower();
            assert!(scheduling().1 > before);
            let inner = std::thread::spawn(|| scheduling().1).join().unwrap();
            assert!(inner > before);
        })
        .join()
        .unwrap();
    }
}
