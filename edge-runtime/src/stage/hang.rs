//! What the gate thread does about threads that hang. In: heartbeats. Out: whether the gate must be
//! held, and one event for each thread that falls silent.

use std::time::Duration;

use super::context::StageContext;
use super::gate::gate_fault;
use crate::line::liveness::Watched;
use crate::line::readiness::Condition;

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
                Watched::Trigger => context.mark_failing(Condition::Trigger, &reason),
                Watched::Encoder => context.mark_failing(Condition::Encoder, &reason),
                Watched::Confirm => context.mark_failing(Condition::ConfirmInput, &reason),
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
        silent.iter().any(|silence| !has_condition(silence.watched))
    }
}

/// Whether another condition says what the thread's silence means.
fn has_condition(watched: Watched) -> bool {
    matches!(
        watched,
        Watched::Capture | Watched::Frames | Watched::Confirm
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::message::Mode;
    use proto::report::{Event, GateAction};

    use super::*;
    use crate::line::parts::{Parts, Settings};
    use crate::line::readiness::Readiness;
    use crate::line::shared::LineShared;
    use crate::metrics::Metrics;
    use crate::model::active::{Control, GoldenFrames};
    use crate::report::queue::{self, Inbox};
    use crate::stage::plausibility::Plausibility;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn context() -> (StageContext, Inbox) {
        let readiness = Arc::new(Readiness::new());
        let metrics = Arc::new(Metrics::new("top", Arc::clone(&readiness)));
        let parts = Parts::new(Settings {
            deadline: None,
            frame_within: ms(1),
            edges_reported_within: ms(1),
            early_frame_within: ms(1),
            camera_is_triggered: false,
            gate: None,
            safe_action: GateAction::None,
        });
        let line = Arc::new(LineShared::new(parts, true));
        let (reporter, inbox) = queue::channel(false, Arc::clone(&metrics));
        let control = Control::new(
            None,
            Mode::Inspect,
            GoldenFrames::default(),
            Arc::clone(&line),
            reporter.clone(),
            Arc::clone(&metrics),
            Arc::clone(&readiness),
        );
        let context = StageContext::new(
            line,
            Arc::new(control),
            reporter,
            metrics,
            readiness,
            Plausibility::new(true, 0),
        );
        (context, inbox)
    }

    fn reasons(inbox: &Inbox) -> Vec<String> {
        let events = inbox.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::GateFault { reason } => Some(reason),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_thread_that_hangs_is_reported_once_and_again_when_it_hangs_again() {
        let (context, inbox) = context();
        let score = context.liveness.watch(Watched::Score, ms(5_000), ms(0));
        let mut hangs = Hangs::default();
        assert!(!hangs.check(&context, ms(5_000)));
        assert!(hangs.check(&context, ms(5_100)));
        assert!(hangs.check(&context, ms(9_000)));
        let found = reasons(&inbox);
        let expected =
            "a scoring thread hangs: no sign of life for 5.1 s, expected one within 5.0 s";
        assert_eq!(found, [expected]);
        score.beat(ms(9_000));
        assert!(!hangs.check(&context, ms(9_100)));
        assert!(hangs.check(&context, ms(20_000)));
        assert_eq!(reasons(&inbox).len(), 1);
    }

    #[test]
    fn an_input_that_hangs_fails_until_its_thread_says_otherwise() {
        for (watched, need) in [
            (Watched::Trigger, Condition::Trigger),
            (Watched::Encoder, Condition::Encoder),
        ] {
            let (context, inbox) = context();
            let input = context.liveness.watch(watched, ms(1_000), ms(0));
            let mut hangs = Hangs::default();
            assert!(hangs.check(&context, ms(1_200)));
            input.beat(ms(1_300));
            assert!(!hangs.check(&context, ms(1_400)));
            assert!(
                context.readiness.is_failing(need),
                "it has read nothing yet"
            );
            assert_eq!(reasons(&inbox).len(), 1);
        }
    }

    #[test]
    fn frames_that_stop_without_a_failure_end_capturing() {
        let (context, inbox) = context();
        let frames = context.liveness.watch(Watched::Frames, ms(1_500), ms(0));
        let mut hangs = Hangs::default();
        assert!(!hangs.check(&context, ms(60_000)));
        assert_eq!(reasons(&inbox).len(), 0, "an outage is reported elsewhere");
        frames.beat(ms(60_000));
        context.readiness.set_capturing(true);
        hangs.check(&context, ms(61_000));
        assert!(context.readiness.capturing());
        hangs.check(&context, ms(61_600));
        hangs.check(&context, ms(61_700));
        assert!(!context.readiness.capturing());
        assert_eq!(reasons(&inbox).len(), 1);
    }

    #[test]
    fn the_gate_thread_leaves_slow_disks_and_itself_to_others() {
        let (context, inbox) = context();
        let watched = [Watched::Report, Watched::Main, Watched::Gate];
        let _beats = watched.map(|watched| context.liveness.watch(watched, ms(10), ms(0)));
        assert!(!Hangs::default().check(&context, ms(60_000)));
        assert_eq!(reasons(&inbox).len(), 0);
    }
}
