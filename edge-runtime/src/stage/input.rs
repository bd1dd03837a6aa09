//! The thread of an input line (trigger or encoder). In: edges. Out: calls for each edge, and
//! whether the line works. While it fails, the gate is held safe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::context::StageContext;
use crate::line::readiness::Need;

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

/// Listens to an input line until `ended` is set. While the line fails, the gate is held safe and
/// the line is reopened.
pub fn listen(
    context: &StageContext,
    need: Need,
    first: Listener,
    reopen: &mut dyn FnMut() -> Result<Listener, String>,
    on_edge: &mut dyn FnMut(InputEdge),
    ended: &AtomicBool,
    beat: &dyn Fn(),
) {
    let mut line = Some(first);
    while !ended.load(Ordering::Relaxed) {
        beat();
        let edge = match &mut line {
            Some(wait) => wait(),
            None => reopen().and_then(|mut wait| {
                let edge = wait();
                line = Some(wait);
                edge
            }),
        };
        match edge {
            Ok(edge) => {
                context.mark_working(need);
                if let Some(edge) = edge {
                    on_edge(edge);
                }
            }
            Err(reason) => {
                // Released now, because a line that is still held cannot be opened again.
                line = None;
                context.mark_failing(need, &reason);
                std::thread::sleep(REOPEN_PAUSE);
            }
        }
    }
}
