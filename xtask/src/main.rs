//! `cargo xtask COMMAND`: what a person or CI runs in this repository.

mod bench_inference;
mod camera;
mod endurance;
mod setup;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What the demo must reach on its synthetic data set.
const DEMO_IMAGE_AUROC: f64 = 0.95;

const HELP: &str = "\
cargo xtask COMMAND

  demo            train on a small synthetic data set, package, evaluate; ends with a report to open
  test            everything the project tests, set-up included
  setup [--cuda]  fetch libtorch and libclang (demo and test do it by themselves)
                  --cuda: the full set for NVIDIA GPUs, 4.5 GB
  camera          the camera's program for 64-bit ARM Linux (Jetson, Raspberry Pi), as an archive to unpack there; once 350 MB
                  --glibc VERSION: the oldest that it is to run with (default 2.27, Ubuntu 18.04's),
                  --test: instead, test the camera crate by emulation (qemu-aarch64)
  vm-test         the camera's devices in a virtual machine: V4L2, GPIO, serial port, power cuts; once 250 MB
                  --only NAME: one scenario (may be repeated), --list: their names, --keep: keep the logs,
                  --shell: boot and run the lines of standard input in the guest,
                  --program FILE: use this edge-runtime or host-trainer instead of building it,
                  --material FOLDER: use its m.awr, n.awr, k.key.pub and data instead of training a tiny model,
                  --if-possible: where something is missing, say so and end well,
                  --quick: a third of the power cuts,
                  --arm: the guest is a 64-bit ARM machine (needs gcc-aarch64-linux-gnu; --program is the host's)
  endurance       the camera's program on an endless replay: memory, threads and files must not grow
                  --package FILE --trust FILE --images FOLDER, --frames N and/or --seconds N,
                  --rate N: frames a second (default: as many as possible), --all-pictures: a heat map and a thumbnail
                  with every report, --no-station: nobody takes the reports, --program FILE: this edge-runtime
  bench-inference scoring beside stock tract, ONNX Runtime and OpenVINO on the same graphs, one and two threads; once 150 MB
                  --seconds N: for each row (default 3), --width N: only this width (may be repeated), --upsampled: networks
                  of `train --upsampled`
  help            this text
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent folder")?
        .to_owned();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let help = ["help", "--help", "-h"];
    match words.as_slice() {
        words if words.is_empty() || words.iter().any(|word| help.contains(word)) => {
            print!("{HELP}");
            Ok(())
        }
        ["setup"] => setup::run(&root, None),
        ["setup", "--cuda"] => setup::run(&root, Some(setup::Torch::Cuda)),
        ["setup", "--cpu"] => setup::run(&root, Some(setup::Torch::Cpu)),
        ["demo"] => demo(&root),
        ["test"] => test(&root),
        ["camera", options @ ..] => camera::run(&root, options),
        ["bench-inference", options @ ..] => bench_inference::run(&root, options),
        ["endurance", options @ ..] => endurance::run(&root, options),
        ["vm-test", options @ ..] => return vm::run(&root, options),
        other => bail!(
            "unknown command `{}`; `cargo xtask help` lists them",
            other.join(" ")
        ),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn test(root: &Path) -> Result<()> {
    setup::run(root, None)?;
    build(root)?;
    cargo(root, &["test", "--workspace", "--locked"])?;
    // Feature and dependency unification in a workspace hides what a crate alone would lack.
    cargo(root, &["check", "--locked", "--package", "proto"])?;
    cargo(root, &["check", "--locked", "--package", "station"])?;
    // In its own target folder: the workspace's features must not leak into it.
    let no_std = ["--manifest-path", "proto/no-std/Cargo.toml"];
    let target = ["--target-dir", "target/no-std"];
    cargo(
        root,
        &[&["check", "--locked"], &no_std[..], &target[..]].concat(),
    )
}

/// Everything, for `demo` and `test` alike: the integration tests run the programs, which `cargo test` alone does not
/// build for another package, and a part of the workspace would be built with other features of its dependencies, tract
/// for minutes again.
fn build(root: &Path) -> Result<()> {
    cargo(root, &["build", "--workspace", "--all-targets", "--locked"])
}

/// Steps of the demo, each a command that a user would type.
fn demo(root: &Path) -> Result<()> {
    let started = Instant::now();
    setup::run(root, None)?;
    build(root)?;
    let trainer = target(root).join("debug").join("host-trainer");
    let demo = root.join("demo");
    if demo.exists() {
        std::fs::remove_dir_all(&demo).with_context(|| format!("removing {}", demo.display()))?;
    }
    std::fs::create_dir_all(&demo).with_context(|| format!("making {}", demo.display()))?;
    let trained = Instant::now();
    let steps: &[&[&str]] = &[
        &["synth", "demo/data"],
        &[
            "train",
            "--data",
            "demo/data",
            "--run",
            "demo/run",
            "--width",
            "32",
            "--batch",
            "16",
            "--iterations",
            "1000",
            "--hold-out",
            "0.2",
            // On this fabric random features rank better than the built-in ones and ImageNet's (models/studies).
            "--features",
            "random:0",
        ],
        &["keygen", "--out", "demo/signing.key"],
        &[
            "package",
            "--run",
            "demo/run",
            "--key",
            "demo/signing.key",
            "--name",
            "demo-woven",
            "--out",
            "demo/woven.awr",
        ],
        &[
            "evaluate",
            "--package",
            "demo/woven.awr",
            "--data",
            "demo/data",
            "--out",
            "demo/report",
        ],
    ];
    for step in steps {
        eprintln!("\n$ host-trainer {}", step.join(" "));
        let status = Command::new(&trainer)
            .args(*step)
            .current_dir(root)
            .status()
            .with_context(|| format!("running {}", trainer.display()))?;
        if !status.success() {
            bail!("`host-trainer {}` failed", step[0]);
        }
    }
    let ranked = image_auroc(&demo.join("report").join("metrics.json"))?;
    if ranked < DEMO_IMAGE_AUROC {
        bail!(
            "the demo's defects are not ranked above its good frames: expected an image AUROC of at least \
             {DEMO_IMAGE_AUROC}, found {ranked:.3}"
        );
    }
    eprintln!(
        "\ndone in {:.0} s ({:.0} s without the build). Open demo/report/report.html",
        started.elapsed().as_secs_f64(),
        trained.elapsed().as_secs_f64()
    );
    Ok(())
}

/// From the metrics that `host-trainer evaluate` wrote.
fn image_auroc(metrics: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(metrics)
        .with_context(|| format!("reading {}", metrics.display()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", metrics.display()))?;
    value["image_auroc"]
        .as_f64()
        .with_context(|| format!("{} has no image_auroc", metrics.display()))
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |own| root.join(own))
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(root)
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}
