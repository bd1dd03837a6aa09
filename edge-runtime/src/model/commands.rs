//! Commands of stations to the active model: settings, golden check, snapshot of the last part.
//!
//! In: commands. Out: answers, and events for the journal. `link` checks who may send which.

use std::sync::Arc;

use proto::manifest::Roi;
use proto::message::{Answer, Command, SnapshotKind, cut_text};
use proto::report::{Event, GoldenResult};
use scoring::inspect::verdict::Verdict;
use scoring::inspector::Inspector;
use scoring::io::picture::{png, tiff};

use super::active::{Control, lock};
use crate::error_text::one_line;
use crate::line::readiness::Condition;

impl Control {
    /// Carries out a command of a station. Returns the answer and, for a snapshot, its pictures.
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
                // The mask is rasterised here, because a part must not wait for it.
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
                self.apply_mode(mode);
                let after = format!("{mode:?}").to_lowercase();
                self.changed("mode", before, after, reason, station);
                Answer::Done
            }
            Command::Snapshot => return self.snapshot(),
            Command::GoldenCheck => Answer::Golden(self.golden_check()),
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

    /// Replaces the inspector between two frames and returns the old one.
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
    /// the result. A check that passes also ends a row of parts without a verdict.
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
            let frame = match frame.get() {
                Ok(frame) => frame,
                Err(error) => {
                    passed = false;
                    found.push(format!("{name} frame: {}", one_line(&error)));
                    continue;
                }
            };
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
        self.readiness.set_failing(Condition::Golden, !passed);
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

fn describe(roi: &Roi) -> String {
    match roi {
        Roi::Whole => "whole frame".to_owned(),
        Roi::Polygons(polygons) => format!("{} polygons", polygons.len()),
        Roi::Bitmap { width, height, .. } => format!("bitmap of {width}×{height}"),
    }
}
