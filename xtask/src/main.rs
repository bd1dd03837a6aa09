//! `cargo xtask COMMAND`: what developers and CI run in this repository.

mod bench_inference;
mod camera;
mod cards;
mod dependencies;
mod docs;
mod endurance;
mod setup;
mod vm;
mod workspace;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::workspace::{build_all, cargo, target};

/// The image AUROC that the demo must reach on its synthetic data set.
const DEMO_IMAGE_AUROC: f64 = 0.95;

const HELP: &str = "\
cargo xtask COMMAND

  demo            train on a small synthetic data set, package and evaluate; ends with a report
                  to open in a browser
  test            set up what is needed and run all tests of the project
  docs            check the links of all Markdown files, then build the book in target/book; the
                  first run installs mdBook into your cache folder (2 to 3 minutes)
                    --check-links    only check the links
  cards           measure the released models again and write their cards, models/NAME/README.md;
                  takes minutes
                    --data FOLDER    folder of the data sets that models/*/card.toml name
                    --only NAME      only this model (may be repeated)
                    --check          compare the cards instead of writing them
                    --program FILE   use this host-trainer instead of building it
  dependencies    check the licences and sources of all dependencies against deny.toml; part of test
  setup           fetch libtorch and libclang into your cache folder; demo and test do it themselves
                    --cuda           libtorch for NVIDIA GPUs, 4.5 GB on disk
                    --cpu            libtorch for the CPU, 1.2 GB on disk (default)
  camera          build the camera's program for 64-bit ARM Linux (Jetson, Raspberry Pi) and pack it
                  into an archive to unpack there; the first run fetches 350 MB
                    --glibc VERSION  oldest glibc it must run with (default 2.27, Ubuntu 18.04)
                    --test           instead of building, run the tests of the camera and scoring
                                     crates by emulation (qemu-aarch64)
  vm-test         test the camera's program in a virtual machine with V4L2, GPIO and serial devices
                  and power cuts; the first run fetches 250 MB
                    --only NAME      run this scenario (may be repeated)
                    --list           print the names of the scenarios
                    --quick          make a third of the power cuts
                    --keep           keep the logs
                    --shell          boot a guest and run lines of standard input in it
                    --program FILE   use this edge-runtime or host-trainer instead of building it
                                     (may be repeated)
                    --material FOLDER
                                     use its m.awr, n.awr, k.key.pub and data instead of training a
                                     tiny model
                    --if-possible    succeed with a message where something is missing
                    --arm            use a 64-bit ARM guest (needs gcc-aarch64-linux-gnu; --program
                                     still names a program of the host)
  endurance       run the camera's program on an endless replay; its memory, threads and open files
                  must not grow
                    --package FILE --trust FILE --images FOLDER
                    --frames N, --seconds N
                                     how long to run; at least one of them
                    --rate N         frames per second (default: as many as possible)
                    --all-pictures   send a heat map and a thumbnail with every report
                    --no-station     let no station take the reports
                    --kill-every SECONDS
                                     kill the program and the station's link, in turns; no record
                                     may be missing
                    --program FILE   use this edge-runtime instead of the one in target/debug
  bench-inference compare scoring with stock tract, ONNX Runtime and OpenVINO on the same graphs, on
                  one and two threads; the first run fetches 150 MB
                    --seconds N      time for each row of the table (default 3)
                    --width N        only networks of this width (may be repeated)
                    --upsampled      networks of `train --upsampled`
  help            print this text
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
        ["dependencies"] => dependencies::run(&root),
        ["setup"] => setup::run(&root, None),
        ["setup", "--cuda"] => setup::run(&root, Some(setup::Torch::Cuda)),
        ["setup", "--cpu"] => setup::run(&root, Some(setup::Torch::Cpu)),
        ["demo"] => demo(&root),
        ["test"] => test(&root),
        ["docs", options @ ..] => docs::run(&root, options),
        ["cards", options @ ..] => cards::run(&root, options),
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
    dependencies::run(root)?;
    setup::run(root, None)?;
    build_all(root)?;
    cargo(root, &["test", "--workspace", "--locked"])?;
    // In the whole workspace, a crate may use features and dependencies that others enable. These
    // two must also build alone.
    cargo(root, &["check", "--locked", "--package", "proto"])?;
    cargo(root, &["check", "--locked", "--package", "station"])?;
    // In a target folder of its own, so that features of the workspace do not leak into it.
    let no_std = ["--manifest-path", "proto/no-std/Cargo.toml"];
    let target = ["--target-dir", "target/no-std"];
    cargo(
        root,
        &[&["check", "--locked"], &no_std[..], &target[..]].concat(),
    )
}

/// Runs the steps of the demo, each a command that a user would type.
fn demo(root: &Path) -> Result<()> {
    let started = Instant::now();
    setup::run(root, None)?;
    build_all(root)?;
    let trainer = target(root).join("debug").join("host-trainer");
    let demo = root.join("demo");
    if demo.exists() {
        std::fs::remove_dir_all(&demo).with_context(|| format!("removing {}", demo.display()))?;
    }
    std::fs::create_dir_all(&demo).with_context(|| format!("creating {}", demo.display()))?;
    let training_started = Instant::now();
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
            // On this fabric, random features rank defects better than the built-in features and
            // those of ImageNet (models/studies).
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
    let auroc = image_auroc(&demo.join("report").join("metrics.json"))?;
    if auroc < DEMO_IMAGE_AUROC {
        bail!(
            "the demo does not rank its defects above its good frames: expected an image AUROC of \
             at least {DEMO_IMAGE_AUROC}, found {auroc:.3}"
        );
    }
    eprintln!(
        "\ndone in {:.0} s ({:.0} s without the build). Open demo/report/report.html",
        started.elapsed().as_secs_f64(),
        training_started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Reads the image AUROC from the metrics that `host-trainer evaluate` wrote.
fn image_auroc(metrics: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(metrics)
        .with_context(|| format!("reading {}", metrics.display()))?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is not JSON", metrics.display()))?;
    value["image_auroc"]
        .as_f64()
        .with_context(|| format!("{} has no image_auroc", metrics.display()))
}
