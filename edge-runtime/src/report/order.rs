//! Puts parts back into the order in which they began, because scoring threads finish them in any
//! order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::queue::QueuedPart;

/// Most parts held back for an earlier one that is not settled yet.
const MAX_HELD_BACK: usize = 64;

/// Longest time that a part is held back.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// Parts that wait for an earlier one.
#[derive(Debug)]
pub(super) struct ReorderBuffer {
    /// Number of the next part in order.
    next: u64,
    held: BTreeMap<u64, (Instant, Box<QueuedPart>)>,
}

impl ReorderBuffer {
    /// An empty buffer that expects part 1.
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            held: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, part: Box<QueuedPart>) {
        self.held.insert(part.result.part, (Instant::now(), part));
    }

    /// The next part in order. If that is missing, the earliest part held, once too many parts have
    /// waited or it has waited too long, or with `all` at once.
    pub(super) fn pop(&mut self, all: bool) -> Option<Box<QueuedPart>> {
        let (&first, (since, _)) = self.held.first_key_value()?;
        let due = first <= self.next
            || all
            || self.held.len() > MAX_HELD_BACK
            || since.elapsed() > LONGEST_HOLD;
        if !due {
            return None;
        }
        let (_, part) = self.held.remove(&first)?;
        self.next = self.next.max(first + 1);
        Some(part)
    }
}
