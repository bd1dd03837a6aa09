//! `station` and `edge-runtime` over a serial line that loses frames.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod terminal;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration_tests::camera::{Camera, Station, admit, configure};
use integration_tests::laptop::{prepare, station_ok};
use integration_tests::program;
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{Answer, Command as Ask, FromCamera, Message, Role, Start, ToCamera};
use proto::recovery::{Request, Response};
use proto::report::{Body, Event};
use terminal::{TimeoutReader, terminal};

/// A frame that the line loses, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loses {
    Hello,
    CameraHello,
    Reply,
    Command,
    Chunk,
    Continue,
    End,
    Done,
    Record,
}

/// What a payload is, of those that may be lost.
fn kind(payload: &[u8], from_station: bool) -> Option<Loses> {
    if from_station {
        if let Ok(request) = Request::decode(payload) {
            return match request {
                Request::FlashChunk { .. } => Some(Loses::Chunk),
                Request::FlashEnd => Some(Loses::End),
                _ => None,
            };
        }
        return match ToCamera::decode(payload).ok()? {
            ToCamera::Hello(_) => Some(Loses::Hello),
            ToCamera::Command { .. } => Some(Loses::Command),
            ToCamera::FlashDeflated { .. } => Some(Loses::Chunk),
            _ => None,
        };
    }
    if let Ok(response) = Response::decode(payload) {
        return match response {
            Response::Continue { offset_bytes: 1.. } => Some(Loses::Continue),
            Response::Done => Some(Loses::Done),
            _ => None,
        };
    }
    match FromCamera::decode(payload).ok()? {
        FromCamera::Hello(_) => Some(Loses::CameraHello),
        FromCamera::Reply { answer, .. } => {
            assert!(!matches!(answer, Answer::Refused { .. }), "{answer:?}");
            Some(Loses::Reply)
        }
        FromCamera::Record { .. } => Some(Loses::Record),
        _ => None,
    }
}

/// A cable that loses each of the frames in `loses` once, and works until `cut`.
struct Cable {
    loses: Mutex<Vec<Loses>>,
    cut: AtomicBool,
}

impl Cable {
    /// Loses these frames from now on. All before must have been lost.
    fn lose(&self, frames: &[Loses]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.loses.lock().unwrap().is_empty() {
            let left = self.loses.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "{left:?} were never sent");
            std::thread::sleep(Duration::from_millis(5));
        }
        *self.loses.lock().unwrap() = frames.to_vec();
    }

    fn carry(&self, from: &File, to: &File, from_station: bool) {
        let mut from = TimeoutReader(from.try_clone().unwrap());
        let mut to = to.try_clone().unwrap();
        let mut accumulator = Accumulator::new(vec![0; MAX_STUFFED_BYTES]);
        let mut piece = [0; 4_096];
        while !self.cut.load(Ordering::Relaxed) {
            let Ok(count) = from.read(&mut piece) else {
                // No program has opened the other end; do not wait busily.
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let mut rest = &piece[..count];
            loop {
                rest = match accumulator.feed(rest) {
                    Fed::NeedMore => break,
                    Fed::Discarded { rest, .. } => rest,
                    Fed::Frame { payload, rest } => {
                        if !self.is_lost(payload, from_station) {
                            to.write_all(&encode(payload).unwrap()).unwrap();
                        }
                        rest
                    }
                };
            }
        }
    }

    fn is_lost(&self, payload: &[u8], from_station: bool) -> bool {
        let mut loses = self.loses.lock().unwrap();
        let kind = kind(payload, from_station);
        let at = loses.iter().position(|lost| Some(*lost) == kind);
        at.map(|at| loses.remove(at)).is_some()
    }
}

/// Cuts a cable when dropped.
struct Cutter<'a>(&'a Cable);

impl Drop for Cutter<'_> {
    fn drop(&mut self) {
        self.0.cut.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_lost_frame_is_sent_again_within_seconds_and_nothing_is_done_twice() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let (camera_side, camera_path) = terminal();
    let (station_side, station_path) = terminal();
    let place = format!("serial:{}", station_path.display());
    let line = format!(
        "serial = {{ path = \"{}\", role = \"engineer\" }}",
        camera_path.display()
    );
    configure(root, "speed = 5.0\nrepeat = true", &line);
    let cable = Cable {
        loses: Mutex::default(),
        cut: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| cable.carry(&camera_side, &station_side, false));
        scope.spawn(|| cable.carry(&station_side, &camera_side, true));
        // The scope waits for the cable, also when an assertion fails.
        let _cutter = Cutter(&cable);
        let camera = Camera::start(root, &[]);
        let within_s = |seconds: f64, loses: &[Loses], command: &[&str]| {
            cable.lose(loses);
            let started = Instant::now();
            let printed = station_ok(root, command);
            let took = started.elapsed().as_secs_f64();
            assert!(took < seconds, "{command:?} with {loses:?}: {took:.1} s");
            printed
        };
        // Each loss costs about 2.4 s.
        within_s(4.5, &[Loses::Hello], &["status", &place]);
        within_s(4.5, &[Loses::CameraHello], &["mode", &place]);
        let reason = ["--reason", "a test"];
        let set = [&["threshold", &place, "--set", "3.5"], &reason[..]].concat();
        within_s(4.5, &[Loses::Reply], &set);
        within_s(4.5, &[Loses::Command], &["mode", &place]);
        // A code that the second answer tells is the one that is valid.
        let code = within_s(4.5, &[Loses::Reply], &["invite", &place]);
        let address = camera.tcp.to_string();
        station_ok(
            root,
            &["pair", &address, "--code", code.trim(), "--name", "cam"],
        );
        let lost = [Loses::Chunk, Loses::Continue, Loses::End, Loses::Done];
        let flashed = within_s(25.0, &lost, &["flash", "n.awr", &place]);
        assert!(flashed.contains("trial"), "{flashed}");
        within_s(4.5, &[Loses::Done], &["confirm", &place]);
        within_s(4.5, &[Loses::Done], &["rollback", &place]);
        let slots = station_ok(root, &["slots", &place]);
        assert!(
            slots.contains("active  tiny 1"),
            "not rolled back twice: {slots}"
        );

        // Parts that a lost record belongs to are shown in their order.
        cable.lose(&[]);
        let mut watching = Command::new(program("station"))
            .args(["--json", "watch", "--all", &place])
            .current_dir(root)
            .env("AWR_STATION_HOME", root.join("home"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        let mut parts = lines.filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["record"]["body"]["Part"]["part"].as_u64()
        });
        let first = parts.next().unwrap();
        cable.lose(&[Loses::Record]);
        let shown: Vec<u64> = parts.by_ref().take(4).collect();
        cable.lose(&[Loses::Record, Loses::Record]);
        let shown = [vec![first], shown, parts.take(60).collect()].concat();
        watching.kill().unwrap();
        watching.wait().unwrap();
        let expected: Vec<u64> = (first..first + 65).collect();
        assert_eq!(shown, expected);
        cable.lose(&[]);

        admit(&root.join("state"), "reader", Role::Watch);
        let mut reader = Station::connect(&camera, "reader", Start::Acknowledged);
        assert_eq!(
            reader.ask(1, Ask::ReadThreshold),
            Answer::Threshold(Some(3.5)),
            "it belongs to the package that is active again"
        );
        reader.receive_until(|station| station.last + 1 >= station.hello.next);
        let count = |wanted: &dyn Fn(&Event) -> bool| {
            let bodies = reader.records.values().map(|record| &record.body);
            let events = bodies.filter(|body| matches!(body, Body::Event(event) if wanted(event)));
            events.count()
        };
        let changed = |name: &'static str| {
            count(&|event| {
                matches!(event, Event::SettingChanged { setting, station, .. }
                    if setting == name && station.starts_with("serial:"))
            })
        };
        assert_eq!(changed("threshold"), 1, "it was set once");
        assert_eq!(changed("pairing"), 1, "one code was given out");
        assert!(camera.terminate().success());
    });
}
