//! `cargo xtask docs`: checks the links of all Markdown files, and builds the book with mdBook.
//!
//! In: the Markdown files of the repository. Out: dead links, or the book in `target/book`.

mod links;
#[cfg(test)]
mod safety;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace::{cargo_program, target};

/// Fixed, so that the book looks the same on every machine.
const MDBOOK_VERSION: &str = "0.5.4";
/// Where `book.toml` is.
const BOOK: &str = "docs";

/// Checks links, and unless `--check-links` is given, builds the book.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<()> {
    let only_links = match options {
        [] => false,
        ["--check-links"] => true,
        other => bail!(
            "unknown option {}; `cargo xtask help` lists them",
            other.join(" ")
        ),
    };
    check_links(root)?;
    if only_links {
        return Ok(());
    }
    let program = mdbook()?;
    let book = target(root).join("book");
    let status = Command::new(&program)
        .arg("build")
        .arg(root.join(BOOK))
        .arg("--dest-dir")
        .arg(&book)
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    if !status.success() {
        bail!("mdBook could not build the book: see its message above");
    }
    eprintln!("the book: {}", book.join("index.html").display());
    Ok(())
}

/// Checks the Markdown files that git tracks, or would track after `git add`.
fn check_links(root: &Path) -> Result<()> {
    let texts = markdown_files(root)?;
    let dead = links::dead_links(&texts, |path| root.join(path).exists());
    for link in &dead {
        eprintln!("{link}");
    }
    match dead.len() {
        0 => {
            eprintln!("links: {} Markdown files, none dead", texts.len());
            Ok(())
        }
        1 => bail!("1 link is dead"),
        count => bail!("{count} links are dead"),
    }
}

/// Texts by their paths below `root`.
fn markdown_files(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .args(["--", "*.md"])
        .current_dir(root)
        .output()
        .context("running git, which lists the Markdown files")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("git cannot list the Markdown files: {}", message.trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    names
        .split_terminator('\0')
        .map(PathBuf::from)
        // Git lists deleted files until the deletion is committed.
        .filter(|path| root.join(path).exists())
        .map(|path| {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("reading {}", path.display()))?;
            Ok((path, text))
        })
        .collect()
}

/// Installs mdBook into the user's cache unless it is there, and returns the program.
fn mdbook() -> Result<PathBuf> {
    let folder = setup::cache()?.join(format!("mdbook-{MDBOOK_VERSION}"));
    let program = folder.join("bin").join("mdbook");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    eprintln!("installing mdBook {MDBOOK_VERSION}, once 2 to 3 minutes …");
    let status = Command::new(cargo_program())
        .args(["install", "mdbook", "--version", MDBOOK_VERSION])
        .args(["--locked", "--no-default-features", "--root"])
        .arg(&folder)
        // This repository's cargo settings and CI's lints are for our own crates.
        .current_dir(&folder)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("running cargo install")?;
    if !status.success() {
        bail!("cargo could not install mdBook: see its message above (a network is needed once)");
    }
    Ok(program)
}
