//! What a scenario gets, and the running of scenarios.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::boot::{Boot, Guest, make_disk};
use super::camera::Pictures;
use super::image::{Content, GuestFile};
use super::kit::Kit;
use super::machine::Machine;
use super::material::Material;
use super::tool::{need, run_logged};

const FEEDER: &str = "vm-feed";
const CAMERA: [&str; 4] = ["--package", "edge-runtime", "--bin", "edge-runtime"];

/// A named test; it fails by returning an error.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Rig) -> Result<()>,
}

/// Guests, disks, and the programs under test.
pub(crate) struct Rig {
    kit: Kit,
    root: PathBuf,
    /// Logs, disks and images of this run; one folder a boot.
    folder: PathBuf,
    /// Of the scenario that runs.
    name: &'static str,
    boots: usize,
    shared: Option<Guest>,
    /// The host's programs that need not be built, by their file names.
    given: Vec<PathBuf>,
    programs: Vec<(&'static str, PathBuf)>,
    material: Option<Material>,
    quick: bool,
    /// Made from the material when first asked for.
    pub(super) pictures: Option<Pictures>,
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
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
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

    /// How often the power is cut, of so many times in a full run. Each cut comes at a random moment, so that quick runs come to as many
    /// moments as full ones, over more runs.
    pub(crate) fn power_cuts(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(3) } else { full }
    }

    /// The repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where this run's files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boots a guest of the scenario's own.
    pub(crate) fn boot(&mut self, boot: &Boot) -> Result<Guest> {
        self.boots += 1;
        let folder = self.folder.join(format!("{}-{}", self.name, self.boots));
        let guest = Guest::start(&self.kit, &folder, boot)?;
        eprintln!("    booted in {:.1} s", guest.boot_time.as_secs_f64());
        // It has been unpacked into the guest's memory; twenty power cuts would leave a gigabyte of them.
        fs::remove_file(folder.join("root.cpio")).ok();
        Ok(guest)
    }

    /// A guest that scenarios without special wishes share: no disk, port 9000, `vm-feed`. A failure ends it, so that
    /// the next scenario starts from a clean one.
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

    /// A new disk for `Boot::disk`, empty, 128 MiB.
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

    /// The camera's program as /bin/edge-runtime.
    pub(crate) fn edge_runtime(&mut self) -> Result<GuestFile> {
        let program = self.program("edge-runtime", &CAMERA)?;
        Ok(executable("/bin/edge-runtime", program))
    }

    /// The camera's program on the host.
    pub(crate) fn camera_program(&mut self) -> Result<PathBuf> {
        self.built("edge-runtime", &CAMERA)
    }

    /// A package, its key and frames, made once a run unless the command line gave some.
    pub(crate) fn material(&mut self) -> Result<Material> {
        if let Some(material) = &self.material {
            return Ok(material.clone());
        }
        let trainer = self.built("host-trainer", &["--package", "host-trainer"])?;
        let material = Material::make(&trainer, &self.folder.join("material"))?;
        Ok(self.material.insert(material).clone())
    }

    /// A copy of a program for the guest without debugging information, of which the guest would have to hold 50 MB in memory.
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

    /// A program of this workspace for the host, built unless the command line gave it.
    fn built(&self, name: &str, build: &[&str]) -> Result<PathBuf> {
        if let Some(file) = self.given.iter().find(|file| file.ends_with(name)) {
            return Ok(file.clone());
        }
        // What the two large programs link against; costs nothing when it is there.
        if name != FEEDER {
            crate::setup::run(&self.root, None)?;
        }
        let mut arguments = vec!["build", "--quiet", "--locked"];
        arguments.extend(build);
        crate::cargo(&self.root, &arguments)?;
        Ok(crate::target(&self.root).join("debug").join(name))
    }

    /// Runs `scenarios`, prints a line for each, and returns how many passed and failed.
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

/// A program of the host's at `path` in the guest.
pub(crate) fn executable(path: &str, program: PathBuf) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Program(program),
        mode: 0o755,
    }
}

/// Bytes at `path` in the guest.
pub(crate) fn bytes(path: &str, bytes: &[u8]) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Bytes(bytes.to_owned()),
        mode: 0o644,
    }
}

/// A file of the host's at `path` in the guest.
pub(crate) fn host(path: &str, file: PathBuf) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: Content::Host(file),
        mode: 0o644,
    }
}

/// `Ok` if both are equal; a scenario's assertion.
pub(crate) fn same(what: &str, got: &[u8], wanted: &[u8]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(one, other)| one != other);
    bail!(
        "{what}: {} bytes instead of {}, different from byte {}",
        got.len(),
        wanted.len(),
        at.unwrap_or(got.len().min(wanted.len()))
    );
}
