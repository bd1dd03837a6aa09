//! The gate thread. In: the parts in flight and readiness. Out: levels of the outputs, which no
//! other thread sets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::report::{Event, Fault};

use super::context::StageContext;
use super::hang::Hangs;
use crate::clock::monotonic;
use crate::line::outputs::{OutputStates, Outputs};
use crate::line::readiness::Condition;
use crate::line::shared::LineView;
use crate::metrics::Stage;

/// Longest wait for parts to reach the gate at a stop.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

/// Time without an encoder count after which the belt stands, so that parts will not reach the
/// gate.
const BELT_STANDS_AFTER: Duration = Duration::from_secs(2);

/// Leaves the gate safe however the thread ends. After a panic the thread may be restarted, so the
/// outputs themselves live on.
struct SafeOnExit<'a>(&'a mut Outputs);

impl Drop for SafeOnExit<'_> {
    fn drop(&mut self) {
        self.0.make_safe();
    }
}

/// Drives the outputs until the line is drained and empty, or is abandoned.
pub fn gate(context: &StageContext, outputs: &mut Outputs, beat: &dyn Fn()) {
    let SafeOnExit(outputs) = &mut SafeOnExit(outputs);
    let mut missed_reported = 0;
    let (mut was_blind, mut has_followed) = (false, false);
    let mut hangs = Hangs::default();
    let mut was_shifted = false;
    let mut drain = None;
    loop {
        beat();
        if context.abandon.load(Ordering::Relaxed) {
            return;
        }
        let drained = context.drained.load(Ordering::Relaxed);
        // Once drained, no further frame comes: every part that waits for one is overdue.
        let time = if drained { Duration::MAX } else { monotonic() };
        // Before the line advances, so that it is not idle before the pulses of these parts.
        context.settle_early_frames(time);
        for part in context.line.expire_frames(time) {
            context.fault(part, Fault::NoFrame, 0);
        }
        let is_hanging = hangs.check(context, monotonic());
        // Before the line advances, so that the end of a silence makes it blind at once.
        watch_inputs(context);
        let readiness = &*context.readiness;
        let held_before = readiness.held_by_others();
        let view = context.line.advance();
        let stopping = context.stopping();
        readiness.set_failing(Condition::Threads, is_hanging);
        readiness.set_failing(Condition::Model, context.control.inspector().is_none());
        readiness.set_failing(Condition::Tracking, view.blind);
        readiness.set_failing(Condition::Pairing, view.shifted);
        readiness.set_failing(Condition::Inspecting, view.observing);
        context.metrics.pending(view.undecided);
        let refreshed = outputs.refresh(view.now.time);
        readiness.set_failing(Condition::Signals, outputs.is_signal_failing());
        let follows_parts = if stopping {
            !readiness.still_failing_since(held_before) && !view.idle
        } else {
            !readiness.still_held_by(held_before)
        };
        let failures = outputs.set(OutputStates {
            reject: view.level,
            busy: view.undecided > 0,
            ready: readiness.is_ready() && !stopping,
            fault: readiness.is_fault(),
            follows_parts: follows_parts || view.observing,
        });
        watch_rejects(context, outputs);
        let failures = match (refreshed, failures) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
        if let Some(due) = view.pulse_due {
            let late = monotonic().saturating_sub(due);
            context.metrics.took(Stage::Gate, late);
        }
        match failures {
            Some(reason) if outputs.is_gate_failing() => {
                context.mark_failing(Condition::RejectOutput, &reason);
            }
            // A signal, not the gate: parts are inspected and rejected all the same.
            Some(reason) => gate_fault(context, &reason),
            None if !outputs.is_gate_failing() => context.mark_working(Condition::RejectOutput),
            None => {}
        }
        if view.missed_pulses > missed_reported {
            context
                .metrics
                .missed_pulses(view.missed_pulses - missed_reported);
            missed_reported = view.missed_pulses;
            gate_fault(
                context,
                "a reject pulse began after it should have ended: the processor is overloaded",
            );
        }
        // Before the gate has followed any part, it is held anyway.
        has_followed |= follows_parts;
        if view.blind && !was_blind && has_followed {
            gate_fault(
                context,
                "parts passed the trigger unseen or faster than they can be followed: the gate is \
                 held safe until they are past it",
            );
        }
        was_blind = view.blind;
        if view.shifted && !was_shifted {
            gate_fault(
                context,
                "frames and parts no longer go together one to one, so a verdict may be about \
                 another part: the gate is held safe until the line has stood still for 2 s; check \
                 capture.exposure_to_stamp_us and the wiring of the trigger",
            );
        }
        was_shifted = view.shifted;
        if drained {
            let drain = drain.get_or_insert(Drain::new(&view));
            if view.idle {
                return;
            }
            if drain.is_over(&view) {
                gate_fault(
                    context,
                    "stopped with parts before the gate: it is held safe",
                );
                return;
            }
        }
        context
            .line
            .wait_for_change(view.generation, outputs.next_change());
    }
}

/// Finds inputs that are silent for too long. While one is, the gate is held, and after its next
/// edge until what came meanwhile is past the gate.
fn watch_inputs(context: &StageContext) {
    let silent = context.line.silent();
    let inputs = [
        (
            Condition::TriggerSilent,
            silent.trigger,
            "no edge of the trigger within trigger.silent_after_ms: its wire may be cut",
        ),
        (
            Condition::EncoderSilent,
            silent.encoder,
            "no encoder count within gate.encoder.silent_after_ms: its wire may be cut",
        ),
        (
            Condition::EncoderStands,
            silent.encoder_with_parts,
            "parts come and the encoder does not count: its wire may be cut",
        ),
    ];
    for (condition, is_silent, reason) in inputs {
        set_condition(context, condition, is_silent, reason);
    }
}

/// Finds rejects that the sensor behind the gate did not confirm.
fn watch_rejects(context: &StageContext, outputs: &mut Outputs) {
    let missing = outputs.is_unconfirmed(&context.line.take_confirms());
    let reason = "a reject was not confirmed within gate.confirm.within_ms: check the ejector and \
                  the sensor behind it";
    set_condition(context, Condition::Confirmed, missing, reason);
}

fn set_condition(context: &StageContext, condition: Condition, fails: bool, reason: &str) {
    if fails {
        context.mark_failing(condition, reason);
    } else {
        context.mark_working(condition);
    }
}

pub(super) fn gate_fault(context: &StageContext, reason: &str) {
    tracing::error!(reason, "gate fault");
    context.reporter.event(Event::GateFault {
        reason: reason.to_owned(),
    });
}

/// The wait for the last parts to reach the gate.
#[derive(Debug)]
struct Drain {
    since: Duration,
    counts: u64,
    /// When the encoder last counted.
    moved: Duration,
}

impl Drain {
    fn new(view: &LineView) -> Self {
        Self {
            since: view.now.time,
            counts: view.now.counts,
            moved: view.now.time,
        }
    }

    fn is_over(&mut self, view: &LineView) -> bool {
        if view.now.counts != self.counts {
            (self.counts, self.moved) = (view.now.counts, view.now.time);
        }
        let elapsed_since = |start: Duration| view.now.time.saturating_sub(start);
        elapsed_since(self.since) >= LONGEST_DRAIN
            || (view.by_encoder && elapsed_since(self.moved) >= BELT_STANDS_AFTER)
    }
}
