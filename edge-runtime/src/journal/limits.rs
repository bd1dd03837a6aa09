//! How large a journal may become.

/// Size limits of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes on disk, over all segments. The oldest segment is deleted before this would be
    /// exceeded.
    pub max_bytes: u64,
    /// Size at which a segment is closed, in bytes. No record may be larger.
    pub segment_bytes: u64,
    /// Most bytes of payloads in memory that are not durable yet; more are refused.
    pub max_pending_bytes: usize,
}

impl Limits {
    /// At least eight segments, each of at most 8 MiB because one is read at every start, and 4 MiB
    /// in memory.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            segment_bytes: (max_bytes / 8).min(8 << 20),
            max_pending_bytes: 4 << 20,
        }
    }
}
