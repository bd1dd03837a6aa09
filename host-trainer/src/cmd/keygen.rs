//! `host-trainer keygen`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use scoring::package::{key_id, write_key_pair};

use super::keys::new_signing_key;

/// Make a key pair for signing packages.
///
/// Cameras accept only packages that are signed by a key they trust. Keep the signing key secret
/// and give cameras its .pub file. An existing key is never overwritten.
#[derive(Args)]
pub(crate) struct Keygen {
    /// File for the signing key; the public key is written beside it as NAME.pub.
    #[arg(long)]
    out: PathBuf,
}

impl Keygen {
    pub(crate) fn run(self) -> Result<()> {
        let key = new_signing_key();
        let public = write_key_pair(&self.out, &key)?;
        println!("key {}", key_id(&key.verifying_key()));
        println!("  {}  keep secret", self.out.display());
        println!("  {}  give to cameras", public.display());
        Ok(())
    }
}
