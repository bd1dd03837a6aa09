//! The station's key, and the cameras that it is paired with.
//!
//! They are in `station.key` and `cameras.toml` in the folder `$AWR_STATION_HOME`, or else
//! `$XDG_CONFIG_HOME/awr-station`, or else `~/.config/awr-station`. `cameras.toml` pins the key of
//! each camera.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use secure::identity::Identity;
use secure::{PublicKey, from_hex};
use serde::{Deserialize, Serialize};

/// A camera that the station is paired with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairedCamera {
    /// Its name on this station.
    pub(crate) name: String,
    /// Host and port.
    pub(crate) address: String,
    /// Its key in hexadecimal.
    pub(crate) key: String,
    /// The station's role on the camera.
    pub(crate) role: String,
}

/// The contents of `cameras.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    camera: Vec<PairedCamera>,
}

/// The folder with the station's key and cameras.
#[derive(Debug)]
pub(crate) struct KeyStore {
    folder: PathBuf,
}

impl PairedCamera {
    /// Its pinned key.
    pub(crate) fn key(&self) -> Result<PublicKey> {
        from_hex(&self.key).with_context(|| format!("cameras.toml: {} has no valid key", self.name))
    }

    /// The address where it listens, resolved now.
    pub(crate) fn socket(&self) -> Result<SocketAddr> {
        resolve(&self.address)
    }
}

/// Resolves a host and port, and prefers IPv4.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr> {
    let found = address
        .to_socket_addrs()
        .with_context(|| format!("{address}: expected HOST:PORT like 10.0.0.7:9750"))?;
    found
        .min_by_key(SocketAddr::is_ipv6)
        .with_context(|| format!("{address} has no address"))
}

impl KeyStore {
    /// Opens the folder that the environment names.
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
            _ => bail!("no folder for the station's key: set AWR_STATION_HOME"),
        };
        Ok(Self { folder })
    }

    /// The station's own key, which is made at first use.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(Identity::load_or_create(&self.folder.join("station.key"))?)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("cameras.toml")
    }

    /// All paired cameras.
    pub(crate) fn cameras(&self) -> Result<Vec<PairedCamera>> {
        let path = self.path();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let file: File = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))?;
        Ok(file.camera)
    }

    /// The paired camera of this name.
    pub(crate) fn camera(&self, name: &str) -> Result<PairedCamera> {
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

    /// Adds a camera, in place of one with the same name or key.
    pub(crate) fn add(&self, camera: PairedCamera) -> Result<()> {
        let mut cameras = self.cameras()?;
        cameras.retain(|other| other.name != camera.name && other.key != camera.key);
        cameras.push(camera);
        self.write(cameras)
    }

    /// Removes a camera; false if there is none of this name.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        let mut cameras = self.cameras()?;
        let before = cameras.len();
        cameras.retain(|camera| camera.name != name);
        let found = cameras.len() < before;
        if found {
            self.write(cameras)?;
        }
        Ok(found)
    }

    fn write(&self, camera: Vec<PairedCamera>) -> Result<()> {
        let text = toml::to_string(&File { camera }).context("cameras.toml")?;
        // Whoever can change this file can put another camera in the place of a paired one.
        let path = self.path();
        secure::file::write(&path, text.as_bytes(), secure::file::PRIVATE)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_and_pinned_cameras_are_private() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("awr-station");
        let key_store = KeyStore {
            folder: folder.clone(),
        };
        let identity = key_store.identity().unwrap();
        let camera = PairedCamera {
            name: "left".to_owned(),
            address: "10.0.0.7:9750".to_owned(),
            key: secure::hex(identity.public()),
            role: "watch".to_owned(),
        };
        key_store.add(camera).unwrap();
        for (path, expected) in [
            (folder.clone(), 0o700),
            (folder.join("station.key"), 0o600),
            (folder.join("cameras.toml"), 0o600),
        ] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{}", path.display());
        }
    }
}
