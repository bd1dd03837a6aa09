//! The commands. In: arguments. Out: text or JSON.

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

use crate::client::{Client, Endpoint};
use crate::key_store::KeyStore;

/// Sends one command to a camera and returns its answer.
fn ask(camera: &Endpoint, command: Command) -> Result<Answer> {
    let key_store = KeyStore::open()?;
    let (mut client, _) = Client::greet(&key_store, camera, Start::Now)?;
    client.ask(command)
}

/// The error for an answer that does not belong to the command.
fn unexpected<T>(answer: &Answer) -> Result<T> {
    bail!("unexpected answer from the camera: {answer:?}")
}

/// Version of the JSON that `--json` prints. A new field does not change it; a field that is
/// removed or changes its meaning does.
const JSON_SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    value: T,
}

/// Adds the version of the JSON to a value that is serialised as an object.
fn versioned<T: Serialize>(value: T) -> impl Serialize {
    Versioned {
        schema: JSON_SCHEMA,
        value,
    }
}

/// Prints a value as JSON, with the version.
fn print_json(value: impl Serialize) -> Result<()> {
    crate::output::json(&serde_json::to_string_pretty(&versioned(value))?);
    Ok(())
}

/// The named cameras, or all paired ones if none is named.
fn cameras_or_all(key_store: &KeyStore, named: &[Endpoint]) -> Result<Vec<Endpoint>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let all: Vec<Endpoint> = key_store
        .cameras()?
        .into_iter()
        .map(|camera| Endpoint::Paired(camera.name))
        .collect();
    if all.is_empty() {
        bail!("no camera is paired: `station pair --help`");
    }
    Ok(all)
}
