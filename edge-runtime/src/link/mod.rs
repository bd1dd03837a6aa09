//! Stations: TCP and serial, the same session over both. A slow or broken station costs only its own threads.
//!
//! In: durable journal records, commands from stations. Out: frames on a byte stream ([`session`]). Over TCP the
//! [`door`] wraps the two halves of the stream before a session begins; nothing below knows about it but who calls.

pub mod announce;
mod commands;
mod deliver;
pub mod door;
pub mod files;
mod permission;
pub mod server;
mod session;
mod writing;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::control::Control;
use crate::journal::JournalReader;
use crate::journal::positions::Positions;
use crate::metrics::Metrics;
use crate::reporting::{Reporter, Signal};
use crate::update::Updater;
use door::Door;

/// What every session needs.
#[derive(Debug)]
pub struct LinkContext {
    /// Durable records.
    pub journal: JournalReader,
    /// What stations acknowledged.
    pub positions: Arc<Mutex<Positions>>,
    /// Told when records are durable.
    pub signal: Arc<Signal>,
    /// Commands go here.
    pub control: Arc<Control>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Set to end all sessions.
    pub stop: Arc<AtomicBool>,
    /// Name of the camera.
    pub camera: String,
    /// How often the program was started.
    pub boot: u32,
    /// Who is let in.
    pub door: Arc<Door>,
    /// Packages go here.
    pub updater: Arc<Updater>,
    /// Events go here.
    pub reporter: Reporter,
    /// The folder with stored frames and recordings.
    pub state: PathBuf,
    /// Stations at the same time.
    pub max_stations: usize,
}
