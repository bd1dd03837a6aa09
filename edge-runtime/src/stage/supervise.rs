//! Restarts a stage after a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::message::cut_text;
use proto::report::Event;

use super::context::StageContext;

/// Pause before the first restart of a stage; it doubles with each restart.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A stage that ran longer than this before it failed starts again with the first pause.
const RAN_WELL: Duration = Duration::from_secs(60);

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panic".to_owned())
}

/// Runs a stage until it returns. After a panic, reports it and runs the stage again, with growing
/// pauses.
pub fn supervise(context: &StageContext, stage: &str, beat: &dyn Fn(), work: &mut dyn FnMut()) {
    let mut pause = FIRST_PAUSE;
    while !context.abandon.load(Ordering::Relaxed) {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(&mut *work));
        let Err(panic) = result else { return };
        let reason = cut_text(&panic_text(&*panic));
        tracing::error!(stage, reason, "stage failed; it is restarted");
        context.reporter.event(Event::StageRestarted {
            stage: stage.to_owned(),
            reason,
        });
        if started.elapsed() > RAN_WELL {
            pause = FIRST_PAUSE;
        }
        let end = Instant::now() + pause;
        while Instant::now() < end && !context.abandon.load(Ordering::Relaxed) {
            beat();
            std::thread::sleep(FIRST_PAUSE.min(Duration::from_millis(50)));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
