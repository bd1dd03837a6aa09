//! The thread of an input line (trigger or encoder). In: edges. Out: calls for each edge, and
//! whether the line works. While it fails, the gate is held safe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::context::StageContext;
use crate::line::readiness::Condition;

/// Pause before a failed input line is reopened.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// An edge of an input line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputEdge {
    /// Time of the edge, on the monotonic clock.
    pub timestamp: Duration,
    /// Edges before this one that the kernel dropped because they were not read in time.
    pub lost_edges: u32,
}

/// Waits a short time for the next edge. After an error, which is a text, the line must be
/// reopened.
pub type Listener = Box<dyn FnMut() -> Result<Option<InputEdge>, String> + Send>;

/// Marks the input as failing when its thread panics.
struct FailsOnPanic<'a>(&'a StageContext, Condition);

impl Drop for FailsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.mark_failing(self.1, "the thread of an input failed");
        }
    }
}

/// Listens to an input line until `ended` is set, first to the one that is open already. While the
/// line fails, the gate is held safe and the line is reopened. The same holds after a panic, when
/// this is called again.
pub fn listen(
    context: &StageContext,
    need: Condition,
    line: &mut Option<Listener>,
    reopen: &mut dyn FnMut() -> Result<Listener, String>,
    on_edge: &mut dyn FnMut(InputEdge),
    ended: &AtomicBool,
    beat: &dyn Fn(),
) {
    let _fails_on_panic = FailsOnPanic(context, need);
    while !ended.load(Ordering::Relaxed) {
        beat();
        // Taken out meanwhile: after a panic the line is opened again.
        let edge = match line.take() {
            Some(wait) => Ok(wait),
            None => reopen(),
        }
        .and_then(|mut wait| {
            let edge = wait()?;
            *line = Some(wait);
            Ok(edge)
        });
        match edge {
            Ok(edge) => {
                context.mark_working(need);
                if let Some(edge) = edge {
                    on_edge(edge);
                }
            }
            // The line is released by now: while it is held it cannot be opened again.
            Err(reason) => {
                context.mark_failing(need, &reason);
                std::thread::sleep(REOPEN_PAUSE);
            }
        }
    }
}
