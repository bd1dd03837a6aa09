//! `cargo xtask camera`: builds the camera's program for 64-bit ARM Linux (Jetson, Raspberry Pi and
//! similar) on any Linux PC, and packs it for `tar -xz -C /`.
//!
//! Zig is the linker and the C compiler. It brings the headers and libraries of ARM Linux for any
//! version of glibc, so that neither a cross compiler nor an ARM machine is needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace::target;

const CAMERA: &str = "edge-runtime";
/// The crates whose tests run by emulation. Those of `models` score the golden tiles of the
/// released packages.
const EMULATED_CRATES: [&str; 3] = [CAMERA, "scoring", "models"];
/// Rust's name for the platform of cameras.
const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Fixed versions, so that builds are the same at any time.
const ZIG: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];
/// That of Ubuntu 18.04, on which JetPack 4 is based. The program runs with any newer glibc.
const OLDEST_GLIBC: &str = "2.27";
/// QEMU's programs that run a single ARM program. The first one that is found is used.
const EMULATORS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];
/// Processors to emulate: that of a Jetson Nano, and one with every extension that QEMU knows.
const PROCESSORS: [&str; 2] = ["cortex-a57", "max"];
/// The folder of Debian's package libc6-arm64-cross, with the libraries that ARM programs load.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// Integration tests that start no other program, which an emulated one cannot do. `vm-test --arm`
/// covers the camera's program itself.
const EMULATED_TESTS: [&str; 7] = [
    "engine",
    "inspector",
    "line",
    "link",
    "package",
    "pixel_format",
    "preprocess",
];

/// Files of this repository, and their paths on the camera.
const INSTALLED: [(&str, &str); 4] = [
    ("docs/camera.toml", "etc/awr/camera.toml.example"),
    (
        "docs/systemd/edge-runtime.service",
        "etc/systemd/system/edge-runtime.service",
    ),
    ("docs/systemd/awr.sysusers", "usr/lib/sysusers.d/awr.conf"),
    (
        "docs/systemd/awr-gpio.rules",
        "etc/udev/rules.d/60-awr-gpio.rules",
    ),
];

/// Builds and packs the camera's program, or with `--test` runs tests by emulation.
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
    let options = ["--package", CAMERA, "--bin", CAMERA, "--release"];
    run_cargo(&mut zig.command("zigbuild", &options))?;
    pack(root)
}

/// Builds a program of this workspace for ARM, as `cargo build OPTIONS` does for the host, and
/// returns its path.
pub(crate) fn build(root: &Path, name: &str, options: &[&str]) -> Result<PathBuf> {
    prepare(root)?;
    let zig = Zig::ensure(root, OLDEST_GLIBC)?;
    run_cargo(zig.command("zigbuild", options).arg("--quiet"))?;
    Ok(target(root).join(TRIPLE).join("debug").join(name))
}

/// Provides what Zig does not bring.
fn prepare(root: &Path) -> Result<()> {
    setup::libclang(root).context("setting up libclang")?;
    standard_library()
}

/// Fetches Rust's standard library for ARM with rustup, unless it is there.
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
            "this Rust has no standard library for {TRIPLE}: install it with `rustup target add \
             {TRIPLE}` or from your distribution's packages for cross-compiling"
        );
    }
    Ok(())
}

/// An installed Zig, and the cargo command that uses it.
struct Zig<'a> {
    root: &'a Path,
    /// Folder of the Python packages.
    site: PathBuf,
    /// Oldest version that the program must run with.
    glibc: &'a str,
}

impl<'a> Zig<'a> {
    fn ensure(root: &'a Path, glibc: &'a str) -> Result<Self> {
        let site = setup::cache()?.join(ZIG.join("-").replace("==", "-"));
        setup::pip_install(&site, &ZIG.map(str::to_owned), "Zig, 350 MB on disk")?;
        Ok(Self { root, site, glibc })
    }

    /// The cargo subcommand `word` for ARM.
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
                "qemu-aarch64 not found: install it, e.g. `sudo apt install qemu-user-static`",
            )?;
        if !Path::new(SYSROOT).is_dir() {
            bail!(
                "{SYSROOT} not found, which has the libraries of ARM Linux: install them, e.g. \
                 `sudo apt install libc6-arm64-cross`"
            );
        }
        for processor in PROCESSORS {
            eprintln!("running the tests on an emulated {processor} ({emulator})");
            let mut command = self.command("test", &["--lib"]);
            let crates = EMULATED_CRATES.iter().flat_map(|name| ["--package", name]);
            let tests = EMULATED_TESTS.iter().flat_map(|name| ["--test", name]);
            command.args(crates).args(tests).env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
                format!("{emulator} -L {SYSROOT} -cpu {processor}"),
            );
            run_cargo(&mut command)?;
        }
        Ok(())
    }
}

/// Runs a command that must succeed.
fn run_cargo(command: &mut Command) -> Result<()> {
    let status = command.status().context("running cargo with Zig")?;
    if !status.success() {
        bail!("cargo for {TRIPLE} failed: see its message above");
    }
    Ok(())
}

/// Packs the program, an example of its configuration and the systemd unit into an archive, at
/// their paths on the camera.
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
        let parent = to.parent().context("a file has a folder")?;
        std::fs::create_dir_all(parent)
            .with_context(|| format!("creating {}", parent.display()))?;
        std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    let archive = folder.join("edge-runtime-aarch64.tar.gz");
    let mut tar = Command::new("tar");
    // Whoever builds it, root owns the files and all users may read them. The archive has no
    // entries for folders, so that those of the camera keep their permissions.
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
