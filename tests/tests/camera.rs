//! The camera's program on recorded frames. It reports what `host-trainer evaluate` finds, and
//! loses and invents nothing, whatever happens to links, program and peers.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's failure"
)]

mod terminal;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration_tests::camera::{Camera, PATIENCE, Station, configure};
use integration_tests::{fails, ok, tiny_package};
use proto::message::{Answer, Command, FromCamera, Mode, Start, ToCamera};
use proto::report::{Body, Event, Outcome, PartReport, Record};
use terminal::{TimeoutReader, terminal};

/// Makes a package, and the folder `frames` with all test images in the order of the evaluation.
fn prepare(root: &Path) {
    tiny_package(root);
    std::fs::create_dir(root.join("frames")).unwrap();
    let mut kinds: Vec<PathBuf> = folder(&root.join("data/test"));
    kinds.sort();
    for kind in kinds {
        for image in folder(&kind) {
            let name = format!(
                "{}_{}",
                kind.file_name().unwrap().display(),
                image.file_name().unwrap().display()
            );
            std::fs::copy(&image, root.join("frames").join(name)).unwrap();
        }
    }
}

/// The files of a folder in order.
fn folder(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Width and values of a map.
fn tiff(path: &Path) -> (u32, Vec<f32>) {
    let mut decoder = tiff::decoder::Decoder::new(File::open(path).unwrap()).unwrap();
    let (width, _) = decoder.dimensions().unwrap();
    match decoder.read_image().unwrap() {
        tiff::decoder::DecodingResult::F32(values) => (width, values),
        _ => panic!("a map has 32-bit floats"),
    }
}

#[test]
fn tcp_and_serial_report_what_evaluation_finds() {
    let folder_ = tempfile::tempdir().unwrap();
    let root = folder_.path();
    prepare(root);
    ok(
        "host-trainer",
        root,
        &[
            "evaluate",
            "--package",
            "m.awr",
            "--data",
            "data",
            "--maps",
            "maps",
        ],
    );
    let text = std::fs::read_to_string(root.join("maps/frames.json")).unwrap();
    let frames: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let (ours, theirs) = terminal();
    configure(
        root,
        "speed = 15.0",
        &format!(
            "serial = {{ path = \"{}\", pictures = true }}\n[report]\nheat_map = \"all\"\n[images]\nok_one_in = 1",
            theirs.display()
        ),
    );
    let camera = Camera::start(root, &[]);
    let mut tcp = Station::connect(&camera, "tcp", Start::Acknowledged);
    let reader = TimeoutReader(ours.try_clone().unwrap());
    let mut serial = Station::over(
        Box::new(reader),
        Box::new(ours),
        "serial",
        Start::Acknowledged,
    );
    for station in [&mut tcp, &mut serial] {
        station.receive_until(|station| station.parts().count() == frames.len());
    }
    let records = |station: &Station| -> Vec<(u64, Record)> {
        let all = station.records.iter();
        all.map(|(n, record)| (*n, record.clone())).collect()
    };
    assert_eq!(records(&tcp), records(&serial));

    let mut ng = 0;
    for (expected, part) in frames.iter().zip(tcp.parts()) {
        let name = expected["image"].as_str().unwrap();
        let outcome = match expected["verdict"].as_str().unwrap() {
            "OK" => Outcome::Ok,
            _ => Outcome::Ng,
        };
        assert_eq!(part.outcome, outcome, "{name}");
        let number = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
        assert_eq!(part.score, Some(number(&expected["score"])), "{name}");
        let regions = expected["regions"].as_array().unwrap();
        assert_eq!(part.regions_found as usize, regions.len(), "{name}");
        for (region, expected) in part.regions.iter().zip(regions) {
            let px = |key: &str| expected[key].as_u64().unwrap() as u32;
            assert_eq!(
                [region.x_px, region.y_px, region.width_px, region.height_px],
                ["x_px", "y_px", "width_px", "height_px"].map(px)
            );
            let value = |key: &str| number(&expected[key]);
            assert_eq!(
                [region.area_px, region.peak, region.mean],
                ["area_px", "peak", "mean"].map(value)
            );
            let centroid = &expected["centroid_px"];
            assert_eq!(region.centroid_px, [0, 1].map(|n| number(&centroid[n])));
        }
        // The reported map is that of the evaluation in 8 bits, by the formula in the documentation
        // of `HeatMap`.
        let (_, map) = tiff(&root.join("maps").join(expected["map"].as_str().unwrap()));
        let heat = part.heat_map.as_ref().unwrap();
        let found = image::load_from_memory(&heat.png).unwrap().to_luma8();
        let quantised: Vec<u8> = map
            .iter()
            .map(|score| (255.0 * (score / heat.full_scale).min(1.0)).round() as u8)
            .collect();
        assert_eq!(found.as_raw(), &quantised, "{name}");
        ng += usize::from(outcome == Outcome::Ng);
    }
    assert!(ng > 0, "the test needs an NG frame");

    // The stored maps are exact. They are written independently of the reports, possibly later.
    let started = Instant::now();
    let stored = loop {
        let stored: Vec<PathBuf> = folder(&root.join("state/images"))
            .into_iter()
            .filter(|path| path.to_string_lossy().ends_with(".map.tiff"))
            .collect();
        if stored.len() == frames.len() {
            break stored;
        }
        assert!(started.elapsed() < PATIENCE, "only {stored:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    for path in stored {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let part = name[..20].parse::<u64>().unwrap() & 0xff_ffff_ffff;
        let expected = &frames[part as usize - 1]["map"];
        let expected = root.join("maps").join(expected.as_str().unwrap());
        assert_eq!(tiff(&path), tiff(&expected), "part {part}");
    }
    assert!(camera.terminate().success());
}

/// Clears what differs from run to run.
fn without_latency(part: &PartReport) -> PartReport {
    PartReport {
        latency_us: 0,
        ..part.clone()
    }
}

#[test]
fn scores_and_verdicts_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let mut runs = Vec::new();
    for threads in [1, 2, 4] {
        std::fs::remove_dir_all(root.join("state")).ok();
        configure(
            root,
            "speed = \"maximum\"",
            &format!("[inspection]\nthreads = {threads}\n[report]\nheat_map = \"all\""),
        );
        let camera = Camera::start(root, &[]);
        let frames = std::fs::read_dir(root.join("frames")).unwrap().count();
        let mut station = Station::connect(&camera, "s", Start::Acknowledged);
        station.receive_until(|station| station.parts().count() == frames);
        let parts: Vec<PartReport> = station.parts().map(without_latency).collect();
        assert!(parts.iter().map(|part| part.part).eq(1..=frames as u64));
        runs.push(parts);
    }
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
}

#[test]
fn all_records_are_delivered_in_order_after_cut_links_and_a_thousand_parts_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    configure(
        root,
        "speed = \"maximum\"\nrepeat = true",
        "[images]\nmax_mb = 0",
    );
    let camera = Camera::start(root, &[]);
    let mut station = Station::connect(&camera, "line 3", Start::Acknowledged);
    for cut in [1usize, 2, 3, 10, 57, 100] {
        // Acknowledge some of the received records, and cut the link during delivery.
        let wanted = station.records.len() + cut;
        station.receive_until(|station| station.records.len() >= wanted);
        let acknowledged = station.last - (cut as u64) / 2;
        station.acknowledge(acknowledged);
        let earlier = station;
        let parts = camera.metric("awr_parts_total{result=\"ok\"}")
            + camera.metric("awr_parts_total{result=\"ng\"}");
        let parts_without_link = if cut == 100 { 1_000.0 } else { 50.0 };
        let started = Instant::now();
        while camera.metric("awr_parts_total{result=\"ok\"}")
            + camera.metric("awr_parts_total{result=\"ng\"}")
            < parts + parts_without_link
        {
            assert!(started.elapsed() < PATIENCE, "{}", camera.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let repeated = earlier.repeated;
        station = Station::connect(&camera, "line 3", Start::Acknowledged).resume(earlier);
        let wanted = station.records.len() + parts_without_link as usize;
        station.receive_until(|station| station.records.len() >= wanted);
        station.assert_complete();
        assert!(
            station.repeated <= repeated + cut,
            "only records without acknowledgement are delivered again"
        );
    }
    let parts: Vec<u64> = station.parts().map(|part| part.part).collect();
    assert!(parts.len() > 1_000);
    assert!(parts.iter().copied().eq(1..=parts.len() as u64));
    assert_eq!(camera.metric("awr_drops_total{place=\"journal\"}"), 0.0);
    assert!(camera.terminate().success());
}

#[test]
fn a_kill_at_any_moment_loses_no_delivered_record_and_invents_none() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    configure(
        root,
        "speed = \"maximum\"\nrepeat = true",
        "[images]\nmax_mb = 0",
    );
    let mut seen: BTreeMap<u64, Record> = BTreeMap::new();
    let mut acknowledged = 0;
    for round in 0..12u64 {
        let camera = Camera::start(root, &[]);
        let mut station = Station::connect(&camera, "s", Start::Acknowledged);
        assert!(u64::from(station.hello.boot) == round + 1);
        let until = Instant::now() + Duration::from_millis(37 * (round % 5) + 20);
        while Instant::now() < until {
            station.receive();
            if round % 2 == 0 && station.last > 3 {
                acknowledged = acknowledged.max(station.last - 3);
                station.acknowledge(acknowledged);
            }
        }
        camera.kill();
        while station.receive().is_some() {}
        for (sequence, record) in &station.records {
            let before = seen.insert(*sequence, record.clone());
            assert!(
                before.is_none_or(|before| before == *record),
                "record {sequence} has changed after a restart"
            );
        }
    }
    let camera = Camera::start(root, &[]);
    let mut all = Station::connect(&camera, "another", Start::Acknowledged);
    let last = *seen.last_key_value().unwrap().0;
    all.receive_until(|station| station.last >= last);
    all.assert_complete();
    for (sequence, record) in &seen {
        assert_eq!(all.records.get(sequence), Some(record), "{sequence}");
    }
    // Parts are numbered without a gap within a boot, so no journalled part is missing.
    let mut parts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in all.records.values() {
        if let Body::Part(part) = &record.body {
            parts.entry(record.boot).or_default().push(part.part);
        }
    }
    for (boot, parts) in parts {
        assert!(
            parts.iter().copied().eq(1..=parts.len() as u64),
            "boot {boot}: {parts:?}"
        );
    }
}

#[test]
fn settings_are_read_changed_and_journalled() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    configure(root, "speed = 50.0\nrepeat = true", "");
    let camera = Camera::start(root, &[]);
    let mut station = Station::connect(&camera, "bench", Start::Acknowledged);
    station.receive_until(|station| station.parts().count() > 2);
    let Answer::Threshold(Some(before)) = station.ask(1, Command::ReadThreshold) else {
        panic!("it has a threshold")
    };
    let reason = || "because".to_owned();
    let set = |value| Command::SetThreshold {
        value,
        reason: reason(),
    };
    assert!(matches!(
        station.ask(2, set(f32::NAN)),
        Answer::Refused { .. }
    ));
    assert_eq!(station.ask(3, set(0.0)), Answer::Done);
    let changed = station.last;
    station.receive_until(|station| {
        let later = station.records.range(changed + 10..);
        later.clone().count() > 0
            && later.clone().all(|(_, record)| match &record.body {
                Body::Part(part) => part.threshold == Some(0.0) && part.outcome == Outcome::Ng,
                Body::Event(_) => true,
            })
    });
    let is_reported = station.records.values().any(|record| {
        record.body
            == Body::Event(Event::SettingChanged {
                setting: "threshold".to_owned(),
                before: before.to_string(),
                after: "0".to_owned(),
                reason: reason(),
                station: "bench".to_owned(),
            })
    });
    assert!(is_reported);
    let observe = Command::SetMode {
        mode: Mode::Observe,
        reason: reason(),
    };
    assert_eq!(station.ask(4, observe), Answer::Done);
    assert_eq!(
        station.ask(5, Command::ReadMode),
        Answer::Mode(Mode::Observe)
    );
    let Answer::Golden(golden) = station.ask(6, Command::GoldenCheck) else {
        panic!("a golden check has a result")
    };
    assert!(golden.passed, "{}", golden.detail);
    let Answer::Snapshot { bytes, .. } = station.ask(7, Command::Snapshot) else {
        panic!("a frame was scored")
    };
    let mut pictures = [Vec::new(), Vec::new()];
    let started = Instant::now();
    while pictures[0].len() < bytes[0] as usize || pictures[1].len() < bytes[1] as usize {
        assert!(started.elapsed() < PATIENCE);
        if let Some(FromCamera::Chunk { kind, bytes, .. }) = station.receive() {
            pictures[kind as usize].extend_from_slice(&bytes);
        }
    }
    let frame = image::load_from_memory(&pictures[0]).unwrap();
    assert_eq!((frame.width(), frame.height()), (80, 80));
    assert!(pictures[1].starts_with(b"II*\0") || pictures[1].starts_with(b"MM\0*"));
}

#[test]
fn hostile_peers_break_only_their_own_link() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let (mut ours, theirs) = terminal();
    configure(
        root,
        "speed = 100.0\nrepeat = true",
        &format!("serial = {{ path = \"{}\" }}", theirs.display()),
    );
    let camera = Camera::start(root, &[]);
    // Random bytes on the serial line, then a station.
    let mut state = 1u32;
    let noise: Vec<u8> = (0..65_536)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    ours.write_all(&noise).unwrap();
    let reader = TimeoutReader(ours.try_clone().unwrap());
    let mut serial = Station::over(Box::new(reader), Box::new(ours), "serial", Start::Now);
    serial.receive_until(|station| station.parts().count() > 3);
    // Half a frame and silence; a million bytes without an end of frame; silence; a station that
    // never reads.
    let mut half = TcpStream::connect(camera.tcp).unwrap();
    half.write_all(&[0, 40, 1, 2, 3]).unwrap();
    let mut long = TcpStream::connect(camera.tcp).unwrap();
    long.write_all(&vec![0xff; 1_000_000]).unwrap();
    let _silent = TcpStream::connect(camera.tcp).unwrap();
    let stalled = Station::connect(&camera, "stalled", Start::Acknowledged);
    let mut good = Station::connect(&camera, "good", Start::Now);
    good.send(&ToCamera::Acknowledge { sequence: u64::MAX });
    good.send_bytes(&[0, 3, 0x7f, 0x01, 0]);
    let before = good.last;
    good.receive_until(|station| station.parts().count() > 100 && station.last > before);
    assert!(camera.metric("awr_drops_total{place=\"link\"}") > 0.0);
    assert_eq!(camera.metric("awr_drops_total{place=\"slot\"}"), 0.0);
    drop(stalled);
    assert!(camera.get("/health").contains("\"ready\":true"));
    assert!(camera.terminate().success());
}

#[test]
fn a_recording_replays_to_the_same_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    configure(root, "speed = \"maximum\"", "");
    ok(
        "edge-runtime",
        root,
        &["record", "--config", "camera.toml", "--out", "r.awrec"],
    );
    let frames = std::fs::read_dir(root.join("frames")).unwrap().count();
    let verdicts = |root: &Path| -> Vec<PartReport> {
        std::fs::remove_dir_all(root.join("state")).ok();
        let camera = Camera::start(root, &[]);
        let mut station = Station::connect(&camera, "s", Start::Acknowledged);
        station.receive_until(|station| station.parts().count() == frames);
        station.parts().map(without_latency).collect()
    };
    let from_folder = verdicts(root);
    std::fs::rename(root.join("frames"), root.join("images")).unwrap();
    std::fs::rename(root.join("r.awrec"), root.join("frames")).unwrap();
    assert_eq!(verdicts(root), from_folder);
}

#[test]
fn a_failed_start_names_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    prepare(root);
    let refuse = |words: &[&str]| {
        fails(
            "edge-runtime",
            root,
            &["run", "--config", "camera.toml"],
            words,
        );
    };
    fails(
        "edge-runtime",
        root,
        &["run", "--config", "no.toml"],
        &["no.toml"],
    );
    configure(root, "sped = 1", "");
    refuse(&["camera.toml", "line", "did you mean `speed`"]);
    image::GrayImage::new(4, 4)
        .save(root.join("black.png"))
        .unwrap();
    configure(root, "", "");
    let text = std::fs::read_to_string(root.join("camera.toml")).unwrap();
    let black = text.replace("[model]", "[model]\nroi_mask = \"black.png\"");
    std::fs::write(root.join("camera.toml"), black).unwrap();
    refuse(&["black.png", "no pixel to inspect"]);
    configure(
        root,
        "",
        "[gate]\noutput = { chip = \"/dev/none\", line = 1 }",
    );
    refuse(&["/dev/none"]);
    configure(root, "", "");
    let text = std::fs::read_to_string(root.join("camera.toml")).unwrap();
    // Without the state folder, because the program would start with a package in a slot.
    std::fs::remove_dir_all(root.join("state")).ok();
    std::fs::write(root.join("camera.toml"), text.replace("m.awr", "none.awr")).unwrap();
    refuse(&["none.awr"]);
    let mut package = std::fs::read(root.join("m.awr")).unwrap();
    let middle = package.len() / 2;
    package[middle] ^= 1;
    std::fs::write(root.join("none.awr"), package).unwrap();
    refuse(&["none.awr", "signature"]);
    std::fs::create_dir(root.join("empty")).unwrap();
    let text = text.replace("path = \"frames\"", "path = \"empty\"");
    std::fs::write(root.join("camera.toml"), &text).unwrap();
    refuse(&["empty"]);
}
