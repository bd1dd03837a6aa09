//! When records are sent again on a serial line, which may lose one. In: what was sent and
//! acknowledged. Out: where to continue.
//!
//! A station notices a lost record by the number of the next one, and asks for it. This is for the
//! last record before a pause.

use std::time::{Duration, Instant};

/// Bits on the line for a byte: start bit, 8 data bits, stop bit.
const BITS_A_BYTE: u64 = 10;
/// Bytes that drivers and converters may hold.
const BUFFERED_BYTES: usize = 4 << 10;
/// Time for a station to acknowledge a record, beside that on the line.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Longest time between two tries.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// What is known of the records under way.
#[derive(Debug)]
pub(super) struct Resend {
    /// Bits per second.
    baud: u32,
    /// The last number acknowledged in this session; 0 if there is none.
    acknowledged: u64,
    /// When a record was last sent or acknowledged.
    since: Instant,
    /// Bytes of records sent since the last acknowledgement.
    bytes: usize,
    wait: Duration,
}

impl Resend {
    pub(super) fn new(baud: u32) -> Self {
        Self {
            baud: baud.max(1),
            acknowledged: 0,
            since: Instant::now(),
            bytes: 0,
            wait: ANSWER_TIME,
        }
    }

    /// A record of this length is sent.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.since = now;
    }

    /// The first record to send again, if that is due: none before `next` is left to send. A station
    /// that acknowledges nothing is sent nothing twice.
    pub(super) fn due(&mut self, acknowledged: u64, next: u64, now: Instant) -> Option<u64> {
        if acknowledged != self.acknowledged {
            self.acknowledged = acknowledged;
            self.since = now;
            self.bytes = 0;
            self.wait = ANSWER_TIME;
        }
        let missing = acknowledged > 0 && acknowledged + 1 < next;
        let bits = (self.bytes + BUFFERED_BYTES) as u64 * BITS_A_BYTE;
        let on_line = Duration::from_secs_f64(bits as f64 / f64::from(self.baud));
        if !missing || now.duration_since(self.since) < self.wait + on_line {
            return None;
        }
        self.since = now;
        self.bytes = 0;
        self.wait = (self.wait * 2).min(MOST_WAIT);
        Some(acknowledged + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acknowledged_is_sent_again_after_seconds_and_ever_more_rarely() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut resend = Resend::new(115_200);
        resend.sent(1_000, start);
        assert_eq!(resend.due(0, 9, at(100.0)), None, "nothing acknowledged");
        assert_eq!(resend.due(5, 9, at(100.0)), None);
        assert_eq!(resend.due(5, 9, at(102.0)), None);
        assert_eq!(resend.due(5, 9, at(102.5)), Some(6));
        resend.sent(1_000, at(102.5));
        assert_eq!(resend.due(5, 9, at(106.0)), None);
        assert_eq!(resend.due(5, 9, at(107.0)), Some(6));
        let waits = (0..8).map(|_| {
            let since = resend.since;
            let due = (0..).find(|&s| resend.due(5, 9, since + Duration::from_secs(s)).is_some());
            due.unwrap()
        });
        assert_eq!(waits.collect::<Vec<_>>(), [9, 17, 31, 31, 31, 31, 31, 31]);
        assert_eq!(resend.due(8, 9, at(9_000.0)), None, "all acknowledged");
        // At 9,600 baud 4 KiB take over 4 s.
        let mut slow = Resend::new(9_600);
        assert_eq!(slow.due(5, 9, start), None);
        slow.sent(4_096, start);
        assert_eq!(slow.due(5, 9, at(10.0)), None);
        assert_eq!(slow.due(5, 9, at(11.0)), Some(6));
    }
}
