//! Threads and queues, and nothing else: which stage runs where, and what happens when one fails.
//!
//! ```text
//! source ─ capture thread ─→ slot ─→ scoring threads ─→ reporter ─→ report thread (journal, images)
//!              │ part begins            │ part decided
//! trigger ─────┴──→ LineShared (parts) ←┘──→ gate thread ─→ reject, busy, ready, fault outputs
//! ```
//! Every part that begins is reported exactly once, by whoever settles it: scoring, the slot (displaced), the capture
//! thread (damaged, frame lost) or the gate thread (no frame).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
use crate::parts::{Conveyor, Due, Moment, PartId, Parts};
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
/// At a stop, parts have so long to reach the gate.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);
/// And by encoder, a belt without a count for so long stands: they will not reach it.
const BELT_STANDS: Duration = Duration::from_secs(2);
/// Pause before an input line is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// Pauses before a stage that failed starts anew: the first, and the longest.
const RESTART_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// A stage that ran for so long before it failed is not one that fails at once.
const RAN_WELL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Line {
    parts: Parts,
    conveyor: Conveyor,
    /// Grows with every change, so that none is slept through.
    generation: u64,
}

/// The parts in flight, shared by the threads that begin, decide and act.
#[derive(Debug)]
pub struct LineShared {
    line: Mutex<Line>,
    changed: Condvar,
    triggered: bool,
}

/// What the gate thread sees of the line at one moment.
#[derive(Debug)]
struct Look {
    generation: u64,
    now: Moment,
    level: bool,
    undecided: usize,
    idle: bool,
    blind: bool,
    observing: bool,
    by_encoder: bool,
    missed: u64,
    /// When a pulse should have begun that begins now.
    pulse_due: Option<Duration>,
}

impl LineShared {
    /// `triggered`: parts begin at an input's edge, not with every frame.
    pub fn new(parts: Parts, triggered: bool) -> Self {
        Self {
            line: Mutex::new(Line {
                parts,
                conveyor: Conveyor::default(),
                generation: 0,
            }),
            changed: Condvar::new(),
            triggered,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, work: impl FnOnce(&mut Line) -> T) -> T {
        let mut line = self.lock();
        line.generation += 1;
        let result = work(&mut line);
        drop(line);
        self.changed.notify_all();
        result
    }

    /// Works on the parts and wakes the gate thread.
    pub fn with<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> T {
        self.change(|line| work(&mut line.parts))
    }

    /// Wakes the gate thread: something else that it looks at has changed.
    pub fn wake(&self) {
        self.change(|_| ());
    }

    /// Now, on the clock and on the conveyor.
    pub fn now(&self) -> Moment {
        Moment {
            time: monotonic(),
            counts: self.lock().conveyor.counts(),
        }
    }

    /// A time of the monotonic clock, and where the conveyor was then.
    pub fn moment(&self, time: Duration) -> Moment {
        let counts = self.lock().conveyor.at(time);
        Moment { time, counts }
    }

    /// The encoder moved by so many counts, the last of them at this time of the monotonic clock.
    pub fn count(&self, counts: u64, time: Duration) {
        self.change(|line| line.conveyor.advance(counts, time));
    }

    /// Parts that await their verdict. Wakes nobody.
    pub fn undecided(&self) -> usize {
        self.lock().parts.undecided()
    }

    /// An edge of the trigger at this time of the monotonic clock. False: too many parts are in flight.
    pub fn trigger(&self, time: Duration) -> bool {
        let moment = self.moment(time);
        self.with(|parts| parts.begin(moment, true)).is_some()
    }

    /// Lets time pass: only for the gate thread.
    fn look(&self) -> Look {
        let mut line = self.lock();
        let now = Moment {
            time: monotonic(),
            counts: line.conveyor.counts(),
        };
        let level = line.parts.advance(now);
        let pulse_due = match line.parts.take_begun_pulse() {
            Some(Due::Time(time)) => Some(time),
            Some(Due::Counts(counts)) => line.conveyor.reached(counts),
            None => None,
        };
        let parts = &line.parts;
        Look {
            generation: line.generation,
            now,
            level,
            undecided: parts.undecided(),
            idle: parts.is_idle(),
            blind: parts.is_blind(),
            observing: parts.is_observing(),
            by_encoder: parts.is_by_encoder(),
            missed: parts.missed_pulses(),
            pulse_due,
        }
    }

    /// Waits until something has changed since the look with this generation, or the next change is due.
    fn wait(&self, seen: u64) {
        let line = self.lock();
        let due = line.parts.next_change();
        let due = due.map_or(GATE_ROUND, |due| due.saturating_sub(monotonic()));
        let unchanged = |line: &mut Line| line.generation == seen;
        drop(
            self.changed
                .wait_timeout_while(line, due.min(GATE_ROUND), unchanged),
        );
    }
}

/// What the gate cannot be trusted without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it parts pass unseen.
    Trigger = 1,
    /// Without it nobody knows where parts are.
    Encoder = 2,
    /// Without it nothing is pushed out.
    RejectOutput = 4,
}

/// Which of them fail now.
#[derive(Debug, Default)]
pub struct Failing(AtomicU8);

impl Failing {
    /// Whether anything fails.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn is(&self, need: Need) -> bool {
        self.0.load(Ordering::Relaxed) & need as u8 != 0
    }

    /// Notes it; whether that is news.
    fn set(&self, need: Need, fails: bool) -> bool {
        let bit = need as u8;
        let before = if fails {
            self.0.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.0.fetch_and(!bit, Ordering::Relaxed)
        };
        (before & bit != 0) != fails
    }
}

/// An edge of an input line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// When it came, on the monotonic clock.
    pub timestamp: Duration,
    /// Edges since the one before that could not be fetched in time.
    pub lost: u32,
}

/// Waits a little for the next edge; an error is in words, and the line must be opened anew.
pub type Listener = Box<dyn FnMut() -> Result<Option<Edge>, String> + Send>;

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
    /// Set when something hangs: the gate thread ends at once and leaves the gate safe.
    pub abandon: AtomicBool,
    /// What the gate depends on and does not work.
    pub failing: Failing,
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
            model_id: inspector
                .as_ref()
                .map_or([0; 8], |inspector| inspector.model_id()),
            threshold: inspector.and_then(|inspector| inspector.threshold()),
            outcome: Outcome::Fault(fault),
            action: settled.action,
            latency: Duration::ZERO,
            scored: None,
        });
    }

    /// Parts passed the trigger at about this time that cannot be followed.
    pub fn lost_parts(&self, count: u64, time: Duration) {
        self.metrics.dropped(Drop::Parts, count);
        let moment = self.line.moment(time);
        self.line.with(|parts| parts.lose(moment));
    }

    /// Something that the gate depends on does not work. An outage is told once.
    pub fn fails(&self, need: Need, reason: &str) {
        if self.failing.set(need, true) {
            let reason = cut_text(reason);
            tracing::error!(reason, "gate");
            self.reporter.event(Event::GateFault { reason });
            self.line.wake();
        }
    }

    /// It works (again).
    pub fn works(&self, need: Need) {
        if !self.failing.is(need) {
            return;
        }
        tracing::info!(?need, "works again");
        if matches!(need, Need::Trigger | Need::Encoder) {
            // What is between trigger and gate now came unseen, or is somewhere else than counted.
            let now = self.line.now();
            self.line.with(|parts| parts.lose(now));
        }
        self.failing.set(need, false);
        self.line.wake();
    }

    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.stopping() && Instant::now() < end {
            std::thread::sleep(time.min(Duration::from_millis(20)));
        }
    }

    /// The part that a frame shows: a new one, or the one that was triggered before the exposure began.
    fn part_of(&self, taken: Taken) -> Option<PartId> {
        if self.line.triggered {
            let shown = self.line.with(|parts| parts.frame(taken.exposed_from));
            for part in shown.skipped {
                self.fault(part, Fault::NoFrame, 0);
            }
            if shown.part.is_none() {
                self.metrics.dropped(Drop::Unassigned, 1);
            }
            return shown.part;
        }
        let moment = self.line.moment(taken.stamped);
        let part = self.line.with(|parts| parts.begin(moment, false));
        if part.is_none() {
            self.lost_parts(1, taken.stamped);
        }
        part
    }

    /// When a frame was taken, by its driver's stamp where that is on our clock.
    fn taken(&self, stamp: Duration, source: &dyn Source, arrived: Duration) -> Taken {
        let usable = self.live && stamp.abs_diff(arrived) < SAME_CLOCK;
        let stamped = if usable { stamp } else { arrived };
        Taken {
            stamped,
            exposed_from: stamped.saturating_sub(source.exposure_to_stamp()),
        }
    }
}

/// Times of a frame, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Taken {
    stamped: Duration,
    exposed_from: Duration,
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
        shared.line.wake();
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
        shared.line.wake();
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
                let taken = shared.taken(Duration::ZERO, source, monotonic());
                if let Some(part) = shared.part_of(taken) {
                    shared.fault(part, Fault::DamagedFrame, 0);
                }
                continue;
            }
            Err(error) => return error,
        };
        if shared.drained.load(Ordering::Relaxed) {
            return SourceError::Ended;
        }
        shared.metrics.frame();
        if !shared.metrics.capturing() {
            outage.over(shared);
        }
        let sequence = match &delivery {
            Delivery::Frame(captured) => captured.sequence,
            Delivery::Damaged { sequence, .. } => *sequence,
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
            Delivery::Damaged {
                sequence,
                timestamp,
            } => {
                shared.metrics.dropped(Drop::Damaged, 1);
                let taken = shared.taken(timestamp, source, arrived);
                if let Some(part) = shared.part_of(taken) {
                    shared.fault(part, Fault::DamagedFrame, sequence);
                }
            }
            Delivery::Frame(captured) => {
                let taken = shared.taken(captured.timestamp, source, arrived);
                let Some(part) = shared.part_of(taken) else {
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
        let Some(inspector) = shared.control.inspector() else {
            shared.fault(part, Fault::NoModel, sequence);
            continue;
        };
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
                } else {
                    shared.control.scored(false);
                }
                shared.fault(part, fault, sequence);
                continue;
            }
        };
        shared.control.scored(true);
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

/// Leaves the gate safe, whatever ends its thread: also a panic, after which the thread may begin anew.
struct Guard<'a>(&'a mut Outputs);

impl std::ops::Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.make_safe();
    }
}

/// Drives the outputs until everything is drained and the line is empty, or until it is to be abandoned.
pub fn gate(shared: &Shared, outputs: &mut Outputs, beat: &dyn Fn()) {
    let Guard(outputs) = &mut Guard(outputs);
    let mut missed_told = 0;
    let mut was_blind = false;
    let mut drain = None;
    loop {
        beat();
        if shared.abandon.load(Ordering::Relaxed) {
            return;
        }
        let drained = shared.drained.load(Ordering::Relaxed);
        // When nothing more comes, nobody waits for frames.
        let time = if drained { Duration::MAX } else { monotonic() };
        // Before the look: it would be over before the pulses of these parts.
        let without_frame = shared.line.lock().parts.without_frame(time);
        for part in without_frame {
            shared.fault(part, Fault::NoFrame, 0);
        }
        let look = shared.line.look();
        let (capturing, stopping) = (shared.metrics.capturing(), shared.stopping());
        let has_model = shared.control.inspector().is_some();
        let trusted = !shared.failing.any() && !look.blind && has_model;
        shared.metrics.pending(look.undecided);
        shared.metrics.set_gate_ok(trusted);
        let ready = capturing && trusted && !stopping;
        let failures = outputs.set(States {
            reject: look.level,
            busy: look.undecided > 0,
            ready,
            fault: !capturing || !trusted || !shared.metrics.journal_ok() || outputs.is_failing(),
            follows_parts: ready || (stopping && trusted && !look.idle) || look.observing,
        });
        if let Some(due) = look.pulse_due {
            let late = monotonic().saturating_sub(due);
            shared.metrics.took(Stage::Gate, late);
        }
        match failures {
            Some(reason) if outputs.is_gate_failing() => {
                shared.fails(Need::RejectOutput, &reason);
            }
            // Parts are inspected and pushed out all the same.
            Some(reason) => gate_fault(shared, &reason),
            None if !outputs.is_gate_failing() => shared.works(Need::RejectOutput),
            None => {}
        }
        if look.missed > missed_told {
            shared.metrics.missed_pulses(look.missed - missed_told);
            missed_told = look.missed;
            gate_fault(
                shared,
                "a reject pulse began after it should have ended: the processor is overloaded",
            );
        }
        if look.blind && !was_blind {
            gate_fault(
                shared,
                "parts passed the trigger unseen or faster than they can be followed: the gate is held safe until they are past it",
            );
        }
        was_blind = look.blind;
        if drained {
            let drain = drain.get_or_insert(Drain::new(&look));
            if look.idle {
                return;
            }
            if drain.is_over(&look) {
                gate_fault(
                    shared,
                    "stopped with parts before the gate: it is held safe",
                );
                return;
            }
        }
        shared.line.wait(look.generation);
    }
}

fn gate_fault(shared: &Shared, reason: &str) {
    tracing::error!(reason, "gate");
    shared.reporter.event(Event::GateFault {
        reason: reason.to_owned(),
    });
}

/// How long the last parts are waited for.
#[derive(Debug)]
struct Drain {
    since: Duration,
    counts: u64,
    moved: Duration,
}

impl Drain {
    fn new(look: &Look) -> Self {
        Self {
            since: look.now.time,
            counts: look.now.counts,
            moved: look.now.time,
        }
    }

    fn is_over(&mut self, look: &Look) -> bool {
        if look.now.counts != self.counts {
            (self.counts, self.moved) = (look.now.counts, look.now.time);
        }
        let for_so_long = |since: Duration| look.now.time.saturating_sub(since);
        for_so_long(self.since) >= LONGEST_DRAIN
            || (look.by_encoder && for_so_long(self.moved) >= BELT_STANDS)
    }
}

/// Listens to an input line until `ended` is set. While the line fails the gate is held safe, and it is opened anew.
pub fn listen(
    shared: &Shared,
    need: Need,
    first: Listener,
    reopen: &mut dyn FnMut() -> Result<Listener, String>,
    on_edge: &mut dyn FnMut(Edge),
    ended: &AtomicBool,
    beat: &dyn Fn(),
) {
    let mut line = Some(first);
    while !ended.load(Ordering::Relaxed) {
        beat();
        let heard = match &mut line {
            Some(wait) => wait(),
            None => reopen().and_then(|mut wait| {
                let heard = wait();
                line = Some(wait);
                heard
            }),
        };
        match heard {
            Ok(edge) => {
                shared.works(need);
                if let Some(edge) = edge {
                    on_edge(edge);
                }
            }
            Err(reason) => {
                // Closed first: a line that is still held cannot be opened.
                line = None;
                shared.fails(need, &reason);
                std::thread::sleep(REOPEN_PAUSE);
            }
        }
    }
}

/// Runs a stage; after a panic it runs again, after pauses that grow, and the panic is reported.
pub fn supervise(shared: &Shared, stage: &str, beat: &dyn Fn(), work: &mut dyn FnMut()) {
    let [first, longest] = RESTART_PAUSES;
    let mut pause = first;
    while !shared.abandon.load(Ordering::Relaxed) {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(&mut *work));
        let Err(panic) = result else { return };
        let reason = cut_text(&panic_text(&*panic));
        tracing::error!(stage, reason, "stage failed and starts anew");
        shared.reporter.event(Event::StageRestarted {
            stage: stage.to_owned(),
            reason,
        });
        if started.elapsed() > RAN_WELL {
            pause = first;
        }
        let end = Instant::now() + pause;
        while Instant::now() < end && !shared.abandon.load(Ordering::Relaxed) {
            beat();
            std::thread::sleep(first.min(Duration::from_millis(50)));
        }
        pause = (pause * 2).min(longest);
    }
}
