//! Finds and runs tools of the host, with a time-out and a log of their output.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// This machine lacks something that the project does not provide, so the tests cannot run.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The path of `program`. System folders are searched too: an ordinary user's PATH lacks that of
/// mkfs.ext4.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Like `find`, but an absent program is an error with the hint how to install it.
pub(crate) fn need(program: &str, hint: &str) -> Result<PathBuf> {
    match find(program) {
        Some(file) => Ok(file),
        None => bail!(Unavailable(format!("`{program}` not found: {hint}"))),
    }
}

/// Waits for a child until `limit` has passed; `None` if it still runs then.
pub(crate) fn wait_at_most(
    child: &mut std::process::Child,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a program")? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command that must succeed, with its output appended to `log`. The error contains the last
/// lines of the log.
pub(crate) fn run_logged(command: &mut Command, log: &Path, limit: Duration) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("running {name}"))?;
    let Some(status) = wait_at_most(&mut child, limit)? else {
        child.kill().ok();
        child.wait().ok();
        bail!("`{name}` took more than {} s", limit.as_secs());
    };
    if !status.success() {
        bail!("`{name}` failed: {}", last_lines(log, 3));
    }
    Ok(())
}

/// The last lines of a log, joined into one.
pub(crate) fn last_lines(log: &Path, lines: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let filled: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    filled[filled.len().saturating_sub(lines)..].join(" | ")
}
