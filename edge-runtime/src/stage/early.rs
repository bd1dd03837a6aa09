//! Frames that came before their trigger was reported. A debounced edge is reported late, so the
//! frame that it caused may be there first. It waits here until the trigger claims it.
//!
//! Which frame belongs to which part is decided by [`crate::line::parts`]; this only keeps pixels.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scoring::source::Delivery;

use crate::clock::unix_ms;
use crate::line::parts::EarlyFrameId;

/// Most frames kept. Each holds a whole picture.
const MAX_EARLY_FRAMES: usize = 16;

/// A frame, or the news that it was damaged, with the times of its arrival.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) delivery: Delivery,
    pub(super) arrived: Duration,
    pub(super) unix_ms: u64,
}

impl Arrival {
    /// A delivery that has just arrived.
    pub(super) fn now(delivery: Delivery, arrived: Duration) -> Self {
        Self {
            delivery,
            arrived,
            unix_ms: unix_ms(),
        }
    }
}

/// Frames that wait for their trigger, by number.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(EarlyFrameId, Arrival)>);

/// [`Waiting`], shared. The lock is taken before that of the line and held while a frame is
/// assigned, so that a trigger that comes at the same moment finds it.
#[derive(Debug, Default)]
pub struct EarlyFrames(Mutex<Waiting>);

impl EarlyFrames {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Keeps a frame. Returns whether another one was given up for it.
    pub(super) fn keep(&mut self, id: EarlyFrameId, arrival: Arrival) -> bool {
        let full = self.0.len() >= MAX_EARLY_FRAMES;
        if full {
            self.0.pop_front();
        }
        self.0.push_back((id, arrival));
        full
    }

    /// Takes a frame out; `None` if it was given up.
    pub(super) fn take(&mut self, id: EarlyFrameId) -> Option<Arrival> {
        let index = self.0.iter().position(|(kept, _)| *kept == id)?;
        self.0.remove(index).map(|(_, arrival)| arrival)
    }
}
