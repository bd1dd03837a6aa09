//! `station status`: shows the state of cameras.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use proto::message::{Answer, Command, Health, Readiness, SettingSource, Settings, Start};
use serde::Serialize;
use serde_json::json;

use super::{cameras_or_all, print_json, unexpected};
use crate::client::{Client, Endpoint};
use crate::key_store::KeyStore;

/// Time between two tables of `--watch`.
const PERIOD: Duration = Duration::from_secs(2);

/// Show the state of cameras: model, numbers of OK, NG and faulty parts, scoring time, uptime.
#[derive(Args)]
pub(crate) struct Status {
    /// The cameras [default: all paired cameras].
    cameras: Vec<Endpoint>,
    /// Print a new table every 2 s until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// What is known of one camera.
#[derive(Serialize)]
struct Row {
    camera: String,
    /// Why the camera did not answer.
    error: Option<String>,
    model: Option<String>,
    program: Option<String>,
    health: Option<Health>,
    /// `None` if the camera's program is too old to tell.
    settings: Option<Settings>,
    /// `None` if the camera's program is too old to tell.
    readiness: Option<Readiness>,
}

/// Protocol version from which on a camera tells whether it is ready, and where its settings come
/// from.
const DETAILS_SINCE: u16 = 3;

/// Asks one camera.
fn row(key_store: &KeyStore, endpoint: &Endpoint) -> Row {
    let mut row = Row {
        camera: endpoint.to_string(),
        error: None,
        model: None,
        program: None,
        health: None,
        settings: None,
        readiness: None,
    };
    let asked = Client::greet(key_store, endpoint, Start::Now).and_then(|(mut client, hello)| {
        row.model = Some(hello.model);
        row.program = Some(hello.program);
        if hello.version >= DETAILS_SINCE {
            match client.ask(Command::ReadReadiness)? {
                Answer::Readiness(readiness) => row.readiness = Some(readiness),
                other => return unexpected(&other),
            }
            match client.ask(Command::ReadSettings)? {
                Answer::Settings(settings) => row.settings = Some(settings),
                other => return unexpected(&other),
            }
        }
        match client.ask(Command::ReadHealth)? {
            Answer::Health(health) => Ok(health),
            other => unexpected(&other),
        }
    });
    match asked {
        Ok(health) => row.health = Some(health),
        Err(error) => row.error = Some(format!("{error:#}")),
    }
    row
}

/// Asks all cameras at once, so that one that does not answer delays no other.
fn rows(key_store: &KeyStore, endpoints: &[Endpoint]) -> Vec<Row> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = endpoints
            .iter()
            .map(|endpoint| scope.spawn(move || row(key_store, endpoint)))
            .collect();
        let answers = asked.into_iter().map(std::thread::ScopedJoinHandle::join);
        answers.flatten().collect()
    })
}

impl Status {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let key_store = KeyStore::open()?;
        let endpoints = cameras_or_all(&key_store, &self.cameras)?;
        loop {
            let started = Instant::now();
            let rows = rows(&key_store, &endpoints);
            if json {
                print_json(json!({ "cameras": rows }))?;
            } else {
                print_table(&rows);
            }
            if !self.watch {
                let silent = rows.iter().filter(|row| row.error.is_some()).count();
                if silent > 0 {
                    anyhow::bail!("{silent} of {} cameras do not answer", rows.len());
                }
                return Ok(());
            }
            std::thread::sleep(PERIOD.saturating_sub(started.elapsed()));
            say!("");
        }
    }
}

fn print_table(rows: &[Row]) {
    let widest = |length: fn(&Row) -> usize, least: usize| {
        rows.iter().map(length).max().unwrap_or(0).max(least)
    };
    let names = widest(|row| row.camera.chars().count(), 6);
    let models = widest(
        |row| row.model.as_ref().map_or(0, |model| model.chars().count()),
        5,
    );
    say!(
        "{:<names$}  {:<models$}  {:>9}  {:>7}  {:>7}  {:>9}  {:>7}  STATE",
        "CAMERA",
        "MODEL",
        "OK",
        "NG",
        "FAULT",
        "SCORE MS",
        "UP"
    );
    for row in rows {
        let model = row.model.as_deref().unwrap_or_default();
        let Some(health) = &row.health else {
            let error = row.error.as_deref().unwrap_or_default();
            say!("{:<names$}  {model:<models$}  {error}", row.camera);
            continue;
        };
        let [ok, ng, fault] = health.parts;
        let state = state(health, row.readiness.as_ref(), model.is_empty());
        say!(
            "{:<names$}  {model:<models$}  {ok:>9}  {ng:>7}  {fault:>7}  {:>9.1}  {:>7}  {state}",
            row.camera,
            f64::from(health.scoring_us[0]) / 1e3,
            uptime(health.uptime_s)
        );
        for line in row.settings.iter().flat_map(made_by_stations) {
            say!("  {line}");
        }
    }
}

/// What the camera does, in a few words.
fn state(health: &Health, readiness: Option<&Readiness>, without_model: bool) -> String {
    let mode = format!("{:?}", health.mode).to_lowercase();
    match readiness {
        _ if without_model => "no model".to_owned(),
        Some(found) if found.gate_held => format!("GATE HELD: {}", found.failing.join(", ")),
        Some(found) if found.fault => format!("{mode}, FAULT: {}", found.failing.join(", ")),
        _ if !health.capturing => "no frames".to_owned(),
        _ => mode,
    }
}

/// A line for each setting that a station has made.
fn made_by_stations(settings: &Settings) -> Vec<String> {
    let threshold = settings.threshold.map(|value| value.to_string());
    let mode = format!("{:?}", settings.mode).to_lowercase();
    let all = [
        (
            "threshold",
            threshold.unwrap_or_default(),
            &settings.threshold_from,
        ),
        ("mask", settings.mask.clone(), &settings.mask_from),
        ("mode", mode, &settings.mode_from),
    ];
    all.into_iter()
        .filter_map(|(name, value, source)| match source {
            SettingSource::Station {
                station,
                reason,
                unix_ms,
            } => {
                let ago = uptime(age_s(*unix_ms));
                Some(format!(
                    "{name} {value}: set by {station} {ago} ago: {reason}"
                ))
            }
            SettingSource::Package | SettingSource::Configuration => None,
        })
        .collect()
}

/// Age of a time of the camera's clock, in seconds; 0 if that is ahead of ours.
fn age_s(unix_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    now_ms.saturating_sub(unix_ms) / 1_000
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proto::message::Mode;

    use super::*;

    #[test]
    fn a_held_gate_is_never_shown_as_inspecting() {
        let health = Health {
            uptime_s: 60,
            capturing: true,
            frames: 10,
            frames_lost: 0,
            parts: [10, 0, 0],
            records_lost: 0,
            scoring_us: [1, 2],
            memory_bytes: 1,
            temperature_c: None,
            mode: Mode::Inspect,
        };
        let of = |gate_held: bool, fault, failing: &[&str]| Readiness {
            ready: !gate_held,
            fault,
            gate_held,
            failing: failing.iter().map(|&name| name.to_owned()).collect(),
        };
        let shown = |readiness: &Readiness| state(&health, Some(readiness), false);
        assert_eq!(shown(&of(false, false, &[])), "inspect");
        let held = of(true, true, &["pairing", "drift"]);
        assert_eq!(shown(&held), "GATE HELD: pairing, drift");
        assert_eq!(shown(&of(false, true, &["drift"])), "inspect, FAULT: drift");
        assert_eq!(state(&health, None, false), "inspect");
        assert_eq!(state(&health, Some(&held), true), "no model");
    }

    #[test]
    fn settings_of_stations_are_told_and_others_are_not() {
        let settings = Settings {
            threshold: Some(0.5),
            threshold_from: SettingSource::Station {
                station: "office".into(),
                reason: "complaint 12".into(),
                unix_ms: 0,
            },
            mask: "whole frame".into(),
            mask_from: SettingSource::Package,
            mode: Mode::Inspect,
            mode_from: SettingSource::Configuration,
        };
        let lines = made_by_stations(&settings);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("threshold 0.5: set by office "));
        assert!(lines[0].ends_with(" d ago: complaint 12"));
    }
}
