//! The commands: arguments in, text or JSON out.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod package;
pub(crate) mod pair;
pub(crate) mod pull;
pub(crate) mod settings;
pub(crate) mod status;

use anyhow::{Result, bail};
use proto::message::{Answer, Command, Start};
use serde::Serialize;

use crate::client::{Client, Place};
use crate::home::Home;

/// One command to one camera.
fn ask(camera: &Place, command: Command) -> Result<Answer> {
    let home = Home::open()?;
    let (mut client, _) = Client::greet(&home, camera, Start::Now)?;
    client.ask(command)
}

fn unexpected<T>(answer: &Answer) -> Result<T> {
    bail!("the camera answers something else: {answer:?}")
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// The cameras meant: those named, or all that are paired.
fn meant(home: &Home, named: &[Place]) -> Result<Vec<Place>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let all: Vec<Place> = home
        .cameras()?
        .into_iter()
        .map(|camera| Place::Paired(camera.name))
        .collect();
    if all.is_empty() {
        bail!("no camera is paired: `station pair --help`");
    }
    Ok(all)
}
