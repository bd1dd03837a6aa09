//! A running camera: its threads and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use edge_runtime::clock::monotonic;
use edge_runtime::line::liveness::{Heartbeat, Watched};
use edge_runtime::link::announce::Announcement;
use edge_runtime::metrics::Metrics;
use edge_runtime::model::active::Control;
use edge_runtime::model::update::Updater;
use edge_runtime::stage::context::StageContext;
use scoring::source::SourceError;

use super::listening::Bound;
use super::threads::join;

/// A running camera. Dropping it makes the gate safe.
pub(crate) struct Camera {
    pub(super) context: Arc<StageContext>,
    /// Set to end links, metrics server and encoder, after the last part is past the gate.
    pub(super) link_stop: Arc<AtomicBool>,
    /// Longest time that the source may wait for a frame.
    pub(super) longest_wait: Duration,
    /// Longest time for scoring one frame.
    pub(super) score_limit: Duration,
    pub(super) capture: Option<JoinHandle<Result<(), SourceError>>>,
    pub(super) trigger: Option<JoinHandle<()>>,
    pub(super) scoring: Vec<JoinHandle<()>>,
    pub(super) gate: Option<JoinHandle<()>>,
    pub(super) report: Option<JoinHandle<()>>,
    pub(super) images: Option<JoinHandle<()>>,
    pub(super) links: Vec<JoinHandle<()>>,
    pub(super) tcp: Option<Bound>,
    pub(super) http: Option<Bound>,
    /// The addresses that are in `endpoints.json`.
    pub(super) published: Option<(Option<SocketAddr>, Option<SocketAddr>)>,
    /// The camera's key, as stations show it.
    pub(super) key_id: String,
    pub(super) announcement: Option<Announcement>,
    pub(super) updater: Arc<Updater>,
}

impl Camera {
    /// Watches a thread that is about to start. It must give a sign of life within `limit`.
    pub(crate) fn watch(&self, watched: Watched, limit: Duration) -> Heartbeat {
        self.context.liveness.watch(watched, limit, monotonic())
    }

    /// Whether every thread has given its first sign of life.
    pub(crate) fn has_begun(&self) -> bool {
        self.context.liveness.all_have_begun()
    }

    /// Address at which stations connect, once it listens.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.get().copied()
    }

    /// Address of the metrics, once it listens.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.get().copied()
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
    pub(crate) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.context.control)
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
