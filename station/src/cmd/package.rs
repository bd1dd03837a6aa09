//! Commands about the packages on cameras: slots, flash, confirm, rollback.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::message::{Answer, Command, PackageState, SlotInfo, Start};
use proto::recovery::{Request, SlotState, SlotStatus};
use scoring::package::{Loaded, Trust, Verified, key_id};
use serde::Serialize;
use serde_json::json;

use super::{ask, cameras_or_all, print_json, unexpected};
use crate::client::{Client, Endpoint, read_file};
use crate::flash::{Progress, TransferOptions, flash};
use crate::key_store::KeyStore;

/// The first version of the protocol with compressed chunks.
const COMPRESSION_SINCE: u16 = 2;

/// Show the packages in a camera's two slots.
///
/// Prints the state of each slot (empty, ready, active or trial), its package, and by how much the
/// camera's scores of the golden tiles differ from the trainer's.
#[derive(Args)]
pub(crate) struct Slots {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
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

fn read_slots(camera: &Endpoint) -> Result<Vec<SlotInfo>> {
    match ask(camera, Command::ReadSlots)? {
        Answer::Slots(slots) => Ok(slots),
        other => unexpected(&other),
    }
}

fn print_slots(slots: &[SlotInfo]) {
    for (name, slot) in ["A", "B"].into_iter().zip(slots) {
        let state = format!("{:?}", slot.state).to_lowercase();
        if slot.state == PackageState::Empty {
            say!("{name}  {state}");
            continue;
        }
        let parity = slot.parity_off.map_or_else(String::new, |off| {
            format!("  golden tiles within {off:.2e}")
        });
        let threshold = slot.threshold.map_or_else(String::new, |threshold| {
            format!("  threshold {threshold:.4}")
        });
        say!(
            "{name}  {state:<6}  {}  sha256 {}  signed by {}{threshold}{parity}",
            slot.model,
            secure::hex(&slot.sha256[..8]),
            slot.signer
        );
    }
}

/// Transfer a package to cameras and activate it, on trial until it is confirmed.
///
/// The package is checked on this machine first. The camera then verifies its signature and signer,
/// scores its golden tiles, and switches to it between two frames. If the package is not confirmed
/// before the camera's program ends, the previous one is active again. A broken transfer is
/// resumed, even after `station` was stopped and started again.
#[derive(Args)]
pub(crate) struct Flash {
    /// The package (.awr).
    package: PathBuf,
    /// The cameras to flash.
    #[arg(required_unless_present = "all")]
    cameras: Vec<Endpoint>,
    /// Flash all paired cameras, one after the other. Stops at the first whose golden-sample check
    /// fails.
    #[arg(long, conflicts_with = "cameras")]
    all: bool,
    /// Run the camera's golden-sample check, and confirm the package if it passes.
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
        let key_store = KeyStore::open()?;
        let bytes = read_file(&self.package)?;
        // Only the cameras know whom they trust. A damaged or inconsistent package is not sent.
        let package = Loaded::new(bytes)
            .and_then(|loaded| loaded.verify(&Trust::AnySigner))
            .with_context(|| format!("package {}", self.package.display()))?;
        let manifest = package.manifest();
        note!(
            "{} {}, {:.1} MB, signed by {}",
            manifest.name,
            manifest.version,
            package.bytes().len() as f64 / 1e6,
            key_id(package.signer())
        );
        let mut done = Vec::new();
        for endpoint in cameras_or_all(&key_store, &self.cameras)? {
            let flashed = self
                .flash_one(&key_store, &endpoint, &package, json)
                .with_context(|| format!("camera {endpoint}"))?;
            if !json {
                say!("{endpoint}: {:.1} s", flashed.seconds);
                print_slots(&flashed.slots);
                if !flashed.confirmed {
                    say!("on trial: `station confirm {endpoint}` keeps it");
                }
            }
            done.push(flashed);
        }
        if json {
            print_json(json!({ "flashed": done }))?;
        }
        Ok(())
    }

    /// Flashes one camera.
    fn flash_one(
        &self,
        key_store: &KeyStore,
        endpoint: &Endpoint,
        package: &Verified,
        json: bool,
    ) -> Result<Flashed> {
        let bytes = package.bytes();
        // A camera of another version may refuse the hello. The recovery exchange works without it.
        let greeted = Client::greet(key_store, endpoint, Start::Now);
        let version = greeted.as_ref().map_or(0, |(_, hello)| hello.version);
        drop(greeted);
        let options = TransferOptions {
            is_serial: matches!(endpoint, Endpoint::Serial { .. }),
            can_inflate: version >= COMPRESSION_SINCE,
        };
        if let Endpoint::Serial { baud, .. } = endpoint {
            // Ten bits per byte, and five per cent for frames and answers.
            let seconds = bytes.len() as f64 * 10.5 / f64::from(*baud);
            let minutes = (seconds / 60.0).ceil();
            note!("about {minutes:.0} min at {baud} baud");
        }
        let bar = progress_bar(bytes.len() as u64, json);
        let started = Instant::now();
        let flashed = flash(
            bytes,
            options,
            || Client::connect(key_store, endpoint),
            |progress| match progress {
                Progress::Transferred(offset) => bar.set_position(offset),
                Progress::Reconnecting => bar.set_message("link broken, trying again"),
                Progress::Activating => bar.set_message("the camera verifies and activates it"),
            },
        );
        bar.finish_and_clear();
        flashed?;
        let seconds = started.elapsed().as_secs_f64();
        if version == 0 {
            note!("{endpoint} has another version; it was flashed by the recovery exchange");
            return Ok(Flashed {
                camera: endpoint.to_string(),
                seconds,
                confirmed: false,
                slots: slots_by_recovery(key_store, endpoint)?,
            });
        }
        let (mut client, _) = Client::greet(key_store, endpoint, Start::Now)?;
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
            client.change(&Request::Confirm)?;
            slots = self::slots(&mut client)?;
        }
        Ok(Flashed {
            camera: endpoint.to_string(),
            seconds,
            confirmed: self.confirm || !on_trial,
            slots,
        })
    }
}

/// The slots, as far as a camera of any version reports them.
fn slots_by_recovery(key_store: &KeyStore, endpoint: &Endpoint) -> Result<Vec<SlotInfo>> {
    let mut client = Client::connect(key_store, endpoint)?;
    let slots = client.slot_states()?;
    let info = |slot: SlotStatus| SlotInfo {
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

/// A progress bar for bytes; indicatif shows it on a terminal only.
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

/// Sends a request of the recovery exchange, which must succeed.
fn request(camera: &Endpoint, request: &Request) -> Result<()> {
    let key_store = KeyStore::open()?;
    // No hello is sent, so that it works with a camera of any version.
    let mut client = Client::connect(&key_store, camera)?;
    client
        .change(request)
        .with_context(|| format!("camera {camera}"))
}

/// Keep the package that is on trial on a camera.
#[derive(Args)]
pub(crate) struct Confirm {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
}

impl Confirm {
    pub(crate) fn run(&self) -> Result<()> {
        request(&self.camera, &Request::Confirm)
    }
}

/// Activate the package in the camera's other slot again.
#[derive(Args)]
pub(crate) struct Rollback {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
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
