//! Threads and queues, and nothing else: which stage runs where, and what happens when one fails.
//!
//! ```text
//! source ─ capture thread ─→ slot ─→ scoring threads ─→ reporter ─→ report thread (journal, images)
//!              │ part begins            │ part decided
//! trigger ─────┴──→ LineShared (parts) ←┘──→ gate thread ─→ reject, busy, ready, fault outputs
//! ```
//! Every part that begins is reported exactly once, by whoever settles it: scoring, the slot (displaced), the capture
//! thread (damaged) or the gate thread (no frame).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::message::cut_text;
use proto::report::{Event, Fault, GateAction, Outcome};

use crate::capture::{Captured, Delivery, Source, SourceError, to_frame};
use crate::clock::{monotonic, unix_ms};
use crate::control::Control;
use crate::inspect::frame::Frame;
use crate::inspect::verdict::Verdict;
use crate::inspector::Inspection;
use crate::metrics::{Drop, Metrics, Stage};
use crate::outputs::{Outputs, States};
use crate::parts::{Moment, PartId, Parts};
use crate::reporting::{PartResult, Reporter, one_line};
use crate::slot::Slot;

/// Pauses between attempts to open the camera.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The gate thread looks at least so often.
const GATE_ROUND: Duration = Duration::from_millis(100);
/// A driver's time stamp farther from our clock is on another clock.
const SAME_CLOCK: Duration = Duration::from_secs(10);

/// The parts in flight, shared by the threads that begin, decide and act.
#[derive(Debug)]
pub struct LineShared {
    parts: Mutex<Parts>,
    changed: Condvar,
    counts: AtomicU64,
    triggered: bool,
}

impl LineShared {
    /// `triggered`: parts begin at an input's edge, not with every frame.
    pub fn new(parts: Parts, triggered: bool) -> Self {
        Self {
            parts: Mutex::new(parts),
            changed: Condvar::new(),
            counts: AtomicU64::new(0),
            triggered,
        }
    }

    /// Works on the parts and wakes the gate thread.
    pub fn with<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> T {
        let result = work(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Now, on the clock and on the conveyor.
    pub fn now(&self) -> Moment {
        Moment {
            time: monotonic(),
            counts: self.counts.load(Ordering::Relaxed),
        }
    }

    /// The encoder moved so far.
    pub fn count(&self, counts: u64) {
        self.counts.fetch_add(counts, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// An edge of the trigger at this time of the monotonic clock. False: too many parts are in flight.
    pub fn trigger(&self, time: Duration) -> bool {
        let moment = Moment { time, ..self.now() };
        self.with(|parts| parts.begin(moment, true)).is_some()
    }
}

/// A frame on its way to scoring.
#[derive(Debug)]
pub struct Job {
    part: PartId,
    captured: Captured,
    arrived: Duration,
    unix_ms: u64,
}

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    /// Parts in flight.
    pub line: Arc<LineShared>,
    /// Frames for scoring.
    pub slot: Slot<Job>,
    /// Settings and commands.
    pub control: Arc<Control>,
    /// Reports and events.
    pub reporter: Reporter,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Set to end everything.
    pub stop: AtomicBool,
    /// Set when nothing more comes: the gate thread may end once the line is empty.
    pub drained: AtomicBool,
    /// What a part without a verdict gets.
    pub safe_action: GateAction,
    /// The source is a camera: its time stamps may be on our clock.
    pub live: bool,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Settles a part that could not be scored.
    fn fault(&self, part: PartId, fault: Fault, sequence: u32) {
        let now = self.line.now();
        let settled = self
            .line
            .with(|parts| parts.decide(part, self.safe_action, now));
        let Some(settled) = settled else { return };
        let inspector = self.control.inspector();
        self.reporter.part(PartResult {
            part,
            unix_ms: unix_ms(),
            frame_sequence: sequence,
            model_id: inspector.model_id(),
            threshold: inspector.threshold(),
            outcome: Outcome::Fault(fault),
            action: settled.action,
            latency: Duration::ZERO,
            scored: None,
        });
    }

    /// Parts passed the trigger that cannot be followed.
    pub fn lost_parts(&self, count: u64) {
        self.metrics.dropped(Drop::Parts, count);
        self.reporter.event(Event::GateFault {
            reason: format!("{count} parts passed the trigger faster than they can be followed"),
        });
    }

    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.stopping() && Instant::now() < end {
            std::thread::sleep(time.min(Duration::from_millis(20)));
        }
    }

    /// The part that a frame shows: a new one, or the one that was triggered before it.
    fn part_of(&self, timestamp: Duration) -> Option<PartId> {
        let part = if self.line.triggered {
            let part = self.line.with(|parts| parts.frame(timestamp));
            if part.is_none() {
                self.metrics.dropped(Drop::Unassigned, 1);
            }
            part
        } else {
            let moment = Moment {
                time: timestamp,
                ..self.line.now()
            };
            let part = self.line.with(|parts| parts.begin(moment, false));
            if part.is_none() {
                self.metrics.dropped(Drop::Parts, 1);
            }
            part
        };
        self.line
            .with(|parts| self.metrics.pending(parts.undecided()));
        part
    }
}

/// Opens the source and reads it until it ends or everything stops; opens it anew, with growing pauses, when it fails.
/// An error is one that trying again cannot mend at the very start.
pub fn capture(
    shared: &Shared,
    open: &mut dyn FnMut() -> Result<Box<dyn Source>, SourceError>,
    beat: &dyn Fn(),
) -> Result<(), SourceError> {
    let mut outage = Outage::default();
    let mut first = true;
    while !shared.stopping() {
        beat();
        let error = match open() {
            Ok(mut source) => {
                let error = read(shared, &mut *source, &mut outage, beat);
                // A driver's clean-up must not end the program.
                if catch_unwind(AssertUnwindSafe(|| drop(source))).is_err() {
                    tracing::warn!("the camera's driver failed while closing");
                }
                error
            }
            Err(error) => error,
        };
        match error {
            SourceError::Ended => break,
            // Later the device may only be half ready, or another one is plugged in: that can change again.
            SourceError::Unsupported { .. } if first => return Err(error),
            error => outage.failed(shared, &error),
        }
        first = false;
        shared.sleep(outage.pause);
    }
    shared.metrics.set_capturing(false);
    Ok(())
}

/// Time without frames.
#[derive(Debug)]
struct Outage {
    since: Option<Instant>,
    attempts: u32,
    pause: Duration,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            since: None,
            attempts: 0,
            pause: FIRST_PAUSE,
        }
    }
}

impl Outage {
    fn failed(&mut self, shared: &Shared, error: &SourceError) {
        shared.metrics.set_capturing(false);
        shared.line.changed.notify_all();
        let reason = one_line(error);
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::error!(reason, "capture lost");
            shared.reporter.event(Event::CaptureLost { reason });
        } else {
            tracing::debug!(reason, "capture still lost");
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.attempts += 1;
        shared.metrics.reopened();
    }

    fn over(&mut self, shared: &Shared) {
        if let Some(since) = self.since.take() {
            let after_ms = since.elapsed().as_millis() as u64;
            tracing::info!(after_ms, attempts = self.attempts, "capture resumed");
            shared.reporter.event(Event::CaptureResumed {
                after_ms,
                attempts: self.attempts,
            });
        }
        *self = Self::default();
        shared.metrics.set_capturing(true);
        shared.line.changed.notify_all();
    }
}

/// Reads until the source fails or everything stops.
fn read(
    shared: &Shared,
    source: &mut dyn Source,
    outage: &mut Outage,
    beat: &dyn Fn(),
) -> SourceError {
    let mut expected = None;
    loop {
        if shared.stopping() {
            return SourceError::Ended;
        }
        beat();
        let delivery = match source.next() {
            Ok(delivery) => delivery,
            Err(error @ SourceError::Unreadable { .. }) => {
                tracing::warn!(%error, "frame skipped");
                shared.metrics.dropped(Drop::Damaged, 1);
                let part = shared.part_of(monotonic());
                if let Some(part) = part {
                    shared.fault(part, Fault::DamagedFrame, 0);
                }
                continue;
            }
            Err(error) => return error,
        };
        shared.metrics.frame();
        if !shared.metrics.capturing() {
            outage.over(shared);
        }
        let sequence = match &delivery {
            Delivery::Frame(captured) => captured.sequence,
            Delivery::Damaged { sequence } => *sequence,
        };
        if let Some(expected) = expected
            && sequence > expected
        {
            shared
                .metrics
                .dropped(Drop::Driver, u64::from(sequence - expected));
        }
        expected = sequence.checked_add(1);
        let arrived = monotonic();
        match delivery {
            Delivery::Damaged { sequence } => {
                shared.metrics.dropped(Drop::Damaged, 1);
                if let Some(part) = shared.part_of(arrived) {
                    shared.fault(part, Fault::DamagedFrame, sequence);
                }
            }
            Delivery::Frame(captured) => {
                let stamped = captured.timestamp;
                let exposed = if shared.live && stamped.abs_diff(arrived) < SAME_CLOCK {
                    stamped
                } else {
                    arrived
                };
                let Some(part) = shared.part_of(exposed) else {
                    continue;
                };
                let displaced = shared.slot.put(Job {
                    part,
                    captured,
                    arrived,
                    unix_ms: unix_ms(),
                });
                if let Some(job) = displaced {
                    shared.metrics.dropped(Drop::Slot, 1);
                    shared.fault(job.part, Fault::Displaced, job.captured.sequence);
                }
            }
        }
    }
}

/// Scores frames until the slot is closed and empty. A panic costs one part.
pub fn score(shared: &Shared, beat: &dyn Fn()) {
    while let Some(job) = shared.slot.take(beat) {
        beat();
        let taken = monotonic();
        let (part, sequence) = (job.part, job.captured.sequence);
        shared
            .metrics
            .took(Stage::Queue, taken.saturating_sub(job.arrived));
        let inspector = shared.control.inspector();
        let work = || inspect(shared, &inspector, &job);
        let found = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let reason = panic_text(&*panic);
            tracing::error!(reason, "scoring failed and goes on");
            shared.reporter.event(Event::StageRestarted {
                stage: "score".to_owned(),
                reason: cut_text(&reason),
            });
            Err(Fault::Scoring)
        });
        let (frame, inspection) = match found {
            Ok(found) => found,
            Err(fault) => {
                if fault == Fault::DamagedFrame {
                    shared.metrics.dropped(Drop::Damaged, 1);
                }
                shared.fault(part, fault, sequence);
                continue;
            }
        };
        let (outcome, wanted) = match inspection.verdict {
            Some(Verdict::Ok) => (Outcome::Ok, GateAction::Pass),
            Some(Verdict::Ng) => (Outcome::Ng, GateAction::Reject),
            None => (Outcome::Fault(Fault::NoModel), shared.safe_action),
        };
        let now = shared.line.now();
        let settled = shared.line.with(|parts| parts.decide(part, wanted, now));
        let Some(settled) = settled else { continue };
        let latency = now.time.saturating_sub(job.arrived);
        shared.metrics.took(Stage::Total, latency);
        let scoring = inspection.elapsed + taken.saturating_sub(job.arrived);
        shared
            .metrics
            .took(Stage::Around, latency.saturating_sub(scoring));
        shared.reporter.part(PartResult {
            part,
            unix_ms: job.unix_ms,
            frame_sequence: sequence,
            model_id: inspector.model_id(),
            threshold: inspector.threshold(),
            outcome: if settled.late {
                Outcome::Fault(Fault::Late)
            } else {
                outcome
            },
            action: settled.action,
            latency,
            scored: Some((frame, inspection)),
        });
    }
}

fn inspect(
    shared: &Shared,
    inspector: &crate::inspector::Inspector,
    job: &Job,
) -> Result<(Frame, Inspection), Fault> {
    let started = Instant::now();
    let frame = to_frame(&job.captured.raw).map_err(|error| {
        tracing::warn!(%error, "frame cannot be read");
        Fault::DamagedFrame
    })?;
    shared.metrics.took(Stage::Convert, started.elapsed());
    let inspection = inspector.inspect(&frame).map_err(|error| {
        tracing::error!(error = one_line(&error), "frame cannot be scored");
        Fault::Scoring
    })?;
    shared.metrics.took(Stage::Score, inspection.elapsed);
    Ok((frame, inspection))
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panic".to_owned())
}

/// Drives the outputs until everything is drained and the line is empty.
pub fn gate(shared: &Shared, outputs: &mut Outputs, beat: &dyn Fn()) {
    let mut missed_told = 0;
    loop {
        beat();
        let now = shared.line.now();
        let (level, without_frame, busy, idle, missed) = shared.line.with_quietly(|parts| {
            (
                parts.advance(now),
                parts.without_frame(now.time),
                parts.undecided() > 0,
                parts.is_idle(),
                parts.missed_pulses(),
            )
        });
        for part in without_frame {
            shared.fault(part, Fault::NoFrame, 0);
        }
        let ready = shared.metrics.capturing() && !shared.stopping();
        let failures = outputs.set(States {
            reject: level,
            busy,
            ready,
            fault: !shared.metrics.capturing() || !shared.metrics.journal_ok(),
            can_inspect: ready || (shared.stopping() && !idle),
        });
        if missed > missed_told {
            shared.metrics.missed_pulses(missed - missed_told);
            missed_told = missed;
            shared.reporter.event(Event::GateFault {
                reason:
                    "a reject pulse began after it should have ended: the processor is overloaded"
                        .to_owned(),
            });
        }
        if let Some(reason) = failures {
            tracing::error!(reason, "gate");
            shared.reporter.event(Event::GateFault { reason });
        }
        if shared.drained.load(Ordering::Relaxed) && idle {
            return;
        }
        shared.line.wait(now.time);
    }
}

impl LineShared {
    fn with_quietly<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> T {
        work(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something changes or the next change is due.
    fn wait(&self, since: Duration) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let due = parts
            .next_change()
            .map_or(GATE_ROUND, |due| due.saturating_sub(since));
        let pause = due.min(GATE_ROUND);
        if !pause.is_zero() {
            drop(self.changed.wait_timeout(parts, pause));
        }
    }
}
