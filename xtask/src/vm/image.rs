//! Writes the guest's only root file system: busybox, kernel modules, files, and programs with
//! their shared libraries.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::kit::{Kit, library_path};
use super::machine::Machine;
use super::tool::need;

/// Path of the dynamic linker in programs for a PC. That of ARM is in /lib, like all libraries of
/// the guest.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Scripts of the guest, and their paths there.
const SCRIPTS: [(&str, &str); 3] = [
    ("/init", include_str!("guest/init.sh")),
    ("/lib/vm/agent", include_str!("guest/agent.sh")),
    ("/bin/gpio", include_str!("guest/gpio.sh")),
];

/// A file that a boot adds to the guest.
#[derive(Clone, Debug)]
pub(crate) struct GuestFile {
    /// Absolute, in the guest.
    pub(crate) path: String,
    pub(crate) content: Content,
    /// Permissions, such as 0o644.
    pub(crate) mode: u32,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A file of the host's.
    Host(PathBuf),
    /// A program of the host's. Its shared libraries are added too.
    Program(PathBuf),
}

/// Writes the file system as an archive to `at`.
pub(crate) fn write(kit: &Kit, files: &[GuestFile], at: &Path) -> Result<()> {
    let file = File::create(at).with_context(|| format!("writing {}", at.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    // The kernel opens it for the first process, before that process can mount /dev.
    archive.device("/dev/console", (5, 1))?;
    archive.file("/bin/busybox", 0o755, &read(&kit.busybox())?)?;
    archive.link("/bin/sh", "busybox")?;
    for (path, script) in SCRIPTS {
        archive.file(path, 0o755, script.as_bytes())?;
    }
    // modprobe looks in a folder named after the kernel's release.
    let release = kit.release();
    for entry in fs::read_dir(kit.modules())? {
        let module = entry?.path();
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/lib/modules/{release}/{name}");
        archive.file(&path, 0o644, &read(&module)?)?;
    }
    let v4l2_ctl = GuestFile {
        path: "/bin/v4l2-ctl".to_owned(),
        content: Content::Program(kit.v4l2_ctl()),
        mode: 0o755,
    };
    let mut libraries = BTreeMap::new();
    for file in files.iter().chain([&v4l2_ctl]) {
        let bytes = match &file.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Host(path) => read(path)?,
            Content::Program(path) => {
                match kit.machine() {
                    Machine::Pc => libraries.extend(loaded(path, &library_path(&kit.libraries()))?),
                    Machine::Arm => needed(path, &kit.libraries(), &mut libraries)?,
                }
                read(path)?
            }
        };
        archive.file(&file.path, file.mode, &bytes)?;
    }
    for (guest, host) in libraries {
        archive.file(&guest, 0o755, &read(&host)?)?;
    }
    archive
        .finish()
        .with_context(|| format!("writing {}", at.display()))?;
    Ok(())
}

/// Paths in the guest and on the host of all libraries that a program loads, the dynamic linker
/// included. In the guest all are in /lib, which the dynamic linker searches by default.
fn loaded(program: &Path, search: &str) -> Result<Vec<(String, PathBuf)>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LD_LIBRARY_PATH", search)
        .env("LC_ALL", "C")
        .output()
        .context("running ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("statically linked") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("ldd {}: {}", program.display(), why.trim());
    }
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        match (words.next(), words.next()) {
            (Some("=>"), Some("not")) => {
                bail!(
                    "{} needs {name}, which is not on this machine",
                    program.display()
                )
            }
            (Some("=>"), Some(path)) => found.push((format!("/lib/{name}"), PathBuf::from(path))),
            _ if name.starts_with('/') => found.push((LOADER.to_owned(), PathBuf::from(name))),
            // linux-vdso, which the kernel provides.
            _ => {}
        }
    }
    Ok(found)
}

/// Adds to `found` the libraries of a program for another machine, whose dynamic linker cannot run
/// here: those that the program and its libraries name, as they are in `folders`.
fn needed(
    program: &Path,
    folders: &[PathBuf],
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let output = Command::new(need("readelf", "install it: package binutils")?)
        .args(["--dynamic", "--wide"])
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("running readelf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A line is like " 0x0000000000000001 (NEEDED)  Shared library: [libc.so.6]".
    let names = text.lines().filter(|line| line.contains("(NEEDED)"));
    for name in names.filter_map(|line| line.split(['[', ']']).nth(1)) {
        let guest = format!("/lib/{name}");
        if found.contains_key(&guest) {
            continue;
        }
        let path = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .with_context(|| {
                format!(
                    "{} needs {name}, which is not in the guest's packages",
                    program.display()
                )
            })?;
        found.insert(guest, path.clone());
        needed(&path, folders, found)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
