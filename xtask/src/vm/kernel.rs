//! The guest's kernel: Debian's own, its modules that the rig uses, and two that are built here because Debian has them
//! only as source (v4l2loopback) or not at all (gpio-sim).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::debian::Apt;
use super::tool::{Unavailable, need, run_logged};

/// Debian 12's. Both built modules are known to compile against it.
const SERIES: &str = "6.1";
/// With everything that they depend on. crc32c is asked for by ext4 at run time, which its dependencies do not say.
const WANTED: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "crc32c_generic",
    "ext4",
    "configfs",
    "vivid",
    "videobuf2_vmalloc",
];
/// Built here.
const BUILT: [&str; 2] = ["gpio-sim", "v4l2loopback"];
const BUILD: Duration = Duration::from_secs(300);

/// The release that the archive has now, such as `6.1.0-44-amd64`.
pub(crate) fn release(apt: &Apt) -> Result<String> {
    let depends = apt.depends("linux-image-amd64")?;
    let prefix = "linux-image-";
    let found = depends
        .iter()
        .filter_map(|name| name.strip_prefix(prefix))
        .find(|release| release.starts_with(SERIES));
    match found {
        Some(release) => Ok(release.to_owned()),
        None => bail!(Unavailable(format!(
            "the host's apt sources have the kernel {}, and the rig is made for Debian 12's {SERIES}",
            depends.join(" ")
        ))),
    }
}

/// Puts `vmlinuz`, `modules/*.ko` and `modules/modules.dep` into `kit`; `work` is for what is thrown away.
pub(crate) fn make(apt: &Apt, release: &str, work: &Path, kit: &Path) -> Result<()> {
    need("gcc", "install it: package gcc")?;
    need("make", "install it: package make")?;
    need("xz", "install it: package xz-utils")?;
    let tree = work.join("kernel");
    let version = release.strip_suffix("-amd64").unwrap_or(release);
    let packages = [
        format!("linux-image-{release}"),
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{SERIES}"),
        format!("linux-source-{SERIES}"),
        "v4l2loopback-dkms".to_owned(),
        // The kernel's objtool links against it.
        "libelf1".to_owned(),
    ];
    apt.unpack(&packages, &tree)?;
    let headers = headers(&tree, release, version)?;
    let log = work.join("modules.log");
    for (name, source) in [
        ("gpio-sim", gpio_sim(&tree, work)?),
        ("v4l2loopback", v4l2loopback(&tree)?),
    ] {
        build(&headers, &tree, &source, &log)
            .with_context(|| format!("building the kernel module {name} for {release}"))?;
    }
    let modules = kit.join("modules");
    fs::create_dir_all(&modules).with_context(|| format!("making {}", modules.display()))?;
    let mut found = BTreeMap::new();
    collect(&tree.join("lib/modules").join(release), &mut found)?;
    collect(&work.join("gpio-sim"), &mut found)?;
    collect(&tree.join("usr/src"), &mut found)?;
    let wanted = WANTED.iter().chain(&BUILT).map(|name| normal(name));
    fs::write(
        modules.join("modules.dep"),
        install(&found, wanted.collect(), &modules)?,
    )?;
    let kernel = tree.join("boot").join(format!("vmlinuz-{release}"));
    fs::copy(&kernel, kit.join("vmlinuz"))
        .with_context(|| format!("copying {}", kernel.display()))?;
    Ok(())
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

fn build(headers: &Path, tree: &Path, source: &Path, log: &Path) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(headers)
        .arg(format!("M={}", source.display()))
        // The headers ask for a compiler by the version that built the kernel.
        .arg("CC=gcc")
        .arg("modules")
        .env("LD_LIBRARY_PATH", tree.join("usr/lib/x86_64-linux-gnu"))
        // Cargo's and an outer make's settings mean something else here.
        .env_remove("MAKEFLAGS")
        .env_remove("ARCH")
        .env_remove("CROSS_COMPILE");
    run_logged(&mut make, log, BUILD)
}

/// Every .ko below `folder`, by its normal name.
fn collect(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            found.insert(normal(&stem), path);
        }
    }
    Ok(())
}

/// Copies `wanted` and everything they depend on; returns the text of modules.dep, which says so to modprobe.
fn install(
    found: &BTreeMap<String, PathBuf>,
    wanted: BTreeSet<String>,
    into: &Path,
) -> Result<String> {
    let mut needs = BTreeMap::new();
    let mut open: Vec<String> = wanted.into_iter().collect();
    while let Some(name) = open.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let path = found
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let depends = depends(&bytes);
        fs::write(into.join(format!("{name}.ko")), bytes)?;
        open.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    let mut text = String::new();
    for name in needs.keys() {
        let mut all = Vec::new();
        closure(name, &needs, &mut all);
        let files = all.iter().map(|module| format!(" {module}.ko"));
        text.push_str(&format!("{name}.ko:{}\n", files.collect::<String>()));
    }
    Ok(text)
}

/// What `name` needs, each module before those that it needs itself.
fn closure(name: &str, needs: &BTreeMap<String, Vec<String>>, all: &mut Vec<String>) {
    for next in needs.get(name).into_iter().flatten() {
        all.retain(|module| module != next);
        all.push(next.clone());
        closure(next, needs, all);
    }
}

/// A module carries the names of those that it needs, as `depends=a,b` among its NUL-terminated notes.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|part| part == key) else {
        return Vec::new();
    };
    let list = module[at + key.len()..].split(|byte| *byte == 0).next();
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

/// `crc32c-intel` and `crc32c_intel` are one module.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_after_what_needs_them_and_once() {
        assert_eq!(
            depends(b"\x7fELF\0depends=mc,v4l2-tpg\0x"),
            ["mc", "v4l2_tpg"]
        );
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let needs = BTreeMap::from([
            ("a".to_owned(), list(&["c", "b"])),
            ("b".to_owned(), list(&["c"])),
            ("c".to_owned(), list(&[])),
        ]);
        let mut all = Vec::new();
        closure("a", &needs, &mut all);
        assert_eq!(all, ["b", "c"]);
    }
}
