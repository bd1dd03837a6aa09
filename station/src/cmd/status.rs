//! `station status` and `station watch`: how cameras are, once or for as long as somebody looks.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use proto::message::{Answer, Command, FromCamera, Health, Start, ToCamera};
use proto::report::{Body, Outcome, Record};
use serde::Serialize;

use super::{meant, print_json, unexpected};
use crate::client::{Client, Heard, Place};
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
                print_json(&rows)?;
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

/// Parts and events of cameras as they come, a line each, until Ctrl-C.
#[derive(Args)]
pub(crate) struct Watch {
    /// The cameras; all that are paired unless given.
    cameras: Vec<Place>,
    /// OK parts too.
    #[arg(long)]
    all: bool,
}

impl Watch {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let home = Home::open()?;
        let places = meant(&home, &self.cameras)?;
        std::thread::scope(|scope| {
            for place in &places {
                let home = &home;
                scope.spawn(move || {
                    loop {
                        if let Err(error) = self.follow(home, place, json) {
                            eprintln!("{place}: {error:#}");
                        }
                        std::thread::sleep(EVERY);
                    }
                });
            }
        });
        Ok(())
    }

    fn follow(&self, home: &Home, place: &Place, json: bool) -> Result<()> {
        let (mut client, hello) = Client::greet(home, place, Start::Now)?;
        eprintln!("{place}: {}, {}", hello.camera, hello.model);
        loop {
            let Some(Heard::Message(message)) = client.next()? else {
                continue;
            };
            match *message {
                FromCamera::Record { sequence, record } => {
                    if json {
                        let camera = place.to_string();
                        let line = serde_json::json!({
                            "camera": camera, "sequence": sequence, "record": record,
                        });
                        println!("{line}");
                    } else if let Some(line) = self.line(&record) {
                        println!("{place}: {line}");
                    }
                    client.send(&ToCamera::Acknowledge { sequence })?;
                }
                FromCamera::Goodbye { reason } => anyhow::bail!("{reason}"),
                _ => {}
            }
        }
    }

    fn line(&self, record: &Record) -> Option<String> {
        match &record.body {
            Body::Event(event) => Some(format!("event {event:?}")),
            Body::Part(part) => {
                let score = part.score.unwrap_or_default();
                let threshold = part.threshold.unwrap_or_default();
                match part.outcome {
                    Outcome::Ok if !self.all => None,
                    Outcome::Ok => Some(format!("part {} OK {score:.4}", part.part)),
                    Outcome::Ng => Some(format!(
                        "part {} NG {score:.4} > {threshold:.4}, {} regions, {:?}",
                        part.part, part.regions_found, part.action
                    )),
                    Outcome::Fault(fault) => Some(format!(
                        "part {} FAULT {fault:?}, {:?}",
                        part.part, part.action
                    )),
                }
            }
        }
    }
}
