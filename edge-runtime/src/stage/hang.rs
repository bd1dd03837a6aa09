//! What the gate thread does about threads that hang. In: heartbeats. Out: whether the gate must be
//! held, and one event for each thread that falls silent.

use std::time::Duration;

use super::context::StageContext;
use super::gate::gate_fault;
use crate::line::liveness::Watched;
use crate::line::readiness::Need;

/// Who is silent, as far as it was reported.
#[derive(Debug, Default)]
pub(super) struct Hangs(Vec<Watched>);

impl Hangs {
    /// Looks for silent threads at `now`. Returns whether one is silent without which the gate
    /// must be held.
    pub(super) fn check(&mut self, context: &StageContext, now: Duration) -> bool {
        let mut silent = context.liveness.silent(now);
        silent.retain(|silence| {
            silence.watched.inspects()
                // An outage that the camera reports is no silence.
                && (silence.watched != Watched::Frames
                    || context.readiness.capturing()
                    || self.0.contains(&silence.watched))
        });
        for silence in &silent {
            if self.0.contains(&silence.watched) {
                continue;
            }
            self.0.push(silence.watched);
            let reason = silence.to_string();
            match silence.watched {
                // Parts pass unseen. Whoever listens says when the input works again, and then
                // the gate is held until those parts are past it.
                Watched::Trigger => context.mark_failing(Need::Trigger, &reason),
                Watched::Encoder => context.mark_failing(Need::Encoder, &reason),
                // The next frame ends this outage like any other.
                Watched::Capture | Watched::Frames => {
                    context.readiness.set_capturing(false);
                    gate_fault(context, &reason);
                }
                _ => gate_fault(context, &reason),
            }
        }
        self.0.retain(|watched| {
            let still = silent.iter().any(|silence| silence.watched == *watched);
            if !still {
                tracing::info!("{} shows signs of life again", watched.name());
            }
            still
        });
        silent.iter().any(|silence| !is_capture(silence.watched))
    }
}

fn is_capture(watched: Watched) -> bool {
    matches!(watched, Watched::Capture | Watched::Frames)
}
