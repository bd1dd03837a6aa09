//! Stations: TCP and serial, the same session over both. A slow or broken station costs only its own threads.
//!
//! In: durable journal records, commands from stations. Out: frames on a byte stream ([`session`]). Encryption will
//! wrap the two halves of the stream before a session begins; nothing below knows about it.

mod deliver;
pub mod server;
mod session;
mod writing;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use proto::recovery::Slot;

use crate::control::Control;
use crate::journal::JournalReader;
use crate::journal::positions::Positions;
use crate::metrics::Metrics;
use crate::reporting::Signal;

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
    /// Name and version of the model.
    pub model: String,
    /// How often the program was started.
    pub boot: u32,
    /// Packages, for the recovery exchange.
    pub slots: [Slot; 2],
    /// Stations at the same time.
    pub max_stations: usize,
}
