//! `cargo xtask vm-test`: tests the camera's program with real kernel devices, in a virtual
//! machine.
//!
//! A guest has V4L2 devices (vivid, which fails on request, and a loopback that is fed with
//! frames), simulated GPIO lines, a serial port, a network and a disk, and can lose power at any
//! instant. Nothing is installed on the host, and neither root nor hardware virtualisation is
//! needed.
//!
//! From the bottom up: `kit` (cached; made by `debian`, `kernel`, `modules`), `image` (`cpio`),
//! `boot` (`control`), `rig`, `camera` and `station`, `scenarios`.

mod boot;
mod camera;
mod control;
mod cpio;
mod debian;
mod devices;
mod disk;
mod image;
mod kernel;
mod kit;
pub(crate) mod ledger;
mod machine;
mod material;
mod modules;
mod pictures;
mod rig;
pub(crate) mod scenarios;
pub(crate) mod station;
pub(crate) mod tool;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use self::kit::Kit;
use self::machine::Machine;
use self::material::Material;
use self::rig::{Rig, Scenario};
use self::tool::Unavailable;

/// The command line.
#[derive(Default)]
struct Options {
    only: Vec<String>,
    keep: bool,
    list: bool,
    shell: bool,
    if_possible: bool,
    /// Use a 64-bit ARM guest.
    arm: bool,
    /// Make a third of the power cuts.
    quick: bool,
    /// Programs to use instead of building them.
    programs: Vec<PathBuf>,
    /// Material to use instead of making it.
    material: Option<PathBuf>,
}

/// Runs scenarios. The exit code is 0 if all passed, 1 if some failed or could not be run, and 2 if
/// this machine lacks something (0 with `--if-possible`).
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let options = parse(arguments)?;
    if options.list {
        for scenario in scenarios::ALL {
            println!("{}", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&options.only)?;
    match test(root, &options, &chosen) {
        Ok(code) => Ok(code),
        Err(error) => match error.downcast_ref::<Unavailable>() {
            Some(why) if options.if_possible => {
                println!("vm-test skipped: {why}");
                Ok(ExitCode::SUCCESS)
            }
            Some(why) => {
                eprintln!("error: vm-test cannot run here: {why}");
                Ok(ExitCode::from(2))
            }
            None => Err(error),
        },
    }
}

fn test(root: &Path, options: &Options, chosen: &[&Scenario]) -> Result<ExitCode> {
    let started = Instant::now();
    // Tools that scenarios need are checked here, where a missing one is excused. During a scenario
    // it is a failure.
    let machine = if options.arm {
        Machine::Arm
    } else {
        Machine::Pc
    };
    let (strip, its_package) = machine.tool("strip");
    for (program, package) in [
        ("ldd", "libc-bin"),
        ("mkfs.ext4", "e2fsprogs"),
        ("readelf", "binutils"),
        (strip.as_str(), its_package.as_str()),
    ] {
        tool::need(program, &format!("install it: package {package}"))?;
    }
    let kit = Kit::ensure(&crate::setup::cache()?, machine)?;
    eprintln!("vm-test: {}", kit.describe());
    let material = options.material.as_deref().map(Material::open);
    let programs = options.programs.clone();
    let mut rig = Rig::new(kit, root, programs, material.transpose()?, options.quick)?;
    if options.shell {
        return shell(&mut rig);
    }
    let (passed, failed) = rig.run(chosen);
    if failed > 0 || options.keep {
        println!("logs: {}", rig.folder().display());
    } else {
        std::fs::remove_dir_all(rig.folder()).ok();
    }
    eprintln!("vm-test: {:.0} s", started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Boots a guest and runs lines of standard input in it.
fn shell(rig: &mut Rig) -> Result<ExitCode> {
    let folder = rig.folder().to_owned();
    let guest = rig.shared()?;
    eprintln!(
        "type a shell command per line; end with ^D. Console log: {}",
        folder.display()
    );
    for line in std::io::stdin().lines() {
        let output = guest.run(&line?)?;
        std::io::stdout().write_all(&output.stdout)?;
        std::io::stderr().write_all(&output.stderr)?;
        if output.status != 0 {
            eprintln!("[{}]", output.status);
        }
    }
    std::fs::remove_dir_all(&folder).ok();
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--keep" => options.keep = true,
            "--shell" => options.shell = true,
            "--list" => options.list = true,
            "--if-possible" => options.if_possible = true,
            "--quick" => options.quick = true,
            "--arm" => options.arm = true,
            "--only" => match words.next() {
                Some(name) => options.only.push((*name).to_owned()),
                None => {
                    bail!("--only needs a scenario's name; `cargo xtask vm-test --list` lists them")
                }
            },
            "--material" => match words.next() {
                Some(folder) => options.material = Some(std::path::absolute(folder)?),
                None => bail!("--material needs a folder with m.awr, k.key.pub and data"),
            },
            "--program" => match words.next() {
                Some(file) => options.programs.push(std::path::absolute(file)?),
                None => bail!("--program needs a file, such as target/debug/edge-runtime"),
            },
            other => bail!("unknown argument `{other}`; `cargo xtask help` lists them"),
        }
    }
    Ok(options)
}

/// The scenarios with these names, or all if there are none.
fn choose(only: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in only {
        if !scenarios::ALL.iter().any(|scenario| scenario.name == name) {
            bail!("no scenario `{name}`; `cargo xtask vm-test --list` lists them");
        }
    }
    Ok(scenarios::ALL
        .iter()
        .filter(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name))
        .collect())
}
