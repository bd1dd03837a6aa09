//! `station` and `edge-runtime` together, as an engineer uses them: pair, flash, confirm, roll
//! back, settings, roles.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod terminal;

use std::fs::File;
use std::hash::BuildHasher;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration_tests::camera::{Camera, Station, admit, configure};
use integration_tests::laptop::{
    package, pair, prepare, start, station, station_fails, station_ok,
};
use integration_tests::{fails, ok, program, tiny_package};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{Answer, Command as Ask, FileKind, Mode, Role, Start};
use proto::recovery::{Request, Response, SlotState, SlotStatus};
use proto::report::{Body, Event};
use secure::handshake::accept;
use secure::identity::Identity;
use secure::stream::{Reader, Writer};
use terminal::{TimeoutReader, terminal};

#[test]
fn a_package_is_flashed_confirmed_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let camera = start(root);
    pair(root, &camera, "engineer");
    assert!(station_ok(root, &["list"]).contains("cam"));
    assert!(station_ok(root, &["status"]).contains("tiny 1"));
    let watching = Station::connect(&camera, "watching", Start::Acknowledged);
    let flashed = station_ok(root, &["flash", "n.awr", "cam"]);
    assert!(
        flashed.contains("trial") && flashed.contains("tiny 2"),
        "{flashed}"
    );
    assert!(station_ok(root, &["status", "cam"]).contains("tiny 2"));
    // Flashed again, it is not sent again and stays on trial.
    station_ok(root, &["flash", "n.awr", "cam"]);
    station_ok(root, &["rollback", "cam"]);
    assert!(station_ok(root, &["status", "cam"]).contains("tiny 1"));
    station_ok(root, &["flash", "n.awr", "cam"]);
    station_ok(root, &["confirm", "cam"]);
    station_fails(root, &["confirm", "cam"], "no package is on trial");
    // No part was lost meanwhile.
    let mut watching = watching;
    watching.receive_until(|station| {
        let mut events = station
            .records
            .values()
            .filter_map(|record| match &record.body {
                Body::Event(event) => Some(event),
                Body::Part(_) => None,
            });
        events.any(|event| matches!(event, Event::PackageConfirmed { .. }))
    });
    let numbers: Vec<u64> = watching.parts().map(|part| part.part).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    let models: std::collections::BTreeSet<_> =
        watching.parts().map(|part| part.model_id).collect();
    assert_eq!(models.len(), 2);
    drop(watching);
    // The confirmed package is active after a kill, although camera.toml names the other one.
    camera.kill();
    let camera = Camera::start(root, &[]);
    station_ok(root, &["forget", "cam"]);
    pair(root, &camera, "engineer");
    let slots = station_ok(root, &["--json", "slots", "cam"]);
    let slots: serde_json::Value = serde_json::from_str(&slots).unwrap();
    assert_eq!(
        (&slots["slots"][1]["state"], &slots["slots"][1]["model"]),
        (&"Active".into(), &"tiny 2".into())
    );
    assert!(camera.terminate().success());
}

#[test]
fn a_trial_ends_with_the_program_and_a_kill_during_a_flash_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let mut camera = start(root);
    pair(root, &camera, "engineer");
    station_ok(root, &["flash", "n.awr", "cam"]);
    camera.kill();
    // The camera has another port after each start.
    let update_address = |camera: &Camera| {
        let path = root.join("home/cameras.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| match line.starts_with("address") {
            true => format!("address = \"{}\"", camera.tcp),
            false => line.to_owned(),
        });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    };
    camera = Camera::start(root, &[]);
    update_address(&camera);
    assert!(
        station_ok(root, &["status", "cam"]).contains("tiny 1"),
        "the trial ends with the program"
    );
    // Station or camera is killed at a random moment of a flash.
    let moments = std::collections::hash_map::RandomState::new();
    for round in 0..50u64 {
        let mut flashing = Command::new(program("station"))
            .args([
                "flash",
                if round % 2 == 0 { "n.awr" } else { "m.awr" },
                "cam",
            ])
            .current_dir(root)
            .env("AWR_STATION_HOME", root.join("home"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = Duration::from_millis(5 + moments.hash_one(round) % 90);
        eprintln!("round {round}: after {moment:?}");
        std::thread::sleep(moment);
        if round % 3 == 0 {
            flashing.kill().unwrap();
        } else {
            camera.kill();
            flashing.kill().ok();
            camera = Camera::start(root, &[]);
            update_address(&camera);
        }
        flashing.wait().unwrap();
        let status = station_ok(root, &["status", "cam"]);
        assert!(
            status.contains("tiny 1") || status.contains("tiny 2"),
            "{status}"
        );
        let before = camera.metric("awr_frames_total");
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            camera.metric("awr_frames_total") > before,
            "the camera must inspect"
        );
    }
    assert!(camera.terminate().success());
}

#[test]
fn an_untrusted_or_damaged_package_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let camera = start(root);
    pair(root, &camera, "engineer");
    ok("host-trainer", root, &["keygen", "--out", "other.key"]);
    package(root, "other.awr", "other.key", "3");
    station_fails(
        root,
        &["flash", "other.awr", "cam"],
        "not among the trusted keys",
    );
    let mut bytes = std::fs::read(root.join("n.awr")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(root.join("altered.awr"), bytes).unwrap();
    station_fails(root, &["flash", "altered.awr", "cam"], "signature");
    assert!(station_ok(root, &["status", "cam"]).contains("tiny 1"));
    let mut watching = Station::connect(&camera, "watching", Start::Acknowledged);
    watching.receive_until(|station| {
        station.records.values().any(|record| {
            matches!(&record.body, Body::Event(Event::PackageRefused { station, .. }) if station == "engineer")
        })
    });
}

/// A camera whose messages this station does not know, except for the recovery exchange. It accepts
/// a package, reports its slots, and returns the package at the end.
fn future_camera(listener: &TcpListener, identity: &Identity, enough: &AtomicBool) -> Vec<u8> {
    let mut package = Vec::new();
    listener.set_nonblocking(true).unwrap();
    while !enough.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let Ok(accepted) = accept(&mut stream, identity, || None, deadline) else {
            continue;
        };
        let mut reader = Reader::new(stream.try_clone().unwrap(), &accepted.channel);
        let mut writer = Writer::new(stream, &accepted.channel);
        let mut accumulator = Accumulator::new(vec![0; MAX_STUFFED_BYTES]);
        let mut piece = [0; 16 << 10];
        'link: while !enough.load(Ordering::Relaxed) {
            let count = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            let mut rest = &piece[..count];
            loop {
                let payload = match accumulator.feed(rest) {
                    Fed::NeedMore => break,
                    Fed::Discarded { rest: left, .. } => {
                        rest = left;
                        continue;
                    }
                    Fed::Frame {
                        payload,
                        rest: left,
                    } => {
                        rest = left;
                        payload.to_vec()
                    }
                };
                // Messages of unknown types, before every answer.
                let mut answers = vec![vec![0x7f, 1, 2, 3], vec![0x40]];
                let slot = |state| SlotStatus {
                    state,
                    sha256: [3; 32],
                };
                match Request::decode(&payload) {
                    Ok(Request::FlashBegin { .. }) => {
                        answers.push(Response::Continue { offset_bytes: 0 }.encode());
                    }
                    Ok(Request::FlashChunk { bytes, .. }) => {
                        package.extend(bytes);
                        let offset_bytes = package.len() as u64;
                        answers.push(Response::Continue { offset_bytes }.encode());
                    }
                    Ok(Request::Slots) => {
                        let slots = [slot(SlotState::Ready), slot(SlotState::Trial)];
                        answers.push(Response::Slots(slots).encode());
                    }
                    Ok(_) => answers.push(Response::Done.encode()),
                    Err(_) => {}
                }
                for answer in answers {
                    let wire = encode(&answer).unwrap();
                    if writer
                        .write_all(&wire)
                        .and_then(|()| writer.flush())
                        .is_err()
                    {
                        break 'link;
                    }
                }
            }
        }
    }
    package
}

#[test]
fn a_camera_from_the_future_can_be_flashed_and_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let identity = Identity::from_secret([9; 32]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let known = format!(
        "[[camera]]\nname = \"cam\"\naddress = \"{}\"\nkey = \"{}\"\nrole = \"engineer\"\n",
        listener.local_addr().unwrap(),
        secure::hex(identity.public())
    );
    std::fs::create_dir(root.join("home")).unwrap();
    std::fs::write(root.join("home/cameras.toml"), known).unwrap();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let camera = scope.spawn(|| future_camera(&listener, &identity, &enough));
        let flashed = station(root, &["flash", "m.awr", "cam"]);
        let confirmed = station(root, &["confirm", "cam"]);
        enough.store(true, Ordering::Relaxed);
        let package = camera.join().unwrap();
        let errors = String::from_utf8_lossy(&flashed.stderr).into_owned();
        assert!(flashed.status.success(), "{errors}");
        assert!(errors.contains("recovery exchange"), "{errors}");
        assert!(confirmed.status.success());
        assert_eq!(package, std::fs::read(root.join("m.awr")).unwrap());
    });
}

#[test]
fn two_packages_are_compared_on_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let compare = |a: &str, b: &str| -> serde_json::Value {
        let words = [
            "--json",
            "replay-compare",
            a,
            b,
            "frames",
            "--out",
            "changed",
        ];
        serde_json::from_str(&station_ok(root, &words)).unwrap()
    };
    let same = compare("m.awr", "n.awr");
    assert_eq!(same["counts"]["frames"], 2);
    assert_eq!(same["changes"].as_array().unwrap().len(), 0);
    // Each package is calibrated on one of the two frames, so the one with the lower threshold
    // finds the other frame NG.
    let names = ["000.png", "001.png"];
    for name in names {
        let only = root.join(format!("only-{name}"));
        std::fs::create_dir(&only).unwrap();
        std::fs::copy(root.join("frames").join(name), only.join(name)).unwrap();
        let (good, out) = (format!("only-{name}"), format!("{name}.awr"));
        let words = [
            "calibrate",
            "--package",
            "m.awr",
            "--good",
            &good,
            "--key",
            "k.key",
            "--out",
            &out,
        ];
        ok("host-trainer", root, &words);
    }
    let changed = compare("000.png.awr", "001.png.awr");
    let count = |name: &str| changed["counts"][name].as_u64().unwrap();
    assert_eq!((count("both_ok"), count("both_ng")), (1, 0), "{changed}");
    assert_eq!(count("only_a_ng") + count("only_b_ng"), 1, "{changed}");
    assert_eq!(changed["changes"].as_array().unwrap().len(), 1);
    let picture = image::open(root.join(format!(
        "changed/{:06}.png",
        changed["changes"][0]["frame"].as_u64().unwrap()
    )));
    assert_eq!(picture.unwrap().width(), 160);
}

/// Cuts a cable when dropped.
struct Cutter<'a>(&'a AtomicBool);

impl Drop for Cutter<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A cable: forwards bytes between two terminals until `cut`.
fn cable(one: &File, other: &File, cut: &AtomicBool) {
    let carry = |from: &File, to: &File| {
        let mut from = TimeoutReader(from.try_clone().unwrap());
        let mut to = to.try_clone().unwrap();
        let mut piece = [0; 4_096];
        while !cut.load(Ordering::Relaxed) {
            match from.read(&mut piece) {
                Ok(count) => to.write_all(&piece[..count]).unwrap(),
                // No program has opened the other end; do not wait busily.
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| carry(one, other));
        carry(other, one);
    });
}

#[test]
fn a_serial_line_needs_no_key_and_has_its_own_role() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let (camera_side, camera_path) = terminal();
    let (station_side, station_path) = terminal();
    let cut = AtomicBool::new(false);
    let place = format!("serial:{}", station_path.display());
    let start = |more: &str| {
        let line = format!(
            "serial = {{ path = \"{}\", {more} }}",
            camera_path.display()
        );
        configure(root, "speed = 5.0\nrepeat = true", &line);
        Camera::start(root, &[])
    };
    std::thread::scope(|scope| {
        scope.spawn(|| cable(&camera_side, &station_side, &cut));
        // The scope waits for the cable, also when an assertion fails.
        let _cutter = Cutter(&cut);
        let camera = start("role = \"engineer\"");
        let flashed = station_ok(root, &["flash", "n.awr", &place]);
        assert!(flashed.contains("trial"), "{flashed}");
        station_ok(root, &["confirm", &place]);
        let slots = station_ok(root, &["slots", &place]);
        assert!(slots.contains("active  tiny 2"), "{slots}");
        // The serial line gives out a code for a station on the network.
        let code = station_ok(root, &["invite", &place, "--role", "watch"]);
        let address = camera.tcp.to_string();
        station_ok(
            root,
            &["pair", &address, "--code", code.trim(), "--name", "cam"],
        );
        station_fails(root, &["rollback", "cam"], "needs the role engineer");
        assert!(camera.terminate().success());
        // Without a role, a cable may only watch.
        let camera = start("baud = 115200");
        station_fails(root, &["rollback", &place], "needs the role engineer");
        assert!(camera.terminate().success());
        let camera = start("role = \"operate\", recovery = false");
        station_fails(root, &["rollback", &place], "link.serial.recovery");
        station_ok(root, &["golden", &place]);
        assert!(camera.terminate().success());
    });
}

/// Tries every command with every role, and without access.
#[test]
fn each_role_allows_its_own_commands_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let camera = start(root);
    let reason = || "test".to_owned();
    let commands = || {
        vec![
            (Role::Watch, Ask::ReadThreshold),
            (Role::Watch, Ask::ReadMask),
            (Role::Watch, Ask::ReadMode),
            (Role::Watch, Ask::ReadHealth),
            (Role::Watch, Ask::ReadSlots),
            (Role::Watch, Ask::ReadStations),
            (
                Role::Watch,
                Ask::ListFiles {
                    kind: FileKind::Ng,
                    after: String::new(),
                },
            ),
            (Role::Operate, Ask::GoldenCheck),
            (
                Role::Operate,
                Ask::SetMode {
                    mode: Mode::Inspect,
                    reason: reason(),
                },
            ),
            (
                Role::Engineer,
                Ask::SetThreshold {
                    value: 9.0,
                    reason: reason(),
                },
            ),
            (
                Role::Engineer,
                Ask::SetMask {
                    roi: proto::manifest::Roi::Whole,
                    reason: reason(),
                },
            ),
            (
                Role::Engineer,
                Ask::OpenPairing {
                    role: Role::Engineer,
                },
            ),
            (
                Role::Engineer,
                Ask::RevokeStation {
                    station: "nobody".into(),
                    reason: reason(),
                },
            ),
        ]
    };
    for role in Role::ALL {
        admit(&root.join("state"), role.name(), role);
        let mut station = Station::connect_as_is(&camera, role.name(), Start::Now);
        for (index, (needed, command)) in (0u32..).zip(commands()) {
            let answer = station.ask(index, command.clone());
            let forbidden =
                matches!(&answer, Answer::Refused { reason } if reason.contains("needs the role"));
            assert_eq!(forbidden, role < needed, "{role} {command:?}: {answer:?}");
        }
    }
    // The same for commands about packages.
    let run = |role: &str, arguments: &[&str]| {
        std::fs::remove_dir_all(root.join("home")).ok();
        pair(root, &camera, role);
        let result = station(root, arguments);
        ok(
            "edge-runtime",
            root,
            &["stations", "revoke", "--config", "camera.toml", role],
        );
        String::from_utf8_lossy(&result.stderr).into_owned()
    };
    for (index, role) in ["watch", "operate"].into_iter().enumerate() {
        ok(
            "edge-runtime",
            root,
            &["stations", "revoke", "--config", "camera.toml", role],
        );
        for arguments in [
            ["flash", "n.awr", "cam"].as_slice(),
            &["confirm", "cam"],
            &["rollback", "cam"],
        ] {
            let errors = run(role, arguments);
            assert!(
                errors.contains("needs the role engineer"),
                "{index} {arguments:?}: {errors}"
            );
        }
    }
    // A station without access is refused and learns nothing else.
    station_fails(root, &["status", "cam"], "do not answer");
    fails(
        "station",
        root,
        &["--json", "slots", "serial:/dev/none"],
        &["/dev/none"],
    );
}
