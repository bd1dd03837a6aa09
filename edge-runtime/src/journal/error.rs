//! Errors of the journal.

use std::io;
use std::path::{Path, PathBuf};

use scoring::io::record::BodyTooLong;

use super::limits::Limits;
use super::segment::{OVERHEAD_BYTES, SEQUENCE_END};

/// Why a journal operation failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The limits contradict each other.
    #[error(
        "expected segments of more than {OVERHEAD_BYTES} bytes and at most half of {} bytes in \
         all, found {} bytes",
        .0.max_bytes, .0.segment_bytes
    )]
    Limits(Limits),
    /// Another program has the journal open.
    #[error("journal {} is in use by another program", .0.display())]
    InUse(PathBuf),
    /// The folder could not be read; it is tried again later.
    #[error("journal {} could not be opened yet", .0.display())]
    NotOpen(PathBuf),
    /// An I/O operation failed. Accepted payloads are kept, and the operation may be retried.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A segment cannot be read.
    #[error("cannot read {} before record {resume_at}", path.display())]
    Unreadable {
        /// The segment.
        path: PathBuf,
        /// The sequence number to continue from if retrying does not help.
        resume_at: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The payload is too long and was not accepted.
    #[error("payload refused")]
    TooLong(#[from] BodyTooLong),
    /// Too many payloads wait for the disk; this one was not accepted.
    #[error("payload refused: {pending_bytes} bytes wait for the disk, at most {max_bytes} may")]
    Backlog {
        /// Size of the waiting payloads in bytes.
        pending_bytes: usize,
        /// Limit in bytes.
        max_bytes: usize,
    },
    /// The sequence number is beyond any that a journal can reach, so the caller is wrong.
    #[error("expected a sequence number below {SEQUENCE_END}, found {0}")]
    Sequence(u64),
}

/// Turns an I/O error into a [`JournalError::Io`] that names the action and the path.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path,
        source,
    }
}
