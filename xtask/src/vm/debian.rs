//! Downloads and unpacks Debian packages without installing them, by `apt-get download` and
//! `dpkg-deb -x`.
//!
//! apt works in folders of our own with the host's sources and keyring. This needs no root, and
//! changes nothing on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use super::tool::{Unavailable, need, run_logged};

/// Longest time for a download, enough for 250 MB on a slow line. apt's own time-outs notice a
/// broken connection much earlier.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);

/// The package lists of the host's sources.
pub(crate) struct Apt {
    folder: PathBuf,
    configuration: PathBuf,
    /// apt's message if the lists may be incomplete.
    complaint: Option<String>,
}

impl Apt {
    /// Fetches the lists of packages for the host and for the guest into `folder`.
    pub(crate) fn open(folder: &Path, machine: Machine) -> Result<Self> {
        need("apt-get", "vm-test needs Debian 12's archive through apt")?;
        need("dpkg-deb", "install it: package dpkg")?;
        for part in ["lists/partial", "archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
        }
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, settings(folder, machine))
            .with_context(|| format!("writing {}", configuration.display()))?;
        let mut apt = Self {
            folder: folder.to_owned(),
            configuration,
            complaint: None,
        };
        // The exit code is ignored: one dead third-party source makes apt fail although Debian's
        // lists were fetched.
        let output = apt.get().arg("update").output();
        let output = output.context("running apt-get update")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        apt.complaint = text
            .lines()
            .find(|line| line.starts_with("E:") || line.starts_with("W:"))
            .map(str::to_owned);
        Ok(apt)
    }

    /// The packages that `package` depends on directly.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = self
            .command("apt-cache")
            .args(["depends", "--important", package])
            .output()
            .context("running apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names: Vec<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            bail!(self.not_offered(package, &output.stderr));
        }
        Ok(names)
    }

    /// `package` for the machine, and those of its dependencies that this host has not installed.
    /// apt finds them by simulating an installation; what it would remove, upgrade or keep back on
    /// the host does not matter.
    pub(crate) fn missing(&self, package: &str, machine: Machine) -> Result<Vec<String>> {
        let package = machine.package(package);
        let output = self
            .get()
            .args([
                "--simulate",
                "install",
                "--no-install-recommends",
                "--reinstall",
            ])
            .arg(&package)
            .output()
            .context("running apt-get --simulate")?;
        if !output.status.success() {
            bail!(self.not_offered(&package, &output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| machine == Machine::Pc || name.ends_with(":arm64"))
            .map(str::to_owned);
        Ok(names.collect())
    }

    /// Downloads packages and unpacks all of them into the folder `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        if debs.exists() {
            fs::remove_dir_all(&debs)?;
        }
        fs::create_dir_all(&debs).with_context(|| format!("creating {}", debs.display()))?;
        fs::create_dir_all(into).with_context(|| format!("creating {}", into.display()))?;
        let mut download = self.get();
        download.arg("download").args(packages).current_dir(&debs);
        let log = self.folder.join("download.log");
        if let Err(error) = run_logged(&mut download, &log, DOWNLOAD_LIMIT) {
            return Err(error.context(Unavailable(format!(
                "apt-get could not download {}",
                packages.join(" ")
            ))));
        }
        for entry in fs::read_dir(&debs)? {
            let deb = entry?.path();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(&deb).arg(into);
            run_logged(&mut unpack, &log, Duration::from_secs(120))?;
            // All of them together would take half a gigabyte more.
            fs::remove_file(&deb)?;
        }
        Ok(())
    }

    fn get(&self) -> Command {
        let mut command = self.command("apt-get");
        command.args(["-q", "-y"]);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&self.configuration)
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }

    /// The error for a package that is in no list; `stderr` is apt's.
    fn not_offered(&self, what: &str, stderr: &[u8]) -> Unavailable {
        // Why a list could not be fetched says more than that it lacks the package.
        let stderr = String::from_utf8_lossy(stderr);
        let error = stderr.lines().find(|line| line.starts_with("E:"));
        let why = self.complaint.as_deref().or(error).unwrap_or(
            "the sources in the host's apt configuration lack this package, which Debian 12 has",
        );
        Unavailable(format!("apt cannot offer {what}: {why}"))
    }
}

/// An apt configuration with lists and cache in `folder`. Sources, keyring and the list of
/// installed packages are the host's.
fn settings(folder: &Path, machine: Machine) -> String {
    let folder = folder.display();
    // Set only for two architectures; otherwise the host's setting is kept.
    let architectures = match machine {
        Machine::Pc => "",
        Machine::Arm => "APT::Architectures { \"amd64\"; \"arm64\"; };\n",
    };
    format!(
        "{architectures}\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}\";\n\
         Debug::NoLocking \"true\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
         Acquire::Retries \"2\";\n\
         Acquire::http::Timeout \"20\";\n\
         Acquire::https::Timeout \"20\";\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear DPkg::Post-Invoke;\n"
    )
}
