//! The active model, its mode and the last part, shared by all threads.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::manifest::{Reading, Roi};
use proto::message::{Mode, cut_text};
use scoring::inspect::frame::Frame;
use scoring::inspector::{Inspection, Inspector};
use scoring::io::image_file::{ImageFileError, read_frame_as};

use super::settings::Settings;
use crate::error_text::one_line;
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
    pub(super) good: Option<GoldenFrame>,
    pub(super) bad: Option<GoldenFrame>,
}

/// A frame of the golden check. Inspection does not need it, so it may come later.
#[derive(Debug)]
pub(super) struct GoldenFrame {
    path: PathBuf,
    /// The frame, as it was read for a package.
    read: Mutex<Option<(Reading, Arc<Frame>)>>,
}

impl GoldenFrame {
    /// The frame as a package reads files, from its file unless it was read so before.
    pub(super) fn get(&self, reading: &Reading) -> Result<Arc<Frame>, ImageFileError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((before, frame)) if before == reading => Ok(Arc::clone(frame)),
            _ => {
                let frame = Arc::new(read_frame_as(&self.path, reading)?);
                *read = Some((*reading, Arc::clone(&frame)));
                Ok(frame)
            }
        }
    }
}

impl GoldenFrames {
    /// The frames that are configured. One that cannot be read is read again at each check.
    pub fn new(good: Option<&Path>, bad: Option<&Path>) -> Self {
        let frame = |path: &Path| GoldenFrame {
            path: path.to_owned(),
            read: Mutex::default(),
        };
        Self {
            good: good.map(frame),
            bad: bad.map(frame),
        }
    }

    /// Why the check would fail, if a frame cannot be read as a package reads files.
    pub fn problem(&self, reading: &Reading) -> Option<String> {
        let frames = [("good", &self.good), ("bad", &self.bad)];
        let problems: Vec<String> = frames
            .into_iter()
            .filter_map(|(name, frame)| {
                let error = frame.as_ref()?.get(reading).err()?;
                let error = one_line(&error);
                tracing::error!(error, "cannot read the {name} frame of the golden check");
                Some(format!("{name} frame: {error}"))
            })
            .collect();
        (!problems.is_empty()).then(|| cut_text(&problems.join("; ")))
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
    pub(super) settings: Settings,
    /// Held while a setting or the model changes.
    pub(super) changing: Mutex<()>,
    /// What `camera.toml` says.
    pub(super) configured: ConfiguredSettings,
    /// Threshold and region of interest of the active model without a station's settings.
    pub(super) without: Mutex<(Option<f32>, Roi)>,
}

/// What `camera.toml` says about settings that a station can change.
#[derive(Debug, Clone, Copy)]
pub struct ConfiguredSettings {
    /// The threshold of the configured package.
    pub threshold: Option<f32>,
    /// Whether there is a mask.
    pub mask: bool,
    /// The mode.
    pub mode: Mode,
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
            settings: Settings::default(),
            changing: Mutex::default(),
            configured: ConfiguredSettings {
                threshold: None,
                mask: false,
                mode,
            },
            without: Mutex::new((None, Roi::Whole)),
        };
        control.apply_mode(mode);
        if let Some(inspector) = inspector {
            control.activate(inspector);
        }
        control
    }

    /// Uses the settings that stations have made, from now on.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings, configured: ConfiguredSettings) -> Self {
        (self.settings, self.configured) = (settings, configured);
        let (mode, over) = self.settings.apply_mode(configured.mode);
        self.apply_mode(mode);
        over.into_iter()
            .for_each(|event| self.reporter.event(event));
        if let Some(inspector) = self.inspector() {
            self.activate((*inspector).clone());
        }
        self
    }

    /// The active inspector; `None` until there is a model.
    pub fn inspector(&self) -> Option<Arc<Inspector>> {
        lock(&self.inspector).clone()
    }

    /// Makes a model, with the settings that stations have made for it, the active one from the
    /// next frame on.
    pub fn activate(&self, inspector: Inspector) {
        let _changing = lock(&self.changing);
        *lock(&self.without) = (inspector.threshold(), inspector.manifest().roi.clone());
        let (inspector, over) = self.settings.apply(inspector);
        over.into_iter()
            .for_each(|event| self.reporter.event(event));
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
        let now = self.line.now();
        self.line
            .with_parts(|parts| parts.set_observe(observe, now));
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

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma};
    use scoring::inspect::frame::Pixels;

    use super::*;

    #[test]
    fn golden_frames_are_read_as_the_active_package_reads_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("good.png");
        let white = ImageBuffer::<Luma<u16>, _>::from_pixel(9, 7, Luma([4_095]));
        white.save(&path).unwrap();
        let golden = GoldenFrames::new(Some(&path), None);
        let brightest = |bits| {
            let reading = Reading {
                bits,
                ..Reading::default()
            };
            assert_eq!(golden.problem(&reading), None);
            let frame = golden.good.as_ref().unwrap().get(&reading).unwrap();
            match frame.pixels() {
                Pixels::U16(values) => values[0],
                Pixels::U8(_) => panic!("expected 16 bit"),
            }
        };
        assert_eq!(brightest(16), 4_095);
        assert_eq!(brightest(12), u16::MAX);
        let ten = Reading {
            bits: 10,
            ..Reading::default()
        };
        let problem = golden.problem(&ten).unwrap();
        assert!(problem.contains("10 bits"), "{problem}");
    }
}
