//! Whether parts are being inspected. The signals *ready* and *fault* and the held gate follow from
//! it.
//!
//! In: the state of each stage (frames come, the journal is written, an input line works). Out:
//! whether the gate may follow the parts. Metrics observe this state; they never decide.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A device without which the gate cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The trigger input; without it parts pass unseen.
    Trigger = 1,
    /// The encoder; without it the position of parts is unknown.
    Encoder = 2,
    /// The reject output; without it no part is rejected.
    RejectOutput = 4,
}

/// State of everything that inspection depends on, shared by all threads.
#[derive(Debug)]
pub struct Readiness {
    /// Bits of [`Need`] that fail now.
    failing: AtomicU8,
    capturing: AtomicBool,
    gate_ok: AtomicBool,
    journal_ok: AtomicBool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// The state at the start: no frame has come and nothing has failed.
    pub fn new() -> Self {
        Self {
            failing: AtomicU8::new(0),
            capturing: AtomicBool::new(false),
            gate_ok: AtomicBool::new(true),
            journal_ok: AtomicBool::new(true),
        }
    }

    /// Whether any [`Need`] fails.
    pub fn any_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) != 0
    }

    /// Whether this [`Need`] fails.
    pub fn is_failing(&self, need: Need) -> bool {
        self.failing.load(Ordering::Relaxed) & need as u8 != 0
    }

    /// Records whether a need fails. Returns whether that is a change.
    pub fn set_failing(&self, need: Need, fails: bool) -> bool {
        let bit = need as u8;
        let before = if fails {
            self.failing.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.failing.fetch_and(!bit, Ordering::Relaxed)
        };
        (before & bit != 0) != fails
    }

    /// Whether frames come.
    pub fn capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }

    /// Records whether frames come.
    pub fn set_capturing(&self, capturing: bool) {
        self.capturing.store(capturing, Ordering::Relaxed);
    }

    /// Whether trigger, encoder and reject output work, a model is active, and every part is
    /// tracked.
    pub fn gate_ok(&self) -> bool {
        self.gate_ok.load(Ordering::Relaxed)
    }

    /// Records the gate thread's finding.
    pub fn set_gate_ok(&self, ok: bool) {
        self.gate_ok.store(ok, Ordering::Relaxed);
    }

    /// Whether reports are journalled.
    pub fn journal_ok(&self) -> bool {
        self.journal_ok.load(Ordering::Relaxed)
    }

    /// Records whether reports are journalled.
    pub fn set_journal_ok(&self, ok: bool) {
        self.journal_ok.store(ok, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_fails_by_itself_and_is_reported_once() {
        let readiness = Readiness::new();
        assert!(readiness.set_failing(Need::Encoder, true));
        assert!(!readiness.set_failing(Need::Encoder, true));
        assert!(readiness.set_failing(Need::RejectOutput, true));
        assert!(readiness.set_failing(Need::Encoder, false));
        assert!(readiness.any_failing() && readiness.is_failing(Need::RejectOutput));
        assert!(!readiness.is_failing(Need::Encoder) && !readiness.is_failing(Need::Trigger));
    }

    #[test]
    fn before_the_first_frame_nothing_is_being_captured() {
        assert!(!Readiness::new().capturing());
    }
}
