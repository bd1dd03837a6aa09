//! `cargo xtask camera`: the camera's program for 64-bit ARM Linux (Jetson, Raspberry Pi and their like), built on any Linux PC and
//! packed for `tar -xz -C /`. Zig is linker and C compiler: it brings the headers and libraries of ARM Linux, of a glibc as old as
//! wanted, so that no cross compiler and no ARM machine is needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{setup, target};

const CRATE: &str = "edge-runtime";
/// Rust's name of what cameras are.
const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Fixed, so that what is built today is built tomorrow.
const ZIG: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];
/// Ubuntu 18.04's, which JetPack 4 is: programs run with any newer one.
const OLDEST_GLIBC: &str = "2.27";
/// They emulate the processor for single programs.
const EMULATORS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];
/// A Jetson Nano's class, and all that an ARM processor can have.
const PROCESSORS: [&str; 2] = ["cortex-a57", "max"];
/// Where Debian's package libc6-arm64-cross has the libraries that every ARM program loads.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// Tests of the crate that run no program of it: an emulated one could not start another. `vm-test --arm` runs the program.
const EMULATED: [&str; 7] = [
    "engine",
    "inspector",
    "line",
    "link",
    "package",
    "pixel_format",
    "preprocess",
];
/// The emulator has no serial ports with any baud rate.
const SKIPPED: &str = "io::serial";

/// Where things lie on the camera, and where they are in this repository.
const INSTALLED: [(&str, &str); 2] = [
    ("docs/camera.toml", "etc/awr/camera.toml.example"),
    (
        "docs/systemd/edge-runtime.service",
        "etc/systemd/system/edge-runtime.service",
    ),
];

/// Builds and packs it, or (`--test`) runs the camera crate's tests by emulation.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let (mut glibc, mut test) = (OLDEST_GLIBC, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--test" => test = true,
            "--glibc" => {
                glibc = arguments
                    .next()
                    .context("--glibc needs a version, such as 2.31")?;
            }
            other => bail!("unknown option {other}; `cargo xtask help` lists them"),
        }
    }
    prepare(root)?;
    let zig = Zig::ensure(root, glibc)?;
    if test {
        return zig.test();
    }
    let options = ["--package", CRATE, "--bin", "edge-runtime", "--release"];
    done(&mut zig.command("zigbuild", &options))?;
    pack(root)
}

/// Builds a program of this workspace for ARM as `cargo build OPTIONS` does for the host, and says where it is.
pub(crate) fn build(root: &Path, name: &str, options: &[&str]) -> Result<PathBuf> {
    prepare(root)?;
    let zig = Zig::ensure(root, OLDEST_GLIBC)?;
    done(zig.command("zigbuild", options).arg("--quiet"))?;
    Ok(target(root).join(TRIPLE).join("debug").join(name))
}

/// What Zig does not bring.
fn prepare(root: &Path) -> Result<()> {
    setup::libclang(root).context("setting up libclang")?;
    standard_library()
}

/// Rust's own library for ARM, fetched once by rustup.
fn standard_library() -> Result<()> {
    let has = || {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", TRIPLE]);
        let output = rustc.stderr(Stdio::null()).output();
        let folder = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
    };
    if has() {
        return Ok(());
    }
    eprintln!("$ rustup target add {TRIPLE}");
    let added = Command::new("rustup")
        .args(["target", "add", TRIPLE])
        .status();
    if !added.is_ok_and(|status| status.success()) || !has() {
        bail!(
            "this Rust has no standard library for {TRIPLE}: `rustup target add {TRIPLE}` brings it, or your distribution's package \
             for cross-compiling"
        );
    }
    Ok(())
}

/// Zig and the command that has cargo use it.
struct Zig<'a> {
    root: &'a Path,
    site: PathBuf,
    glibc: &'a str,
}

impl<'a> Zig<'a> {
    fn ensure(root: &'a Path, glibc: &'a str) -> Result<Self> {
        let site = setup::cache()?.join(ZIG.join("-").replace("==", "-"));
        setup::pip_install(&site, &ZIG.map(str::to_owned), "Zig, 350 MB on disk")?;
        Ok(Self { root, site, glibc })
    }

    /// `cargo WORD` for ARM.
    fn command(&self, word: &str, options: &[&str]) -> Command {
        let mut command = Command::new(self.site.join("bin").join("cargo-zigbuild"));
        command
            .args([word, "--locked", "--target"])
            .arg(format!("{TRIPLE}.{}", self.glibc))
            .args(options)
            .env(
                "CARGO_ZIGBUILD_ZIG_PATH",
                self.site.join("ziglang").join("zig"),
            )
            .current_dir(self.root);
        command
    }

    fn test(&self) -> Result<()> {
        let emulator = EMULATORS
            .iter()
            .find(|name| {
                let mut command = Command::new(name);
                command.arg("--version").stdout(Stdio::null());
                command.status().is_ok_and(|status| status.success())
            })
            .context(
                "no qemu-aarch64 found: install it, e.g. `sudo apt install qemu-user-static`",
            )?;
        if !Path::new(SYSROOT).is_dir() {
            bail!("no libraries of ARM Linux in {SYSROOT}: `sudo apt install libc6-arm64-cross`");
        }
        for processor in PROCESSORS {
            eprintln!("tests on a {processor} by {emulator}");
            // The models' tests are released packages' golden tiles.
            let packages = ["--package", CRATE, "--package", "models", "--lib"];
            let mut command = self.command("test", &packages);
            let tests = EMULATED.iter().flat_map(|test| ["--test", test]);
            command.args(tests).args(["--", "--skip", SKIPPED]).env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
                format!("{emulator} -L {SYSROOT} -cpu {processor}"),
            );
            done(&mut command)?;
        }
        Ok(())
    }
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().context("running cargo with Zig")?;
    if !status.success() {
        bail!("cargo for {TRIPLE} failed: see its message above");
    }
    Ok(())
}

/// An archive with the program, the configuration to begin with and the systemd unit, where they belong.
fn pack(root: &Path) -> Result<()> {
    let built = target(root)
        .join(TRIPLE)
        .join("release")
        .join("edge-runtime");
    let folder = target(root).join("camera");
    let tree = folder.join("root");
    if tree.exists() {
        std::fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    let others = INSTALLED.map(|(from, to)| (root.join(from), to));
    let files = [&[(built, "usr/local/bin/edge-runtime")], &others[..]].concat();
    for (from, to) in &files {
        let to = tree.join(to);
        let parent = to.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    let archive = folder.join("edge-runtime-aarch64.tar.gz");
    let mut tar = Command::new("tar");
    // Root's and readable to all, whoever builds it; files alone, so that the camera's own folders keep their modes.
    tar.args(["--owner=0", "--group=0", "--mode=u=rwX,go=rX", "-czf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .args(files.iter().map(|(_, to)| to));
    let status = tar.status().context("running tar")?;
    if !status.success() {
        bail!("tar could not write {}", archive.display());
    }
    let bytes = std::fs::metadata(&archive)?.len();
    eprintln!(
        "{} ({:.1} MB). On the camera: sudo tar -xzf edge-runtime-aarch64.tar.gz -C /",
        archive.display(),
        bytes as f64 / 1e6
    );
    Ok(())
}
