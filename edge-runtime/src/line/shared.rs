//! Parts and conveyor, shared by the threads that begin parts, decide them and act on them. Every
//! change wakes the gate thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::conveyor::{Conveyor, Due, Moment};
use super::parts::{EarlyFrameId, FrameAssignment, PartId, Parts};
use super::silence::{Limits, SilenceWatch, Silent};
use crate::clock::monotonic;

/// Longest interval between two polls of the gate thread.
const GATE_ROUND: Duration = Duration::from_millis(100);

/// Most confirmations between two rounds of the gate thread. More are noise.
const MAX_CONFIRMS: usize = 256;

#[derive(Debug)]
struct LineState {
    parts: Parts,
    conveyor: Conveyor,
    silence: SilenceWatch,
    /// Edges of the input that confirms rejects, since the gate thread last took them.
    confirms: Vec<Duration>,
    /// Grows with every change, so that the gate thread misses none while it is not waiting.
    generation: u64,
}

/// Parts in flight and the conveyor's position, behind one lock.
#[derive(Debug)]
pub struct LineShared {
    state: Mutex<LineState>,
    changed: Condvar,
    triggered: bool,
}

/// The line at one moment, for the gate thread.
#[derive(Debug)]
pub(crate) struct LineView {
    pub(crate) generation: u64,
    pub(crate) now: Moment,
    pub(crate) level: bool,
    pub(crate) undecided: usize,
    pub(crate) idle: bool,
    pub(crate) blind: bool,
    pub(crate) shifted: bool,
    pub(crate) observing: bool,
    pub(crate) by_encoder: bool,
    pub(crate) missed_pulses: u64,
    /// When the pulse that begins now was due.
    pub(crate) pulse_due: Option<Duration>,
}

impl LineShared {
    /// With `triggered`, a part begins at an edge of the trigger input, otherwise with each frame.
    pub fn new(parts: Parts, triggered: bool) -> Self {
        Self {
            state: Mutex::new(LineState {
                parts,
                conveyor: Conveyor::default(),
                silence: SilenceWatch::default(),
                confirms: Vec::new(),
                generation: 0,
            }),
            changed: Condvar::new(),
            triggered,
        }
    }

    /// Limits how long trigger and encoder may be silent, from now on.
    pub fn limit_silence(&self, limits: Limits) {
        self.lock().silence = SilenceWatch::new(limits);
    }

    /// Which inputs are silent for too long. Does not wake the gate thread.
    pub(crate) fn silent(&self) -> Silent {
        self.lock().silence.check(monotonic())
    }

    /// Records an edge of the input that confirms rejects.
    pub fn confirm_reject(&self, time: Duration) {
        self.change(|state| {
            if state.confirms.len() < MAX_CONFIRMS {
                state.confirms.push(time);
            }
        });
    }

    /// Takes the edges of the input that confirms rejects. Does not wake the gate thread.
    pub(crate) fn take_confirms(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lock().confirms)
    }

    /// Whether a part begins at an edge of the trigger input instead of with each frame.
    pub(crate) fn is_triggered(&self) -> bool {
        self.triggered
    }

    /// Whether the camera takes a frame at each edge of the trigger, and none without one.
    pub(crate) fn drives_camera(&self) -> bool {
        self.triggered && self.lock().parts.camera_is_triggered()
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, work: impl FnOnce(&mut LineState) -> T) -> T {
        let mut state = self.lock();
        state.generation += 1;
        let result = work(&mut state);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Runs `work` on the parts and wakes the gate thread.
    pub fn with_parts<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> T {
        self.change(|state| work(&mut state.parts))
    }

    /// Wakes the gate thread after a change outside the line, for example of readiness.
    pub fn wake(&self) {
        self.change(|_| ());
    }

    /// The time, and where the conveyor is.
    pub fn now(&self) -> Moment {
        Moment {
            time: monotonic(),
            counts: self.lock().conveyor.counts(),
        }
    }

    /// A time of the monotonic clock, and where the conveyor was then.
    pub fn moment(&self, time: Duration) -> Moment {
        let counts = self.lock().conveyor.counts_at(time);
        Moment { time, counts }
    }

    /// Moves the conveyor by `counts` encoder counts, the last of them at `time` of the monotonic
    /// clock.
    pub fn advance_conveyor(&self, counts: u64, time: Duration) {
        self.change(|state| {
            state.silence.count(time);
            state.conveyor.advance(counts, time);
        });
    }

    /// Number of parts that await their verdict. Does not wake the gate thread.
    pub fn undecided(&self) -> usize {
        self.lock().parts.undecided()
    }

    /// Parts whose frame is overdue ([`Parts::expire_frames`]). Does not wake the gate
    /// thread.
    pub(crate) fn expire_frames(&self, now: Duration) -> Vec<PartId> {
        self.lock().parts.expire_frames(now)
    }

    /// Frames that can be assigned now ([`Parts::assign_early_frames`]). Does not wake the gate
    /// thread.
    pub(crate) fn assign_early_frames(
        &self,
        now: Duration,
    ) -> Vec<(EarlyFrameId, FrameAssignment)> {
        self.lock().parts.assign_early_frames(now)
    }

    /// Frames whose trigger was not reported in time ([`Parts::expire_early_frames`]). Does not wake
    /// the gate thread.
    pub(crate) fn expire_early_frames(&self, now: Duration) -> Vec<EarlyFrameId> {
        self.lock().parts.expire_early_frames(now)
    }

    /// Begins a part at an edge of the trigger at `time` of the monotonic clock. Returns false if
    /// too many parts are in flight.
    pub fn trigger(&self, time: Duration) -> bool {
        let moment = self.moment(time);
        self.lock().silence.trigger();
        self.with_parts(|parts| parts.begin(moment, true)).is_some()
    }

    /// Advances the parts to the present ([`Parts::advance`]). Only the gate thread may call it.
    pub(crate) fn advance(&self) -> LineView {
        let mut state = self.lock();
        let now = Moment {
            time: monotonic(),
            counts: state.conveyor.counts(),
        };
        let level = state.parts.advance(now);
        let pulse_due = match state.parts.take_pulse_due() {
            Some(Due::Time(time)) => Some(time),
            Some(Due::Counts(counts)) => state.conveyor.time_of(counts),
            None => None,
        };
        let parts = &state.parts;
        LineView {
            generation: state.generation,
            now,
            level,
            undecided: parts.undecided(),
            idle: parts.is_idle(),
            blind: parts.is_blind(),
            shifted: parts.is_shifted(),
            observing: parts.is_observing(),
            by_encoder: parts.is_by_encoder(),
            missed_pulses: parts.missed_pulses(),
            pulse_due,
        }
    }

    /// Waits until something changes after the view of generation `seen`, a part is due, the time
    /// `until` has come, or [`GATE_ROUND`] has passed.
    pub(crate) fn wait_for_change(&self, seen: u64, until: Option<Duration>) {
        let state = self.lock();
        let due = state.parts.next_change().into_iter().chain(until).min();
        let due = due.map_or(GATE_ROUND, |due| due.saturating_sub(monotonic()));
        let unchanged = |state: &mut LineState| state.generation == seen;
        drop(
            self.changed
                .wait_timeout_while(state, due.min(GATE_ROUND), unchanged),
        );
    }
}
