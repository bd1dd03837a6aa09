//! Cargo in this workspace: runs it, and says where it puts what it builds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The cargo that runs this program, or else the one on the PATH.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs cargo at the root of the workspace; it must succeed.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let status = Command::new(cargo_program())
        .args(arguments)
        .current_dir(root)
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

/// Builds every target of every package. A part of the workspace would enable other features of
/// shared dependencies, so that tract is compiled again for minutes; and `cargo test` alone does
/// not build the programs of other packages, which the integration tests run.
pub(crate) fn build_all(root: &Path) -> Result<()> {
    cargo(root, &["build", "--workspace", "--all-targets", "--locked"])
}

/// The folder of cargo's build outputs.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |own| root.join(own))
}
