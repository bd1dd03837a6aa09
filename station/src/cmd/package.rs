//! Packages on cameras: what is in the slots, flash, confirm, roll back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_runtime::package::{Loaded, Trust, Verified, key_id};
use indicatif::{ProgressBar, ProgressStyle};
use proto::message::{Answer, Command, PackageState, SlotInfo, Start};
use proto::recovery::{Request, Response, Slot, SlotState};
use serde::Serialize;
use serde_json::json;

use super::{ask, meant, print_json, unexpected};
use crate::client::{Client, Place, read_file};
use crate::flash::{How, Progress, flash};
use crate::home::Home;

/// The first version that understands compressed pieces.
const DEFLATES_SINCE: u16 = 2;

/// What is in a camera's two slots.
#[derive(Args)]
pub(crate) struct Slots {
    /// The camera.
    camera: Place,
}

impl Slots {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let slots = read_slots(&self.camera)?;
        if json {
            return print_json(json!({ "slots": slots }));
        }
        print_slots(&slots);
        Ok(())
    }
}

fn read_slots(camera: &Place) -> Result<Vec<SlotInfo>> {
    match ask(camera, Command::ReadSlots)? {
        Answer::Slots(slots) => Ok(slots),
        other => unexpected(&other),
    }
}

fn print_slots(slots: &[SlotInfo]) {
    for (name, slot) in ["A", "B"].into_iter().zip(slots) {
        let state = format!("{:?}", slot.state).to_lowercase();
        if slot.state == PackageState::Empty {
            println!("{name}  {state}");
            continue;
        }
        let parity = slot.parity_off.map_or_else(String::new, |off| {
            format!("  golden tiles within {off:.2e}")
        });
        let threshold = slot.threshold.map_or_else(String::new, |threshold| {
            format!("  threshold {threshold:.4}")
        });
        println!(
            "{name}  {state:<6}  {}  sha256 {}  signed by {}{threshold}{parity}",
            slot.model,
            secure::hex(&slot.sha256[..8]),
            slot.signer
        );
    }
}

/// Bring a package to cameras and put it to work, on trial until it is confirmed.
///
/// The package is checked here first. A broken link is resumed, also after this program was stopped and started again.
/// The camera verifies signature and signer, scores the golden tiles, and swaps the model between two frames; if it is
/// not confirmed before its program ends, the model before is active again.
#[derive(Args)]
pub(crate) struct Flash {
    /// The package.
    package: PathBuf,
    /// The cameras.
    #[arg(required_unless_present = "all")]
    cameras: Vec<Place>,
    /// All paired cameras, one after the other, until one fails its check.
    #[arg(long, conflicts_with = "cameras")]
    all: bool,
    /// Confirm when the camera's golden-sample check passes.
    #[arg(long)]
    confirm: bool,
}

#[derive(Serialize)]
struct Flashed {
    camera: String,
    seconds: f64,
    confirmed: bool,
    slots: Vec<SlotInfo>,
}

impl Flash {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let home = Home::open()?;
        let bytes = read_file(&self.package)?;
        // Whom the cameras trust only they know; what is damaged or contradicts itself need not be sent.
        let package = Loaded::new(bytes)
            .and_then(|loaded| loaded.verify(&Trust::AnySigner))
            .with_context(|| format!("package {}", self.package.display()))?;
        let manifest = package.manifest();
        eprintln!(
            "{} {}, {:.1} MB, signed by {}",
            manifest.name,
            manifest.version,
            package.bytes().len() as f64 / 1e6,
            key_id(package.signer())
        );
        let mut done = Vec::new();
        for place in meant(&home, &self.cameras)? {
            let flashed = self
                .flash_one(&home, &place, &package, json)
                .with_context(|| format!("camera {place}"))?;
            if !json {
                println!("{place}: {:.1} s", flashed.seconds);
                print_slots(&flashed.slots);
                if !flashed.confirmed {
                    println!("on trial: `station confirm {place}` keeps it");
                }
            }
            done.push(flashed);
        }
        if json {
            print_json(json!({ "flashed": done }))?;
        }
        Ok(())
    }

    fn flash_one(
        &self,
        home: &Home,
        place: &Place,
        package: &Verified,
        json: bool,
    ) -> Result<Flashed> {
        let bytes = package.bytes();
        // A camera of another version may not even say hello; the recovery exchange needs none.
        let greeted = Client::greet(home, place, Start::Now);
        let version = greeted.as_ref().map_or(0, |(_, hello)| hello.version);
        drop(greeted);
        let how = How {
            is_serial: matches!(place, Place::Serial { .. }),
            deflates: version >= DEFLATES_SINCE,
        };
        if let Place::Serial { baud, .. } = place {
            // Ten bits a byte, and what frames and answers add.
            let seconds = bytes.len() as f64 * 10.5 / f64::from(*baud);
            let minutes = (seconds / 60.0).ceil();
            eprintln!("about {minutes:.0} min at {baud} baud");
        }
        let bar = progress_bar(bytes.len() as u64, json);
        let started = Instant::now();
        let flashed = flash(
            bytes,
            how,
            || Client::connect(home, place),
            |progress| match progress {
                Progress::At(offset) => bar.set_position(offset),
                Progress::Again => bar.set_message("link broken, trying again"),
                Progress::Trying => bar.set_message("the camera verifies and tries it"),
            },
        );
        bar.finish_and_clear();
        flashed?;
        let seconds = started.elapsed().as_secs_f64();
        if version == 0 {
            eprintln!(
                "{place} speaks another version: it was flashed through the recovery exchange"
            );
            return Ok(Flashed {
                camera: place.to_string(),
                seconds,
                confirmed: false,
                slots: frozen_slots(home, place)?,
            });
        }
        let (mut client, _) = Client::greet(home, place, Start::Now)?;
        if self.confirm || self.all {
            match client.ask(Command::GoldenCheck)? {
                Answer::Golden(result) if result.passed => {}
                Answer::Golden(result) => {
                    bail!(
                        "its golden-sample check fails, the package stays on trial: {}",
                        result.detail
                    )
                }
                other => return unexpected(&other),
            }
        }
        let mut slots = slots(&mut client)?;
        let on_trial = slots.iter().any(|slot| slot.state == PackageState::Trial);
        if self.confirm && on_trial {
            client.request(&Request::Confirm)?;
            client.response()?;
            slots = self::slots(&mut client)?;
        }
        Ok(Flashed {
            camera: place.to_string(),
            seconds,
            confirmed: self.confirm || !on_trial,
            slots,
        })
    }
}

/// As far as a camera of any version tells.
fn frozen_slots(home: &Home, place: &Place) -> Result<Vec<SlotInfo>> {
    let mut client = Client::connect(home, place)?;
    client.request(&Request::Slots)?;
    let Response::Slots(slots) = client.response()? else {
        bail!("the camera answers something else");
    };
    let info = |slot: Slot| SlotInfo {
        state: match slot.state {
            SlotState::Empty => PackageState::Empty,
            SlotState::Ready => PackageState::Ready,
            SlotState::Active => PackageState::Active,
            SlotState::Trial => PackageState::Trial,
        },
        sha256: slot.sha256,
        model: "unknown model".to_owned(),
        signer: "unknown".to_owned(),
        parity_off: None,
        threshold: None,
    };
    Ok(slots.map(info).into())
}

fn slots(client: &mut Client) -> Result<Vec<SlotInfo>> {
    match client.ask(Command::ReadSlots)? {
        Answer::Slots(slots) => Ok(slots),
        other => unexpected(&other),
    }
}

/// Shown on a terminal only.
pub(super) fn progress_bar(bytes: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left {msg}",
    );
    let bar = ProgressBar::new(bytes);
    bar.enable_steady_tick(Duration::from_millis(200));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn request(camera: &Place, request: &Request) -> Result<()> {
    let home = Home::open()?;
    // Without a hello: it works with a camera of any version.
    let mut client = Client::connect(&home, camera)?;
    client.request(request)?;
    match client
        .response()
        .with_context(|| format!("camera {camera}"))?
    {
        Response::Done => Ok(()),
        other => bail!("the camera answers {other:?}"),
    }
}

/// Keep the package that is on trial.
#[derive(Args)]
pub(crate) struct Confirm {
    /// The camera.
    camera: Place,
}

impl Confirm {
    pub(crate) fn run(&self) -> Result<()> {
        request(&self.camera, &Request::Confirm)
    }
}

/// Put the package of the other slot to work again.
#[derive(Args)]
pub(crate) struct Rollback {
    /// The camera.
    camera: Place,
}

impl Rollback {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        request(&self.camera, &Request::RollBack)?;
        let slots = read_slots(&self.camera)?;
        if json {
            return print_json(json!({ "slots": slots }));
        }
        print_slots(&slots);
        Ok(())
    }
}
