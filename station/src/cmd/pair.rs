//! Commands about access: find cameras, pair with them, and revoke access.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use mdns_sd::{ServiceDaemon, ServiceEvent};
use proto::discovery::{KEY_PROPERTY, SERVICE, VERSION_PROPERTY};
use proto::message::{Answer, Command, Role, Start};
use proto::name::{CameraName, StationName};
use secure::handshake::Intent;
use secure::pairing::Code;
use secure::tcp::open;
use serde::Serialize;
use serde_json::json;

use super::{ask, print_json, unexpected};
use crate::client::{Client, Endpoint, station_name};
use crate::key_store::{KeyStore, PairedCamera, resolve};

/// Longest time from connecting to the first answer.
const PAIR_WITHIN: Duration = Duration::from_secs(10);

/// Find cameras on the local network, and serial ports of this machine.
///
/// Cameras announce themselves by mDNS unless their configuration sets `link.announce = false`.
#[derive(Args)]
pub(crate) struct Discover {
    /// Time to listen for cameras, in seconds (0.1 to 60).
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Serialize)]
struct Found {
    name: String,
    addresses: Vec<String>,
    key_id: String,
    program: String,
    paired: bool,
}

#[derive(Serialize)]
struct Discovery {
    cameras: Vec<Found>,
    serial_ports: Vec<String>,
}

impl Discover {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let known = KeyStore::open()?.cameras()?;
        let found = self
            .listen(&known)
            .context("cannot listen for cameras on the network")?;
        let found = Discovery {
            cameras: found,
            serial_ports: serial_ports(),
        };
        if json {
            return print_json(&found);
        }
        for camera in &found.cameras {
            say!(
                "{}  {}  key {}{}",
                camera.name,
                camera.addresses.join(" "),
                camera.key_id,
                if camera.paired { "  paired" } else { "" }
            );
        }
        if found.cameras.is_empty() {
            say!("no camera announces itself on this network");
        }
        for port in &found.serial_ports {
            say!("serial:{port}");
        }
        Ok(())
    }

    /// Collects the cameras that announce themselves.
    fn listen(&self, known: &[PairedCamera]) -> Result<Vec<Found>> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        let deadline = Instant::now() + Duration::from_secs_f64(self.seconds.clamp(0.1, 60.0));
        let mut found = BTreeMap::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Ok(event) = events.recv_timeout(left) else {
                break;
            };
            let ServiceEvent::ServiceResolved(service) = event else {
                continue;
            };
            let property = |name: &str| {
                let value = service.get_property_val_str(name);
                value.unwrap_or_default().to_owned()
            };
            let mut addresses: Vec<String> = service
                .get_addresses_v4()
                .iter()
                .map(|ip| format!("{ip}:{}", service.get_port()))
                .collect();
            addresses.sort();
            let name = service.get_fullname();
            let name = name.strip_suffix(SERVICE).unwrap_or(name);
            let key_id = property(KEY_PROPERTY);
            let camera = Found {
                name: name.trim_end_matches('.').to_owned(),
                addresses,
                paired: is_paired(known, &key_id),
                key_id,
                program: property(VERSION_PROPERTY),
            };
            found.insert(camera.name.clone(), camera);
        }
        daemon.shutdown().ok();
        Ok(found.into_values().collect())
    }
}

/// Whether a camera with this key id is among those that the station is paired with. Anybody can
/// announce any key id: this only helps to find a camera, and the pinned key decides when connecting.
fn is_paired(known: &[PairedCamera], key_id: &str) -> bool {
    known
        .iter()
        .filter_map(|camera| camera.key().ok())
        .any(|key| secure::key_id(&key) == key_id)
}

/// Serial ports that a cable to a camera may be in.
fn serial_ports() -> Vec<String> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut ports: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            ["ttyUSB", "ttyACM", "ttyTHS"]
                .iter()
                .any(|kind| name.starts_with(kind))
        })
        .map(|name| format!("/dev/{name}"))
        .collect();
    ports.sort();
    ports
}

/// Pair with a camera, so that station and camera know each other's key.
///
/// For a code, run `edge-runtime pair --config camera.toml` on the camera, or `station invite` on a
/// station that is paired with it or connected by a serial cable. A code is valid for ten minutes
/// and for one station.
#[derive(Args)]
pub(crate) struct Pair {
    /// Where the camera listens (its `link.tcp`), as HOST:PORT, such as 10.0.0.7:9750.
    address: String,
    /// The pairing code.
    #[arg(long)]
    code: String,
    /// Name for the camera on this station [default: the camera's own name].
    #[arg(long)]
    name: Option<CameraName>,
    /// Name for this station on the camera. Default: the host name.
    #[arg(long, default_value_t = station_name(), hide_default_value = true)]
    station: StationName,
}

impl Pair {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let key_store = KeyStore::open()?;
        let code: Code = self.code.parse()?;
        let identity = key_store.identity()?;
        let intent = Intent::Pair {
            code,
            name: self.station.to_string(),
        };
        let address = resolve(&self.address)?;
        let link = open(address, &identity, None, &intent, PAIR_WITHIN)?;
        let key = link.remote;
        let mut client = Client::over(Box::new(link.reader), Box::new(link.writer));
        let hello = client.hello(Start::Now).context(
            "the camera does not accept the code, which is mistyped, expired or used: ask for \
             another one",
        )?;
        // The role that the code granted.
        let own = match client.ask(Command::ReadStations)? {
            Answer::Stations(stations) => stations
                .into_iter()
                .find(|station| station.key_id[..] == identity.public()[..8]),
            other => return unexpected(&other),
        };
        let own = own.context("the camera does not list this station after pairing")?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => CameraName::new(&hello.camera)
                .context("the camera's own name cannot be used: choose another with --name")?,
        };
        let camera = PairedCamera {
            name: name.into(),
            address: self.address.clone(),
            key: secure::hex(&key),
            role: own.role.name().to_owned(),
        };
        key_store.add(camera.clone())?;
        if json {
            return print_json(&camera);
        }
        say!(
            "paired with {:?} (key {}) as {:?}, role {}",
            camera.name,
            secure::key_id(&key),
            own.name,
            own.role
        );
        Ok(())
    }
}

/// Ask a camera for a pairing code for another station.
///
/// A code is valid for ten minutes and for one station. A new code replaces an older one.
#[derive(Args)]
pub(crate) struct Invite {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// Role of the other station: watch (read only), operate (also golden-sample check and mode) or
    /// engineer (everything).
    #[arg(long, default_value = "watch")]
    role: Role,
}

impl Invite {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        match ask(&self.camera, Command::OpenPairing { role: self.role })? {
            Answer::Pairing { code, valid_s } if json => {
                print_json(json!({ "code": code, "valid_s": valid_s }))
            }
            Answer::Pairing { code, valid_s } => {
                say!("{code}");
                note!(
                    "valid for {} min and one station: station pair HOST:PORT --code {code}",
                    valid_s / 60
                );
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// List the cameras that this station is paired with.
#[derive(Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let cameras = KeyStore::open()?.cameras()?;
        if json {
            return print_json(json!({ "cameras": cameras }));
        }
        for camera in &cameras {
            let id = camera.key.get(..16).unwrap_or_default();
            say!(
                "{}  {}  key {id}  role {}",
                camera.name,
                camera.address,
                camera.role
            );
        }
        Ok(())
    }
}

/// Remove a camera from this station's list.
///
/// The camera still lets this station in. To end that, use `revoke`.
#[derive(Args)]
pub(crate) struct Forget {
    /// Name of the camera on this station.
    name: String,
}

impl Forget {
    pub(crate) fn run(&self) -> Result<()> {
        if !KeyStore::open()?.remove(&self.name)? {
            bail!("no camera {:?}", self.name);
        }
        Ok(())
    }
}

/// List the stations that have access to a camera, with their roles.
#[derive(Args)]
pub(crate) struct Stations {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
}

impl Stations {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let stations = match ask(&self.camera, Command::ReadStations)? {
            Answer::Stations(stations) => stations,
            other => return unexpected(&other),
        };
        if json {
            return print_json(json!({ "stations": stations }));
        }
        for station in stations {
            let id = secure::hex(&station.key_id);
            say!("{}  role {}  key {id}", station.name, station.role);
        }
        Ok(())
    }
}

/// Revoke a station's access to a camera; its open sessions end within seconds.
#[derive(Args)]
pub(crate) struct Revoke {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// Name or key id of the station, as `station stations` shows them.
    station: String,
    /// Reason, for the camera's journal.
    #[arg(long)]
    reason: String,
}

impl Revoke {
    pub(crate) fn run(&self) -> Result<()> {
        let command = Command::RevokeStation {
            station: self.station.clone(),
            reason: self.reason.clone(),
        };
        match ask(&self.camera, command)? {
            Answer::Done => Ok(()),
            other => unexpected(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_id_of_a_known_camera_is_paired() {
        let known = [PairedCamera {
            name: "left".to_owned(),
            address: "10.0.0.7:9750".to_owned(),
            key: secure::hex(&[0xab; 32]),
            role: "watch".to_owned(),
        }];
        assert!(is_paired(&known, "abababababababab"));
        for id in ["", "a", "ab", "abababababababa", "abababababababab0"] {
            assert!(!is_paired(&known, id), "{id}");
        }
        assert!(!is_paired(&[], ""));
    }
}
