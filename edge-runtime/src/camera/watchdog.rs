//! Finds threads that hang or have ended too early, and tells systemd that none does. In: their
//! heartbeats. Out: a reason to end the program, the fault signal, and the watchdog's sign of life.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use edge_runtime::clock::monotonic;
use edge_runtime::line::liveness::{Liveness, Silence, Watched};
use edge_runtime::line::readiness::Condition;
use sd_notify::NotifyState;

use super::running::Camera;
use super::threads::spawn;

/// Age of a heartbeat at which the program ends. The capture thread may also wait for its source.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(30);

/// Age of the gate thread's heartbeat at which the program ends: nobody else can hold the gate.
const GATE_HANGS_AFTER: Duration = Duration::from_secs(3);

/// Longest interval between two looks at the heartbeats.
const ROUND: Duration = Duration::from_millis(100);

/// A thread that hangs at `now` and without which the program does not do its work. A slow disk and
/// a camera without frames are not among them.
fn hanging(liveness: &Liveness, now: Duration) -> Option<Silence> {
    let silent = liveness.silent(now).into_iter();
    { silent }.find(|silence| !matches!(silence.watched, Watched::Report | Watched::Frames))
}

/// Age of each thread's heartbeat at which the program ends.
fn limits(longest_wait: Duration, score_limit: Duration) -> [(Watched, Duration); 6] {
    [
        (Watched::Gate, GATE_HANGS_AFTER),
        (Watched::Capture, HANGS_AFTER + longest_wait),
        (Watched::Score, HANGS_AFTER.max(score_limit)),
        (Watched::Trigger, HANGS_AFTER),
        (Watched::Encoder, HANGS_AFTER),
        (Watched::Confirm, HANGS_AFTER),
    ]
}

/// Says which thread has hung for so long at `now` that the program must end.
fn hung(liveness: &Liveness, limits: &[(Watched, Duration)], now: Duration) -> Option<String> {
    limits.iter().find_map(|&(watched, limit)| {
        let age = liveness.age(watched, now)?;
        (age > limit).then(|| format!("{} hangs", watched.name()))
    })
}

/// Whether reports have not reached the disk for so long at `now` that somebody must know.
fn reports_hang(liveness: &Liveness, now: Duration) -> bool {
    let age = liveness.age(Watched::Report, now);
    age.is_some_and(|age| age > HANGS_AFTER)
}

impl Camera {
    /// Starts the thread that looks for threads that hang. While none does, it gives systemd a sign
    /// of life within every `limit`, if there is one. It does nothing else, so that nothing can keep
    /// it from looking.
    pub(crate) fn start_watchdog(&mut self, limit: Option<Duration>) -> Result<()> {
        let context = Arc::clone(&self.context);
        let stop = Arc::clone(&self.link_stop);
        let every = limit.map(|limit| limit / 3);
        self.links.push(spawn("watchdog", move || {
            let mut fed: Option<Instant> = None;
            let mut was_hanging = false;
            while !stop.load(Ordering::Relaxed) {
                let hanging = hanging(&context.liveness, monotonic());
                if let Some(silence) = &hanging {
                    if silence.watched == Watched::Gate {
                        context.readiness.set_failing(Condition::Threads, true);
                    }
                    if !was_hanging {
                        tracing::error!("{silence}; the watchdog is not fed");
                    }
                } else if let Some(every) = every
                    && fed.is_none_or(|fed| fed.elapsed() >= every)
                {
                    fed = Some(Instant::now());
                    sd_notify::notify(&[NotifyState::Watchdog]).ok();
                }
                was_hanging = hanging.is_some();
                std::thread::sleep(every.map_or(ROUND, |every| every.min(ROUND)));
            }
        })?);
        Ok(())
    }

    /// Describes a thread that inspection cannot do without and that hangs or has ended too early.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.report.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("the report thread ended".to_owned());
        }
        let limits = limits(self.longest_wait, self.score_limit);
        hung(&self.context.liveness, &limits, monotonic())
    }

    /// Raises the fault signal if the report thread hangs. That thread lowers the signal when it
    /// writes again.
    pub(crate) fn watch_reports(&self) {
        let hangs = reports_hang(&self.context.liveness, monotonic());
        if self.context.readiness.journal_ok() && hangs {
            tracing::error!("reports do not reach the disk; inspection goes on");
            self.context.readiness.set_journal_ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn a_gate_thread_that_hangs_ends_the_program_long_before_any_other() {
        let limits = limits(s(1), s(5));
        for (watched, ends_after_s) in [
            (Watched::Gate, 3),
            (Watched::Capture, 31),
            (Watched::Score, 30),
            (Watched::Trigger, 30),
            (Watched::Encoder, 30),
            (Watched::Confirm, 30),
        ] {
            let liveness = Liveness::default();
            let heartbeat = liveness.watch(watched, s(1), s(100));
            heartbeat.beat(s(100));
            assert_eq!(hung(&liveness, &limits, s(100 + ends_after_s)), None);
            let hung = hung(&liveness, &limits, s(101 + ends_after_s));
            assert_eq!(hung, Some(format!("{} hangs", watched.name())));
        }
    }

    #[test]
    fn a_gate_thread_that_hangs_keeps_the_watchdog_from_being_fed_within_a_second() {
        let liveness = Liveness::default();
        let heartbeat = liveness.watch(Watched::Gate, s(1), s(100));
        heartbeat.beat(s(100));
        assert_eq!(hanging(&liveness, s(101)), None);
        assert!(hanging(&liveness, s(102)).is_some());
    }

    #[test]
    fn a_disk_that_hangs_is_told_after_30_s_and_ends_nothing() {
        let liveness = Liveness::default();
        let heartbeat = liveness.watch(Watched::Report, s(30), s(100));
        heartbeat.beat(s(100));
        assert!(!reports_hang(&liveness, s(130)));
        assert!(reports_hang(&liveness, s(131)));
        assert_eq!(hung(&liveness, &limits(s(1), s(5)), s(1_000)), None);
        assert_eq!(hanging(&liveness, s(1_000)), None);
    }
}
