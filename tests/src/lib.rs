//! Runs the built programs for the tests in `tests/`. A failure here fails the calling test.

#![forbid(unsafe_code)]

pub mod camera;
pub mod laptop;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The path of a built program. `cargo xtask test` builds all of them before the tests.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("a test is in target/PROFILE/deps")
        .join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace`",
        path.display()
    );
    path
}

/// Runs a program in `folder`, which holds the user's data folder too: what the user of this machine
/// has fetched changes no test.
pub fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program(name))
        .args(arguments)
        .env("XDG_DATA_HOME", folder.join("user-data"))
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

/// Runs a program that must succeed, and returns its standard output.
pub fn ok(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = run(name, folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("programs print UTF-8")
}

/// Runs a program that must fail with exit code 2. The line of standard error that starts with
/// `error:` must contain all of `words`.
pub fn fails(name: &str, folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = run(name, folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{name} {arguments:?}: {errors}"
    );
    let line = errors
        .lines()
        .find(|line| line.starts_with("error:"))
        .unwrap_or_default();
    for word in words {
        assert!(
            line.contains(word),
            "{name} {arguments:?}: `{word}` is not in `{line}`"
        );
    }
}

/// Makes a small data set in the folder `data` of `folder`: frames of 80×80 px, `train` to train
/// on, `test_good` good ones to test, and one with each kind of defect.
pub fn synth(folder: &Path, train: usize, test_good: usize) {
    let (train, test_good) = (train.to_string(), test_good.to_string());
    ok(
        "host-trainer",
        folder,
        &[
            "synth",
            "data",
            "--size",
            "80",
            "--train",
            &train,
            "--test-good",
            &test_good,
            "--per-kind",
            "1",
        ],
    );
}

/// Trains and packages a tiny model in `folder`: data in `data`, run in `run`, key `k.key`, package
/// `m.awr`.
pub fn tiny_package(folder: &Path) {
    synth(folder, 4, 2);
    ok(
        "host-trainer",
        folder,
        &[&["train", "--run", "run", "--iterations", "6"], TINY].concat(),
    );
    ok("host-trainer", folder, &["keygen", "--out", "k.key"]);
    ok(
        "host-trainer",
        folder,
        &[
            "package", "--run", "run", "--key", "k.key", "--name", "tiny", "--out", "m.awr",
        ],
    );
}

/// Options of a training that takes seconds.
pub const TINY: &[&str] = &[
    "--data",
    "data",
    "--size",
    "80",
    "--width",
    "4",
    "--batch",
    "3",
    "--tiles",
    "20",
    "--loss",
    "l2",
    "--hold-out",
    "0.5",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--checkpoint-every",
    "2",
];
