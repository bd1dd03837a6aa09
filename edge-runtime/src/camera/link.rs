//! The camera's key and access list, and the file with its addresses.

use std::path::Path;

use anyhow::Result;
use edge_runtime::clock::unix_ms;
use edge_runtime::config::Config;
use edge_runtime::error_text::one_line;
use edge_runtime::link::access_control::{AccessControl, KEY_FILE};
use edge_runtime::report::queue::Reporter;
use scoring::io::atomic::write_atomic;
use secure::identity::{Identity, IdentityError};

use super::running::Camera;

/// The access control with the camera's key. If the key cannot be read or written, a new one is
/// used for this run, which paired stations do not know.
pub(super) fn access_control(config: &Config, reporter: &Reporter) -> Result<AccessControl> {
    let identity = match Identity::load_or_create(&config.state.join(KEY_FILE)) {
        Err(error @ (IdentityError::Io { .. } | IdentityError::Exposed { .. })) => {
            tracing::error!(
                error = one_line(&error),
                "cannot use the camera's key; paired stations will not know this camera"
            );
            Identity::generate()?
        }
        identity => identity?,
    };
    Ok(AccessControl::new(
        &config.state,
        identity,
        reporter.clone(),
    ))
}

/// Writes the addresses of stations' link and metrics to `endpoints.json`, for scripts that start
/// the program with port 0. A disk that cannot be written does not end the program.
pub(crate) fn write_endpoints(camera: &Camera, state: &Path) {
    let text = serde_json::json!({
        "pid": std::process::id(),
        "started_unix_ms": unix_ms(),
        "tcp": camera.tcp,
        "http": camera.http,
    });
    if let Err(error) = write_atomic(&state.join("endpoints.json"), text.to_string().as_bytes()) {
        tracing::error!(error = one_line(&error), "cannot write endpoints.json");
    }
}
