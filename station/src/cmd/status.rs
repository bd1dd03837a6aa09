//! `station status`: how cameras are.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use proto::message::{Answer, Command, Health, Start};
use serde::Serialize;
use serde_json::json;

use super::{meant, print_json, unexpected};
use crate::client::{Client, Place};
use crate::home::Home;

/// Tables are renewed so often.
const EVERY: Duration = Duration::from_secs(2);

/// How cameras are: model, counts, scoring time, faults.
#[derive(Args)]
pub(crate) struct Status {
    /// The cameras; all that are paired unless given.
    cameras: Vec<Place>,
    /// Go on until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Row {
    camera: String,
    /// Why nothing is known.
    error: Option<String>,
    model: Option<String>,
    program: Option<String>,
    health: Option<Health>,
}

fn row(home: &Home, place: &Place) -> Row {
    let mut row = Row {
        camera: place.to_string(),
        error: None,
        model: None,
        program: None,
        health: None,
    };
    let asked = Client::greet(home, place, Start::Now).and_then(|(mut client, hello)| {
        row.model = Some(hello.model);
        row.program = Some(hello.program);
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

/// All at once: one that does not answer holds up no other.
fn rows(home: &Home, places: &[Place]) -> Vec<Row> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(move || row(home, place)))
            .collect();
        let answers = asked.into_iter().map(std::thread::ScopedJoinHandle::join);
        answers.flatten().collect()
    })
}

impl Status {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let home = Home::open()?;
        let places = meant(&home, &self.cameras)?;
        loop {
            let started = Instant::now();
            let rows = rows(&home, &places);
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
            std::thread::sleep(EVERY.saturating_sub(started.elapsed()));
            println!();
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
    println!(
        "{:<names$}  {:<models$}  {:>9}  {:>7}  {:>7}  {:>9}  {:>7}  STATE",
        "CAMERA", "MODEL", "OK", "NG", "FAULT", "SCORE MS", "UP"
    );
    for row in rows {
        let model = row.model.as_deref().unwrap_or_default();
        let Some(health) = &row.health else {
            let error = row.error.as_deref().unwrap_or_default();
            println!("{:<names$}  {model:<models$}  {error}", row.camera);
            continue;
        };
        let [ok, ng, fault] = health.parts;
        let state = match (health.capturing, model.is_empty()) {
            (_, true) => "no model".to_owned(),
            (false, _) => "no frames".to_owned(),
            (true, _) => format!("{:?}", health.mode).to_lowercase(),
        };
        println!(
            "{:<names$}  {model:<models$}  {ok:>9}  {ng:>7}  {fault:>7}  {:>9.1}  {:>7}  {state}",
            row.camera,
            f64::from(health.scoring_us[0]) / 1e3,
            uptime(health.uptime_s)
        );
    }
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
