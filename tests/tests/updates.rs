//! Packages on their way to a camera: interrupted anywhere, altered, unsuitable, or damaged in its
//! slots. Also access control and discovery.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use integration_tests::camera::{Camera, PATIENCE, Station, admit, configure};
use integration_tests::laptop::{pair, prepare, start, station_fails, station_ok};
use integration_tests::{TINY, ok};
use proto::frame;
use proto::limits::MAX_CHUNK_BYTES;
use proto::message::{Role, Start};
use proto::recovery::{Request, Response, SlotState};
use proto::report::{Body, Event};
use scoring::package::{Loaded, Trust, encode, read_signing_key};
use sha2::{Digest, Sha256};

/// The events that a station has received.
fn events(station: &Station) -> impl Iterator<Item = &Event> {
    station
        .records
        .values()
        .filter_map(|record| match &record.body {
            Body::Event(event) => Some(event),
            Body::Part(_) => None,
        })
}

/// A pseudo-random number below `below`, the same in every run.
fn pseudo_random(index: u64, below: usize) -> usize {
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)) % below as u64) as usize
}

/// Trains and packages another model on the same data, with `options` in addition to [`TINY`], from
/// which the option `omitted` is left out.
fn train_another(root: &Path, name: &str, omitted: [&str; 2], options: &[&str]) {
    let (run, out) = (format!("run-{name}"), format!("{name}.awr"));
    let at = TINY.windows(2).position(|pair| pair == omitted).unwrap();
    let mut train = vec!["train", "--run", &run, "--iterations", "2"];
    train.extend_from_slice(&TINY[..at]);
    train.extend_from_slice(&TINY[at + 2..]);
    train.extend_from_slice(options);
    ok("host-trainer", root, &train);
    let package = [
        "package", "--run", &run, "--key", "k.key", "--name", name, "--out", &out,
    ];
    ok("host-trainer", root, &package);
}

/// Forwards between a station and a camera, and cuts each connection after a pseudo-random number
/// of bytes from the station.
fn cutting_proxy(camera: SocketAddr, cuts: &'static AtomicUsize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for index in 0.. {
            let (mut station, _) = listener.accept().unwrap();
            let mut camera = TcpStream::connect(camera).unwrap();
            let (mut back, mut to) = (camera.try_clone().unwrap(), station.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back, &mut to));
            std::thread::spawn(move || {
                let limit = 20_000 + pseudo_random(index, 150_000);
                let mut passed = 0;
                let mut piece = [0; 1_024];
                while let Ok(count @ 1..) = station.read(&mut piece) {
                    let count = count.min(limit - passed);
                    if camera.write_all(&piece[..count]).is_err() {
                        break;
                    }
                    passed += count;
                    if passed == limit {
                        cuts.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                station.shutdown(Shutdown::Both).ok();
                camera.shutdown(Shutdown::Both).ok();
            });
        }
    });
    address
}

#[test]
fn a_flash_is_resumed_at_every_chunk_and_after_a_cut_at_any_byte() {
    static CUTS: AtomicUsize = AtomicUsize::new(0);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    train_another(root, "wide", ["--width", "4"], &["--width", "32"]);
    let wide = std::fs::read(root.join("wide.awr")).unwrap();
    let boundaries: Vec<usize> = (0..wide.len()).step_by(MAX_CHUNK_BYTES).collect();
    assert!(boundaries.len() > 9, "{} pieces", boundaries.len());
    let camera = start(root);
    // Cut before each chunk, and within it.
    let begin = Request::FlashBegin {
        total_bytes: wide.len() as u64,
        sha256: Sha256::digest(&wide).into(),
    };
    for &offset in &boundaries {
        let chunk = Request::FlashChunk {
            offset_bytes: offset as u64,
            bytes: wide[offset..wide.len().min(offset + MAX_CHUNK_BYTES)].to_vec(),
        };
        let wire = frame::encode(&chunk.encode()).unwrap();
        for cut in [wire.len() - 1, pseudo_random(offset as u64, wire.len()), 0] {
            let mut station = Station::connect(&camera, "flashing", Start::Now);
            let at = Response::Continue {
                offset_bytes: offset as u64,
            };
            assert_eq!(station.recover(&begin), at, "cut {cut}");
            station.send_bytes(&wire[..cut]);
        }
        let mut station = Station::connect(&camera, "flashing", Start::Now);
        station.recover(&begin);
        let whole = station.recover(&chunk);
        assert!(matches!(whole, Response::Continue { .. }), "{whole:?}");
    }
    let mut station = Station::connect(&camera, "flashing", Start::Now);
    station.recover(&begin);
    assert_eq!(station.recover(&Request::FlashEnd), Response::Done);
    // The same by the program `station`, over a link that breaks.
    pair(root, &camera, "engineer");
    station_ok(root, &["rollback", "cam"]);
    station_ok(root, &["flash", "n.awr", "cam"]);
    let cameras = root.join("home/cameras.toml");
    let proxy = cutting_proxy(camera.tcp, &CUTS).to_string();
    let direct = std::fs::read_to_string(&cameras).unwrap();
    std::fs::write(&cameras, direct.replace(&camera.tcp.to_string(), &proxy)).unwrap();
    let flashed = station_ok(root, &["flash", "wide.awr", "cam"]);
    assert!(flashed.contains("trial   wide"), "{flashed}");
    assert!(CUTS.load(Ordering::Relaxed) >= 4, "{CUTS:?} cuts");
    assert!(camera.terminate().success());
}

#[test]
fn a_package_with_any_bit_flipped_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let good = std::fs::read(root.join("n.awr")).unwrap();
    let camera = start(root);
    let mut station = Station::connect(&camera, "flashing", Start::Now);
    let before = station.recover(&Request::Slots);
    for index in 0..1_000 {
        let mut altered = good.clone();
        altered[pseudo_random(index, good.len())] ^= 1 << (index % 8);
        let answer = station.flash(&altered);
        assert!(
            matches!(answer, Response::Refused { .. }),
            "{index}: {answer:?}"
        );
    }
    assert_eq!(station.recover(&Request::Slots), before);
    assert_eq!(station.flash(&good), Response::Done);
    assert!(camera.terminate().success());
}

#[test]
fn the_parity_gate_refuses_a_signed_package_and_reports_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let good = Loaded::new(std::fs::read(root.join("n.awr")).unwrap());
    let good = good.unwrap().verify(&Trust::AnySigner).unwrap();
    let mut manifest = good.manifest().clone();
    manifest.golden[0].block_means[100] += 0.25;
    let key = read_signing_key(&root.join("k.key")).unwrap();
    let altered = encode(&manifest, good.onnx(), &key).unwrap();
    std::fs::write(root.join("altered.awr"), altered).unwrap();
    let camera = start(root);
    pair(root, &camera, "engineer");
    let mut watching = Station::connect(&camera, "watching", Start::Now);
    station_fails(root, &["flash", "altered.awr", "cam"], "golden tile 0");
    station_fails(root, &["flash", "altered.awr", "cam"], "off by 0.2");
    watching.receive_until(|station| {
        let mut refusals = events(station).filter_map(|event| match event {
            Event::PackageRefused { reason, .. } => Some(reason),
            _ => None,
        });
        refusals.any(|reason| reason.contains("off by 0.2"))
    });
    assert!(station_ok(root, &["status", "cam"]).contains("tiny 1"));
}

#[test]
fn a_package_for_other_images_needs_permission_and_is_rolled_back_if_it_cannot_score() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    train_another(root, "native", ["--size", "80"], &["--size", "native"]);
    // The last 30 are too small for a tile unless they are scaled, as the first package does.
    for index in 0..60 {
        let path = root.join(format!("frames/large-{index:02}.png"));
        if index < 30 {
            std::fs::copy(root.join("frames/000.png"), path).unwrap();
        } else {
            image::GrayImage::new(40, 40).save(path).unwrap();
        }
    }
    let capture = "speed = 2.0\nrepeat = true";
    configure(root, capture, "");
    let camera = Camera::start(root, &[]);
    pair(root, &camera, "engineer");
    station_fails(
        root,
        &["flash", "native.awr", "cam"],
        "model.any_input = true",
    );
    assert!(camera.terminate().success());
    let text = std::fs::read_to_string(root.join("camera.toml")).unwrap();
    let text = text.replace("[model]", "[model]\nany_input = true");
    std::fs::write(root.join("camera.toml"), text).unwrap();
    let camera = Camera::start(root, &[]);
    let mut station = Station::connect(&camera, "flashing", Start::Now);
    let native = std::fs::read(root.join("native.awr")).unwrap();
    // The flash is refused at once if the last frame is one that the package cannot score.
    let started = Instant::now();
    loop {
        match station.flash(&native) {
            Response::Done => break,
            Response::Refused { reason } => assert!(reason.contains("65×65"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(200));
    }
    station.receive_until(|station| {
        events(station).any(|event| {
            matches!(event, Event::RolledBack { model, reason, station, .. }
                if model == "tiny 1" && reason.contains("could not be scored") && station.is_empty())
        })
    });
    // The camera inspects again.
    let before = station.parts().count();
    station.receive_until(|station| station.parts().count() > before + 3);
    assert!(station.parts().last().unwrap().score.is_some());
}

#[test]
fn a_damaged_slot_is_replaced_by_the_other_one_and_both_by_the_configured_package() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let camera = start(root);
    let mut station = Station::connect(&camera, "flashing", Start::Now);
    let n = std::fs::read(root.join("n.awr")).unwrap();
    assert_eq!(station.flash(&n), Response::Done);
    assert_eq!(station.recover(&Request::Confirm), Response::Done);
    assert!(camera.terminate().success());
    let files = || {
        let slots = std::fs::read_dir(root.join("state/slots")).unwrap();
        let paths = slots.map(|entry| entry.unwrap().path());
        let packages = paths.filter(|path| path.extension().is_some_and(|end| end == "awr"));
        packages.collect::<Vec<_>>()
    };
    let damage = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    assert_eq!(files().len(), 2);
    let active = files()
        .into_iter()
        .find(|path| std::fs::read(path).unwrap() == n);
    damage(&active.unwrap());
    let camera = Camera::start(root, &[]);
    let mut station = Station::connect(&camera, "watching", Start::Acknowledged);
    assert_eq!(station.hello.model, "tiny 1");
    station.receive_until(|station| {
        events(station).any(
            |event| matches!(event, Event::PackageRefused { station, .. } if station.is_empty()),
        )
    });
    assert!(camera.terminate().success());
    // Damage everything in the slots, and the file that says which one is active.
    files().iter().for_each(|path| damage(path));
    std::fs::write(root.join("state/slots/slots.json"), "{").unwrap();
    let camera = Camera::start(root, &[]);
    let mut station = Station::connect(&camera, "watching", Start::Now);
    assert_eq!(station.hello.model, "tiny 1");
    let Response::Slots(slots) = station.recover(&Request::Slots) else {
        panic!("no slots")
    };
    assert!(slots.iter().any(|slot| slot.state == SlotState::Active));
    let before = station.parts().count();
    station.receive_until(|station| station.parts().count() > before + 3);
    assert!(camera.terminate().success());
}

#[test]
fn a_revoked_station_loses_its_session_and_repeated_failures_block_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let camera = start(root);
    let mut watching = Station::connect(&camera, "watching", Start::Now);
    watching.receive_until(|station| station.parts().count() > 2);
    let revoke = ["stations", "revoke", "--config", "camera.toml", "watching"];
    ok("edge-runtime", root, &revoke);
    // Messages on their way still arrive, then nothing more does.
    let started = Instant::now();
    let mut last_received = Instant::now();
    while last_received.elapsed() < Duration::from_secs(1) {
        if watching.receive().is_some() {
            last_received = Instant::now();
        }
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "the revoked station still receives messages"
        );
    }
    // An address may fail ten times with an unknown key before it is blocked.
    let identity = integration_tests::camera::identity("nobody");
    let try_connect = |identity| {
        let intent = secure::handshake::Intent::Session;
        let link = secure::tcp::open(camera.tcp, identity, None, &intent, Duration::from_secs(2));
        link.is_ok()
    };
    let started = Instant::now();
    let accepted = (0..30).filter(|_| try_connect(&identity)).count();
    // Another attempt is allowed every five seconds, which pass on a busy machine.
    let most = 12 + started.elapsed().as_secs() as usize / 5;
    assert!(
        (8..=most).contains(&accepted),
        "{accepted} of 30 were accepted"
    );
    // The address is blocked, so a station with access from there must wait too.
    let friend = integration_tests::camera::identity("friend");
    admit(&root.join("state"), "friend", Role::Watch);
    // The unknown key uses up the attempts that became allowed meanwhile.
    while try_connect(&identity) {}
    assert!(!try_connect(&friend));
    let started = Instant::now();
    while !try_connect(&friend) {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut station = Station::connect_as_is(&camera, "friend", Start::Acknowledged);
    station.receive_until(|station| {
        events(station).any(|event| matches!(event, Event::LinkRefused { .. }))
    });
}

/// Needs a network; it is skipped on a machine without one.
#[test]
fn a_camera_that_announces_itself_is_discovered() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the system only chooses the address that it would send from.
    let routed = probe.connect("224.0.0.251:5353").is_ok();
    let own = probe.local_addr().unwrap().ip();
    if !routed || own.is_loopback() || own.is_unspecified() {
        eprintln!("skipped: this machine has no network but loopback");
        return;
    }
    prepare(root);
    configure(root, "repeat = true", "");
    let text = std::fs::read_to_string(root.join("camera.toml")).unwrap();
    let text = text.replace(
        "tcp = \"127.0.0.1:0\"",
        &format!("tcp = \"{own}:0\"\nannounce = true"),
    );
    std::fs::write(root.join("camera.toml"), text).unwrap();
    let camera = Camera::start(root, &[]);
    let found = station_ok(root, &["--json", "discover", "--seconds", "5"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["schema"], 1);
    let cameras = found["cameras"].as_array().unwrap();
    let ours = camera.tcp.to_string();
    let ours = cameras.iter().find(|found| {
        let addresses = found["addresses"].as_array().unwrap();
        addresses.iter().any(|address| address == ours.as_str())
    });
    let ours = ours.unwrap_or_else(|| panic!("the camera is not among {found}"));
    assert_eq!(ours["name"], "camera under test");
    assert!(camera.terminate().success());
}
