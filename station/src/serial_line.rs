//! How long an answer may take on a serial line, which loses a frame now and then. In: speed and
//! lengths of frames. Out: when to send again.

use std::time::{Duration, Instant};

/// Bits on the line for a byte: start bit, 8 data bits, stop bit.
const BITS_A_BYTE: u64 = 10;
/// Bytes that may be ahead of an answer: the message that the camera is sending, and what drivers
/// and converters hold.
const AHEAD_BYTES: usize = 4 << 10;
/// Time for the camera to answer, beside that on the line. A command waits for its record on the
/// disk.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Longest time between two tries of a short frame.
const MOST_WAIT: Duration = Duration::from_secs(10);

/// A serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SerialLine {
    /// Bits per second.
    pub(crate) baud: u32,
}

impl SerialLine {
    /// Time that this number of bytes takes on the line.
    fn time(self, bytes: usize) -> Duration {
        let bits = bytes as u64 * BITS_A_BYTE;
        Duration::from_secs_f64(bits as f64 / f64::from(self.baud.max(1)))
    }

    /// Time within which the answer to a frame comes, if neither is lost. `bytes` is the length of
    /// the frame and of what else was sent before its answer.
    pub(crate) fn answer_within(self, bytes: usize) -> Duration {
        ANSWER_TIME + self.time(bytes + AHEAD_BYTES)
    }
}

/// When a frame is sent again: after the time within which its answer comes, then after twice that
/// and so on, up to a bound. A camera that is slow is not flooded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    at: Instant,
    wait: Duration,
    most: Duration,
}

impl Retry {
    /// The frame is sent now for the first time.
    pub(crate) fn new(line: SerialLine, bytes: usize) -> Self {
        let wait = line.answer_within(bytes);
        Self {
            at: Instant::now() + wait,
            wait,
            most: wait.max(MOST_WAIT),
        }
    }

    /// Whether the frame has to be sent again now.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.at {
            return false;
        }
        self.wait = (self.wait * 2).min(self.most);
        self.at = now + self.wait;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_sent_again_within_seconds_whatever_the_speed_of_the_line() {
        let within = |baud, bytes| SerialLine { baud }.answer_within(bytes).as_secs_f64();
        assert!((2.0..2.5).contains(&within(115_200, 100)));
        assert!((2.0..2.1).contains(&within(921_600, 100)));
        assert!((6.0..6.5).contains(&within(9_600, 100)));
        // 64 KiB take 5.7 s at 115,200 baud: no sooner.
        assert!(within(115_200, 64 << 10) > 5.7 + 2.0);
    }

    #[test]
    fn the_time_between_tries_doubles_up_to_a_bound() {
        let start = Instant::now();
        let mut retry = Retry::new(SerialLine { baud: 115_200 }, 0);
        assert!(!retry.is_due());
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(retry.wait.as_secs_f64());
            retry.at = start;
            assert!(retry.is_due() && !retry.is_due());
        }
        let expected = [2.36, 4.71, 9.42, 10.0, 10.0, 10.0];
        for (wait, expected) in waits.into_iter().zip(expected) {
            assert!((wait - expected).abs() < 0.01, "{wait} for {expected}");
        }
    }
}
