//! Whether rejects are confirmed: after each reject pulse a sensor behind the gate must show that
//! something was pushed out.
//!
//! In: the level of the reject output, edges of the sensor, and the time. Out: whether a
//! confirmation is missing. No clock and no device.
//!
//! A missing confirmation ends with the next one: an edge in time after a pulse, or while the gate
//! is held active. So the fault ends with the next part that is really pushed out.

use std::collections::VecDeque;
use std::time::Duration;

/// Time that an edge may take from the wire to the gate thread. Its time stamp is that of the wire.
const DELIVERED_WITHIN: Duration = Duration::from_millis(100);

/// Most pulses that wait for their confirmation.
const MAX_WAITING: usize = 256;

/// Watches the confirmation of rejects.
#[derive(Debug)]
pub struct ConfirmWatch {
    within: Duration,
    /// When the pulses began that are not confirmed yet, oldest first.
    waiting: VecDeque<Duration>,
    is_active: bool,
    /// The output is active without a pulse: the gate is held.
    is_held: bool,
    missing: bool,
}

impl ConfirmWatch {
    /// Each pulse must be confirmed this long after it began.
    pub fn new(within: Duration) -> Self {
        Self {
            within,
            waiting: VecDeque::new(),
            is_active: false,
            is_held: false,
            missing: false,
        }
    }

    /// Records the level of the reject output at `now`, and whether it is a pulse for a part
    /// instead of a held gate. Pulses that merge into one are confirmed once.
    pub fn output(&mut self, active: bool, is_pulse: bool, now: Duration) {
        if active && !self.is_active && is_pulse && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(now);
        }
        self.is_active = active;
        self.is_held = active && !is_pulse;
    }

    /// Takes the edges of the sensor since the last call, and tells whether a confirmation is
    /// missing at `now`.
    pub fn check(&mut self, edges: &[Duration], now: Duration) -> bool {
        for &edge in edges {
            self.expire(edge);
            let waits = self.waiting.front().is_some_and(|&began| began <= edge);
            if waits {
                self.waiting.pop_front();
            }
            if waits || self.is_held {
                self.missing = false;
            }
        }
        self.expire(now.saturating_sub(DELIVERED_WITHIN));
        self.missing
    }

    fn expire(&mut self, now: Duration) {
        while let Some(&began) = self.waiting.front()
            && now.saturating_sub(began) > self.within
        {
            self.waiting.pop_front();
            self.missing = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn pulse(watch: &mut ConfirmWatch, began: u64) {
        watch.output(true, true, ms(began));
        watch.output(false, false, ms(began + 20));
    }

    #[test]
    fn a_confirmed_reject_is_no_fault_and_a_missing_one_is() {
        let mut watch = ConfirmWatch::new(ms(100));
        pulse(&mut watch, 1_000);
        assert!(!watch.check(&[], ms(1_200)));
        assert!(!watch.check(&[ms(1_099)], ms(1_250)), "in time, read late");
        pulse(&mut watch, 2_000);
        assert!(watch.check(&[], ms(2_201)));
        assert!(watch.check(&[], ms(9_000)), "until the next confirmation");
        pulse(&mut watch, 9_100);
        assert!(!watch.check(&[ms(9_150)], ms(9_150)));
    }

    #[test]
    fn every_pulse_needs_an_edge_of_its_own() {
        let mut watch = ConfirmWatch::new(ms(100));
        pulse(&mut watch, 1_000);
        pulse(&mut watch, 1_050);
        assert!(!watch.check(&[ms(1_090)], ms(1_090)));
        assert!(watch.check(&[], ms(1_251)), "one edge is not two");
        let mut watch = ConfirmWatch::new(ms(100));
        pulse(&mut watch, 1_000);
        pulse(&mut watch, 1_050);
        assert!(!watch.check(&[ms(1_060), ms(1_090)], ms(1_200)));
    }

    #[test]
    fn an_edge_before_the_pulse_or_too_late_does_not_confirm_it() {
        let mut watch = ConfirmWatch::new(ms(100));
        pulse(&mut watch, 1_000);
        assert!(watch.check(&[ms(999)], ms(1_201)));
        let mut watch = ConfirmWatch::new(ms(100));
        pulse(&mut watch, 1_000);
        assert!(watch.check(&[ms(1_130)], ms(1_130)));
    }

    #[test]
    fn a_gate_that_is_held_needs_no_edge_and_its_first_one_ends_the_fault() {
        let mut watch = ConfirmWatch::new(ms(100));
        watch.output(true, false, ms(0));
        assert!(!watch.check(&[], ms(60_000)), "held at the start");
        watch.output(false, false, ms(60_000));
        pulse(&mut watch, 61_000);
        assert!(watch.check(&[], ms(61_300)));
        watch.output(true, false, ms(61_300));
        assert!(watch.check(&[], ms(70_000)));
        assert!(!watch.check(&[ms(70_001)], ms(70_001)));
    }

    #[test]
    fn pulses_that_merge_are_confirmed_once() {
        let mut watch = ConfirmWatch::new(ms(100));
        watch.output(true, true, ms(0));
        watch.output(true, true, ms(30));
        watch.output(false, false, ms(60));
        assert!(!watch.check(&[ms(40)], ms(500)));
    }
}
