//! Checks the licence and the source of every dependency against `deny.toml`, without anything that
//! has to be installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::cargo_program;

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licences,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// The part of `cargo metadata` that is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    /// An SPDX expression.
    license: Option<String>,
    /// `None` for the packages of this repository.
    source: Option<String>,
}

/// Fails with a line for each dependency whose licence or source is not allowed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let path = root.join("deny.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let mut cargo = Command::new(cargo_program());
    cargo
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root);
    for target in &deny.graph.targets {
        cargo.args(["--filter-platform", target]);
    }
    let output = cargo.output().context("running cargo metadata")?;
    if !output.status.success() {
        bail!(
            "`cargo metadata` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let problems: Vec<String> = metadata
        .packages
        .iter()
        .filter_map(|package| problem(package, &deny))
        .collect();
    if !problems.is_empty() {
        bail!(
            "dependencies that deny.toml does not allow:\n{}",
            problems.join("\n")
        );
    }
    eprintln!(
        "licences and sources of {} packages are those of deny.toml",
        metadata.packages.len()
    );
    Ok(())
}

/// Why a package is not allowed.
fn problem(package: &Package, deny: &Deny) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    // Ours have no source.
    let source = package.source.as_deref()?;
    let allowed = |registry: &String| source.strip_prefix("registry+") == Some(registry);
    if !deny.sources.allow_registry.iter().any(allowed) {
        return Some(format!("{name}: from {source}"));
    }
    let licence = package.license.as_deref().unwrap_or("no licence");
    (!satisfied(licence, &deny.licenses.allow)).then(|| format!("{name}: {licence}"))
}

/// Whether the allowed licences satisfy an SPDX expression, or the older form that separates
/// alternatives by a slash. An exception only ever permits more than its licence.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    either(&mut words, allowed) == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Alternatives; `None` for what is no expression.
fn either(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut found = both(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        found |= both(words, allowed)?;
    }
    Some(found)
}

/// Licences that hold together.
fn both(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut found = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        found &= one(words, allowed)?;
    }
    Some(found)
}

/// A licence, or an expression in parentheses.
fn one(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let found = either(words, allowed)?;
        return (words.next()? == ")").then_some(found);
    }
    if matches!(word, "OR" | "AND" | "WITH" | ")") {
        return None;
    }
    if words.next_if_eq(&"WITH").is_some() {
        words.next()?;
    }
    Some(allowed.iter().any(|licence| licence == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_satisfied_by_allowed_licences() {
        let allowed = ["MIT".to_owned(), "ISC".to_owned()];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "Apache-2.0 / MIT",
            "MIT AND ISC",
            "(GPL-3.0 OR MIT) AND ISC",
            "MIT WITH LLVM-exception",
            "GPL-3.0 AND X OR MIT",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "no licence",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR GPL-3.0) AND GPL-3.0",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "WITH",
        ] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn licences_and_sources_are_those_of_deny_toml() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?;
        run(root)
    }

    #[test]
    fn a_package_from_elsewhere_is_not_allowed() -> Result<()> {
        let deny: Deny = toml::from_str(
            "[graph]\ntargets = []\n[licenses]\nallow = [\"MIT\"]\n\
             [sources]\nallow-registry = [\"https://github.com/rust-lang/crates.io-index\"]",
        )?;
        let package = |source: Option<&str>, licence: Option<&str>| Package {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
            source: source.map(str::to_owned),
        };
        let index = "registry+https://github.com/rust-lang/crates.io-index";
        let found = |source, licence| problem(&package(source, licence), &deny).is_some();
        assert!(!found(None, None), "ours");
        assert!(!found(Some(index), Some("MIT")));
        assert!(found(Some(index), Some("GPL-3.0")));
        assert!(found(Some(index), None));
        assert!(found(Some("git+https://github.com/a/b#1"), Some("MIT")));
        assert!(found(Some("registry+https://example.org"), Some("MIT")));
        Ok(())
    }
}
