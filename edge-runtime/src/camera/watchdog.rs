//! Finds threads that hang or have ended too early. In: their heartbeats. Out: a reason to end the
//! program, or the fault signal.

use std::thread::JoinHandle;
use std::time::Duration;

use super::heartbeat::Heartbeat;
use super::running::Camera;

/// Age of a heartbeat at which a thread hangs. The capture thread may also wait for its source.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(30);

impl Camera {
    /// Describes a thread that inspection cannot do without and that hangs or has ended too early.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.report.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("the report thread ended".to_owned());
        }
        let ended = self.capture_ended();
        let hangs = |(name, heartbeat): &(&'static str, Heartbeat)| {
            let limit = match *name {
                // It may wait for a slow disk; parts are inspected all the same.
                "report" => return None,
                "capture" | "score" if ended => return None,
                "capture" => HANGS_AFTER + self.longest_wait,
                _ => HANGS_AFTER,
            };
            (heartbeat.age() > limit).then(|| format!("the {name} thread hangs"))
        };
        self.heartbeats.iter().find_map(hangs)
    }

    /// Raises the fault signal if the report thread hangs. That thread lowers the signal when it
    /// writes again.
    pub(crate) fn watch_reports(&self) {
        let hangs = |(name, heartbeat): &(&'static str, Heartbeat)| {
            *name == "report" && heartbeat.age() > HANGS_AFTER
        };
        if self.context.readiness.journal_ok() && self.heartbeats.iter().any(hangs) {
            tracing::error!("reports do not reach the disk; inspection goes on");
            self.context.readiness.set_journal_ok(false);
        }
    }
}
