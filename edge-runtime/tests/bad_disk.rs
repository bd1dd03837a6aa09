//! `edge-runtime run` with a state folder in which nothing can be written.

#[path = "../../scoring/tests/common/mod.rs"]
mod common;

use std::fs;
use std::process::Command;

use common::{key, manifest, package};
use image::{GrayImage, Luma};
use scoring::package::write_key_pair;

#[test]
fn inspection_continues_when_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("m.awr"), package(&manifest())).unwrap();
    write_key_pair(&path("k.key"), &key()).unwrap();
    fs::create_dir(path("frames")).unwrap();
    for frame in 0..3 {
        let picture = GrayImage::from_pixel(97, 80, Luma([100 + frame]));
        picture.save(path(&format!("frames/{frame}.png"))).unwrap();
    }
    let config = "name = \"camera under test\"\nstate = \"state\"\n\
        [model]\npackage = \"m.awr\"\ntrust = [\"k.key.pub\"]\n\
        [capture]\nkind = \"replay\"\npath = \"frames\"\n";
    fs::write(path("camera.toml"), config).unwrap();
    // Files in place of folders and folders in place of files: not even root can write there.
    fs::create_dir(path("state")).unwrap();
    for file in ["journal", "images"] {
        fs::write(path("state").join(file), b"").unwrap();
    }
    for taken in ["boot", "endpoints.json", "positions"] {
        fs::create_dir_all(path("state").join(taken).join("x")).unwrap();
    }
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_edge-runtime"))
            .args(["run", "--config", "camera.toml", "--exit-at-end"])
            .current_dir(&folder)
            .output()
            .unwrap()
    };
    let output = run();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    for message in [
        "journal cannot be opened",
        "boot counter",
        "endpoints",
        "image store",
        "inspecting",
    ] {
        assert!(log.contains(message), "{message} is not in\n{log}");
    }
}
