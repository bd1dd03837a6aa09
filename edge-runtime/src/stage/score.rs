//! A scoring thread. In: frames from the slot. Out: decisions about their parts, and results for
//! the report thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use proto::message::cut_text;
use proto::report::{Event, Fault, GateAction, Outcome};
use scoring::inspect::frame::Frame;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};

use super::context::StageContext;
use super::slot::Job;
use super::supervise::panic_text;
use crate::clock::monotonic;
use crate::error_text::one_line;
use crate::metrics::{Loss, Stage};
use crate::report::queue::{PartResult, Reporter};

/// Scores frames until the slot is closed and empty. A panic costs one part.
pub fn score(context: &StageContext, beat: &dyn Fn()) {
    while let Some(job) = context.slot.take(beat) {
        beat();
        let taken = monotonic();
        let (part, sequence) = (job.part, job.captured.sequence);
        context
            .metrics
            .took(Stage::Queue, taken.saturating_sub(job.arrived));
        let Some(inspector) = context.control.inspector() else {
            context.fault(part, Fault::NoModel, sequence);
            continue;
        };
        let found = contain(&context.reporter, || inspect(context, &inspector, &job));
        let (frame, inspection) = match found {
            Ok(found) => found,
            Err(fault) => {
                if fault == Fault::DamagedFrame {
                    context.metrics.dropped(Loss::Damaged, 1);
                } else {
                    context.control.record_scoring(false);
                }
                context.fault(part, fault, sequence);
                continue;
            }
        };
        context.control.record_scoring(true);
        let (mut outcome, mut wanted) = match inspection.verdict {
            Some(Verdict::Ok) => (Outcome::Ok, GateAction::Pass),
            Some(Verdict::Ng) => (Outcome::Ng, GateAction::Reject),
            None => (Outcome::Fault(Fault::NoModel), context.safe_action),
        };
        let calibrated = inspector.manifest().normal_scores.as_ref();
        let plausible = context.plausibility.check(
            &job.captured.raw.data,
            &inspection.prepared,
            calibrated.map(|normal| &normal.images),
            outcome == Outcome::Ng,
        );
        if plausible.is_err() {
            outcome = Outcome::Fault(Fault::Implausible);
            // What looks bad is not let pass because it also looks impossible.
            if wanted != GateAction::Reject {
                wanted = context.safe_action;
            }
        }
        let now = context.line.now();
        let settled = context
            .line
            .with_parts(|parts| parts.decide(part, wanted, now));
        let Some(settled) = settled else { continue };
        let has_verdict = !settled.late && !matches!(outcome, Outcome::Fault(_));
        context.record_part(has_verdict);
        let latency = now.time.saturating_sub(job.arrived);
        context.metrics.took(Stage::Total, latency);
        let scoring = inspection.elapsed + taken.saturating_sub(job.arrived);
        context
            .metrics
            .took(Stage::Around, latency.saturating_sub(scoring));
        context.reporter.part(PartResult {
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

/// Scores. A panic is a fault of the part.
fn contain<T>(reporter: &Reporter, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic_text(&*panic);
        tracing::error!(reason, "scoring failed for one part and continues");
        reporter.event(Event::StageRestarted {
            stage: "score".to_owned(),
            reason: cut_text(&reason),
        });
        Err(Fault::Scoring)
    })
}

fn inspect(
    context: &StageContext,
    inspector: &Inspector,
    job: &Job,
) -> Result<(Frame, Inspection), Fault> {
    let started = Instant::now();
    let frame = inspector.frame(&job.captured.raw).map_err(|error| {
        tracing::warn!(%error, "frame cannot be read");
        Fault::DamagedFrame
    })?;
    context.metrics.took(Stage::Convert, started.elapsed());
    let inspection = inspector.inspect(&frame).map_err(|error| {
        tracing::error!(error = one_line(&error), "frame cannot be scored");
        Fault::Scoring
    })?;
    context.metrics.took(Stage::Score, inspection.elapsed);
    Ok((frame, inspection))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::report::queue::channel;

    #[test]
    fn a_panic_in_scoring_is_a_fault_of_one_part_and_is_reported() {
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, inbox) = channel(false, metrics);
        let found: Result<(), Fault> = contain(&reporter, || panic!("on purpose"));
        assert_eq!(found, Err(Fault::Scoring));
        assert!(matches!(
            &inbox.events()[..],
            [Event::StageRestarted { stage, reason }] if stage == "score" && reason == "on purpose"
        ));
        assert_eq!(contain(&reporter, || Ok(1)), Ok(1));
    }
}
