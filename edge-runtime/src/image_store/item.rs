//! A frame to be stored, with the result of its inspection.

use scoring::inspect::frame::Frame;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::verdict::Verdict;

/// A frame and its result.
#[derive(Debug, Clone, Copy)]
pub struct StoredItem<'a> {
    /// Rises with time, also across restarts (the journal's sequence number does). The item with
    /// the lowest id is evicted first. An item with the same id and verdict is replaced.
    pub id: u64,
    /// Capture time in milliseconds since 1970-01-01 UTC, by the camera's clock.
    pub unix_ms: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// The frame's score.
    pub score: f32,
    /// The threshold that the score was compared with.
    pub threshold: f32,
    /// Identity of the model.
    pub model: &'a str,
    /// The frame as it was captured.
    pub frame: &'a Frame,
    /// Score of each pixel, at the size at which the frame was scored.
    pub map: Option<&'a ScoreMap>,
}
