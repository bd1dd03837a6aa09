//! What the station knows: its own key, and the cameras that it was paired with.
//!
//! In `$AWR_STATION_HOME`, else `$XDG_CONFIG_HOME/awr-station`, else `~/.config/awr-station`: `station.key` and
//! `cameras.toml`, where each camera's key is pinned.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use edge_runtime::io::atomic::write_atomic;
use secure::identity::Identity;
use secure::{PublicKey, from_hex};
use serde::{Deserialize, Serialize};

/// A camera that the station was paired with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// Its name here.
    pub(crate) name: String,
    /// Host and port.
    pub(crate) address: String,
    /// Its key in hexadecimal.
    pub(crate) key: String,
    /// What the station may do there.
    pub(crate) role: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    camera: Vec<Known>,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Known {
    /// Its pinned key.
    pub(crate) fn key(&self) -> Result<PublicKey> {
        from_hex(&self.key).with_context(|| format!("cameras.toml: {} has no valid key", self.name))
    }

    /// Where it listens now.
    pub(crate) fn socket(&self) -> Result<SocketAddr> {
        resolve(&self.address)
    }
}

/// Host and port to an address.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr> {
    let found = address
        .to_socket_addrs()
        .with_context(|| format!("{address}: expected HOST:PORT like 10.0.0.7:9750"))?;
    found
        .min_by_key(SocketAddr::is_ipv6)
        .with_context(|| format!("{address} has no address"))
}

impl Home {
    /// Where the environment says.
    pub(crate) fn open() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = match (
            variable("AWR_STATION_HOME"),
            variable("XDG_CONFIG_HOME"),
            variable("HOME"),
        ) {
            (Some(own), _, _) => PathBuf::from(own),
            (_, Some(config), _) => Path::new(&config).join("awr-station"),
            (_, _, Some(home)) => Path::new(&home).join(".config/awr-station"),
            _ => bail!("no place for the station's key: set AWR_STATION_HOME"),
        };
        Ok(Self { folder })
    }

    /// The station's own key, made at first use.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(Identity::load_or_create(&self.folder.join("station.key"))?)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("cameras.toml")
    }

    /// All cameras.
    pub(crate) fn cameras(&self) -> Result<Vec<Known>> {
        let path = self.path();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let file: File = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))?;
        Ok(file.camera)
    }

    /// One of them.
    pub(crate) fn camera(&self, name: &str) -> Result<Known> {
        let cameras = self.cameras()?;
        if let Some(found) = cameras.iter().find(|camera| camera.name == name) {
            return Ok(found.clone());
        }
        let names: Vec<&str> = cameras.iter().map(|camera| camera.name.as_str()).collect();
        match names.is_empty() {
            true => bail!("no camera {name:?}: pair one first (`station pair --help`)"),
            false => bail!("no camera {name:?}; paired are {}", names.join(", ")),
        }
    }

    /// Remembers a camera; one of the same name or key is replaced.
    pub(crate) fn remember(&self, camera: Known) -> Result<()> {
        let mut cameras = self.cameras()?;
        cameras.retain(|other| other.name != camera.name && other.key != camera.key);
        cameras.push(camera);
        self.write(cameras)
    }

    /// Forgets one; whether it was there.
    pub(crate) fn forget(&self, name: &str) -> Result<bool> {
        let mut cameras = self.cameras()?;
        let before = cameras.len();
        cameras.retain(|camera| camera.name != name);
        let found = cameras.len() < before;
        if found {
            self.write(cameras)?;
        }
        Ok(found)
    }

    fn write(&self, camera: Vec<Known>) -> Result<()> {
        let text = toml::to_string(&File { camera }).context("cameras.toml")?;
        Ok(write_atomic(&self.path(), text.as_bytes())?)
    }
}
