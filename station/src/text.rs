//! Records as lines of text, for people at the line.

use proto::name::displayable;
use proto::report::{Body, DriftKind, Event, GateAction, Outcome, PartReport, Record};

/// A record as a line; `None` for an OK part unless `all` is true.
pub(crate) fn record_line(record: &Record, all: bool) -> Option<String> {
    match &record.body {
        Body::Event(event) => Some(displayable(&event_line(event))),
        Body::Part(part) if part.outcome == Outcome::Ok && !all => None,
        Body::Part(part) => Some(part_line(part)),
    }
}

/// A part as a line.
pub(crate) fn part_line(part: &PartReport) -> String {
    let gate = match part.action {
        GateAction::None => "",
        GateAction::Pass => ", passed",
        GateAction::Reject => ", rejected",
    };
    let number = part.part;
    let value = |score: Option<f32>| score.map_or("?".to_owned(), |score| format!("{score:.4}"));
    let (score, threshold) = (value(part.score), value(part.threshold));
    match part.outcome {
        Outcome::Ok => format!("part {number} OK {score}{gate}"),
        Outcome::Ng => format!(
            "part {number} NG {score} > {threshold}, {} {}{gate}",
            part.regions_found,
            if part.regions_found == 1 {
                "region"
            } else {
                "regions"
            },
        ),
        Outcome::Fault(fault) => format!("part {number} FAULT {fault:?}{gate}"),
    }
}

/// Who did it.
fn by(station: &str) -> String {
    match station {
        "" => "by the camera itself".to_owned(),
        station => format!("by {station}"),
    }
}

/// An event as a line.
fn event_line(event: &Event) -> String {
    match event {
        Event::Started { version, model, .. } if model.is_empty() => {
            format!("started, version {version}, no model")
        }
        Event::Started { version, model, .. } => format!("started, version {version}, {model}"),
        Event::Stopping => "stopping".to_owned(),
        Event::CaptureLost { reason } => format!("NO FRAMES: {reason}"),
        Event::CaptureResumed { after_ms, attempts } => {
            let seconds = *after_ms as f64 / 1e3;
            format!("frames resumed after {seconds:.1} s and {attempts} attempts")
        }
        Event::RecordsLost { count, reason } => format!("{count} RECORDS LOST: {reason}"),
        Event::StageRestarted { stage, reason } => format!("{stage} restarted: {reason}"),
        Event::GoldenCheck(result) if result.passed => {
            format!("golden check passed: {}", result.detail)
        }
        Event::GoldenCheck(result) => format!("GOLDEN CHECK FAILED: {}", result.detail),
        Event::Drift {
            kind,
            found,
            expected,
        } => {
            let what = match kind {
                DriftKind::Brightness => "brightness",
                DriftKind::Contrast => "contrast",
                DriftKind::Sharpness => "sharpness",
                DriftKind::Surface => "surface",
            };
            format!("DRIFT of {what}: {found:.4}, was {expected:.4}")
        }
        Event::SettingChanged {
            setting,
            before,
            after,
            reason,
            station,
        } => format!(
            "{setting} changed from {before} to {after} {}: {reason}",
            by(station)
        ),
        Event::GateFault { reason } => format!("GATE FAULT: {reason}"),
        Event::PackageActivated {
            model,
            parity_off,
            trial,
            station,
            ..
        } => {
            let trial = if *trial { " on trial" } else { "" };
            let by = by(station);
            format!("{model} activated{trial} {by}, golden tiles within {parity_off:.2e}")
        }
        Event::PackageRefused { reason, station } => {
            format!("package refused, offered {}: {reason}", by(station))
        }
        Event::PackageConfirmed { model, station, .. } => {
            format!("{model} confirmed {}", by(station))
        }
        Event::RolledBack {
            model,
            reason,
            station,
            ..
        } => format!("rolled back to {model} {}: {reason}", by(station)),
        Event::LinkRefused {
            peer,
            reason,
            count,
        } => format!("{peer} refused {count} times: {reason}"),
        Event::StationPaired { station, role, .. } => format!("{station} paired, role {role}"),
        Event::StationRevoked {
            station,
            reason,
            by: who,
        } => format!("{station} revoked {}: {reason}", by(who)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_but_an_ok_part_has_a_line() {
        let part = |outcome| PartReport {
            part: 7,
            frame_sequence: 0,
            model_id: [0; 8],
            outcome,
            action: GateAction::Reject,
            score: Some(0.75),
            threshold: Some(0.5),
            latency_us: 0,
            regions: Vec::new(),
            regions_found: 1,
            heat_map: None,
            thumbnail_jpeg: None,
        };
        let record = |body| Record {
            unix_ms: 0,
            boot: 1,
            body,
        };
        let ok = record(Body::Part(part(Outcome::Ok)));
        assert_eq!(record_line(&ok, false), None);
        assert_eq!(
            record_line(&ok, true).as_deref(),
            Some("part 7 OK 0.7500, rejected")
        );
        let ng = record_line(&record(Body::Part(part(Outcome::Ng))), false);
        assert_eq!(
            ng.as_deref(),
            Some("part 7 NG 0.7500 > 0.5000, 1 region, rejected")
        );
        let lost = Event::CaptureLost {
            reason: "un\x1b[2Jplugged\n".into(),
        };
        let lost = record_line(&record(Body::Event(lost)), false);
        assert_eq!(lost.as_deref(), Some("NO FRAMES: un·[2Jplugged·"));
    }
}
