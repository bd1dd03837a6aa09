//! Runs scenarios, and provides them with guests, disks, programs and material.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::boot::{Boot, Guest, make_disk};
use super::image::{Content, GuestFile};
use super::kit::Kit;
use super::machine::Machine;
use super::material::Material;
use super::pictures::Pictures;
use super::tool::{need, run_logged};
use crate::setup;
use crate::workspace::{build_all, cargo, target};

const FEEDER: &str = "vm-feed";
const NOTIFIER: &str = "vm-notify";
const CAMERA: &str = "edge-runtime";
const CAMERA_TARGET: [&str; 4] = ["--package", CAMERA, "--bin", CAMERA];

/// A named test; it fails by returning an error.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Rig) -> Result<()>,
}

/// What scenarios use: guests, disks, and the programs under test.
pub(crate) struct Rig {
    kit: Kit,
    root: PathBuf,
    /// Logs, disks and images of this run, in a folder for each boot.
    folder: PathBuf,
    /// Name of the running scenario.
    name: &'static str,
    boots: usize,
    shared: Option<Guest>,
    /// Programs of the host that need not be built, known by their file names.
    given: Vec<PathBuf>,
    /// Stripped programs for the guest, by their names.
    programs: Vec<(&'static str, PathBuf)>,
    material: Option<Material>,
    quick: bool,
    pictures: Option<Pictures>,
}

impl Rig {
    pub(crate) fn new(
        kit: Kit,
        root: &Path,
        given: Vec<PathBuf>,
        material: Option<Material>,
        quick: bool,
    ) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("awr-vm-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self {
            kit,
            root: root.to_owned(),
            folder,
            name: "",
            boots: 0,
            shared: None,
            given,
            programs: Vec::new(),
            material,
            quick,
            pictures: None,
        })
    }

    /// Number of power cuts, of `full` in a full run. Each cut is at a random moment, so that quick
    /// runs reach as many moments as full ones, over more runs.
    pub(crate) fn power_cuts(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(3) } else { full }
    }

    /// The root of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of this run's files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boots a guest for the running scenario alone.
    pub(crate) fn boot(&mut self, boot: &Boot) -> Result<Guest> {
        self.boots += 1;
        let folder = self.folder.join(format!("{}-{}", self.name, self.boots));
        let guest = Guest::start(&self.kit, &folder, boot)?;
        eprintln!("    booted in {:.1} s", guest.boot_time.as_secs_f64());
        // The guest has it in memory. Kept, the images of twenty power cuts take a gigabyte.
        fs::remove_file(folder.join("root.cpio")).ok();
        Ok(guest)
    }

    /// A guest that simple scenarios share. It has no disk, but port 9000 and `vm-feed`. A failure
    /// ends it, so that the next scenario starts with a new one.
    pub(crate) fn shared(&mut self) -> Result<&mut Guest> {
        let guest = match self.shared.take() {
            Some(guest) => guest,
            None => {
                let boot = Boot {
                    files: vec![self.feeder()?],
                    ports: vec![9000],
                    disk: None,
                };
                self.boot(&boot)?
            }
        };
        Ok(self.shared.insert(guest))
    }

    /// Makes a disk for `Boot::disk`, empty, 128 MiB.
    pub(crate) fn disk(&mut self) -> Result<PathBuf> {
        self.boots += 1;
        let path = self
            .folder
            .join(format!("{}-{}.disk", self.name, self.boots));
        make_disk(&path, 128)?;
        Ok(path)
    }

    /// `vm-feed` as /bin/vm-feed.
    pub(crate) fn feeder(&mut self) -> Result<GuestFile> {
        let program = self.program(FEEDER, &["--package", "xtask", "--bin", FEEDER])?;
        Ok(executable("/bin/vm-feed", program))
    }

    /// `vm-notify` as /bin/vm-notify.
    pub(crate) fn notifier(&mut self) -> Result<GuestFile> {
        let program = self.program(NOTIFIER, &["--package", "xtask", "--bin", NOTIFIER])?;
        Ok(executable("/bin/vm-notify", program))
    }

    /// The camera's program as /bin/edge-runtime.
    pub(crate) fn edge_runtime(&mut self) -> Result<GuestFile> {
        let program = self.program(CAMERA, &CAMERA_TARGET)?;
        Ok(executable("/bin/edge-runtime", program))
    }

    /// The pictures for a camera, made from the material once per run.
    pub(crate) fn pictures(&mut self) -> Result<Pictures> {
        if let Some(pictures) = &self.pictures {
            return Ok(pictures.clone());
        }
        let material = self.material()?;
        let program = self.built(CAMERA, &CAMERA_TARGET)?;
        let pictures = Pictures::make(&program, &material, &self.folder)?;
        Ok(self.pictures.insert(pictures).clone())
    }

    /// A package, its key and frames: those of the command line, or else made once per run.
    pub(crate) fn material(&mut self) -> Result<Material> {
        if let Some(material) = &self.material {
            return Ok(material.clone());
        }
        let trainer = self.built("host-trainer", &["--package", "host-trainer"])?;
        let material = Material::make(&trainer, &self.folder.join("material"))?;
        Ok(self.material.insert(material).clone())
    }

    /// A copy of a program for the guest. It is stripped, because the guest has it in memory: the
    /// debugging information takes 50 MB.
    fn program(&mut self, name: &'static str, build: &[&str]) -> Result<PathBuf> {
        if let Some((_, path)) = self.programs.iter().find(|(known, _)| *known == name) {
            return Ok(path.clone());
        }
        let machine = self.kit.machine();
        let built = match machine {
            Machine::Pc => self.built(name, build)?,
            Machine::Arm => crate::camera::build(&self.root, name, build)?,
        };
        let copy = self.folder.join(name);
        let (strip, package) = machine.tool("strip");
        let strip = need(&strip, &format!("install it: package {package}"))?;
        let mut command = Command::new(strip);
        command.arg("-o").arg(&copy).arg(built);
        run_logged(
            &mut command,
            &self.folder.join("strip.log"),
            Duration::from_secs(60),
        )?;
        self.programs.push((name, copy.clone()));
        Ok(copy)
    }

    /// A program of this workspace for the host: that of the command line, or else built.
    fn built(&self, name: &str, build: &[&str]) -> Result<PathBuf> {
        if let Some(file) = self.given.iter().find(|file| file.ends_with(name)) {
            return Ok(file.clone());
        }
        if [FEEDER, NOTIFIER].contains(&name) {
            let mut arguments = vec!["build", "--quiet", "--locked"];
            arguments.extend(build);
            cargo(&self.root, &arguments)?;
        } else {
            // Both cost nothing when they were done before.
            setup::run(&self.root, None)?;
            build_all(&self.root)?;
        }
        Ok(target(&self.root).join("debug").join(name))
    }

    /// Runs `scenarios`, prints a line for each, and returns the numbers of passed and failed ones.
    pub(crate) fn run(&mut self, scenarios: &[&Scenario]) -> (usize, usize) {
        let (mut passed, mut failed) = (0, 0);
        for scenario in scenarios {
            (self.name, self.boots) = (scenario.name, 0);
            let started = Instant::now();
            let result = (scenario.run)(self);
            let seconds = started.elapsed().as_secs_f64();
            match result {
                Ok(()) => {
                    passed += 1;
                    println!("ok {} ({seconds:.1} s)", scenario.name);
                }
                Err(error) => {
                    failed += 1;
                    self.shared = None;
                    println!("FAILED {} ({seconds:.1} s): {error:#}", scenario.name);
                }
            }
        }
        self.shared = None;
        (passed, failed)
    }
}

/// A program of the host, to be at `path` in the guest.
pub(crate) fn executable(path: &str, program: PathBuf) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Program(program),
        mode: 0o755,
    }
}

/// Bytes, to be at `path` in the guest.
pub(crate) fn bytes(path: &str, bytes: &[u8]) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Bytes(bytes.to_owned()),
        mode: 0o644,
    }
}

/// A file of the host, to be at `path` in the guest.
pub(crate) fn host(path: &str, file: PathBuf) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Host(file),
        mode: 0o644,
    }
}

/// Fails unless both are equal.
pub(crate) fn ensure_equal(what: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let at = found
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    bail!(
        "{what}: expected {} bytes, found {}, which differ from byte {}",
        expected.len(),
        found.len(),
        at.unwrap_or(found.len().min(expected.len()))
    );
}
