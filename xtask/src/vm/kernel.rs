//! The guest's kernel: Debian's kernel, those of its modules that the scenarios need, and two
//! modules that are built here, because Debian has them only as source (v4l2loopback) or not at all
//! (gpio-sim).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::debian::Apt;
use super::machine::Machine;
use super::modules;
use super::tool::{Unavailable, need, run_logged};

/// Debian 12's kernel series, against which both modules are known to compile.
const SERIES: &str = "6.1";
/// Modules to install, together with those that they depend on. crc32c_generic is listed because
/// ext4 loads it at run time, without depending on it.
const WANTED: [&str; 10] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "crc32c_generic",
    "ext4",
    "configfs",
    "vivid",
    "gpio_sim",
    "v4l2loopback",
];
/// Longest time for one step of building the modules.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// The kernel release that the archive offers now, such as `6.1.0-44-amd64`.
pub(crate) fn release(apt: &Apt, machine: Machine) -> Result<String> {
    let depends = apt.depends(&machine.package(&format!("linux-image-{}", machine.debian())))?;
    let prefix = "linux-image-";
    let found = depends
        .iter()
        .filter_map(|name| name.split(':').next()?.strip_prefix(prefix))
        .find(|release| release.starts_with(SERIES));
    match found {
        Some(release) => Ok(release.to_owned()),
        None => bail!(Unavailable(format!(
            "the host's apt sources offer the kernel {}; the test VM needs Debian 12's {SERIES}",
            depends.join(" ")
        ))),
    }
}

/// Checks that the tools that `make` runs are installed. The error says what to install.
pub(crate) fn check_tools(machine: Machine) -> Result<()> {
    let (compiler, its_package) = machine.tool("gcc");
    for (program, package) in [
        (compiler.as_str(), its_package.as_str()),
        ("make", "make"),
        ("xz", "xz-utils"),
        ("tar", "tar"),
    ] {
        need(program, &format!("install it: package {package}"))?;
    }
    Ok(())
}

/// Puts `vmlinux` and `modules` into the folder `kit`. Temporary files are in `work`.
pub(crate) fn make(
    apt: &Apt,
    release: &str,
    work: &Path,
    kit: &Path,
    machine: Machine,
) -> Result<()> {
    let tree = work.join("kernel");
    let version = release
        .strip_suffix(&format!("-{}", machine.debian()))
        .unwrap_or(release);
    let packages = [
        machine.package(&format!("linux-image-{release}")),
        machine.package(&format!("linux-headers-{release}")),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{SERIES}"),
        format!("linux-source-{SERIES}"),
        "v4l2loopback-dkms".to_owned(),
        // The kernel's objtool, which runs on the host like all of kbuild, links against it.
        "libelf1".to_owned(),
    ];
    apt.unpack(&packages, &tree)?;
    let headers = headers(&tree, release, version)?;
    let log = work.join("modules.log");
    for (name, source) in [
        ("gpio-sim", gpio_sim(&tree, work)?),
        ("v4l2loopback", v4l2loopback(&tree)?),
    ] {
        build(&headers, &tree, &source, &log, machine)
            .with_context(|| format!("building the kernel module {name} for {release}"))?;
    }
    let mut found = BTreeMap::new();
    modules::collect(&tree.join("lib/modules").join(release), &mut found)?;
    modules::collect(&work.join("gpio-sim"), &mut found)?;
    modules::collect(&tree.join("usr/src"), &mut found)?;
    modules::install(&found, &WANTED, &kit.join("modules"))?;
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    let kernel = kit.join("vmlinux");
    match machine {
        Machine::Pc => unpack_kernel(&image, &kernel),
        // The image for ARM is not compressed.
        Machine::Arm => fs::copy(&image, &kernel)
            .map(drop)
            .with_context(|| format!("copying {}", image.display())),
    }
}

/// Unpacks the kernel from its compressed image. QEMU starts either, but the image unpacks itself
/// first, which takes half of the boot time in an emulated guest.
fn unpack_kernel(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    // The x86 boot protocol has the number of set-up sectors at 0x1f1. The compressed kernel is in
    // what follows them, its offset at 0x248 and its length at 0x24c. The length includes four
    // bytes after the stream.
    let number = |at: usize| {
        let field = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(field)).ok()
    };
    let payload = || {
        let setup = match bytes.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(*sectors),
        };
        let start = (setup + 1) * 512 + number(0x248)?;
        bytes.get(start..start + number(0x24c)?.checked_sub(4)?)
    };
    let payload = payload().with_context(|| format!("{} is not a kernel", image.display()))?;
    let compressed = to.with_extension("xz");
    fs::write(&compressed, payload)?;
    run_logged(
        Command::new("xz").arg("-d").arg(&compressed),
        &to.with_extension("log"),
        BUILD_LIMIT,
    )
    .with_context(|| format!("unpacking {}", image.display()))
}

/// Lets the headers include the common ones, which they name by absolute path, where they were
/// unpacked; returns their folder.
fn headers(tree: &Path, release: &str, version: &str) -> Result<PathBuf> {
    let sources = tree.join("usr/src");
    let headers = sources.join(format!("linux-headers-{release}"));
    let common = sources.join(format!("linux-headers-{version}-common"));
    let makefile = headers.join("Makefile");
    let line = format!("include {}/Makefile\n", common.display());
    fs::write(&makefile, line).with_context(|| format!("writing {}", makefile.display()))?;
    Ok(headers)
}

/// Makes the source of a gpio-sim module from three files of the kernel. Debian's kernel lacks the
/// interrupt simulator, so that is built into the module; a function that it calls is not exported
/// to modules and is replaced by one that is.
fn gpio_sim(tree: &Path, work: &Path) -> Result<PathBuf> {
    let folder = work.join("gpio-sim");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let top = format!("linux-source-{SERIES}");
    let members = [
        "drivers/gpio/gpio-sim.c",
        "drivers/gpio/gpiolib.h",
        "kernel/irq/irq_sim.c",
    ];
    let mut tar = Command::new("tar");
    tar.arg("-xf")
        .arg(tree.join(format!("usr/src/{top}.tar.xz")))
        .arg("-C")
        .arg(work)
        // tar need not read the archive to its end, because each file occurs once.
        .arg("--occurrence=1")
        .args(members.map(|member| format!("{top}/{member}")));
    run_logged(&mut tar, &work.join("modules.log"), BUILD_LIMIT)?;
    for member in members {
        let from = work.join(&top).join(member);
        let name = from.file_name().context("a member has a name")?;
        let text = fs::read_to_string(&from)
            .with_context(|| format!("reading {}", from.display()))?
            .replace(
                "irq_to_desc(irqnum)",
                "irq_data_to_desc(irq_get_irq_data(irqnum))",
            );
        // It must not have the name of the module, which is linked from both files.
        let name = if name == "gpio-sim.c" {
            "gpio-sim-main.c".as_ref()
        } else {
            name
        };
        fs::write(folder.join(name), text)?;
    }
    fs::write(
        folder.join("Makefile"),
        "obj-m := gpio-sim.o\ngpio-sim-y := gpio-sim-main.o irq_sim.o\n",
    )?;
    Ok(folder)
}

/// The folder of the source of v4l2loopback, made ready for the kernel's build.
fn v4l2loopback(tree: &Path) -> Result<PathBuf> {
    let sources = tree.join("usr/src");
    let found = fs::read_dir(&sources)?
        .flatten()
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("v4l2loopback-")
        })
        .with_context(|| format!("no v4l2loopback in {}", sources.display()))?
        .path();
    // The Makefile of the package is for the running kernel; the kernel's build prefers Kbuild.
    fs::write(found.join("Kbuild"), "obj-m := v4l2loopback.o\n")?;
    Ok(found)
}

/// Builds the module in `source` against `headers`.
fn build(headers: &Path, tree: &Path, source: &Path, log: &Path, machine: Machine) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(headers)
        .arg(format!("M={}", source.display()))
        .args(machine.kernel_make())
        .arg("modules")
        .env("LD_LIBRARY_PATH", tree.join("usr/lib/x86_64-linux-gnu"))
        // Their values from cargo or an outer make are not meant for this build.
        .env_remove("MAKEFLAGS")
        .env_remove("ARCH")
        .env_remove("CROSS_COMPILE");
    run_logged(&mut make, log, BUILD_LIMIT)
}
