//! What a guest is booted from: QEMU (if the host has none), kernel and modules, busybox and
//! v4l2-ctl.
//!
//! The kit is made once and kept in the user's cache folder. To make it again, with the kernel that
//! the archive offers then, delete its folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::debian::Apt;
use super::kernel;
use super::machine::Machine;
use super::tool::{Unavailable, find};

/// Version of the kit. It is raised when the contents change; older folders are then unused.
const RECIPE: u32 = 2;
/// The first QEMU that emulates AVX2, which inference is compiled for.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// A complete kit and the QEMU to use.
pub(crate) struct Kit {
    machine: Machine,
    folder: PathBuf,
    release: String,
    qemu: Qemu,
}

enum Qemu {
    Installed(PathBuf),
    /// The folder with Debian's unpacked packages.
    Unpacked(PathBuf),
}

impl Kit {
    /// Finds the kit for guests of this kind in `cache`, or makes it.
    pub(crate) fn ensure(cache: &Path, machine: Machine) -> Result<Self> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!(Unavailable("vm-test runs on x86-64 Linux only".to_owned()));
        }
        fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
        let work = Work(cache.join(format!("vm-partial-{}", std::process::id())));
        let prefix = format!("vm-{}r{RECIPE}-", machine.cache_prefix());
        let made = newest(cache, &prefix)?;
        // Missing tools are reported before anything is downloaded.
        if made.is_none() {
            kernel::check_tools(machine)?;
        }
        let mut apt = None;
        let qemu = match installed(machine) {
            Some(path) => Qemu::Installed(path),
            None => Qemu::Unpacked(unpacked(cache, &work.0, &mut apt, machine)?),
        };
        let folder = match made {
            Some(folder) => folder,
            None => make(cache, &prefix, &work.0, &mut apt, machine)?,
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let release = name.strip_prefix(&prefix).unwrap_or_default().to_owned();
        Ok(Self {
            machine,
            folder,
            release,
            qemu,
        })
    }

    /// The kind of its guests.
    pub(crate) fn machine(&self) -> Machine {
        self.machine
    }

    /// The kernel's release, such as `6.1.0-44-amd64`.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    pub(crate) fn busybox(&self) -> PathBuf {
        self.folder.join("programs/bin/busybox")
    }

    pub(crate) fn v4l2_ctl(&self) -> PathBuf {
        self.folder.join("programs/usr/bin/v4l2-ctl")
    }

    /// Folders with the libraries of the kit's programs: those that the host lacks for a PC, and
    /// all of them for another machine.
    pub(crate) fn libraries(&self) -> Vec<PathBuf> {
        libraries(&self.folder.join("programs"), self.machine)
    }

    /// A command that starts QEMU with its firmware.
    pub(crate) fn qemu(&self) -> Command {
        match &self.qemu {
            Qemu::Installed(path) => guarded(path),
            Qemu::Unpacked(tree) => {
                let mut command = guarded(&tree.join("usr/bin").join(self.machine.qemu().0));
                command.env(
                    "LD_LIBRARY_PATH",
                    library_path(&libraries(tree, Machine::Pc)),
                );
                for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(tree.join(firmware));
                }
                command
            }
        }
    }

    /// A line for the user about the kit and QEMU.
    pub(crate) fn describe(&self) -> String {
        let qemu = match &self.qemu {
            Qemu::Installed(path) | Qemu::Unpacked(path) => path.display(),
        };
        format!("{} with {qemu}", self.folder.display())
    }
}

/// A command for QEMU. If util-linux's setpriv is installed, the kernel ends QEMU when this program
/// ends, even if it is killed.
fn guarded(qemu: &Path) -> Command {
    match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    }
}

/// The installed QEMU, if it is new enough.
fn installed(machine: Machine) -> Option<PathBuf> {
    let path = find(machine.qemu().0)?;
    (version(Command::new(&path)).ok()? >= OLDEST_QEMU).then_some(path)
}

/// Reads the version, which QEMU prints as "QEMU emulator version 7.2.22 (Debian …)".
fn version(mut qemu: Command) -> Result<(u32, u32)> {
    let output = qemu.arg("--version").output().context("running QEMU")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split("version ").nth(1).map(|rest| {
        let mut parts = rest.split(|letter: char| !letter.is_ascii_digit());
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        (number().unwrap_or(0), number().unwrap_or(0))
    });
    numbers.with_context(|| {
        let message = String::from_utf8_lossy(&output.stderr);
        format!("QEMU does not start: {}", message.trim())
    })
}

/// Debian's QEMU, unpacked into the cache. It is not installed, because the package may replace a
/// newer qemu-utils.
fn unpacked(cache: &Path, work: &Path, apt: &mut Option<Apt>, machine: Machine) -> Result<PathBuf> {
    let tree = cache.join(format!("qemu-{}r1", machine.cache_prefix()));
    let (program, package) = machine.qemu();
    let answers = |tree: &Path| {
        let mut command = Command::new(tree.join("usr/bin").join(program));
        command.env(
            "LD_LIBRARY_PATH",
            library_path(&libraries(tree, Machine::Pc)),
        );
        version(command)
    };
    if tree.is_dir() {
        if answers(&tree).is_ok() {
            return Ok(tree);
        }
        // A library of the host that it needs is gone: unpack it again.
        fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    eprintln!(
        "vm-test: no QEMU is installed; unpacking Debian's into the cache (15 MB to download) …"
    );
    let apt = open(apt, work, machine)?;
    let packages = apt.missing(package, Machine::Pc)?;
    let partial = work.join("qemu");
    apt.unpack(&packages, &partial)?;
    if let Err(error) = answers(&partial) {
        bail!(Unavailable(format!(
            "Debian's QEMU does not run unpacked ({error:#}): install the package {package}"
        )));
    }
    publish(&partial, &tree)?;
    Ok(tree)
}

/// Makes the kit in the folder `work` and moves it into `cache`.
fn make(
    cache: &Path,
    prefix: &str,
    work: &Path,
    apt: &mut Option<Apt>,
    machine: Machine,
) -> Result<PathBuf> {
    let started = Instant::now();
    eprintln!("vm-test: making the guest's kernel and programs (230 MB to download, once) …");
    let apt = open(apt, work, machine)?;
    let release = kernel::release(apt, machine)?;
    let kit = work.join("kit");
    kernel::make(apt, &release, work, &kit, machine)?;
    let mut programs = apt.missing("v4l-utils", machine)?;
    programs.push(machine.package("busybox-static"));
    apt.unpack(&programs, &kit.join("programs"))?;
    let folder = cache.join(format!("{prefix}{release}"));
    publish(&kit, &folder)?;
    eprintln!(
        "vm-test: kernel {release} ready in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(folder)
}

/// apt, opened at first use.
fn open<'a>(apt: &'a mut Option<Apt>, work: &Path, machine: Machine) -> Result<&'a Apt> {
    let opened = match apt.take() {
        Some(opened) => opened,
        None => Apt::open(&work.join("apt"), machine)?,
    };
    Ok(apt.insert(opened))
}

/// Moves a complete folder into the cache, so that there is never half of one.
fn publish(partial: &Path, folder: &Path) -> Result<()> {
    match fs::rename(partial, folder) {
        Ok(()) => Ok(()),
        // Another process was faster: its copy is as good.
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("renaming to {}", folder.display())),
    }
}

/// The last kit that was made.
fn newest(cache: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    let folders = fs::read_dir(cache)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let made = |entry: &fs::DirEntry| entry.metadata().and_then(|found| found.modified()).ok();
    Ok(folders.max_by_key(made).map(|entry| entry.path()))
}

fn libraries(tree: &Path, machine: Machine) -> Vec<PathBuf> {
    machine.libraries().map(|folder| tree.join(folder)).into()
}

/// Folders in the form of LD_LIBRARY_PATH.
pub(crate) fn library_path(folders: &[PathBuf]) -> String {
    let folders = folders.iter().map(|folder| folder.display().to_string());
    folders.collect::<Vec<_>>().join(":")
}

/// A temporary folder, removed when dropped.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
