//! Debian packages without installing them: an apt of our own folders with the host's sources and keyring,
//! `apt-get download` and `dpkg-deb -x`. No root, and nothing on the host changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use super::tool::{Unavailable, need, run_logged};

/// Enough for 250 MB on a slow line; a line that is down is noticed by apt's own time-outs long before.
const DOWNLOAD: Duration = Duration::from_secs(900);

/// Lists of what the host's sources offer, fetched when made.
pub(crate) struct Apt {
    folder: PathBuf,
    configuration: PathBuf,
    /// Why lists may be incomplete, in apt's words.
    complaint: Option<String>,
}

impl Apt {
    /// Fetches the lists of packages for the host and for such guests into `folder`.
    pub(crate) fn open(folder: &Path, machine: Machine) -> Result<Self> {
        need("apt-get", "vm-test needs Debian 12's archive through apt")?;
        need(
            "dpkg-deb",
            "it unpacks what apt-get downloads: package dpkg",
        )?;
        for part in ["lists/partial", "archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("making {}", part.display()))?;
        }
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, settings(folder, machine))
            .with_context(|| format!("writing {}", configuration.display()))?;
        let mut apt = Self {
            folder: folder.to_owned(),
            configuration,
            complaint: None,
        };
        // Its exit code says little: one dead third-party source makes it fail although Debian's lists came.
        let output = apt.get().arg("update").output();
        let output = output.context("running apt-get update")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        apt.complaint = text
            .lines()
            .find(|line| line.starts_with("E:") || line.starts_with("W:"))
            .map(str::to_owned);
        Ok(apt)
    }

    /// The packages that `package` directly depends on.
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

    /// `package` for such a machine and those of its dependencies that this host has not installed. It is a simulated installation, so
    /// that apt decides; that it would remove, renew or keep back something of the host's does not matter here.
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

    /// Downloads packages and unpacks them over each other into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        if debs.exists() {
            fs::remove_dir_all(&debs)?;
        }
        fs::create_dir_all(&debs).with_context(|| format!("making {}", debs.display()))?;
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        let mut download = self.get();
        download.arg("download").args(packages).current_dir(&debs);
        let log = self.folder.join("download.log");
        if let Err(error) = run_logged(&mut download, &log, DOWNLOAD) {
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
            // Half a gigabyte of them would lie beside what was unpacked.
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

    fn not_offered(&self, what: &str, said: &[u8]) -> Unavailable {
        // That lists could not be fetched explains more than that the package is not in them.
        let said = String::from_utf8_lossy(said);
        let error = said.lines().find(|line| line.starts_with("E:"));
        let why = self.complaint.as_deref().or(error).unwrap_or(
            "the sources in the host's apt configuration have no such package; Debian 12's have",
        );
        Unavailable(format!("apt cannot offer {what}: {why}"))
    }
}

/// Own lists, own cache; sources, keyring and the state of what is installed are the host's.
fn settings(folder: &Path, machine: Machine) -> String {
    let folder = folder.display();
    // Only named where there are two: otherwise the host's own setting stands.
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
