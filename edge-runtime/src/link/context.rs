//! What every session needs from the rest of the camera.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::access_control::AccessControl;
use crate::journal::JournalReader;
use crate::journal::events::EventReader;
use crate::journal::positions::Positions;
use crate::metrics::Metrics;
use crate::model::active::Control;
use crate::model::update::Updater;
use crate::report::durable::DurableSignal;
use crate::report::queue::Reporter;

/// What every session needs from the rest of the camera.
#[derive(Debug)]
pub struct LinkContext {
    /// The journal's durable records.
    pub journal: JournalReader,
    /// Events that the journal may no longer have.
    pub events: EventReader,
    /// What each station has acknowledged.
    pub positions: Arc<Mutex<Positions>>,
    /// Notified when new records are durable.
    pub signal: Arc<DurableSignal>,
    /// Carries out commands.
    pub control: Arc<Control>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// When set, all sessions end.
    pub stop: Arc<AtomicBool>,
    /// Name of the camera.
    pub camera: String,
    /// The boot counter.
    pub boot: u32,
    /// Decides who may connect.
    pub access_control: Arc<AccessControl>,
    /// Receives packages and switches models.
    pub updater: Arc<Updater>,
    /// Records events.
    pub reporter: Reporter,
    /// The state folder, with stored frames and recordings.
    pub state: PathBuf,
    /// Most stations connected at the same time.
    pub max_stations: usize,
}
