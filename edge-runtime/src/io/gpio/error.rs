//! Errors of GPIO chips and lines.

use embedded_hal::digital;

/// Why an operation on a chip or a line failed.
#[derive(Debug, thiserror::Error)]
pub enum GpioError {
    /// The chip cannot be opened.
    #[error("GPIO chip {chip}")]
    Chip {
        /// Path or label as asked for.
        chip: String,
        /// The system's error.
        source: gpiocdev::Error,
    },
    /// No chip has this label.
    #[error("expected a GPIO chip labelled `{label}`, found {found}")]
    NoSuchChip {
        /// Label asked for.
        label: String,
        /// The chips that exist.
        found: String,
    },
    /// Several chips have this label.
    #[error("expected one GPIO chip labelled `{label}`, found {found}: name it by its path")]
    Ambiguous {
        /// Label asked for.
        label: String,
        /// The chips with it.
        found: String,
    },
    /// The chip has fewer lines.
    #[error("GPIO chip {chip}: expected a line below {lines}, found {line}")]
    NoSuchLine {
        /// The chip.
        chip: String,
        /// Line asked for.
        line: u32,
        /// Number of lines of the chip.
        lines: u32,
    },
    /// Another program or a kernel driver has the line.
    #[error("GPIO chip {chip}, line {line} is in use by `{consumer}`")]
    InUse {
        /// The chip.
        chip: String,
        /// The line.
        line: u32,
        /// The name of the user, as reported by the kernel.
        consumer: String,
    },
    /// The kernel refused an operation.
    #[error("GPIO chip {chip}, line {line}: cannot {action}")]
    Line {
        /// The chip.
        chip: String,
        /// The line.
        line: u32,
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        source: gpiocdev::Error,
    },
}

impl digital::Error for GpioError {
    fn kind(&self) -> digital::ErrorKind {
        digital::ErrorKind::Other
    }
}
