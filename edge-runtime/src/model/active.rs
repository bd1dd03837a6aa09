//! The active model, its mode and the last part, shared by all threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::message::{Mode, cut_text};
use scoring::inspect::frame::Frame;
use scoring::inspector::{Inspection, Inspector};
use scoring::io::image_file::{ImageFileError, read_frame};

use crate::line::readiness::{Condition, Readiness};
use crate::line::shared::LineShared;
use crate::metrics::Metrics;
use crate::report::queue::Reporter;

/// The last part that was scored.
#[derive(Debug)]
pub struct LastPart {
    /// Number of the part.
    pub part: u64,
    /// The frame as captured.
    pub frame: Frame,
    /// Its inspection.
    pub inspection: Inspection,
}

/// Frames of the golden check: one that must be OK, one that must be NG.
#[derive(Debug, Default)]
pub struct GoldenFrames {
    pub(super) good: Option<Frame>,
    pub(super) bad: Option<Frame>,
}

impl GoldenFrames {
    /// Reads the frames that are configured.
    pub fn read(good: Option<&Path>, bad: Option<&Path>) -> Result<Self, ImageFileError> {
        Ok(Self {
            good: good.map(read_frame).transpose()?,
            bad: bad.map(read_frame).transpose()?,
        })
    }
}

/// The active model and its settings. Scoring threads, links and the golden schedule share it.
#[derive(Debug)]
pub struct Control {
    pub(super) inspector: Mutex<Option<Arc<Inspector>>>,
    pub(super) observe: AtomicBool,
    pub(super) last: Mutex<Option<Arc<LastPart>>>,
    /// Frames since the last scored one that could not be scored.
    pub(super) failures: AtomicU32,
    pub(super) golden: GoldenFrames,
    pub(super) line: Arc<LineShared>,
    pub(super) reporter: Reporter,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Arc<Readiness>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// With `None`, no part is inspected until [`Self::activate`].
    pub fn new(
        inspector: Option<Inspector>,
        mode: Mode,
        golden: GoldenFrames,
        line: Arc<LineShared>,
        reporter: Reporter,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Self {
        let control = Self {
            inspector: Mutex::new(None),
            failures: AtomicU32::new(0),
            observe: AtomicBool::new(false),
            last: Mutex::new(None),
            golden,
            line,
            reporter,
            metrics,
            readiness,
        };
        control.apply_mode(mode);
        if let Some(inspector) = inspector {
            control.activate(inspector);
        }
        control
    }

    /// The active inspector; `None` until there is a model.
    pub fn inspector(&self) -> Option<Arc<Inspector>> {
        lock(&self.inspector).clone()
    }

    /// Makes a model, with its own settings, the active one from the next frame on.
    pub fn activate(&self, inspector: Inspector) {
        self.metrics
            .set_model(&model_name(&inspector), &inspector.model_id());
        self.failures.store(0, Ordering::Relaxed);
        // What the model before it could not score, and how its good parts looked, is over.
        self.readiness.trust_verdicts();
        self.readiness.set_failing(Condition::Drift, false);
        *lock(&self.inspector) = Some(Arc::new(inspector));
        // If there was no model before, the gate follows parts from now on.
        self.line.wake();
    }

    /// Records whether a frame could be scored.
    pub fn record_scoring(&self, succeeded: bool) {
        if succeeded {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of frames since the last scored one that could not be scored.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last part that was scored.
    pub fn last_part(&self) -> Option<Arc<LastPart>> {
        lock(&self.last).clone()
    }

    /// The active mode.
    pub fn mode(&self) -> Mode {
        if self.observe.load(Ordering::Relaxed) {
            Mode::Observe
        } else {
            Mode::Inspect
        }
    }

    pub(super) fn apply_mode(&self, mode: Mode) {
        let observe = mode == Mode::Observe;
        self.observe.store(observe, Ordering::Relaxed);
        self.line.with_parts(|parts| parts.set_observe(observe));
    }

    /// Keeps the last scored part, for snapshots.
    pub fn set_last_part(&self, last: Arc<LastPart>) {
        *lock(&self.last) = Some(last);
    }
}

/// Name and version of the model, as messages and metrics have them.
pub fn model_name(inspector: &Inspector) -> String {
    let manifest = inspector.manifest();
    cut_text(&format!("{} {}", manifest.name, manifest.version))
}
