//! Whether records come in order and complete. On a serial line one may be lost or come twice; its
//! number tells.

/// Times that a missing record is asked for. A camera that has it no more says so.
const MAX_ASKED: u32 = 5;

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is the next one.
    Next,
    /// It was received before.
    Double,
    /// A record before it is missing: delivery has to start again at this number.
    Missing(u64),
}

/// The numbers of the records received.
#[derive(Debug)]
pub(crate) struct Sequence {
    next: u64,
    asked: u32,
}

impl Sequence {
    /// `next` is the number of the first record to come.
    pub(crate) fn new(next: u64) -> Self {
        Self { next, asked: 0 }
    }

    /// Takes the number of a record.
    pub(crate) fn record(&mut self, sequence: u64) -> Seen {
        if sequence < self.next {
            return Seen::Double;
        }
        if sequence > self.next && self.asked < MAX_ASKED {
            self.asked += 1;
            return Seen::Missing(self.next);
        }
        self.next = sequence + 1;
        self.asked = 0;
        Seen::Next
    }

    /// The camera has no records before this number.
    pub(crate) fn displaced(&mut self, to: u64) {
        self.next = self.next.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_record_is_asked_for_and_a_double_is_recognised() {
        let mut sequence = Sequence::new(5);
        assert_eq!(sequence.record(5), Seen::Next);
        assert_eq!(sequence.record(7), Seen::Missing(6));
        assert_eq!(sequence.record(8), Seen::Missing(6));
        assert_eq!(sequence.record(6), Seen::Next);
        assert_eq!(sequence.record(6), Seen::Double);
        assert_eq!(sequence.record(7), Seen::Next);
        sequence.displaced(20);
        assert_eq!(sequence.record(20), Seen::Next);
        // A camera that never sends it does not stop the rest.
        let seen: Vec<Seen> = (0..7).map(|ahead| sequence.record(22 + ahead)).collect();
        assert_eq!(seen[..5], [Seen::Missing(21); 5]);
        assert_eq!(seen[5..], [Seen::Next; 2]);
    }
}
