//! The guest's kernel: Debian's own, its modules that the rig uses, and two that are built here because Debian has them
//! only as source (v4l2loopback) or not at all (gpio-sim).

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

/// Debian 12's. Both built modules are known to compile against it.
const SERIES: &str = "6.1";
/// With everything that they depend on. crc32c is asked for by ext4 at run time, which its dependencies do not say.
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
const BUILD: Duration = Duration::from_secs(300);

/// The release that the archive has now, such as `6.1.0-44-amd64`.
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
            "the host's apt sources have the kernel {}, and the rig is made for Debian 12's {SERIES}",
            depends.join(" ")
        ))),
    }
}

/// What `make` runs is here, or the error says what to install.
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

/// Puts `vmlinux` and `modules` into `kit`; `work` is for what is thrown away.
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
        // The kernel's objtool, which runs on the host as all of kbuild does, links against it.
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
        // As it is: ARM's is not compressed.
        Machine::Arm => fs::copy(&image, &kernel)
            .map(drop)
            .with_context(|| format!("copying {}", image.display())),
    }
}

/// QEMU can start the kernel proper as it can the compressed image, which would first unpack itself: emulated, that is
/// half of the time of a boot.
fn unpack_kernel(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    // The x86 boot protocol: number of set-up sectors at 0x1f1; where in what follows them the compressed kernel is, and
    // its length, at 0x248 and 0x24c. The length includes four bytes after the stream.
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
        BUILD,
    )
    .with_context(|| format!("unpacking {}", image.display()))
}

/// The packages name each other by absolute path; here they lie elsewhere.
fn headers(tree: &Path, release: &str, version: &str) -> Result<PathBuf> {
    let sources = tree.join("usr/src");
    let headers = sources.join(format!("linux-headers-{release}"));
    let common = sources.join(format!("linux-headers-{version}-common"));
    let makefile = headers.join("Makefile");
    let line = format!("include {}/Makefile\n", common.display());
    fs::write(&makefile, line).with_context(|| format!("writing {}", makefile.display()))?;
    Ok(headers)
}

/// Three files of the kernel's source make a module. The simulator of interrupts is built into it, since Debian's kernel
/// has none; it uses a function that is not exported to modules, for which an exported one stands in.
fn gpio_sim(tree: &Path, work: &Path) -> Result<PathBuf> {
    let folder = work.join("gpio-sim");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
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
        // Each member once: the rest of the archive need not be read.
        .arg("--occurrence=1")
        .args(members.map(|member| format!("{top}/{member}")));
    run_logged(&mut tar, &work.join("modules.log"), BUILD)?;
    for member in members {
        let from = work.join(&top).join(member);
        let name = from.file_name().context("a member has a name")?;
        let text = fs::read_to_string(&from)
            .with_context(|| format!("reading {}", from.display()))?
            .replace(
                "irq_to_desc(irqnum)",
                "irq_data_to_desc(irq_get_irq_data(irqnum))",
            );
        // Named apart from the module, which is linked from both.
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
    // Its own Makefile is for a running kernel of the same version; the kernel's build reads Kbuild first.
    fs::write(found.join("Kbuild"), "obj-m := v4l2loopback.o\n")?;
    Ok(found)
}

fn build(headers: &Path, tree: &Path, source: &Path, log: &Path, machine: Machine) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(headers)
        .arg(format!("M={}", source.display()))
        .args(machine.kernel_make())
        .arg("modules")
        .env("LD_LIBRARY_PATH", tree.join("usr/lib/x86_64-linux-gnu"))
        // Cargo's and an outer make's settings mean something else here.
        .env_remove("MAKEFLAGS")
        .env_remove("ARCH")
        .env_remove("CROSS_COMPILE");
    run_logged(&mut make, log, BUILD)
}
