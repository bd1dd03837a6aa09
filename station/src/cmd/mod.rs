//! The commands: arguments in, text or JSON out.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod package;
pub(crate) mod pair;
pub(crate) mod pull;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod watch;

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

/// Version of what `--json` prints; a field that is new does not change it, one that is gone or means something else does.
const JSON_SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    value: T,
}

/// What is serialised as an object, with the version of its form.
fn versioned<T: Serialize>(value: T) -> impl Serialize {
    Versioned {
        schema: JSON_SCHEMA,
        value,
    }
}

fn print_json(value: impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(&versioned(value))?);
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
