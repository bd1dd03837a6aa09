//! What a camera does with its verdicts.

use serde::{Deserialize, Serialize};

/// What the camera does with its verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Inspects and drives the gate.
    Inspect,
    /// Inspects and reports, but lets every part pass: for setting up.
    Observe,
}
