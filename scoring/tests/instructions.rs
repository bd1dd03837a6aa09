//! Counts the instructions of scoring a tile with callgrind, which shows what a stopwatch on a
//! shared machine does not.
//!
//! Valgrind has no AVX-512, so vector instructions are those of AVX2; layers, packing and borders
//! run the same code everywhere. Counts depend on compiler, processor and Valgrind. The test
//! compares only if all three are those of the record, and otherwise says that it is skipped. To
//! record again, with the counted example built too: `cargo build --workspace --all-targets &&
//! AWR_RECORD_INSTRUCTIONS=1 cargo test --workspace --test instructions`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use scoring::package::{Loaded, Trust};
use serde::{Deserialize, Serialize};

/// Largest relative deviation from the record.
const TOLERANCE: f64 = 0.02;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Compiler, processor, Valgrind.
    conditions: [String; 3],
    /// Millions of instructions per 65 × 65 tile, by released model.
    millions: BTreeMap<String, f64>,
}

fn record_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/instructions.json")
}

/// The first line of a program's output, or nothing without the program.
fn first_line(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

fn conditions() -> Option<[String; 3]> {
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = processor
        .lines()
        .find(|line| line.starts_with("model name"))?;
    let profile = if cfg!(debug_assertions) {
        "checked"
    } else {
        "unchecked"
    };
    Some([
        format!("{} {profile}", first_line(env!("CARGO"), "--version")?),
        model.to_owned(),
        first_line("valgrind", "--version")?,
    ])
}

/// Instructions of a start and this number of tiles.
fn counted(onnx: &Path, width: u16, tiles: usize) -> Result<u64, Box<dyn std::error::Error>> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).ok_or("no folder of the profile")?;
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(profile.join("examples/engine_speed"))
        .arg(onnx)
        .args([&width.to_string(), "1", "counted"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = child.stdin.take().ok_or("no standard input")?;
    lines.write_all("1 65 65\n".repeat(tiles).as_bytes())?;
    drop(lines);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(text.into());
    }
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.ok_or("callgrind does not say what it counted")?;
    Ok(count.trim().parse()?)
}

#[test]
fn scoring_a_tile_takes_as_many_instructions_as_recorded() {
    let Some(conditions) = conditions() else {
        eprintln!("skipped: no valgrind here");
        return;
    };
    let anew = std::env::var_os("AWR_RECORD_INSTRUCTIONS").is_some();
    let recorded: Option<Record> = (!anew).then(|| {
        let text = std::fs::read_to_string(record_file()).unwrap();
        serde_json::from_str(&text).unwrap()
    });
    if let Some(recorded) = recorded
        .as_ref()
        .filter(|record| record.conditions != conditions)
    {
        eprintln!(
            "skipped: recorded with {:?}, here are {conditions:?}",
            recorded.conditions
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Wider models take a minute to load under Valgrind, and spend their instructions in tract's
    // kernels.
    let (name, width) = ("leather-32", 32);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
        .join(format!("{name}.awr"));
    let package = Loaded::new(std::fs::read(package).unwrap()).unwrap();
    let package = package.verify(&Trust::AnySigner).unwrap();
    assert_eq!(package.manifest().network.width, width);
    let onnx = folder.path().join(name);
    std::fs::write(&onnx, package.onnx()).unwrap();
    // Minus the start and the first tile, which also allocates. Starts differ by half a million
    // instructions (seeds of hash tables, threads), which is little compared with 12 tiles.
    let [many, one] = [13, 1].map(|tiles| counted(&onnx, width, tiles).unwrap());
    let millions = BTreeMap::from([(name.to_owned(), (many - one) as f64 / 12e6)]);
    let found = Record {
        conditions,
        millions,
    };
    let Some(recorded) = recorded else {
        std::fs::write(
            record_file(),
            serde_json::to_string_pretty(&found).unwrap() + "\n",
        )
        .unwrap();
        return;
    };
    for (name, recorded) in &recorded.millions {
        let found = found.millions[name];
        assert!(
            (found / recorded - 1.0).abs() < TOLERANCE,
            "{name}: {found:.2} million instructions a tile, the record says {recorded:.2}; record again if this is intended"
        );
    }
}
