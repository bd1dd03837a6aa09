//! `station`: see `station --help`. So far it verifies model packages; pairing, flashing and watching follow.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use edge_runtime::inspector::Inspector;
use edge_runtime::package::{self, Trust, key_id};

/// The line-side program. So far it verifies model packages before they go to a camera.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a package as a camera would: signature, signer, consistency, and the parity gate on this machine.
    Check {
        /// The package.
        package: PathBuf,
        /// Public key that it must be signed by; may be given several times, as on a camera's allow-list.
        #[arg(long, required = true)]
        trust: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Command::Check { package, trust } = Cli::parse().command;
    match check(&package, &trust) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(path: &std::path::Path, trust: &[PathBuf]) -> Result<()> {
    let keys = trust
        .iter()
        .map(|path| package::read_public_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let verified = package::read(path, &Trust::Only(keys))?;
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
