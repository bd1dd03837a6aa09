//! What a journal cannot do.

use std::io;
use std::path::{Path, PathBuf};

use super::Limits;
use super::record::BodyTooLong;
use super::segment::{OVERHEAD_BYTES, SEQUENCE_END};

/// What a journal cannot do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The limits contradict each other.
    #[error(
        "expected segments of more than {OVERHEAD_BYTES} bytes and at most half of {} bytes in all, found {} bytes",
        .0.max_bytes, .0.segment_bytes
    )]
    Limits(Limits),
    /// Another program writes it.
    #[error("journal {} is in use by another program", .0.display())]
    InUse(PathBuf),
    /// It could not be opened, and trying again comes later.
    #[error("journal {} could not be opened yet", .0.display())]
    NotOpen(PathBuf),
    /// The system refuses. Nothing that was accepted is lost by it, and trying again is allowed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A segment cannot be read.
    #[error("cannot read {} before record {resume_at}", path.display())]
    Unreadable {
        /// The segment.
        path: PathBuf,
        /// The sequence number to go on from, should trying again not help.
        resume_at: u64,
        /// The system's words.
        source: io::Error,
    },
    /// A payload is too long; it was not accepted.
    #[error("payload refused")]
    TooLong(#[from] BodyTooLong),
    /// The disk has refused for so long that no more can wait; the payload was not accepted.
    #[error("payload refused: {pending_bytes} bytes wait for the disk, at most {max_bytes} may")]
    Backlog {
        /// What waits, in bytes.
        pending_bytes: usize,
        /// The limit in bytes.
        max_bytes: usize,
    },
    /// Nobody counts that far: what asked for it is wrong.
    #[error("expected a sequence number below {SEQUENCE_END}, found {0}")]
    Sequence(u64),
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path,
        source,
    }
}
