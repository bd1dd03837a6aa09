//! Pins the bytes of every message: lines are added to `snapshots.txt`, never changed. A changed
//! line would mean that cameras and stations in the field no longer understand each other.
//! `UPDATE_SNAPSHOTS=1 cargo test -p proto` adds new lines; it refuses to change old ones.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use proto::manifest::Roi;
use proto::message::*;
use proto::recovery::{Request, Response, SlotState, SlotStatus};
use proto::report::*;
use proto::version::{MAGIC, SCHEMA_HASH};

/// Name and bytes of a message.
type Sample = (String, Vec<u8>);

/// Encodes a message and checks that decoding gives it back.
fn message<M: Message + Debug + PartialEq>(name: &str, value: M) -> Sample {
    let bytes = value.encode();
    assert_eq!(M::decode(&bytes), Ok(value), "{name}");
    (name.to_owned(), bytes)
}

fn to_camera() -> Vec<Sample> {
    let hello = |start| {
        ToCamera::Hello(StationHello {
            magic: MAGIC,
            min_version: 1,
            max_version: 2,
            schema_hash: 0x0123_4567_89ab_cdef,
            station: "line 3".into(),
            start,
        })
    };
    let command = |name: &str, command| {
        let name = format!("to_camera.command.{name}");
        message(&name, ToCamera::Command { id: 300, command })
    };
    let reason = || "why".to_owned();
    vec![
        message("to_camera.hello.acknowledged", hello(Start::Acknowledged)),
        message("to_camera.hello.now", hello(Start::Now)),
        message("to_camera.hello.at", hello(Start::At(1_000))),
        message(
            "to_camera.acknowledge",
            ToCamera::Acknowledge { sequence: 70_000 },
        ),
        message("to_camera.alive", ToCamera::Alive),
        command("read_threshold", Command::ReadThreshold),
        command(
            "set_threshold",
            Command::SetThreshold {
                value: 0.5,
                reason: reason(),
            },
        ),
        command("read_mask", Command::ReadMask),
        command(
            "set_mask.whole",
            Command::SetMask {
                roi: Roi::Whole,
                reason: reason(),
            },
        ),
        command(
            "set_mask.polygons",
            Command::SetMask {
                roi: Roi::Polygons(vec![vec![[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]]]),
                reason: reason(),
            },
        ),
        command(
            "set_mask.bitmap",
            Command::SetMask {
                roi: Roi::Bitmap {
                    width: 4,
                    height: 2,
                    runs: vec![1, 6, 1],
                },
                reason: reason(),
            },
        ),
        command("read_mode", Command::ReadMode),
        command(
            "set_mode.observe",
            Command::SetMode {
                mode: Mode::Observe,
                reason: reason(),
            },
        ),
        command("snapshot", Command::Snapshot),
        command("golden_check", Command::GoldenCheck),
        command("read_health", Command::ReadHealth),
        message(
            "to_camera.flash_deflated",
            ToCamera::FlashDeflated {
                offset_bytes: 131_072,
                plain_bytes: 65_536,
                deflated: vec![1, 2, 3],
            },
        ),
        command("read_slots", Command::ReadSlots),
        command("read_stations", Command::ReadStations),
        command(
            "revoke_station",
            Command::RevokeStation {
                station: "line 3".into(),
                reason: reason(),
            },
        ),
        command("open_pairing", Command::OpenPairing { role: Role::Watch }),
        command(
            "list_files",
            Command::ListFiles {
                kind: FileKind::Ng,
                after: "a".into(),
            },
        ),
        command(
            "fetch_file",
            Command::FetchFile {
                kind: FileKind::Recording,
                name: "b".into(),
                offset_bytes: 65_536,
            },
        ),
        command("read_settings", Command::ReadSettings),
        command("read_readiness", Command::ReadReadiness),
    ]
}

fn part(outcome: Outcome, action: GateAction) -> Body {
    Body::Part(PartReport {
        part: 513,
        frame_sequence: 514,
        model_id: [1, 2, 3, 4, 5, 6, 7, 8],
        outcome,
        action,
        score: Some(1.5),
        threshold: Some(0.75),
        latency_us: 12_345,
        regions: vec![RegionReport {
            x_px: 1,
            y_px: 2,
            width_px: 300,
            height_px: 4,
            area_px: 100.5,
            peak: 1.5,
            mean: 1.0,
            centroid_px: [150.25, 4.0],
        }],
        regions_found: 1,
        heat_map: Some(HeatMap {
            full_scale: 1.5,
            png: vec![0x89, 0x50],
        }),
        thumbnail_jpeg: Some(vec![0xff, 0xd8]),
    })
}

fn records() -> Vec<Sample> {
    let record = |name: &str, body| {
        let record = Record {
            unix_ms: 1_763_856_000_000,
            boot: 3,
            body,
        };
        message(
            &format!("from_camera.record.{name}"),
            FromCamera::Record {
                sequence: 128,
                record,
            },
        )
    };
    let event = |name: &str, event| record(&format!("event.{name}"), Body::Event(event));
    let words = || "words".to_owned();
    let mut samples = vec![
        record("part.ok", part(Outcome::Ok, GateAction::Pass)),
        record("part.ng", part(Outcome::Ng, GateAction::Reject)),
        event(
            "started",
            Event::Started {
                version: "0.1.0".into(),
                model_id: [9; 8],
                model: "leather 1".into(),
            },
        ),
        event("stopping", Event::Stopping),
        event("capture_lost", Event::CaptureLost { reason: words() }),
        event(
            "capture_resumed",
            Event::CaptureResumed {
                after_ms: 1_000,
                attempts: 2,
            },
        ),
        event(
            "records_lost",
            Event::RecordsLost {
                count: 7,
                reason: words(),
            },
        ),
        event(
            "stage_restarted",
            Event::StageRestarted {
                stage: words(),
                reason: words(),
            },
        ),
        event(
            "golden_check",
            Event::GoldenCheck(GoldenResult {
                passed: true,
                detail: words(),
            }),
        ),
        event(
            "setting_changed",
            Event::SettingChanged {
                setting: words(),
                before: "a".into(),
                after: "b".into(),
                reason: words(),
                station: words(),
            },
        ),
        event("gate_fault", Event::GateFault { reason: words() }),
        event(
            "package_activated",
            Event::PackageActivated {
                model_id: [9; 8],
                model: words(),
                parity_off: 0.001,
                trial: true,
                station: words(),
            },
        ),
        event(
            "package_refused",
            Event::PackageRefused {
                reason: words(),
                station: words(),
            },
        ),
        event(
            "package_confirmed",
            Event::PackageConfirmed {
                model_id: [9; 8],
                model: words(),
                station: words(),
            },
        ),
        event(
            "rolled_back",
            Event::RolledBack {
                model_id: [9; 8],
                model: words(),
                reason: words(),
                station: words(),
            },
        ),
        event(
            "link_refused",
            Event::LinkRefused {
                peer: words(),
                reason: words(),
                count: 300,
            },
        ),
        event(
            "station_paired",
            Event::StationPaired {
                station: words(),
                role: Role::Operate,
                key_id: [8; 8],
            },
        ),
        event(
            "station_revoked",
            Event::StationRevoked {
                station: words(),
                reason: words(),
                by: words(),
            },
        ),
    ];
    let faults = [
        ("no_frame", Fault::NoFrame),
        ("damaged_frame", Fault::DamagedFrame),
        ("late", Fault::Late),
        ("displaced", Fault::Displaced),
        ("scoring", Fault::Scoring),
        ("no_model", Fault::NoModel),
        ("implausible", Fault::Implausible),
    ];
    for (name, fault) in faults {
        let body = part(Outcome::Fault(fault), GateAction::None);
        samples.push(record(&format!("part.fault.{name}"), body));
    }
    let kinds = [
        ("brightness", DriftKind::Brightness),
        ("contrast", DriftKind::Contrast),
        ("sharpness", DriftKind::Sharpness),
        ("surface", DriftKind::Surface),
    ];
    for (name, kind) in kinds {
        let drift = Event::Drift {
            kind,
            found: 0.25,
            expected: 0.5,
        };
        samples.push(event(&format!("drift.{name}"), drift));
    }
    samples
}

fn slots() -> Vec<SlotInfo> {
    let states = [
        PackageState::Empty,
        PackageState::Ready,
        PackageState::Active,
        PackageState::Trial,
    ];
    let slot = |state| SlotInfo {
        state,
        sha256: [0xab; 32],
        model: "leather 1".into(),
        signer: "0011223344556677".into(),
        parity_off: Some(0.001),
        threshold: None,
    };
    states.map(slot).into()
}

fn from_camera() -> Vec<Sample> {
    let health = || Health {
        uptime_s: 86_400,
        capturing: true,
        frames: 1_000_000,
        frames_lost: 3,
        parts: [999_000, 990, 10],
        records_lost: 0,
        scoring_us: [9_000, 12_000],
        memory_bytes: 90_000_000,
        temperature_c: Some(55.5),
        mode: Mode::Inspect,
    };
    let answer = |name: &str, answer| {
        let name = format!("from_camera.reply.{name}");
        message(&name, FromCamera::Reply { id: 300, answer })
    };
    let chunk = |name: &str, kind| {
        let chunk = FromCamera::Chunk {
            id: 300,
            kind,
            total_bytes: 70_000,
            offset_bytes: 65_536,
            bytes: vec![1, 2, 3],
        };
        message(&format!("from_camera.chunk.{name}"), chunk)
    };
    let mut samples = vec![
        message(
            "from_camera.hello",
            FromCamera::Hello(CameraHello {
                magic: MAGIC,
                version: 1,
                schema_hash: 1,
                camera: "top".into(),
                program: "0.1.0".into(),
                model_id: [7; 8],
                model: "leather 1".into(),
                boot: 4,
                oldest: 100,
                next: 200,
            }),
        ),
        message(
            "from_camera.displaced",
            FromCamera::Displaced { from: 1, to: 200 },
        ),
        message("from_camera.health", FromCamera::Health(health())),
        message(
            "from_camera.log",
            FromCamera::Log {
                level: 2,
                text: "careful".into(),
            },
        ),
        message(
            "from_camera.goodbye",
            FromCamera::Goodbye {
                reason: "stopping".into(),
            },
        ),
        chunk("frame_png", SnapshotKind::FramePng),
        chunk("map_tiff", SnapshotKind::MapTiff),
        answer("done", Answer::Done),
        answer(
            "refused",
            Answer::Refused {
                reason: "no".into(),
            },
        ),
        answer("threshold.some", Answer::Threshold(Some(0.5))),
        answer("threshold.none", Answer::Threshold(None)),
        answer("mask", Answer::Mask(Roi::Whole)),
        answer("mode", Answer::Mode(Mode::Inspect)),
        answer(
            "snapshot",
            Answer::Snapshot {
                part: 5,
                score: Some(0.25),
                bytes: [70_000, 260_000],
            },
        ),
        answer(
            "golden",
            Answer::Golden(GoldenResult {
                passed: false,
                detail: "off by 0.1".into(),
            }),
        ),
        answer("health", Answer::Health(health())),
        answer("slots", Answer::Slots(slots())),
        answer(
            "stations",
            Answer::Stations(vec![StationInfo {
                name: "line 3".into(),
                role: Role::Engineer,
                key_id: [8; 8],
            }]),
        ),
        answer(
            "pairing",
            Answer::Pairing {
                code: "K7QF-2M9X-TBHE".into(),
                valid_s: 600,
            },
        ),
        answer(
            "files",
            Answer::Files(vec![FileInfo {
                name: "a.png".into(),
                bytes: 70_000,
            }]),
        ),
        answer("file", Answer::File { bytes: 70_000 }),
        answer(
            "settings",
            Answer::Settings(Settings {
                threshold: Some(0.5),
                threshold_from: SettingSource::Station {
                    station: "line 3".into(),
                    reason: "misses".into(),
                    unix_ms: 1_790_000_000_000,
                },
                mask: "whole frame".into(),
                mask_from: SettingSource::Package,
                mode: Mode::Inspect,
                mode_from: SettingSource::Configuration,
            }),
        ),
        answer(
            "readiness",
            Answer::Readiness(Readiness {
                ready: false,
                fault: true,
                gate_held: true,
                failing: vec!["pairing".into()],
            }),
        ),
        message(
            "from_camera.file_chunk",
            FromCamera::FileChunk {
                id: 300,
                offset_bytes: 65_536,
                bytes: vec![1, 2, 3],
            },
        ),
    ];
    samples.extend(records());
    samples
}

fn recovery() -> Vec<Sample> {
    let request = |name: &str, value: Request| {
        let bytes = value.encode();
        assert_eq!(Request::decode(&bytes), Ok(value), "{name}");
        assert_eq!(ToCamera::decode(&bytes), Err(DecodeError::Recovery));
        (format!("recovery.request.{name}"), bytes)
    };
    let response = |name: &str, value: Response| {
        let bytes = value.encode();
        assert_eq!(Response::decode(&bytes), Ok(value), "{name}");
        (format!("recovery.response.{name}"), bytes)
    };
    let slot = |state| SlotStatus {
        state,
        sha256: [0xab; 32],
    };
    vec![
        request("identify", Request::Identify),
        request("slots", Request::Slots),
        request(
            "flash_begin",
            Request::FlashBegin {
                total_bytes: 12_000_000,
                sha256: [0xcd; 32],
            },
        ),
        request(
            "flash_chunk",
            Request::FlashChunk {
                offset_bytes: 65_536,
                bytes: vec![1, 2, 3],
            },
        ),
        request("flash_end", Request::FlashEnd),
        request("confirm", Request::Confirm),
        request("roll_back", Request::RollBack),
        response(
            "identity",
            Response::Identity {
                boot: 9,
                camera: "top".into(),
                program: "0.1.0".into(),
            },
        ),
        response(
            "slots.empty_ready",
            Response::Slots([slot(SlotState::Empty), slot(SlotState::Ready)]),
        ),
        response(
            "slots.active_trial",
            Response::Slots([slot(SlotState::Active), slot(SlotState::Trial)]),
        ),
        response(
            "continue",
            Response::Continue {
                offset_bytes: 131_072,
            },
        ),
        response("done", Response::Done),
        response(
            "refused",
            Response::Refused {
                reason: "no".into(),
            },
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_every_message_equal_the_committed_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots.txt");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut old: BTreeMap<&str, &str> = committed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let mut missing = String::new();
    for (name, bytes) in [to_camera(), from_camera(), recovery()].concat() {
        let bytes = hex(&bytes);
        match old.remove(name.as_str()) {
            Some(expected) => assert_eq!(bytes, expected, "{name} changed"),
            None => missing += &format!("{name} {bytes}\n"),
        }
    }
    assert!(old.is_empty(), "messages without a sample: {old:?}");
    if !missing.is_empty() {
        assert!(
            std::env::var_os("UPDATE_SNAPSHOTS").is_some(),
            "not committed yet (UPDATE_SNAPSHOTS=1 adds them):\n{missing}"
        );
        std::fs::write(&path, committed + &missing).unwrap();
    }
}

#[test]
fn the_schema_hash_and_the_protocol_page_match_the_snapshots() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(root.join("tests/snapshots.txt")).unwrap();
    let hash = committed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    assert_eq!(SCHEMA_HASH, hash, "put {hash:#018x} into version.rs");
    let document = std::fs::read_to_string(root.join("../docs/src/protocol.md")).unwrap();
    let stated = format!("{hash:016x}");
    assert!(
        document.contains(&stated),
        "docs/src/protocol.md names another schema than {stated}: bring it up to date"
    );
}
