//! The `station` program as on an engineer's laptop, and the packages and camera that it is used
//! with.

use std::path::Path;
use std::process::{Command, Output};

use crate::camera::{Camera, configure};
use crate::{ok, program, tiny_package};

/// Runs `station` with its own key store, in the folder `home` of `root`.
pub fn station(root: &Path, arguments: &[&str]) -> Output {
    Command::new(program("station"))
        .args(arguments)
        .current_dir(root)
        .env("AWR_STATION_HOME", root.join("home"))
        .output()
        .expect("a test can be set up")
}

/// Runs `station`, which must succeed, and returns its standard output.
pub fn station_ok(root: &Path, arguments: &[&str]) -> String {
    let output = station(root, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "station {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("a test can be set up")
}

/// Runs `station`, which must fail with exit code 2 and print `words` on standard error.
pub fn station_fails(root: &Path, arguments: &[&str], words: &str) {
    let output = station(root, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "station {arguments:?}");
    assert!(errors.contains(words), "`{words}` is not in `{errors}`");
}

/// Makes a data set, two packages of one run (`m.awr`, `n.awr`), and the folder `frames` with the
/// good test images.
pub fn prepare(root: &Path) {
    tiny_package(root);
    package(root, "n.awr", "k.key", "2");
    std::fs::create_dir(root.join("frames")).expect("a test can be set up");
    for entry in std::fs::read_dir(root.join("data/test/good")).expect("a test can be set up") {
        let path = entry.expect("a test can be set up").path();
        std::fs::copy(
            &path,
            root.join("frames")
                .join(path.file_name().expect("a test can be set up")),
        )
        .expect("a test can be set up");
    }
}

/// Packages the run of [`prepare`] again.
pub fn package(root: &Path, out: &str, key: &str, version: &str) {
    let arguments = [
        "package",
        "--run",
        "run",
        "--key",
        key,
        "--name",
        "tiny",
        "--version",
        version,
        "--out",
        out,
    ];
    ok("host-trainer", root, &arguments);
}

/// Starts a camera that inspects the frames at 50 times their speed, over and over.
pub fn start(root: &Path) -> Camera {
    configure(root, "speed = 50.0\nrepeat = true", "");
    Camera::start(root, &[])
}

/// Pairs the laptop with the camera, which it then knows as `cam`.
pub fn pair(root: &Path, camera: &Camera, role: &str) {
    let code = ok(
        "edge-runtime",
        root,
        &["pair", "--config", "camera.toml", "--role", role],
    );
    let address = camera.tcp.to_string();
    let pair = [
        "pair",
        &address,
        "--code",
        code.trim(),
        "--name",
        "cam",
        "--station",
        role,
    ];
    station_ok(root, &pair);
    // The code is valid for one station.
    station_fails(root, &pair, "the connection failed");
}
