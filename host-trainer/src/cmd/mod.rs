//! One file a group of commands: arguments in, library calls, text out.

pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod package;
pub(crate) mod progress;
pub(crate) mod train;
pub(crate) mod weights;
