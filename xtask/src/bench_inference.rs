//! `cargo xtask bench-inference`: compares this project's engine with stock tract, ONNX Runtime and
//! OpenVINO on the same graphs and frames.
//!
//! The engines take turns within one run, so that a machine that slows down affects all of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace::{build_all, target};

/// The other engines, in fixed versions, so that tables of different runs can be compared.
const PEERS: [&str; 3] = ["numpy==2.4.6", "onnxruntime==1.32.0", "openvino==2026.4.1"];
const WIDTHS: [&str; 4] = ["128", "64", "32", "16"];

/// Makes networks with the paper's layers and random weights, and measures all engines.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let (mut seconds, mut widths, mut upsampled) = ("3", Vec::new(), false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if *argument == "--upsampled" {
            upsampled = true;
            continue;
        }
        let value = arguments
            .next()
            .with_context(|| format!("{argument} needs a value"))?;
        match *argument {
            "--seconds" => seconds = value,
            "--width" => widths.push(*value),
            other => bail!("unknown option {other}; `cargo xtask help` lists them"),
        }
    }
    if widths.is_empty() {
        widths = WIDTHS.to_vec();
    }
    setup::run(root, None)?;
    build_all(root)?;
    let programs = target(root).join("debug");
    let folder = target(root).join("bench-inference");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let peers = peers()?;
    let trainer = programs.join("host-trainer");
    let mut graphs = Vec::new();
    for width in widths {
        let built = if upsampled {
            format!("{width}-upsampled")
        } else {
            width.to_owned()
        };
        let onnx = network(&trainer, &folder, width, &built)?;
        let int8 = quantised(&trainer, &folder, &built)?;
        graphs.push(format!("{built}={}", onnx.display()));
        graphs.push(format!("{built}-int8={}", int8.display()));
    }
    let report = folder.join("inference.json");
    let mut bench = Command::new("python3");
    bench
        .env("PYTHONPATH", peers)
        .arg(root.join("xtask/src/bench_inference.py"))
        .arg(programs.join("examples").join("engine_speed"))
        .arg(seconds)
        .arg(&report)
        .args(graphs);
    succeed(&mut bench)?;
    eprintln!("the figures as JSON: {}", report.display());
    Ok(())
}

/// Exports a network after one step of training: its weights are nearly random, but its graph is
/// that of any other. `built` is its name: the width, and `-upsampled` if it has such layers.
fn network(trainer: &Path, folder: &Path, width: &str, built: &str) -> Result<PathBuf> {
    let onnx = folder.join(format!("{built}.onnx"));
    if onnx.is_file() {
        return Ok(onnx);
    }
    let run = |words: &[&str]| {
        let mut command = Command::new(trainer);
        succeed(command.args(words).current_dir(folder))
    };
    if !folder.join("data").is_dir() {
        run(&[
            "synth",
            "data",
            "--size",
            "80",
            "--train",
            "4",
            "--test-good",
            "2",
            "--per-kind",
            "1",
        ])?;
    }
    if !folder.join("bench.key").is_file() {
        run(&["keygen", "--out", "bench.key"])?;
    }
    let trained = format!("run-{built}");
    if folder.join(&trained).exists() {
        std::fs::remove_dir_all(folder.join(&trained))?;
    }
    let mut train = vec![
        "train",
        "--data",
        "data",
        "--run",
        &trained,
        "--iterations",
        "1",
        "--width",
        width,
        "--batch",
        "2",
        "--tiles",
        "4",
        "--loss",
        "l2",
        "--size",
        "80",
        "--hold-out",
        "0.5",
        "--device",
        "cpu",
    ];
    if built != width {
        train.push("--upsampled");
    }
    run(&train)?;
    package(trainer, folder, built, "", &[])?;
    Ok(onnx)
}

/// Exports the network `built` in 8 bits.
fn quantised(trainer: &Path, folder: &Path, built: &str) -> Result<PathBuf> {
    let onnx = folder.join(format!("{built}-int8.onnx"));
    if !onnx.is_file() {
        package(trainer, folder, built, "-int8", &["--int8"])?;
    }
    Ok(onnx)
}

/// Packages the run of `built` and exports its graph as `BUILT` and `suffix`, `.onnx`.
fn package(
    trainer: &Path,
    folder: &Path,
    built: &str,
    suffix: &str,
    options: &[&str],
) -> Result<()> {
    let (run, onnx) = (format!("run-{built}"), format!("{built}{suffix}.onnx"));
    let package = format!("{built}{suffix}.awr");
    let mut command = Command::new(trainer);
    command.args(["package", "--run", &run, "--key", "bench.key"]);
    command.args(["--name", "bench", "--out", &package, "--onnx", &onnx]);
    succeed(command.args(options).current_dir(folder))
}

/// Installs the other engines into the cache unless they are there; the folder is for PYTHONPATH.
fn peers() -> Result<PathBuf> {
    let site = setup::cache()?.join(PEERS.join("-").replace("==", "-"));
    setup::pip_install(
        &site,
        &PEERS.map(str::to_owned),
        "numpy, ONNX Runtime and OpenVINO, 150 MB",
    )?;
    Ok(site)
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    if !status.success() {
        bail!("{} failed", program.display());
    }
    Ok(())
}
