//! `host-trainer inspect-package`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use scoring::io::atomic::write_atomic;

use super::keys::verified_package;
use super::shell::print;
use super::text::manifest_facts;

/// Show what a package contains: model, signer, threshold, training and evaluation.
#[derive(Args)]
pub(crate) struct InspectPackage {
    /// The package.
    package: PathBuf,
    /// Accept only packages signed by this public key; may be given several times.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Write the plain ONNX graph to this file.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

impl InspectPackage {
    pub(crate) fn run(self) -> Result<()> {
        let verified = verified_package(&self.package, &self.trust)?;
        if let Some(path) = &self.onnx {
            write_atomic(path, verified.onnx())?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(verified.manifest())?);
            return Ok(());
        }
        let facts = manifest_facts(verified.manifest(), verified.signer(), true);
        let widest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines = facts.into_iter();
        let lines = lines.map(|(name, value)| format!("{name:widest$}  {value}\n"));
        Ok(print(&lines.collect::<String>())?)
    }
}
