//! Links to stations over TCP and serial lines, with the same session on both. A slow or broken
//! station affects only its own threads.
//!
//! In: durable journal records, and commands from stations. Out: frames on a byte stream
//! ([`session`]). Over TCP, [`access_control`] authenticates the station and encrypts the stream
//! before a session begins; a session only learns who the caller is.

pub mod access_control;
pub mod announce;
mod commands;
mod context;
mod deliver;
pub mod files;
mod incoming;
mod outbox;
mod permission;
mod places;
mod repeats;
mod resend;
pub mod server;
mod session;
mod writing;

pub use context::LinkContext;
