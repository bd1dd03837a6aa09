//! Commands of stations to the active model: settings, golden check, snapshot of the last part.
//!
//! In: commands. Out: answers, and events for the journal. `link` checks who may send which.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proto::message::{Answer, Command, Settings, SnapshotKind, cut_text};
use proto::report::{Event, GoldenResult};
use scoring::inspect::roi;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::Inspector;
use scoring::io::atomic::WriteError;
use scoring::io::picture::{png, tiff};

use super::active::{Control, lock};
use super::settings::{By, Configured, mode_text, roi_text, threshold_text};
use crate::error_text::one_line;
use crate::line::readiness::Condition;
use crate::stage::supervise::panic_text;

impl Control {
    /// Carries out a command of a station. Returns the answer and, for a snapshot, its pictures.
    pub fn execute(
        &self,
        station: &str,
        command: Command,
    ) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
        // One change at a time, so that what is in force is what is on the disk.
        let is_change = matches!(
            command,
            Command::SetThreshold { .. } | Command::SetMask { .. } | Command::SetMode { .. }
        );
        let _changing = is_change.then(|| lock(&self.changing));
        let answer = match command {
            Command::ReadThreshold => {
                Answer::Threshold(self.inspector().and_then(|inspector| inspector.threshold()))
            }
            Command::SetThreshold { value, reason } => {
                if !(value.is_finite() && value >= 0.0) {
                    return refused(format!("expected a threshold of at least 0, found {value}"));
                }
                let Some(inspector) = self.inspector() else {
                    return no_model();
                };
                let by = By {
                    station,
                    reason: &reason,
                };
                let instead_of = lock(&self.without).0;
                let id = inspector.model_id();
                if let Err(error) = self.settings.set_threshold(&id, value, instead_of, by) {
                    return not_durable(&error);
                }
                let Some(before) = self.replace(&id, |inspector| inspector.with_threshold(value))
                else {
                    return replaced();
                };
                let before = threshold_text(before.threshold());
                self.changed("threshold", before, value.to_string(), reason, station);
                Answer::Done
            }
            Command::ReadMask => match self.inspector() {
                Some(inspector) => Answer::Mask(inspector.manifest().roi.clone()),
                None => return no_model(),
            },
            Command::SetMask { roi, reason } => {
                let after = roi_text(&roi);
                // The mask is rasterised here, because a part must not wait for it.
                let Some(inspector) = self.inspector() else {
                    return no_model();
                };
                if roi::widens(inspector.calibrated_roi(), &roi) {
                    return refused(
                        "this mask is larger than the one that the threshold was calibrated for: \
                         package and calibrate with it, or choose a smaller one"
                            .to_owned(),
                    );
                }
                let prepared = (*inspector).clone().with_roi(roi.clone());
                let (width_px, height_px) = self.map_size();
                if let Err(error) = prepared.prepare_roi(width_px, height_px) {
                    return refused(format!("the mask cannot be used: {error}"));
                }
                let by = By {
                    station,
                    reason: &reason,
                };
                let instead_of = lock(&self.without).1.clone();
                let id = inspector.model_id();
                if let Err(error) = self.settings.set_roi(&id, roi, instead_of, by) {
                    return not_durable(&error);
                }
                let Some(before) = self.replace(&id, |inspector| inspector.with_roi_of(&prepared))
                else {
                    return replaced();
                };
                let before = roi_text(&before.manifest().roi);
                self.changed("mask", before, after, reason, station);
                Answer::Done
            }
            Command::ReadMode => Answer::Mode(self.mode()),
            Command::SetMode { mode, reason } => {
                let before = mode_text(self.mode());
                let by = By {
                    station,
                    reason: &reason,
                };
                if let Err(error) = self.settings.set_mode(mode, self.configured.mode, by) {
                    return not_durable(&error);
                }
                self.apply_mode(mode);
                self.changed("mode", before, mode_text(mode), reason, station);
                Answer::Done
            }
            Command::Snapshot => return self.snapshot(),
            Command::GoldenCheck => Answer::Golden(self.golden_check()),
            Command::ReadSettings => Answer::Settings(self.settings_in_force()),
            Command::ReadReadiness => Answer::Readiness(self.readiness.snapshot()),
            Command::ReadHealth => Answer::Health(self.metrics.health(self.mode())),
            // `link` answers these itself.
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

    /// Width and height in pixels of the last anomaly map. Before the first one, a size at which
    /// most masks can be checked.
    fn map_size(&self) -> (usize, usize) {
        let last = lock(&self.last);
        last.as_ref().map_or((256, 256), |last| {
            let map = &last.inspection.map;
            (map.width_px, map.height_px)
        })
    }

    fn settings_in_force(&self) -> Settings {
        let inspector = self.inspector();
        let without = lock(&self.without).0;
        let configured = Configured {
            threshold: without.is_some() && without == self.configured.threshold,
            mask: self.configured.mask,
        };
        let id = inspector.as_ref().map(|inspector| inspector.model_id());
        let sources = self.settings.sources(id.as_ref(), configured);
        let roi = inspector
            .as_ref()
            .map(|inspector| &inspector.manifest().roi);
        Settings {
            threshold: inspector.as_ref().and_then(|found| found.threshold()),
            threshold_from: sources.threshold,
            mask: roi.map_or_else(String::new, roi_text),
            mask_from: sources.mask,
            mode: self.mode(),
            mode_from: sources.mode,
        }
    }

    /// Replaces the inspector of this model between two frames and returns the old one; `None` if
    /// another model has become active.
    fn replace(
        &self,
        model_id: &[u8; 8],
        change: impl FnOnce(Inspector) -> Inspector,
    ) -> Option<Arc<Inspector>> {
        let mut inspector = lock(&self.inspector);
        if inspector.as_ref()?.model_id() != *model_id {
            return None;
        }
        let changed = change((**inspector.as_ref()?).clone());
        inspector.replace(Arc::new(changed))
    }

    /// Reports a change. Somebody has looked at the settings now, if they could not be used before.
    fn changed(&self, setting: &str, before: String, after: String, reason: String, station: &str) {
        tracing::info!(setting, before, after, reason, station, "setting changed");
        self.readiness.set_failing(Condition::Settings, false);
        self.reporter.event(Event::SettingChanged {
            setting: setting.to_owned(),
            before,
            after,
            reason,
            station: station.to_owned(),
        });
    }

    fn snapshot(&self) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
        let Some(last) = self.last_part() else {
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

    /// Checks the golden tiles, the frame that must be OK and the one that must be NG, and journals
    /// the result. A check that passes also ends a row of parts without a verdict; one that panics
    /// has failed.
    pub fn golden_check(&self) -> GoldenResult {
        catch_unwind(AssertUnwindSafe(|| self.check_golden())).unwrap_or_else(|panic| {
            let detail = cut_text(&panic_text(&*panic));
            tracing::error!(detail, "the golden-sample check panicked");
            self.readiness.set_failing(Condition::Golden, true);
            self.line.wake();
            let passed = false;
            let result = GoldenResult { passed, detail };
            self.reporter.event(Event::GoldenCheck(result.clone()));
            result
        })
    }

    fn check_golden(&self) -> GoldenResult {
        let Some(inspector) = self.inspector() else {
            let detail = "no model is active".to_owned();
            return GoldenResult {
                passed: false,
                detail,
            };
        };
        let mut passed = true;
        let mut readable = true;
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
            let frame = match frame.get(inspector.reading()) {
                Ok(frame) => frame,
                // A frame that is missing says nothing about the verdicts.
                Err(error) => {
                    readable = false;
                    found.push(format!("{name} frame: {}", one_line(&error)));
                    continue;
                }
            };
            match inspector.inspect(&frame) {
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
            passed: passed && readable,
            detail: cut_text(&found.join("; ")),
        };
        tracing::info!(
            passed = result.passed,
            detail = result.detail,
            "golden check"
        );
        self.readiness.set_failing(Condition::Golden, !passed);
        self.readiness
            .set_failing(Condition::GoldenFrames, !readable);
        if passed {
            self.readiness.trust_verdicts();
        }
        self.line.wake();
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

fn replaced() -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
    refused("another package has just become active".to_owned())
}

fn not_durable(error: &WriteError) -> (Answer, Vec<(SnapshotKind, Vec<u8>)>) {
    refused(format!(
        "the setting is not changed, because it cannot be kept: {}",
        one_line(error)
    ))
}
