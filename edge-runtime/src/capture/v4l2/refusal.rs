//! Why a camera cannot be opened as configured: turns errors of driver calls into errors of the
//! source.

use std::io;
use std::time::Duration;

use scoring::source::SourceError;

/// The source error that corresponds to a failed call.
pub(super) fn source_error(device: &str, error: io::Error, timeout: Duration) -> SourceError {
    let device = device.to_owned();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::TimedOut, _) => SourceError::TimedOut(timeout),
        (_, Some(libc::EBUSY)) => SourceError::Busy { device },
        (_, Some(libc::ENODEV | libc::ENXIO | libc::ENOENT)) => SourceError::Gone {
            device,
            source: error,
        },
        _ => SourceError::Device {
            device,
            source: error,
        },
    }
}

/// Why the camera could not be set up.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A call failed.
    Failed(io::Error),
    /// The device does not support what is asked for.
    Unsupported(String),
}

impl Refusal {
    pub(super) fn into_source_error(self, device: &str, timeout: Duration) -> SourceError {
        match self {
            Self::Failed(error) => source_error(device, error, timeout),
            Self::Unsupported(reason) => SourceError::Unsupported {
                device: device.to_owned(),
                reason,
            },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether an error means that the driver does not implement the query.
pub(super) fn is_not_offered(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY))
}

/// Turns the error of an unsupported enumeration into an empty list. Drivers also answer with this
/// error when an enumeration has no entries.
pub(super) fn none_if_invalid<T>(list: io::Result<Vec<T>>) -> io::Result<Vec<T>> {
    match list {
        Err(error) if is_not_offered(&error) => Ok(Vec::new()),
        list => list,
    }
}
