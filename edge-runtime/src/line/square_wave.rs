//! The heartbeat for a PLC: a square wave that stops when inspection stops.
//!
//! In: whether parts are being inspected, and the time. Out: the level of the output. A PLC tells a
//! program that inspects from one that hangs, has ended or was killed: whatever level the line
//! keeps then, it does not change any more.

use std::time::Duration;

/// A square wave.
#[derive(Debug)]
pub struct SquareWave {
    half_period: Duration,
    level: bool,
    /// When the level changes next; `None` while the wave stands.
    next: Option<Duration>,
}

impl SquareWave {
    /// A wave of this period. It stands at first, with an inactive level.
    pub fn new(period: Duration) -> Self {
        Self {
            half_period: period / 2,
            level: false,
            next: None,
        }
    }

    /// The level at `now`. While not `running`, the wave stands and is inactive.
    pub fn level(&mut self, running: bool, now: Duration) -> bool {
        if !running {
            (self.level, self.next) = (false, None);
        } else if self.next.is_none_or(|next| now >= next) {
            self.level = !self.level;
            // From now, not from when it was due: a thread that was held up must not catch up with
            // a burst of edges.
            self.next = Some(now + self.half_period);
        }
        self.level
    }

    /// When the level changes next, if the wave goes on.
    pub fn next_change(&self) -> Option<Duration> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn the_wave_toggles_only_while_parts_are_inspected() {
        let mut wave = SquareWave::new(ms(1_000));
        assert!((0..50).all(|n| !wave.level(false, ms(100 * n))));
        let levels = [0, 499, 500, 999, 1_000].map(|at| wave.level(true, ms(5_000 + at)));
        assert_eq!(levels, [true, true, false, false, true]);
        assert_eq!(wave.next_change(), Some(ms(6_500)));
        assert!(!wave.level(false, ms(6_100)));
        assert!(!wave.level(false, ms(9_000)));
        assert_eq!(wave.next_change(), None);
        assert!(wave.level(true, ms(9_100)), "begins anew");
    }

    #[test]
    fn a_thread_that_was_held_up_does_not_catch_up() {
        let mut wave = SquareWave::new(ms(1_000));
        wave.level(true, ms(0));
        assert!(!wave.level(true, ms(4_900)));
        assert!(!wave.level(true, ms(5_300)));
        assert!(wave.level(true, ms(5_400)));
    }
}
