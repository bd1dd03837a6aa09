//! Inputs that are silent: a cut wire of the trigger or the encoder looks like a belt that stands.
//!
//! In: edges of trigger and encoder with their times, and the time. Out: which input is silent for
//! too long. No clock and no device. An input is silent until its next edge.

use std::time::Duration;

/// How long after an encoder count the belt counts as moving.
const MOVES_FOR: Duration = Duration::from_secs(2);

/// How long inputs may be silent. `None` does not limit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Longest time without an edge of the trigger. With an encoder, only time in which the belt
    /// moves counts.
    pub trigger: Option<Duration>,
    /// Longest time without an encoder count.
    pub encoder: Option<Duration>,
    /// Most edges of the trigger in a row without an encoder count between them.
    pub parts_without_count: Option<u32>,
    /// Whether there is an encoder.
    pub has_encoder: bool,
}

/// Which inputs are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Silent {
    /// The trigger, for longer than [`Limits::trigger`].
    pub trigger: bool,
    /// The encoder, for longer than [`Limits::encoder`].
    pub encoder: bool,
    /// The encoder, during more parts than [`Limits::parts_without_count`].
    pub encoder_with_parts: bool,
}

/// Watches the edges of trigger and encoder.
#[derive(Debug, Default)]
pub struct SilenceWatch {
    limits: Limits,
    /// Time of the last check.
    checked: Option<Duration>,
    /// Time since the last edge of the trigger that counts for [`Limits::trigger`].
    without_trigger: Duration,
    /// Time of the last encoder count; at first, of the first check.
    counted: Option<Duration>,
    parts_without_count: u32,
    silent: Silent,
}

impl SilenceWatch {
    /// A watch over inputs that were heard just now.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Records an edge of the trigger.
    pub fn trigger(&mut self) {
        self.without_trigger = Duration::ZERO;
        self.silent.trigger = false;
        self.parts_without_count = self.parts_without_count.saturating_add(1);
        if let Some(limit) = self.limits.parts_without_count {
            // `limit` edges without a count between them are one more than may be.
            self.silent.encoder_with_parts |= self.parts_without_count > limit;
        }
    }

    /// Records encoder counts.
    pub fn count(&mut self, time: Duration) {
        self.counted = Some(self.counted.map_or(time, |counted| counted.max(time)));
        self.parts_without_count = 0;
        self.silent.encoder = false;
        self.silent.encoder_with_parts = false;
    }

    /// Which inputs are silent at `now`.
    pub fn check(&mut self, now: Duration) -> Silent {
        let counted = *self.counted.get_or_insert(now);
        let still = now.saturating_sub(counted);
        let passed = now.saturating_sub(self.checked.replace(now).unwrap_or(now));
        if !self.limits.has_encoder || still <= MOVES_FOR {
            self.without_trigger += passed;
        }
        let exceeds = |time: Duration, limit: Option<Duration>| limit.is_some_and(|at| time > at);
        self.silent.trigger |= exceeds(self.without_trigger, self.limits.trigger);
        self.silent.encoder |= exceeds(still, self.limits.encoder);
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checks at every second of a range; whether the trigger and the encoder were silent at its
    /// end.
    fn check(watch: &mut SilenceWatch, seconds: std::ops::RangeInclusive<u64>) -> [bool; 2] {
        let found = seconds.map(|second| watch.check(s(second))).last().unwrap();
        [found.trigger, found.encoder]
    }

    #[test]
    fn a_cut_trigger_is_silent_until_its_next_edge() {
        let mut watch = SilenceWatch::new(Limits {
            trigger: Some(s(30)),
            ..Limits::default()
        });
        assert_eq!(check(&mut watch, 1_000..=1_030), [false, false]);
        watch.trigger();
        assert_eq!(check(&mut watch, 1_031..=1_060), [false, false]);
        assert_eq!(check(&mut watch, 1_061..=1_061), [true, false]);
        watch.trigger();
        assert_eq!(check(&mut watch, 1_062..=1_062), [false, false]);
    }

    #[test]
    fn without_limits_nothing_is_silent() {
        let mut watch = SilenceWatch::new(Limits::default());
        (0..100).for_each(|_| watch.trigger());
        assert_eq!(check(&mut watch, 0..=9_999), [false, false]);
        assert_eq!(watch.check(s(9_999)), Silent::default());
    }

    #[test]
    fn with_an_encoder_a_standing_belt_makes_no_silent_trigger() {
        let limits = Limits {
            trigger: Some(s(30)),
            has_encoder: true,
            ..Limits::default()
        };
        let mut watch = SilenceWatch::new(limits);
        watch.count(s(1));
        assert_eq!(check(&mut watch, 1..=500), [false, false], "it stands");
        for second in 501..520 {
            watch.count(s(second));
            assert_eq!(check(&mut watch, second..=second), [false, false]);
        }
        assert_eq!(check(&mut watch, 520..=900), [false, false], "it stands");
        for second in 901..920 {
            watch.count(s(second));
            watch.check(s(second));
        }
        assert!(
            watch.check(s(920)).trigger,
            "30 s of movement without a part"
        );
    }

    #[test]
    fn a_cut_encoder_is_found_by_the_parts_that_come_or_by_time() {
        let limits = Limits {
            encoder: Some(s(60)),
            parts_without_count: Some(3),
            has_encoder: true,
            ..Limits::default()
        };
        let mut watch = SilenceWatch::new(limits);
        for second in 0..5 {
            watch.count(s(second));
            watch.trigger();
            assert_eq!(watch.check(s(second)), Silent::default());
        }
        watch.trigger();
        watch.trigger();
        assert!(!watch.check(s(5)).encoder_with_parts);
        watch.trigger();
        assert!(watch.check(s(5)).encoder_with_parts);
        watch.count(s(6));
        assert_eq!(watch.check(s(6)), Silent::default());
        assert_eq!(check(&mut watch, 7..=66), [false, false]);
        assert_eq!(check(&mut watch, 67..=67), [false, true]);
        watch.count(s(68));
        assert_eq!(check(&mut watch, 68..=69), [false, false]);
    }
}
