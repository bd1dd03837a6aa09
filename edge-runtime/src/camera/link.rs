//! The camera's key and access list, and where stations find it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use edge_runtime::clock::unix_ms;
use edge_runtime::config::Config;
use edge_runtime::error_text::one_line;
use edge_runtime::link::access_control::{AccessControl, KEY_FILE};
use edge_runtime::link::announce::{Announcement, is_public};
use edge_runtime::report::queue::Reporter;
use proto::message::cut_text;
use proto::report::Event;
use scoring::io::atomic::write_atomic;
use secure::identity::{Identity, IdentityError};
use secure::key_id;

use super::running::Camera;

/// The access control with the camera's key.
pub(super) fn access_control(config: &Config, reporter: &Reporter) -> Result<AccessControl> {
    let identity = identity(&config.state.join(KEY_FILE), reporter)?;
    Ok(AccessControl::new(
        &config.state,
        identity,
        reporter.clone(),
    ))
}

/// The camera's key. A damaged file is kept aside and a new key takes its place. If the key cannot
/// be read or written, a new one is used for this run. In both cases paired stations do not know
/// the camera, and the change is reported.
fn identity(path: &Path, reporter: &Reporter) -> Result<Identity> {
    let error = match Identity::load_or_create(path) {
        Ok(identity) => return Ok(identity),
        Err(error) => error,
    };
    let reason = one_line(&error);
    let kept = matches!(error, IdentityError::Content(_))
        .then(|| keep_aside(path))
        .flatten();
    let identity = match &kept {
        Some(_) => Identity::load_or_create(path).or_else(|_| Identity::generate())?,
        None => Identity::generate()?,
    };
    let reason = match kept {
        Some(kept) => format!(
            "{reason}; it is kept as {}, pair stations again",
            kept.display()
        ),
        None => format!("{reason}; the new key is for this run only"),
    };
    let after = key_id(identity.public());
    tracing::error!(
        reason,
        key = after,
        "the camera has a new key: stations do not know it"
    );
    reporter.event(Event::SettingChanged {
        setting: KEY_FILE.to_owned(),
        before: "unusable".to_owned(),
        after,
        reason: cut_text(&reason),
        station: String::new(),
    });
    Ok(identity)
}

/// Renames a damaged file, so that it can be looked at later. Returns its new name.
fn keep_aside(path: &Path) -> Option<PathBuf> {
    let kept = (1..100)
        .map(|number| path.with_file_name(format!("{KEY_FILE}.damaged-{number}")))
        .find(|path| !path.exists())?;
    let renamed = std::fs::rename(path, &kept);
    if let Err(error) = &renamed {
        tracing::warn!(%error, "cannot keep a damaged file aside");
    }
    renamed.ok().map(|()| kept)
}

impl Camera {
    /// Makes the addresses known that listen by now: in `endpoints.json`, and on the network.
    /// Returns whether they have changed since the last call.
    pub(crate) fn publish_addresses(&mut self, config: &Config) -> bool {
        let addresses = Some((self.tcp(), self.http()));
        if self.published == addresses {
            return false;
        }
        self.published = addresses;
        write_endpoints(self, &config.state);
        self.announce(config);
        true
    }

    /// Announces the camera on the local network, if it listens there.
    fn announce(&mut self, config: &Config) {
        let address = self.tcp().filter(|address| is_public(*address));
        let Some(address) = address.filter(|_| config.link.announce) else {
            return;
        };
        if self.announcement.is_some() {
            return;
        }
        match Announcement::start(&config.name, address, &self.key_id) {
            Ok(announcement) => self.announcement = Some(announcement),
            Err(error) => tracing::warn!(%error, "cannot announce the camera on the network"),
        }
    }
}

/// Writes the addresses of stations' link and metrics to `endpoints.json`, for scripts that start
/// the program with port 0. A disk that cannot be written does not end the program.
fn write_endpoints(camera: &Camera, state: &Path) {
    let text = serde_json::json!({
        "pid": std::process::id(),
        "started_unix_ms": unix_ms(),
        "tcp": camera.tcp(),
        "http": camera.http(),
    });
    if let Err(error) = write_atomic(&state.join("endpoints.json"), text.to_string().as_bytes()) {
        tracing::error!(error = one_line(&error), "cannot write endpoints.json");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge_runtime::metrics::Metrics;
    use edge_runtime::report::queue::channel;

    use super::*;

    #[test]
    fn a_damaged_key_is_kept_aside_and_a_new_one_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, _inbox) = channel(false, metrics);
        let before = *identity(&path, &reporter).unwrap().public();
        let whole = std::fs::read(&path).unwrap();
        let damaged = [whole[..whole.len() / 2].to_vec(), vec![0xff; whole.len()]];
        for (number, damaged) in (1..).zip(damaged) {
            std::fs::write(&path, &damaged).unwrap();
            let after = *identity(&path, &reporter).unwrap().public();
            assert_ne!(before, after);
            let kept = path.with_file_name(format!("{KEY_FILE}.damaged-{number}"));
            assert_eq!(std::fs::read(kept).unwrap(), damaged);
            assert_eq!(*identity(&path, &reporter).unwrap().public(), after);
        }
    }
}
