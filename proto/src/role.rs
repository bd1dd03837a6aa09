//! What a station may do on a camera.

use serde::{Deserialize, Serialize};

/// What a station may do. Each role includes those before it. Grows only at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// See reports, health, settings and pictures.
    Watch,
    /// Also run checks and change the mode.
    Operate,
    /// Also change thresholds and masks, flash, confirm and roll back packages, and admit and
    /// revoke stations.
    Engineer,
}

/// A text that names no [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRole;

impl core::fmt::Display for InvalidRole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("expected watch, operate or engineer")
    }
}

impl core::error::Error for InvalidRole {}

impl Role {
    /// All roles, the least powerful first.
    pub const ALL: [Self; 3] = [Self::Watch, Self::Operate, Self::Engineer];

    /// The name used on command lines and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Operate => "operate",
            Self::Engineer => "engineer",
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or(InvalidRole)
    }
}
