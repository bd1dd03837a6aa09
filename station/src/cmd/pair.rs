//! Who knows whom: finding cameras, pairing, and taking access away again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_runtime::link::announce::{KEY_PROPERTY, SERVICE, VERSION_PROPERTY};
use mdns_sd::{ServiceDaemon, ServiceEvent};
use proto::message::{Answer, Command, Role, Start};
use secure::handshake::Intent;
use secure::pairing::Code;
use secure::tcp::open;
use serde::Serialize;
use serde_json::json;

use super::{ask, print_json, unexpected};
use crate::client::{Client, Place, station_name};
use crate::home::{Home, Known, resolve};

/// From connecting to the first answer.
const PAIRS_WITHIN: Duration = Duration::from_secs(10);

/// Find cameras on the local network (mDNS), and serial ports.
#[derive(Args)]
pub(crate) struct Discover {
    /// How long to listen, in seconds.
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
        let known = Home::open()?.cameras()?;
        let found = self
            .listen(&known)
            .context("cannot listen on the network")?;
        let found = Discovery {
            cameras: found,
            serial_ports: serial_ports(),
        };
        if json {
            return print_json(&found);
        }
        for camera in &found.cameras {
            println!(
                "{}  {}  key {}{}",
                camera.name,
                camera.addresses.join(" "),
                camera.key_id,
                if camera.paired { "  paired" } else { "" }
            );
        }
        if found.cameras.is_empty() {
            println!("no camera tells of itself on this network");
        }
        for port in &found.serial_ports {
            println!("serial:{port}");
        }
        Ok(())
    }

    fn listen(&self, known: &[Known]) -> Result<Vec<Found>> {
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
                paired: known.iter().any(|camera| camera.key.starts_with(&key_id)),
                key_id,
                program: property(VERSION_PROPERTY),
            };
            found.insert(camera.name.clone(), camera);
        }
        daemon.shutdown().ok();
        Ok(found.into_values().collect())
    }
}

/// Ports that a cable may be in.
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

/// Pair with a camera: each learns the other's key.
///
/// Run `edge-runtime pair --config camera.toml` on the camera, or `station invite` at a station that is paired (or at the
/// end of a serial cable), and type the code here. A code is good for ten minutes and for one station.
#[derive(Args)]
pub(crate) struct Pair {
    /// Where the camera listens, HOST:PORT.
    address: String,
    /// The code that the camera shows.
    #[arg(long)]
    code: String,
    /// Name of the camera here; its own unless given.
    #[arg(long)]
    name: Option<String>,
    /// Name of this station on the camera.
    #[arg(long, default_value_t = station_name())]
    station: String,
}

impl Pair {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let home = Home::open()?;
        let code: Code = self.code.parse()?;
        let identity = home.identity()?;
        let intent = Intent::Pair {
            code,
            name: self.station.clone(),
        };
        let address = resolve(&self.address)?;
        let link = open(address, &identity, None, &intent, PAIRS_WITHIN)?;
        let key = link.remote;
        let mut client = Client::over(Box::new(link.reader), Box::new(link.writer));
        let hello = client.hello(Start::Now).context(
            "the camera does not accept the code: it is mistyped, too old or was used; ask for another one",
        )?;
        // It knows best what was granted.
        let own = match client.ask(Command::ReadStations)? {
            Answer::Stations(stations) => stations
                .into_iter()
                .find(|station| station.key_id[..] == identity.public()[..8]),
            other => return unexpected(&other),
        };
        let own = own.context("the camera forgot the station at once")?;
        let camera = Known {
            name: self.name.clone().unwrap_or(hello.camera),
            address: self.address.clone(),
            key: secure::hex(&key),
            role: own.role.name().to_owned(),
        };
        if camera.name.starts_with("serial:") {
            bail!("a camera cannot be called {:?}", camera.name);
        }
        home.remember(camera.clone())?;
        if json {
            return print_json(&camera);
        }
        println!(
            "paired with {:?} (key {}) as {:?}, role {}",
            camera.name,
            secure::key_id(&key),
            own.name,
            own.role
        );
        Ok(())
    }
}

/// Have a camera give out a pairing code for another station.
#[derive(Args)]
pub(crate) struct Invite {
    /// The camera.
    camera: Place,
    /// What the other station may do: watch, operate or engineer.
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
                println!("{code}");
                eprintln!(
                    "good for {} min, for one station: station pair HOST:PORT --code {code}",
                    valid_s / 60
                );
                Ok(())
            }
            other => unexpected(&other),
        }
    }
}

/// The cameras that this station was paired with.
#[derive(Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let cameras = Home::open()?.cameras()?;
        if json {
            return print_json(json!({ "cameras": cameras }));
        }
        for camera in &cameras {
            let id = camera.key.get(..16).unwrap_or_default();
            println!(
                "{}  {}  key {id}  role {}",
                camera.name, camera.address, camera.role
            );
        }
        Ok(())
    }
}

/// Forget a camera. (To keep this station out, revoke it on the camera.)
#[derive(Args)]
pub(crate) struct Forget {
    /// Its name.
    name: String,
}

impl Forget {
    pub(crate) fn run(&self) -> Result<()> {
        if !Home::open()?.forget(&self.name)? {
            bail!("no camera {:?}", self.name);
        }
        Ok(())
    }
}

/// The stations that have access to a camera.
#[derive(Args)]
pub(crate) struct Stations {
    /// The camera.
    camera: Place,
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
            println!("{}  role {}  key {id}", station.name, station.role);
        }
        Ok(())
    }
}

/// Keep a station out of a camera from now on; sessions that it has end within seconds.
#[derive(Args)]
pub(crate) struct Revoke {
    /// The camera.
    camera: Place,
    /// The station's name or key id, as `station stations` shows them.
    station: String,
    /// Why; it is journalled.
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
