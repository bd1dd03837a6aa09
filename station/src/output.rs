//! What is printed. In: lines, parts of which cameras have sent. Out: the same lines without
//! anything that a terminal takes for a command, on standard output and standard error.
//!
//! Nothing else in this program may print (a lint checks it), so no text of a camera reaches a
//! terminal unchecked.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place that prints"
)]

use proto::name::displayable;

/// Prints a line of results to standard output; its arguments are those of `println!`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::line(&format!($($argument)*)) };
}

/// Prints a line of progress or trouble to standard error; its arguments are those of `eprintln!`.
macro_rules! note {
    ($($argument:tt)*) => { $crate::output::error_line(&format!($($argument)*)) };
}

/// Prints a line to standard output.
pub(crate) fn line(text: &str) {
    println!("{}", displayable(text));
}

/// Prints a line to standard error.
pub(crate) fn error_line(text: &str) {
    eprintln!("{}", displayable(text));
}

/// Prints JSON, which escapes control characters itself, to standard output.
pub(crate) fn json(text: &str) {
    println!("{text}");
}
