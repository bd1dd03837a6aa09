//! One file a command: arguments in, library calls, text out.

pub(crate) mod progress;
pub(crate) mod train;
