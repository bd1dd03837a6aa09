//! A running camera: its threads and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use edge_runtime::link::announce::Announcement;
use edge_runtime::metrics::Metrics;
use edge_runtime::model::active::Control;
use edge_runtime::model::update::Updater;
use edge_runtime::stage::context::StageContext;
use scoring::source::SourceError;

use super::heartbeat::Heartbeat;
use super::threads::join;

/// A running camera. Dropping it makes the gate safe.
pub(crate) struct Camera {
    pub(super) context: Arc<StageContext>,
    /// Set to end links, metrics server and encoder, after the last part is past the gate.
    pub(super) link_stop: Arc<AtomicBool>,
    pub(super) heartbeats: Vec<(&'static str, Heartbeat)>,
    /// Longest time that the source may wait for a frame.
    pub(super) longest_wait: Duration,
    pub(super) capture: Option<JoinHandle<Result<(), SourceError>>>,
    pub(super) trigger: Option<JoinHandle<()>>,
    pub(super) scoring: Vec<JoinHandle<()>>,
    pub(super) gate: Option<JoinHandle<()>>,
    pub(super) report: Option<JoinHandle<()>>,
    pub(super) images: Option<JoinHandle<()>>,
    pub(super) links: Vec<JoinHandle<()>>,
    /// Address at which stations connect.
    pub(crate) tcp: Option<SocketAddr>,
    /// Address of the metrics.
    pub(crate) http: Option<SocketAddr>,
    pub(super) announcement: Option<Announcement>,
    pub(super) updater: Arc<Updater>,
}

impl Camera {
    /// Adds the heartbeat of a thread that is about to start.
    pub(super) fn add_heartbeat(&mut self, name: &'static str) -> Heartbeat {
        let heartbeat = Heartbeat::default();
        heartbeat.beat();
        self.heartbeats.push((name, heartbeat.clone()));
        heartbeat
    }

    /// Rolls back a package on trial with which frames cannot be scored.
    pub(crate) fn watch_trial(&self) {
        let control = &self.context.control;
        self.updater.watch_trial(control, &self.context.reporter);
    }

    /// The camera's counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    /// The active model and its settings.
    pub(crate) fn control(&self) -> &Control {
        &self.context.control
    }

    /// Whether the capture thread has ended: the source is exhausted, or cannot be used.
    pub(crate) fn capture_ended(&self) -> bool {
        self.capture.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Once the capture thread has ended, returns its error: the source cannot be used, or the
    /// thread panicked.
    pub(crate) fn check_source(&mut self) -> Result<()> {
        match self.capture.take() {
            Some(capture) => Ok(join("capture", capture)??),
            None => Ok(()),
        }
    }
}
