//! `cargo xtask setup`: provides libtorch (for host-trainer) and libclang (for the camera's V4L2
//! bindings) on a machine with Rust, a C/C++ compiler and Python 3 with pip.
//!
//! It needs no root, and writes only to the user's cache folder and to two git-ignored folders of
//! links in the repository. Running it again costs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The release that torch-sys 0.26 binds to.
const TORCH_VERSION: &str = "2.13.0";
/// Version of the PyPI package that is used where the system has no libclang.
const LIBCLANG_VERSION: &str = "18.1.1";
/// The only NVIDIA libraries that libtorch_cpu.so of the wheel links against.
const CPU_COMPANIONS: [&str; 2] = ["nvidia-cuda-cupti==13.0.85", "nvidia-cuda-runtime==13.0.96"];

/// Which libtorch to fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Torch {
    /// Runs on the CPU only: 1.2 GB on disk.
    Cpu,
    /// Also runs on NVIDIA GPUs: 4.5 GB on disk.
    Cuda,
}

/// Makes `libtorch/` and `libclang/` usable. The error says what is missing.
pub(crate) fn run(root: &Path, wanted: Option<Torch>) -> Result<()> {
    for compiler in ["cc", "c++"] {
        if !answers(Command::new(compiler).arg("--version")) {
            bail!(
                "no C/C++ compiler ({compiler}) found: install one, e.g. \
                 `sudo apt install build-essential`"
            );
        }
    }
    libtorch(root, wanted).context("setting up libtorch")?;
    libclang(root).context("setting up libclang")
}

fn libtorch(root: &Path, wanted: Option<Torch>) -> Result<()> {
    // Cargo puts the default into our environment (.cargo/config.toml); another value is the
    // user's own.
    let view = root.join("libtorch");
    if let Some(own) = std::env::var_os("LIBTORCH").map(PathBuf::from)
        && own != view
    {
        if !own.join("lib").is_dir() {
            bail!(
                "LIBTORCH is set to {}, which has no lib folder: unset it, or point it at libtorch \
                 {TORCH_VERSION}",
                own.display()
            );
        }
        eprintln!("libtorch: using your LIBTORCH={}", own.display());
        return Ok(());
    }
    let rpath = view.join("rpath");
    let linked = fs::read_to_string(&rpath).unwrap_or_default();
    let linked = Path::new(linked.trim());
    let complete = linked.join("libtorch_cpu.so").is_file();
    match wanted {
        None if complete => return Ok(()),
        Some(Torch::Cuda) if complete && is_cuda_set(linked) => return Ok(()),
        Some(Torch::Cpu) if complete && !is_cuda_set(linked) => return Ok(()),
        _ => {}
    }
    let set = wanted.unwrap_or(Torch::Cpu);
    let site = install_torch(set)?;
    link_view(&view, &site)
}

/// Whether this is the set for CUDA, which alone has cuDNN beside torch.
fn is_cuda_set(torch_lib: &Path) -> bool {
    torch_lib
        .ancestors()
        .nth(2)
        .is_some_and(|site| site.join("nvidia").join("cudnn").is_dir())
}

fn install_torch(set: Torch) -> Result<PathBuf> {
    let name = match set {
        Torch::Cpu => format!("libtorch-{TORCH_VERSION}-cpu"),
        Torch::Cuda => format!("libtorch-{TORCH_VERSION}-cuda"),
    };
    let site = cache()?.join(name).join("site");
    let torch = format!("torch=={TORCH_VERSION}");
    let mut arguments = vec!["--only-binary=:all:".to_owned(), torch];
    match set {
        Torch::Cpu => {
            arguments.push("--no-deps".to_owned());
            arguments.extend(CPU_COMPANIONS.map(str::to_owned));
            pip_install(&site, &arguments, "libtorch for the CPU, 1.2 GB on disk")?;
        }
        Torch::Cuda => pip_install(&site, &arguments, "libtorch with CUDA, 4.5 GB on disk")?,
    }
    Ok(site)
}

/// Creates the folder that torch-sys links against. The wheel is laid out differently from a
/// libtorch folder, and GNU ld does not accept it as one; so the libraries here are one-line linker
/// scripts that name the real files.
fn link_view(view: &Path, site: &Path) -> Result<()> {
    let torch = site.join("torch");
    let real = torch.join("lib");
    if view.exists() {
        fs::remove_dir_all(view).with_context(|| format!("removing {}", view.display()))?;
    }
    let lib = view.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("creating {}", lib.display()))?;
    std::os::unix::fs::symlink(torch.join("include"), view.join("include"))?;
    fs::write(view.join("build-version"), TORCH_VERSION)?;
    for (name, target) in [
        ("libtorch_cpu.so", "libtorch_cpu.so"),
        ("libc10.so", "libc10.so"),
        ("libtorch.so", "libtorch_cpu.so"),
    ] {
        let script = format!("INPUT({})\n", real.join(target).display());
        fs::write(lib.join(name), script)?;
    }
    // Written last: its presence means that the folder is complete.
    fs::write(view.join("rpath"), real.display().to_string())?;
    eprintln!("libtorch: {TORCH_VERSION} ready");
    Ok(())
}

/// Makes `libclang/` usable for bindgen, which needs libclang's shared library and the compiler's
/// own headers (such as stddef.h). libclang looks for the headers in `clang/VERSION/include` beside
/// itself; so `libclang/lib` holds links to both, and no compiler flag has to name a folder that
/// differs from machine to machine.
pub(crate) fn libclang(root: &Path) -> Result<()> {
    let view = root.join("libclang");
    let lib = view.join("lib");
    if let Some(own) = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from)
        && own != lib
    {
        eprintln!("libclang: using your LIBCLANG_PATH={}", own.display());
        return Ok(());
    }
    if has_libclang(&lib) && has_own_headers(&lib) {
        return Ok(());
    }
    // A link is only unlinked: following it would empty the folder that it leads to.
    match fs::symlink_metadata(&view) {
        Ok(found) if found.is_symlink() => fs::remove_file(&view),
        Ok(_) => fs::remove_dir_all(&view),
        Err(_) => Ok(()),
    }
    .with_context(|| format!("removing {}", view.display()))?;
    fs::create_dir_all(&view).with_context(|| format!("creating {}", view.display()))?;
    match system_libclang() {
        Some(folder) => link(&folder, &lib)?,
        None => {
            let site = cache()?
                .join(format!("libclang-{LIBCLANG_VERSION}"))
                .join("site");
            let wanted = format!("libclang=={LIBCLANG_VERSION}");
            let arguments = ["--no-deps", "--only-binary=:all:", &wanted];
            pip_install(
                &site,
                &arguments.map(str::to_owned),
                "libclang, 80 MB on disk",
            )?;
            link_libclang(&lib, &site.join("clang").join("native"))?;
        }
    }
    eprintln!("libclang: ready");
    Ok(())
}

/// Links libclang of the PyPI package. The package has no headers, so those of the C compiler are
/// linked beside it.
fn link_libclang(lib: &Path, native: &Path) -> Result<()> {
    let major = LIBCLANG_VERSION.split('.').next().unwrap_or_default();
    let own = lib.join("clang").join(major);
    fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
    link(&compiler_headers()?, &own.join("include"))?;
    link(&native.join("libclang.so"), &lib.join("libclang.so"))
}

/// The folder where the C compiler keeps stddef.h.
fn compiler_headers() -> Result<PathBuf> {
    let output = Command::new("cc")
        .arg("-print-file-name=include")
        .output()
        .context("asking cc for its headers")?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !folder.join("stddef.h").is_file() {
        bail!(
            "cc names `{}` as the folder of its headers, which has no stddef.h: install libclang, \
             e.g. `sudo apt install libclang-dev`, or set LIBCLANG_PATH",
            folder.display()
        );
    }
    Ok(folder)
}

fn link(target: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, at).with_context(|| format!("linking {}", at.display()))
}

fn system_libclang() -> Option<PathBuf> {
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    llvm.map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("/llvm-"))
        .map(|path| path.join("lib"))
        .find(|folder| has_libclang(folder) && has_own_headers(folder))
}

/// Whether `clang/VERSION/include` has stddef.h; VERSION is written like `14.0.6` or `18`.
fn has_own_headers(lib: &Path) -> bool {
    let versions = fs::read_dir(lib.join("clang"))
        .into_iter()
        .flatten()
        .flatten();
    versions
        .map(|entry| entry.path().join("include").join("stddef.h"))
        .any(|header| header.is_file())
}

/// Whether the folder has libclang.so, libclang.so.18, libclang-18.so or the like. libclang-cpp.so
/// does not count: it lacks the C interface.
fn has_libclang(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libclang.so")
            || (name.starts_with("libclang-") && !name.contains("cpp") && name.contains(".so"))
    })
}

/// Installs Python packages into the folder `site` unless it exists. They are installed beside it
/// and then renamed, so that a broken download leaves nothing behind.
pub(crate) fn pip_install(site: &Path, arguments: &[String], what: &str) -> Result<()> {
    if site.is_dir() {
        return Ok(());
    }
    if !answers(Command::new("python3").args(["-m", "pip", "--version"])) {
        bail!("Python 3 with pip not found: install it, e.g. `sudo apt install python3-pip`");
    }
    eprintln!("downloading {what} …");
    let parent = site.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let partial = parent.join(format!("partial-{}", std::process::id()));
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--root-user-action=ignore", "--target"])
        .arg(&partial)
        .args(arguments)
        .stdin(Stdio::null())
        // The environment may have it set for another Python.
        .env_remove("PYTHONPATH")
        .status()
        .context("running pip")?;
    if !status.success() {
        fs::remove_dir_all(&partial).ok();
        bail!("pip could not install {what}: see its message above (a network is needed once)");
    }
    match fs::rename(&partial, site) {
        Ok(()) => Ok(()),
        // Another process was faster: its copy is as good.
        Err(_) if site.is_dir() => Ok(fs::remove_dir_all(&partial)?),
        Err(error) => Err(error).with_context(|| format!("renaming to {}", site.display())),
    }
}

/// The folder in the user's cache that all clones share: libtorch is too large for one per clone.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("awr"))
}

fn answers(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
