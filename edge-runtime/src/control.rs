//! What can be asked of a running camera: settings that stations read and change, the golden-sample check, the last
//! frame. In: commands. Out: answers, and events for the journal.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::manifest::Roi;
use proto::message::{Answer, Command, Mode, SnapshotKind, cut_text};
use proto::report::{Event, GoldenResult};

use crate::inspect::frame::Frame;
use crate::inspect::verdict::Verdict;
use crate::inspector::{Inspection, Inspector};
use crate::io::image_file::{ImageFileError, read_frame};
use crate::io::picture::{png, tiff};
use crate::metrics::Metrics;
use crate::pipeline::LineShared;
use crate::reporting::Reporter;
use crate::update::model_name;

/// The last part that was scored.
#[derive(Debug)]
pub struct Last {
    /// Number of the part.
    pub part: u64,
    /// The frame as captured.
    pub frame: Frame,
    /// What was found.
    pub inspection: Inspection,
}

/// Frames that must be OK and NG.
#[derive(Debug, Default)]
pub struct GoldenFrames {
    good: Option<Frame>,
    bad: Option<Frame>,
}

impl GoldenFrames {
    /// Reads those that are configured.
    pub fn read(good: Option<&Path>, bad: Option<&Path>) -> Result<Self, ImageFileError> {
        Ok(Self {
            good: good.map(read_frame).transpose()?,
            bad: bad.map(read_frame).transpose()?,
        })
    }
}

/// Shared by scoring, links and schedules.
#[derive(Debug)]
pub struct Control {
    inspector: Mutex<Option<Arc<Inspector>>>,
    observe: AtomicBool,
    last: Mutex<Option<Arc<Last>>>,
    /// Frames that could not be scored since the last that could.
    failures: AtomicU32,
    golden: GoldenFrames,
    line: Arc<LineShared>,
    reporter: Reporter,
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// Puts an inspector to work, or waits for one.
    pub fn new(
        inspector: Option<Inspector>,
        mode: Mode,
        golden: GoldenFrames,
        line: Arc<LineShared>,
        reporter: Reporter,
        metrics: Arc<Metrics>,
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
        };
        control.put_mode(mode);
        if let Some(inspector) = inspector {
            control.activate(inspector);
        }
        control
    }

    /// The inspector in force; `None` until there is a model.
    pub fn inspector(&self) -> Option<Arc<Inspector>> {
        lock(&self.inspector).clone()
    }

    /// Another model inspects from the next frame on, with its own settings.
    pub fn activate(&self, inspector: Inspector) {
        self.metrics
            .set_model(&model_name(&inspector), &inspector.model_id());
        self.failures.store(0, Ordering::Relaxed);
        *lock(&self.inspector) = Some(Arc::new(inspector));
        // The gate follows parts from now on, if there was no model before.
        self.line.wake();
    }

    /// Whether a frame could be scored.
    pub fn scored(&self, done: bool) {
        if done {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Frames that could not be scored since the last that could.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last part that was scored.
    pub fn last(&self) -> Option<Arc<Last>> {
        lock(&self.last).clone()
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        if self.observe.load(Ordering::Relaxed) {
            Mode::Observe
        } else {
            Mode::Inspect
        }
    }

    fn put_mode(&self, mode: Mode) {
        let observe = mode == Mode::Observe;
        self.observe.store(observe, Ordering::Relaxed);
        self.line.with(|parts| parts.set_observe(observe));
    }

    /// Remembers the last part.
    pub fn set_last(&self, last: Arc<Last>) {
        *lock(&self.last) = Some(last);
    }

    /// Carries out a command of a station. A snapshot's pictures come second.
    pub fn execute(
        &self,
        station: &str,
        command: Command,
    ) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
        let answer = match command {
            Command::ReadThreshold => {
                Answer::Threshold(self.inspector().and_then(|inspector| inspector.threshold()))
            }
            Command::SetThreshold { value, reason } => {
                if !(value.is_finite() && value >= 0.0) {
                    return refused(format!("expected a threshold of at least 0, found {value}"));
                }
                let Some(before) = self.replace(|inspector| inspector.with_threshold(value)) else {
                    return no_model();
                };
                let before = before
                    .threshold()
                    .map_or_else(|| "none".to_owned(), |value| value.to_string());
                self.changed("threshold", before, value.to_string(), reason, station);
                Answer::Done
            }
            Command::ReadMask => match self.inspector() {
                Some(inspector) => Answer::Mask(inspector.manifest().roi.clone()),
                None => return no_model(),
            },
            Command::SetMask { roi, reason } => {
                let after = describe(&roi);
                // Here, not in the scoring thread: a part must not wait for a mask.
                let Some(inspector) = self.inspector() else {
                    return no_model();
                };
                let prepared = (*inspector).clone().with_roi(roi);
                let (width_px, height_px) = self.map_size();
                if let Err(error) = prepared.prepare_roi(width_px, height_px) {
                    return refused(format!("the mask cannot be used: {error}"));
                }
                let before = self.replace(|inspector| inspector.with_roi_of(&prepared));
                let before = describe(&before.unwrap_or(inspector).manifest().roi);
                self.changed("mask", before, after, reason, station);
                Answer::Done
            }
            Command::ReadMode => Answer::Mode(self.mode()),
            Command::SetMode { mode, reason } => {
                let before = format!("{:?}", self.mode()).to_lowercase();
                self.put_mode(mode);
                let after = format!("{mode:?}").to_lowercase();
                self.changed("mode", before, after, reason, station);
                Answer::Done
            }
            Command::Snapshot => return self.snapshot(),
            Command::GoldenCheck => Answer::Golden(self.golden_check()),
            Command::ReadHealth => Answer::Health(self.metrics.health(self.mode())),
            // The link's own.
            Command::ReadSlots
            | Command::ReadStations
            | Command::RevokeStation { .. }
            | Command::OpenPairing { .. }
            | Command::ListFiles { .. }
            | Command::FetchFile { .. } => {
                return refused("this cannot be asked for here".to_owned());
            }
        };
        (answer, Vec::new())
    }

    /// Width and height of the last anomaly map in pixels; before the first one, a size at which most masks can be
    /// checked.
    fn map_size(&self) -> (usize, usize) {
        let last = lock(&self.last);
        last.as_ref().map_or((256, 256), |last| {
            let map = &last.inspection.map;
            (map.width_px, map.height_px)
        })
    }

    /// Swaps the inspector between two frames; the old one comes back.
    fn replace(&self, change: impl FnOnce(Inspector) -> Inspector) -> Option<Arc<Inspector>> {
        let mut inspector = lock(&self.inspector);
        let changed = change((**inspector.as_ref()?).clone());
        inspector.replace(Arc::new(changed))
    }

    fn changed(&self, setting: &str, before: String, after: String, reason: String, station: &str) {
        tracing::info!(setting, before, after, reason, station, "setting changed");
        self.reporter.event(Event::SettingChanged {
            setting: setting.to_owned(),
            before,
            after,
            reason,
            station: station.to_owned(),
        });
    }

    fn snapshot(&self) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
        let Some(last) = self.last() else {
            return refused("no frame has been scored yet".to_owned());
        };
        let pictures = png(&last.frame).and_then(|frame| Ok((frame, tiff(&last.inspection.map)?)));
        match pictures {
            Ok((frame, map)) => {
                let answer = Answer::Snapshot {
                    part: last.part,
                    score: Some(last.inspection.score),
                    bytes: [frame.len() as u32, map.len() as u32],
                };
                let pictures = vec![
                    (SnapshotKind::FramePng, frame),
                    (SnapshotKind::MapTiff, map),
                ];
                (answer, pictures)
            }
            Err(error) => refused(error.to_string()),
        }
    }

    /// Golden tiles, then the frame that must be OK and the one that must be NG; the result is journalled.
    pub fn golden_check(&self) -> GoldenResult {
        let Some(inspector) = self.inspector() else {
            let detail = "no model is active".to_owned();
            return GoldenResult {
                passed: false,
                detail,
            };
        };
        let mut passed = true;
        let mut found = Vec::new();
        match inspector.check_parity() {
            Ok(off) => found.push(format!(
                "{} golden tiles within {off:.2e}",
                inspector.manifest().golden.len()
            )),
            Err(error) => {
                passed = false;
                found.push(error.to_string());
            }
        }
        let frames = [
            ("good", &self.golden.good, Verdict::Ok),
            ("bad", &self.golden.bad, Verdict::Ng),
        ];
        for (name, frame, expected) in frames {
            let Some(frame) = frame else { continue };
            match inspector.inspect(frame) {
                Ok(inspection) => {
                    let right = inspection.verdict == Some(expected);
                    passed &= right;
                    found.push(format!(
                        "{name} frame scores {:.4}: {}",
                        inspection.score,
                        if right {
                            "as expected"
                        } else {
                            "WRONG verdict"
                        }
                    ));
                }
                Err(error) => {
                    passed = false;
                    found.push(format!("{name} frame: {error}"));
                }
            }
        }
        let result = GoldenResult {
            passed,
            detail: cut_text(&found.join("; ")),
        };
        tracing::info!(passed, detail = result.detail, "golden check");
        self.reporter.event(Event::GoldenCheck(result.clone()));
        result
    }
}

fn refused(reason: String) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
    let reason = cut_text(&reason);
    (Answer::Refused { reason }, Vec::new())
}

fn no_model() -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
    refused("no model is active".to_owned())
}

fn describe(roi: &Roi) -> String {
    match roi {
        Roi::Whole => "whole frame".to_owned(),
        Roi::Polygons(polygons) => format!("{} polygons", polygons.len()),
        Roi::Bitmap { width, height, .. } => format!("bitmap of {width}×{height}"),
    }
}
