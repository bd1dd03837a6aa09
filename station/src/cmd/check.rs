//! `station check`: a package before it goes to a camera.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use edge_runtime::inspector::Inspector;
use edge_runtime::package::{self, Trust, key_id};

/// Check a package as a camera would: signature, signer, consistency, and the parity gate on this machine.
#[derive(Args)]
pub(crate) struct Check {
    /// The package.
    package: PathBuf,
    /// Public key that it must be signed by; may be given several times, as on a camera's allow-list.
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
        println!("{} {}: accepted", manifest.name, manifest.version);
        println!("  signed by {}", key_id(verified.signer()));
        println!(
            "  golden tiles within {:.2e} of the trainer's scores",
            inspector.parity_off()
        );
        Ok(())
    }
}
