//! Signing keys, and packages verified by public keys, from the files that a command names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use scoring::package::{
    self, Trust, Verified, exposed_key_warning, read_public_key, read_signing_key,
};

/// Makes a new signing key.
pub(crate) fn new_signing_key() -> SigningKey {
    let mut secret = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut secret);
    SigningKey::from_bytes(&secret)
}

/// Reads a signing key, and warns if others can read it too.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey> {
    if let Some(warning) = exposed_key_warning(path) {
        eprintln!("warning: {warning}");
    }
    read_signing_key(path).context("no signing key; `host-trainer keygen` makes one")
}

/// Reads and verifies a package. Unless `trust` is empty, it must be signed by one of these public
/// keys.
pub(crate) fn verified_package(path: &Path, trust: &[PathBuf]) -> Result<Verified> {
    let keys = trust
        .iter()
        .map(|path| read_public_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let trust = if keys.is_empty() {
        Trust::AnySigner
    } else {
        Trust::Only(keys)
    };
    Ok(package::read(path, &trust)?)
}
