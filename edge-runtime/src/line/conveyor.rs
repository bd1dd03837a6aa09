//! Conveyor position in time and encoder counts.
//!
//! In: encoder counts with their times. Out: the position at a time, and the time of a position.
//! No clock and no device: the caller passes both in.

use std::collections::VecDeque;
use std::time::Duration;

/// Moves kept: about a second of a fast encoder.
const MAX_MOVES: usize = 8_192;

/// A point in time together with the conveyor's position at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Time since any fixed instant.
    pub time: Duration,
    /// Encoder counts; 0 without an encoder.
    pub counts: u64,
}

/// A distance along the conveyor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Travel {
    /// As travel time, at constant speed.
    Time(Duration),
    /// In encoder counts.
    Counts(u64),
}

impl Travel {
    pub(super) fn is_zero(self) -> bool {
        matches!(self, Self::Time(Duration::ZERO) | Self::Counts(0))
    }

    /// When this distance after `start` is reached.
    pub(super) fn due_after(self, start: Moment) -> Due {
        match self {
            Self::Time(time) => Due::Time(start.time + time),
            Self::Counts(counts) => Due::Counts(start.counts + counts),
        }
    }

    /// The sum; `more` alone if the units differ.
    pub(super) fn plus(self, more: Self) -> Self {
        match (self, more) {
            (Self::Time(a), Self::Time(b)) => Self::Time(a + b),
            (Self::Counts(a), Self::Counts(b)) => Self::Counts(a + b),
            (_, more) => more,
        }
    }
}

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    Time(Duration),
    /// At this encoder count.
    Counts(u64),
}

impl Due {
    pub(super) fn reached(self, now: Moment) -> bool {
        match self {
            Self::Time(time) => now.time >= time,
            Self::Counts(counts) => now.counts >= counts,
        }
    }

    pub(super) fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Counts(_) => None,
        }
    }

    /// The later of the two; `other` if the units differ.
    pub(super) fn later_of(self, other: Self) -> Self {
        match (self, other) {
            (Self::Time(a), Self::Time(b)) => Self::Time(a.max(b)),
            (Self::Counts(a), Self::Counts(b)) => Self::Counts(a.max(b)),
            (_, other) => other,
        }
    }
}

/// Position of the conveyor, now and in the recent past: an edge is handled a little after it came.
#[derive(Debug, Default)]
pub struct Conveyor {
    /// Count before the oldest move kept.
    oldest_counts: u64,
    /// Time of each move and the count after it, oldest first.
    moves: VecDeque<(Duration, u64)>,
}

impl Conveyor {
    /// Records a move by `counts`.
    pub fn advance(&mut self, counts: u64, time: Duration) {
        let now = self.counts() + counts;
        if self.moves.len() >= MAX_MOVES
            && let Some((_, oldest)) = self.moves.pop_front()
        {
            self.oldest_counts = oldest;
        }
        self.moves.push_back((time, now));
    }

    /// Encoder count after the last move.
    pub fn counts(&self) -> u64 {
        let last = self.moves.back();
        last.map_or(self.oldest_counts, |&(_, counts)| counts)
    }

    /// Encoder count at a time. For a time before the oldest move kept, the count before that move.
    pub fn counts_at(&self, time: Duration) -> u64 {
        let moved = self.moves.partition_point(|&(moved, _)| moved <= time);
        let last = moved.checked_sub(1).and_then(|last| self.moves.get(last));
        last.map_or(self.oldest_counts, |&(_, counts)| counts)
    }

    /// When the count reached `counts`; `None` if it has not yet, or did before the oldest move
    /// kept.
    pub fn time_of(&self, counts: u64) -> Option<Duration> {
        if counts <= self.oldest_counts {
            return None;
        }
        let earlier = self.moves.partition_point(|&(_, then)| then < counts);
        self.moves.get(earlier).map(|&(time, _)| time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn the_position_at_a_past_time_is_kept_for_the_latest_moves() {
        let mut conveyor = Conveyor::default();
        assert_eq!((conveyor.counts(), conveyor.counts_at(ms(5))), (0, 0));
        conveyor.advance(1, ms(10));
        conveyor.advance(3, ms(20));
        assert_eq!(conveyor.counts(), 4);
        let found = [9, 10, 19, 20, 99].map(|time| conveyor.counts_at(ms(time)));
        assert_eq!(found, [0, 1, 1, 4, 4]);
        for step in 0..2 * MAX_MOVES as u64 {
            conveyor.advance(1, ms(100 + step));
        }
        assert_eq!(
            conveyor.counts_at(ms(100 + MAX_MOVES as u64)),
            4 + MAX_MOVES as u64 + 1
        );
        assert_eq!(
            conveyor.counts_at(ms(0)),
            4 + MAX_MOVES as u64,
            "the oldest kept"
        );
    }
}
