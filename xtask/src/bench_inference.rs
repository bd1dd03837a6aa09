//! `cargo xtask bench-inference`: this project's engine beside stock tract, ONNX Runtime and OpenVINO, on the same graphs and
//! frames. The engines take turns in one run, so that a machine that slows down slows them all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, setup, target};

/// What the comparison is with, fixed so that tables can be compared.
const PEERS: [&str; 3] = ["numpy==2.4.6", "onnxruntime==1.32.0", "openvino==2026.4.1"];
const WIDTHS: [&str; 4] = ["128", "64", "32", "16"];

/// Makes networks of the paper's shape with random weights, and measures.
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
    build(root)?;
    let programs = target(root).join("debug");
    let folder = target(root).join("bench-inference");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
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
    done(&mut bench)?;
    eprintln!("also in {}", report.display());
    Ok(())
}

/// A package that was trained for one step has random weights, and its graph is like every other's. `built`: its name, the width
/// and what follows from how it is built.
fn network(trainer: &Path, folder: &Path, width: &str, built: &str) -> Result<PathBuf> {
    let onnx = folder.join(format!("{built}.onnx"));
    if onnx.is_file() {
        return Ok(onnx);
    }
    let run = |words: &[&str]| {
        let mut command = Command::new(trainer);
        done(command.args(words).current_dir(folder))
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

/// The same in 8 bits.
fn quantised(trainer: &Path, folder: &Path, built: &str) -> Result<PathBuf> {
    let onnx = folder.join(format!("{built}-int8.onnx"));
    if !onnx.is_file() {
        package(trainer, folder, built, "-int8", &["--int8"])?;
    }
    Ok(onnx)
}

/// A run's graph, `BUILT-SUFFIX.onnx`.
fn package(
    trainer: &Path,
    folder: &Path,
    built: &str,
    suffix: &str,
    options: &[&str],
) -> Result<()> {
    let (trained, made) = (format!("run-{built}"), format!("{built}{suffix}.onnx"));
    let package = format!("{built}{suffix}.awr");
    let mut command = Command::new(trainer);
    command.args(["package", "--run", &trained, "--key", "bench.key"]);
    command.args(["--name", "bench", "--out", &package, "--onnx", &made]);
    done(command.args(options).current_dir(folder))
}

/// Where Python finds the peers, kept beside libtorch.
fn peers() -> Result<PathBuf> {
    let site = setup::cache()?.join(PEERS.join("-").replace("==", "-"));
    setup::pip_install(&site, &PEERS.map(str::to_owned), "the peers, 150 MB")?;
    Ok(site)
}

fn done(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    if !status.success() {
        bail!("{} failed", program.display());
    }
    Ok(())
}
