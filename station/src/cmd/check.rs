//! `station check`: checks a package before it goes to a camera.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use scoring::inspector::Inspector;
use scoring::package::{self, Trust, key_id};

/// Check a package as a camera would, before flashing it.
///
/// Checks the signature, the signer and the consistency of the package, and scores its golden tiles
/// on this machine.
#[derive(Args)]
pub(crate) struct Check {
    /// The package (.awr).
    package: PathBuf,
    /// Public key (.key.pub) of a trusted signer. Repeat it for several signers, as in a camera's
    /// `model.trust`.
    #[arg(long, required = true)]
    trust: Vec<PathBuf>,
}

impl Check {
    pub(crate) fn run(&self) -> Result<()> {
        let keys = self
            .trust
            .iter()
            .map(|path| package::read_public_key(path))
            .collect::<Result<Vec<_>, _>>()?;
        let verified = package::read(&self.package, &Trust::Only(keys))?;
        let inspector = Inspector::new(&verified)?;
        let manifest = verified.manifest();
        say!("{} {}: accepted", manifest.name, manifest.version);
        say!("  signed by {}", key_id(verified.signer()));
        say!(
            "  golden tiles within {:.2e} of the trainer's scores",
            inspector.parity_off()
        );
        Ok(())
    }
}
