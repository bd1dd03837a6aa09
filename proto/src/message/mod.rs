//! What goes over a link: [`ToCamera`] in one direction, [`FromCamera`] in the other.
//!
//! # Evolution
//! - Enums grow only at their end; fields are never added, removed or reordered. An addition is a
//!   new variant and raises [`crate::version::VERSION`].
//! - A payload that decodes with bytes left over is damaged, not newer: [`DecodeError::Trailing`].
//! - A variant that this build does not know is [`DecodeError::Unknown`]: the receiver counts it
//!   and reads on.
//! - The recovery exchange ([`crate::recovery`]) has a fixed layout of its own and never changes.
//!
//! `tests/snapshots.rs` pins the bytes of every message.

mod from_camera;
mod mode;
mod to_camera;

pub use crate::codec::{DecodeError, Message};
pub use crate::role::{InvalidRole, Role};
pub use crate::text::cut_text;
pub use from_camera::{
    Answer, CameraHello, FileInfo, FromCamera, Health, PackageState, Readiness, SettingSource,
    Settings, SlotInfo, SnapshotKind, StationInfo,
};
pub use mode::Mode;
pub use to_camera::{Command, FileKind, Start, StationHello, ToCamera};
