//! Sessions with stations over TCP, well-behaved and not, and what they receive of the journal.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../../scoring/tests/common/mod.rs"]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{key, manifest, package};
use edge_runtime::config::{Report, SerialLine, SerialRole};
use edge_runtime::disk_space::DiskSpace;
use edge_runtime::image_store::Sampler;
use edge_runtime::journal::boot_counter::BootCounter;
use edge_runtime::journal::events::{EventLog, EventReader};
use edge_runtime::journal::positions::Positions;
use edge_runtime::journal::{Journal, JournalReader, Limits};
use edge_runtime::line::parts::{Parts, Settings};
use edge_runtime::line::readiness::Readiness;
use edge_runtime::line::shared::LineShared;
use edge_runtime::link::access_control::{ACCESS_FILE, AccessControl, TICKET_FILE, issue_code};
use edge_runtime::link::{LinkContext, server};
use edge_runtime::metrics::{Loss, Metrics};
use edge_runtime::model::active::{ConfiguredSettings, Control, GoldenFrames, LastPart};
use edge_runtime::model::requirements::Requirements;
use edge_runtime::model::settings::Settings as StationSettings;
use edge_runtime::model::store::Store;
use edge_runtime::model::update::Updater;
use edge_runtime::report::drift::DriftMonitor;
use edge_runtime::report::durable::DurableSignal;
use edge_runtime::report::pictures::ImageSink;
use edge_runtime::report::queue::{Inbox, PartResult, Reporter, channel};
use edge_runtime::report::thread::ReportThread;
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::manifest::Roi;
use proto::message::{
    Answer, Command, FromCamera, Message, Mode, Role, SettingSource, SnapshotKind, Start,
    StationHello, ToCamera,
};
use proto::recovery::{Request, Response};
use proto::report::{Body, Event, GateAction, Outcome, Record};
use proto::version::{MAGIC, SCHEMA_HASH, VERSION};
use rustix::pty;
use scoring::infer::Tuning;
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::map::ScoreMap;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};
use scoring::package::{Loaded, Trust};
use secure::access::{Access, Entry};
use secure::handshake::Intent;
use secure::identity::Identity;
use secure::pairing::{Code, Moment, Tickets};
use secure::stream::{Reader, Writer};
use secure::tcp::{LinkError, open};

const PATIENCE: Duration = Duration::from_secs(20);
const SMALL: Limits = Limits {
    max_bytes: 4_000,
    segment_bytes: 400,
    max_pending_bytes: 100_000,
};

const PARTS: Settings = Settings {
    deadline: None,
    frame_within: Duration::ZERO,
    edges_reported_within: Duration::ZERO,
    early_frame_within: Duration::ZERO,
    camera_is_triggered: false,
    gate: None,
    safe_action: GateAction::None,
};

/// The parts of a camera that links and reports need, without capture.
struct Rig {
    folder: tempfile::TempDir,
    control: Arc<Control>,
    metrics: Arc<Metrics>,
    signal: Arc<DurableSignal>,
    positions: Arc<Mutex<Positions>>,
    reporter: Reporter,
    inbox: Option<Inbox>,
    readiness: Arc<Readiness>,
    events: Option<EventLog>,
    event_reader: EventReader,
}

impl Rig {
    fn new(roi: Roi) -> Self {
        let trust = Trust::Only(vec![key().verifying_key()]);
        let package = Loaded::new(package(&manifest())).unwrap();
        let inspector = Inspector::new(&package.verify(&trust).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, inbox) = channel(false, Arc::clone(&metrics));
        let parts = Parts::new(PARTS);
        let control = Control::new(
            Some(inspector.with_roi(roi)),
            Mode::Inspect,
            GoldenFrames::default(),
            Arc::new(LineShared::new(parts, false)),
            reporter.clone(),
            Arc::clone(&metrics),
            Arc::default(),
        );
        let (events, _) = EventLog::open_or_wait(&folder.path().join("events")).unwrap();
        let path = folder.path().join("positions");
        let (positions, _) = Positions::open(&path, Duration::from_secs(1));
        Self {
            control: Arc::new(control),
            metrics,
            signal: Arc::default(),
            positions: Arc::new(Mutex::new(positions)),
            reporter,
            inbox: Some(inbox),
            readiness: Arc::default(),
            event_reader: events.reader(),
            events: Some(events),
            folder,
        }
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.folder.path().join("journal"), SMALL)
            .unwrap()
            .0
    }

    fn context(&self, journal: JournalReader) -> Arc<LinkContext> {
        let state = self.folder.path();
        let access = Access::at(&state.join(ACCESS_FILE));
        access.admit(entry()).unwrap();
        let camera = Identity::generate().unwrap();
        let access_control = AccessControl::new(state, camera, self.reporter.clone());
        let requirements = Requirements {
            trust: Trust::Only(vec![key().verifying_key()]),
            roi: None,
            threshold: None,
            min_version: None,
            any_input: false,
            tuning: Tuning::default(),
        };
        let (store, _) = Store::open(&state.join("slots"));
        let updater = Updater::start(store, requirements, None).unwrap().updater;
        Arc::new(LinkContext {
            journal,
            events: self.event_reader.clone(),
            positions: Arc::clone(&self.positions),
            signal: Arc::clone(&self.signal),
            control: Arc::clone(&self.control),
            metrics: Arc::clone(&self.metrics),
            stop: Arc::default(),
            camera: "under test".to_owned(),
            boot: 1,
            access_control: Arc::new(access_control),
            updater: Arc::new(updater),
            reporter: self.reporter.clone(),
            state: state.to_owned(),
            max_stations: 8,
        })
    }

    fn serve(&self, journal: JournalReader) -> Server {
        let context = self.context(journal);
        let stop = Arc::clone(&context.stop);
        let listener = server::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || server::serve_tcp(&context, &listener));
        Server {
            address,
            stop,
            thread,
        }
    }

    /// A journal of some records, to which reports are added by a thread, and the links to it.
    fn with_records(&mut self, count: usize) -> (JournalReader, Arc<LinkContext>, JoinHandle<()>) {
        let journal = Journal::open(&self.folder.path().join("journal"), Limits::new(1 << 20));
        let mut journal = journal.unwrap().0;
        append(&mut journal, count);
        let reader = journal.reader();
        let context = self.context(journal.reader());
        (reader, context, self.report(journal, None))
    }

    /// Starts the report thread.
    fn report(&mut self, journal: Journal, images: Option<ImageSink>) -> JoinHandle<()> {
        let disk = DiskSpace::new(self.folder.path(), journal.reader(), 1 << 20);
        let report_thread = ReportThread {
            inbox: self.inbox.take().unwrap(),
            journal,
            events: self.events.take().unwrap(),
            positions: Arc::clone(&self.positions),
            signal: Arc::clone(&self.signal),
            sync_every: Duration::from_millis(20),
            images,
            disk: Arc::new(disk),
            drift: DriftMonitor::new(0),
            report: Report::default(),
            boot_counter: BootCounter::open(&self.folder.path().join("boot"), 0),
            control: Arc::clone(&self.control),
            readiness: Arc::clone(&self.readiness),
            metrics: Arc::clone(&self.metrics),
        };
        std::thread::spawn(move || report_thread.run(&|| ()))
    }

    /// Sets the last frame and its map, which snapshots and masks use.
    fn show(&self, frame: Frame, map: ScoreMap) {
        self.control.set_last_part(Arc::new(LastPart {
            part: 1,
            inspection: inspection(&frame, map),
            frame,
        }));
    }
}

struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Stops the server and returns how long that took.
    fn stop(self) -> Duration {
        let started = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        started.elapsed()
    }
}

/// The identity of the station that has access.
fn identity() -> Identity {
    Identity::from_secret([7; 32]).unwrap()
}

fn entry() -> Entry {
    Entry {
        key: *identity().public(),
        role: Role::Engineer,
        name: "s".to_owned(),
    }
}

fn hello(name: &str) -> ToCamera {
    ToCamera::Hello(StationHello {
        magic: MAGIC,
        min_version: VERSION,
        max_version: VERSION,
        schema_hash: SCHEMA_HASH,
        station: name.to_owned(),
        start: Start::Acknowledged,
    })
}

struct Station {
    reader: Reader<TcpStream>,
    writer: Option<Writer<TcpStream>>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Station {
    fn connect(server: &Server) -> Self {
        Self::connect_as(server, &identity(), &Intent::Session).unwrap()
    }

    fn connect_as(
        server: &Server,
        identity: &Identity,
        intent: &Intent,
    ) -> Result<Self, LinkError> {
        let link = open(server.address, identity, None, intent, PATIENCE)?;
        Ok(Self {
            reader: link.reader,
            writer: Some(link.writer),
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
        })
    }

    fn greet(server: &Server, name: &str) -> Self {
        let mut station = Self::connect(server);
        station.send(&hello(name));
        station
    }

    /// The reason for which the camera ends the link.
    fn goodbye(&mut self) -> String {
        self.find(|message| match message {
            FromCamera::Goodbye { reason } => Some(reason),
            _ => None,
        })
    }

    fn send(&mut self, message: &ToCamera) {
        let wire = encode(&message.encode()).unwrap();
        let writer = self.writer.as_mut().unwrap();
        writer.write_all(&wire).unwrap();
        writer.flush().unwrap();
    }

    fn ask(&mut self, id: u32, command: Command) {
        self.send(&ToCamera::Command { id, command });
    }

    /// The next message; `None` when the camera has closed the link.
    fn next(&mut self) -> Option<FromCamera> {
        Some(FromCamera::decode(&self.payload()?).unwrap())
    }

    fn payload(&mut self) -> Option<Vec<u8>> {
        let started = Instant::now();
        loop {
            let all = std::mem::take(&mut self.bytes);
            let (payload, rest) = match self.accumulator.feed(&all) {
                Fed::NeedMore => (None, Vec::new()),
                Fed::Frame { payload, rest } => (Some(payload.to_vec()), rest.to_vec()),
                Fed::Discarded { reason, .. } => panic!("damaged: {reason:?}"),
            };
            self.bytes = rest;
            if let Some(payload) = payload {
                return Some(payload);
            }
            if self.bytes.is_empty() {
                let mut piece = [0; 65_536];
                match self.reader.read(&mut piece) {
                    Ok(0) => return None,
                    Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                    Err(_) => assert!(started.elapsed() < PATIENCE, "nothing comes"),
                }
            }
        }
    }

    /// The next payload, which must be a response of the recovery exchange.
    fn recovery(&mut self) -> Response {
        Response::decode(&self.payload().unwrap()).unwrap()
    }

    /// The first message that is wanted; others are skipped.
    fn find<T>(&mut self, mut wanted: impl FnMut(FromCamera) -> Option<T>) -> T {
        loop {
            let message = self.next().expect("the link is open");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    fn reply(&mut self, id: u32) -> Answer {
        self.find(|message| match message {
            FromCamera::Reply { id: found, answer } if found == id => Some(answer),
            _ => None,
        })
    }
}

fn frame(side_px: u32) -> Frame {
    // Noise, which cannot be compressed.
    let mut state = 1u32;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    let pixels = (0..side_px * side_px).map(|_| byte()).collect();
    Frame::new(side_px, side_px, Channels::Grey, Pixels::U8(pixels)).unwrap()
}

fn inspection(frame: &Frame, map: ScoreMap) -> Inspection {
    Inspection {
        prepared: frame.clone(),
        map,
        inside: None,
        score: 0.0,
        regions: Vec::new(),
        verdict: Some(Verdict::Ok),
        elapsed: Duration::ZERO,
    }
}

fn part(number: u64, scored: Option<(Frame, Inspection)>) -> PartResult {
    PartResult {
        part: number,
        unix_ms: 0,
        frame_sequence: 0,
        model_id: [0; 8],
        threshold: Some(1.0),
        outcome: Outcome::Ok,
        action: GateAction::Pass,
        latency: Duration::ZERO,
        scored,
    }
}

fn append(journal: &mut Journal, count: usize) {
    for _ in 0..count {
        let record = Record {
            unix_ms: 0,
            boot: 1,
            body: Body::Event(Event::Stopping),
        };
        journal.append(&record.encode()).unwrap();
    }
    journal.sync().unwrap();
}

/// The reasons for which peers were refused, as journalled so far.
fn refusals(reader: &JournalReader) -> Vec<String> {
    let refused = |record: Record| match record.body {
        Body::Event(Event::LinkRefused { reason, .. }) => Some(reason),
        _ => None,
    };
    records(reader).into_iter().filter_map(refused).collect()
}

fn records(reader: &JournalReader) -> Vec<Record> {
    let batch = reader.read_from(1, usize::MAX, usize::MAX).unwrap();
    let decode = |(_, payload): &(u64, Vec<u8>)| Record::decode(payload).unwrap();
    batch.records.iter().map(decode).collect()
}

#[test]
fn noise_neither_keeps_a_link_open_nor_delays_the_end() {
    let rig = Rig::new(Roi::Whole);
    let server = rig.serve(rig.journal().reader());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Without a hello.
        let mut noisy = Station::connect(&server);
        let mut writer = noisy.writer.take().unwrap();
        let finished = &done;
        scope.spawn(move || {
            while !finished.load(Ordering::Relaxed)
                && writer.write_all(b"x").and_then(|()| writer.flush()).is_ok()
            {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // With one, but then only messages of a later version.
        let mut later = Station::greet(&server, "later");
        let mut writer = later.writer.take().unwrap();
        scope.spawn(move || {
            let unknown = encode(&[0x7f, 1, 2]).unwrap();
            while !finished.load(Ordering::Relaxed)
                && writer
                    .write_all(&unknown)
                    .and_then(|()| writer.flush())
                    .is_ok()
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        later.find(|message| matches!(message, FromCamera::Hello(_)).then_some(()));
        let started = Instant::now();
        let reason = noisy.find(|message| match message {
            FromCamera::Goodbye { reason } => Some(reason),
            _ => None,
        });
        assert!(reason.contains("no hello"), "{reason}");
        assert!(started.elapsed() < Duration::from_secs(8));
        let took = server.stop();
        done.store(true, Ordering::Relaxed);
        assert!(took < Duration::from_secs(3), "{took:?}");
        let reason = later.find(|message| match message {
            FromCamera::Goodbye { reason } => Some(reason),
            _ => None,
        });
        assert!(reason.contains("stops"), "{reason}");
    });
}

#[test]
fn unreadable_records_are_reported_and_skipped() {
    let rig = Rig::new(Roi::Whole);
    let mut journal = rig.journal();
    append(&mut journal, 60);
    let mut segments: Vec<_> = std::fs::read_dir(rig.folder.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    segments.sort();
    assert!(segments.len() > 3);
    // A folder can be opened but not read, like a file with a bad sector.
    std::fs::remove_file(&segments[1]).unwrap();
    std::fs::create_dir(&segments[1]).unwrap();
    let number = |path: &Path| -> u64 {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        stem.parse().unwrap()
    };
    let (from, to) = (number(&segments[1]), number(&segments[2]));
    let server = rig.serve(journal.reader());
    for name in ["a", "b"] {
        let mut station = Station::greet(&server, name);
        let mut found = Vec::new();
        while found.last() != Some(&60) {
            match station.next().expect("the link is open") {
                FromCamera::Record { sequence, .. } => found.push(sequence),
                FromCamera::Displaced {
                    from: first,
                    to: next,
                } => {
                    assert_eq!((first, next), (from, to));
                    assert_eq!(found.last(), Some(&(from - 1)));
                }
                _ => {}
            }
        }
        let expected: Vec<u64> = (1..from).chain(to..61).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(rig.metrics.drops(Loss::Unreadable), to - from, "once");
    server.stop();
}

#[test]
fn a_large_snapshot_arrives_complete_and_does_not_delay_records() {
    let rig = Rig::new(Roi::Whole);
    let mut journal = rig.journal();
    let server = rig.serve(journal.reader());
    let mut station = Station::greet(&server, "slow");
    // More than 512 chunks of the largest size.
    rig.show(frame(6_000), ScoreMap::zeros(10, 10));
    station.ask(1, Command::Snapshot);
    station.ask(2, Command::Snapshot);
    let Answer::Snapshot { bytes, .. } = station.reply(1) else {
        panic!("there is a frame to show");
    };
    assert!(bytes[0] > 35_000_000);
    append(&mut journal, 3);
    rig.signal.notify();
    let mut got = [0u32, 0];
    let (mut refused, mut recorded) = (false, 0);
    while got != bytes {
        match station.next().expect("the link is open") {
            FromCamera::Chunk {
                id,
                kind,
                total_bytes,
                offset_bytes,
                bytes: piece,
            } => {
                let index = usize::from(kind == SnapshotKind::MapTiff);
                assert_eq!((id, total_bytes), (1, bytes[index]));
                assert_eq!(offset_bytes, got[index], "in order, nothing left out");
                got[index] += piece.len() as u32;
            }
            FromCamera::Reply { id: 2, answer } => {
                refused = matches!(answer, Answer::Refused { .. });
                assert!(got[0] < bytes[0], "at once");
            }
            FromCamera::Record { .. } => {
                recorded += 1;
                assert!(got[0] < bytes[0], "records do not wait");
            }
            _ => {}
        }
    }
    assert!(refused, "one at a time");
    assert_eq!(recorded, 3);
    // Nobody reads this one, and it does not delay the end either.
    station.ask(3, Command::Snapshot);
    station.reply(3);
    std::thread::sleep(Duration::from_millis(1_500));
    let took = server.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_station_is_identified_by_its_key_whatever_name_it_sends() {
    let rig = Rig::new(Roi::Whole);
    let mut journal = rig.journal();
    append(&mut journal, 5);
    let server = rig.serve(journal.reader());
    let mut station = Station::greet(&server, "one");
    station.find(|message| match message {
        FromCamera::Record { sequence: 5, .. } => Some(()),
        _ => None,
    });
    station.send(&ToCamera::Acknowledge { sequence: 4 });
    station.ask(1, Command::ReadMode);
    station.reply(1);
    for name in ["another", "", &"x".repeat(65)] {
        let mut again = Station::greet(&server, name);
        let first = again.find(|message| match message {
            FromCamera::Record { sequence, .. } => Some(sequence),
            _ => None,
        });
        assert_eq!(first, 5, "{name}");
    }
    server.stop();
}

/// A station of any version can recover the camera: it needs no hello, and its other messages are
/// ignored.
#[test]
fn a_station_from_the_future_is_answered_in_the_recovery_exchange() {
    let rig = Rig::new(Roi::Whole);
    let server = rig.serve(rig.journal().reader());
    let mut station = Station::connect(&server);
    let mut writer = station.writer.take().unwrap();
    let mut say = |payload: &[u8]| {
        writer.write_all(&encode(payload).unwrap()).unwrap();
        writer.flush().unwrap();
    };
    for request in [
        Request::Identify,
        Request::Slots,
        Request::Confirm,
        Request::FlashEnd,
    ] {
        say(&[0x7f, 1, 2]);
        say(&request.encode());
        let response = station.recovery();
        match request {
            Request::Identify => assert!(matches!(response, Response::Identity { boot: 1, .. })),
            Request::Slots => assert!(matches!(response, Response::Slots(_))),
            _ => assert!(matches!(response, Response::Refused { .. })),
        }
    }
    drop(writer);
    server.stop();
}

#[test]
fn an_answer_that_no_station_could_read_is_refused() {
    // Comes from the configuration: no message may have this many runs.
    let rig = Rig::new(Roi::Bitmap {
        width: 200,
        height: 100,
        runs: vec![1; 20_000],
    });
    let server = rig.serve(rig.journal().reader());
    let mut station = Station::greet(&server, "a");
    station.ask(7, Command::ReadMask);
    let Answer::Refused { reason } = station.reply(7) else {
        panic!("it cannot be sent");
    };
    assert!(reason.contains("too long"), "{reason}");
    server.stop();
}

#[test]
fn a_mask_is_checked_at_the_size_of_the_map() {
    let rig = Rig::new(Roi::Whole);
    rig.show(frame(100), ScoreMap::zeros(8, 8));
    let set = |roi| {
        let reason = "a test".to_owned();
        let (answer, _) = rig.control.execute("a", Command::SetMask { roi, reason });
        answer
    };
    // Covers no pixel centre of this map, though it would cover some of a finer one.
    let small = vec![[0.01, 0.01], [0.05, 0.01], [0.05, 0.05], [0.01, 0.05]];
    let answer = set(Roi::Polygons(vec![small]));
    assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    assert_eq!(rig.control.inspector().unwrap().manifest().roi, Roi::Whole);
    // It would take 256 MiB if it were unpacked.
    let huge = Roi::Bitmap {
        width: 16_384,
        height: 16_384,
        runs: vec![0, 16_384 * 16_384],
    };
    let started = Instant::now();
    assert_eq!(set(huge), Answer::Done);
    assert!(started.elapsed() < Duration::from_millis(100));
}

#[test]
fn lost_reports_are_reported_while_others_continue() {
    let mut rig = Rig::new(Roi::Whole);
    let journal = Journal::open(&rig.folder.path().join("journal"), Limits::new(1 << 20));
    let journal = journal.unwrap().0;
    let reader = journal.reader();
    // More than the queue holds before the report thread starts. All have the same number, so that
    // the thread waits for no other part.
    for _ in 0..5_000 {
        rig.reporter.part(part(1, None));
    }
    let lost = rig.metrics.drops(Loss::Journal);
    assert!(lost > 0);
    let thread = rig.report(journal, None);
    for _ in 0..300 {
        rig.reporter.part(part(1, None));
        std::thread::sleep(Duration::from_millis(2));
    }
    let reported: u64 = records(&reader)
        .iter()
        .map(|record| match &record.body {
            Body::Event(Event::RecordsLost { count, .. }) => *count,
            _ => 0,
        })
        .sum();
    assert!(reported >= lost, "without a pause in production");
    rig.reporter.close();
    thread.join().unwrap();
}

#[test]
fn records_evicted_by_the_size_limit_are_counted_unless_a_station_has_them() {
    let mut rig = Rig::new(Roi::Whole);
    rig.positions.lock().unwrap().acknowledge("a", 20).unwrap();
    let journal = rig.journal();
    let reader = journal.reader();
    let thread = rig.report(journal, None);
    for number in 1..=300 {
        rig.reporter.part(part(number, None));
        std::thread::sleep(Duration::from_millis(2));
    }
    rig.reporter.close();
    thread.join().unwrap();
    let gone = reader.oldest().unwrap() - 21;
    assert!(gone > 50);
    assert_eq!(rig.metrics.drops(Loss::Evicted), gone);
    let health = rig.metrics.health(Mode::Inspect);
    assert_eq!(health.records_lost, gone + rig.metrics.drops(Loss::Journal));
}

#[test]
fn pictures_that_are_not_to_be_stored_take_no_queue_space() {
    let mut rig = Rig::new(Roi::Whole);
    let (sender, pictures) = crossbeam_channel::bounded(1);
    let images = ImageSink {
        sampler: Sampler::new(0),
        sender,
    };
    let journal = rig.journal();
    let thread = rig.report(journal, Some(images));
    let mut inspection = inspection(&frame(16), ScoreMap::zeros(8, 8));
    for number in 1..=20 {
        rig.reporter
            .part(part(number, Some((frame(16), inspection.clone()))));
    }
    inspection.verdict = Some(Verdict::Ng);
    rig.reporter.part(part(21, Some((frame(16), inspection))));
    rig.reporter.close();
    thread.join().unwrap();
    assert_eq!(rig.metrics.drops(Loss::Images), 0);
    assert_eq!(pictures.try_iter().count(), 1, "the NG one");
}

#[test]
fn connections_that_only_ask_to_pair_use_up_no_attempt() {
    let rig = Rig::new(Roi::Whole);
    let server = rig.serve(rig.journal().reader());
    let tickets = Tickets::at(&rig.folder.path().join(TICKET_FILE));
    let code = issue_code(&tickets, Role::Operate).unwrap();
    let left = || {
        let ticket = tickets.current(&Moment::now().unwrap()).unwrap();
        ticket.map(|ticket| ticket.tries_left)
    };
    let all = left().unwrap();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(b"AWRS\x01\x01\x00\x00").unwrap();
        drop(stream);
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(left(), Some(all));
    let intent = Intent::Pair {
        code,
        name: "new".to_owned(),
    };
    let mut station =
        Station::connect_as(&server, &Identity::generate().unwrap(), &intent).unwrap();
    station.send(&hello("new"));
    station.find(|message| matches!(message, FromCamera::Hello(_)).then_some(()));
    assert_eq!(left(), None, "used");
    server.stop();
}

#[test]
fn wrong_codes_are_reported_and_shut_out_only_their_own_address() {
    let mut rig = Rig::new(Roi::Whole);
    let journal = Journal::open(&rig.folder.path().join("journal"), Limits::new(1 << 20));
    let journal = journal.unwrap().0;
    let reader = journal.reader();
    let server = rig.serve(journal.reader());
    let tickets = Tickets::at(&rig.folder.path().join(TICKET_FILE));
    let code = issue_code(&tickets, Role::Operate).unwrap();
    let pair = |code: &Code| {
        let intent = Intent::Pair {
            code: code.clone(),
            name: "new".to_owned(),
        };
        // The handshake may succeed: only what follows shows whether the camera accepts it.
        let link = Station::connect_as(&server, &Identity::generate().unwrap(), &intent);
        if let Ok(mut station) = link {
            assert!(station.next().is_none(), "the camera closes the link");
        }
    };
    for seed in 0..5 {
        pair(&Code::from_random([seed; 12]));
    }
    // The right one comes too late from this address, but is still in force.
    pair(&code);
    let ticket = tickets.current(&Moment::now().unwrap()).unwrap().unwrap();
    assert_eq!(ticket.key, code.key());
    server.stop();
    let thread = rig.report(journal, None);
    rig.reporter.close();
    thread.join().unwrap();
    let reasons = refusals(&reader);
    let wrong = |reason: &&String| reason.contains("wrong pairing code;");
    assert_eq!(reasons.iter().filter(wrong).count(), 5, "{reasons:?}");
    let shut_out = |reason: &String| reason.contains("wrong codes came from this address");
    assert!(reasons.iter().any(shut_out), "{reasons:?}");
}

#[test]
fn silent_connections_hold_their_places_for_a_short_time_only() {
    let rig = Rig::new(Roi::Whole);
    let server = rig.serve(rig.journal().reader());
    let started = Instant::now();
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    // From the same address as all of them.
    let connected = loop {
        match Station::connect_as(&server, &identity(), &Intent::Session) {
            Ok(_) => break started.elapsed(),
            Err(_) => assert!(started.elapsed() < PATIENCE, "all places stay taken"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(connected < Duration::from_secs(4), "{connected:?}");
    drop(silent);
    server.stop();
}

#[test]
fn watching_stations_cannot_lock_an_engineer_out() {
    let rig = Rig::new(Roi::Whole);
    let server = rig.serve(rig.journal().reader());
    let access = Access::at(&rig.folder.path().join(ACCESS_FILE));
    let watcher = |seed: u8| Identity::from_secret([seed; 32]).unwrap();
    for seed in [100, 101] {
        let entry = Entry {
            key: *watcher(seed).public(),
            role: Role::Watch,
            name: format!("watcher {seed}"),
        };
        access.admit(entry).unwrap();
    }
    let greet = |seed: u8| {
        let mut station = Station::connect_as(&server, &watcher(seed), &Intent::Session).unwrap();
        station.send(&hello(""));
        station
    };
    let is_hello = |message| matches!(message, FromCamera::Hello(_)).then_some(());
    let mut held: Vec<Station> = Vec::new();
    for seed in [100, 100, 100, 100, 101, 101, 101, 101] {
        let mut station = greet(seed);
        station.find(is_hello);
        held.push(station);
    }
    let reason = greet(100).goodbye();
    assert!(reason.contains("4 sessions already"), "{reason}");
    let mut engineer = Station::greet(&server, "");
    engineer.find(is_hello);
    let reason = held[0].goodbye();
    assert!(reason.contains("higher role"), "{reason}");
    // The others go on, and places are free again when sessions end.
    held[7].ask(1, Command::ReadMode);
    assert!(matches!(held[7].reply(1), Answer::Mode(_)));
    drop((held, engineer));
    server.stop();
}

/// Sets a flag when it is dropped.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Our end of a serial line with a camera.
struct Wire<'a> {
    ours: &'a std::fs::File,
    received: crossbeam_channel::Receiver<Vec<u8>>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Wire<'_> {
    fn say(&mut self, message: &ToCamera) {
        let wire = encode(&message.encode()).unwrap();
        self.ours.write_all(&wire).unwrap();
    }

    /// The next message before the deadline.
    fn next(&mut self, deadline: Instant) -> Option<FromCamera> {
        loop {
            let all = std::mem::take(&mut self.bytes);
            match self.accumulator.feed(&all) {
                Fed::NeedMore => self.bytes = self.received.recv_deadline(deadline).ok()?,
                Fed::Frame { payload, rest } => {
                    self.bytes = rest.to_vec();
                    if let Ok(message) = FromCamera::decode(payload) {
                        return Some(message);
                    }
                }
                Fed::Discarded { rest, .. } => self.bytes = rest.to_vec(),
            }
        }
    }

    fn find(&mut self, wanted: &dyn Fn(&FromCamera) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.next(deadline).unwrap()) {}
    }

    /// The numbers of all records that come within this time.
    fn records_within(&mut self, time: Duration) -> Vec<u64> {
        let deadline = Instant::now() + time;
        let messages = std::iter::from_fn(|| self.next(deadline));
        let numbers = messages.filter_map(|message| match message {
            FromCamera::Record { sequence, .. } => Some(sequence),
            _ => None,
        });
        numbers.collect()
    }
}

/// Serves a station on a pseudo-terminal while `test` runs.
fn on_serial_line(context: &LinkContext, test: impl FnOnce(&mut Wire<'_>)) {
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let path = pty::ptsname(&ours, Vec::new()).unwrap();
    let line = SerialLine {
        path: path.to_str().unwrap().into(),
        baud: 115_200,
        role: SerialRole::Operate,
        recovery: true,
        pictures: None,
    };
    let ours = std::fs::File::from(ours);
    std::thread::scope(|scope| {
        // The scope waits for its threads, also when an assertion fails.
        let _stopper = Stopper(&context.stop);
        scope.spawn(|| server::serve_serial(context, &line));
        // The camera opens the line in raw mode; until then it echoes.
        std::thread::sleep(Duration::from_millis(300));
        let (pieces, received) = crossbeam_channel::unbounded();
        scope.spawn(|| {
            let (mut ours, pieces) = (&ours, pieces);
            let mut piece = [0; 4_096];
            // Fails when the camera closes its end.
            while let Ok(count) = ours.read(&mut piece) {
                pieces.send(piece[..count].to_vec()).ok();
            }
        });
        test(&mut Wire {
            ours: &ours,
            received,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
        });
    });
}

/// The command to observe, with a number.
fn observe(id: u32) -> ToCamera {
    let (mode, reason) = (Mode::Observe, "a test".to_owned());
    let command = Command::SetMode { mode, reason };
    ToCamera::Command { id, command }
}

/// Whether a message says that command 1 was carried out.
fn is_done(message: &FromCamera) -> bool {
    let (id, answer) = (1, Answer::Done);
    *message == FromCamera::Reply { id, answer }
}

#[test]
fn on_a_serial_line_a_lost_answer_is_given_again_and_a_lost_record_is_sent_again() {
    let mut rig = Rig::new(Roi::Whole);
    let (reader, context, thread) = rig.with_records(5);
    on_serial_line(&context, |wire| {
        wire.say(&hello("s"));
        // Nothing is sent again to a station that acknowledges nothing.
        assert_eq!(wire.records_within(Duration::from_secs(4)), [1, 2, 3, 4, 5]);
        // Records 4 and 5 were lost, or the acknowledgement was.
        wire.say(&ToCamera::Acknowledge { sequence: 3 });
        assert_eq!(wire.records_within(Duration::from_secs(4)), [4, 5]);
        wire.say(&ToCamera::Acknowledge { sequence: 5 });
        assert!(wire.records_within(Duration::from_secs(4)).is_empty());
        // The answer was lost, so the station repeats the command.
        for _ in 0..3 {
            wire.say(&observe(1));
            wire.find(&is_done);
        }
    });
    rig.reporter.close();
    thread.join().unwrap();
    let changed = records(&reader)
        .into_iter()
        .filter(|record| matches!(record.body, Body::Event(Event::SettingChanged { .. })));
    assert_eq!(changed.count(), 1, "the command was carried out once");
}

#[test]
fn a_station_on_a_serial_line_is_no_station_of_the_network_whatever_it_calls_itself() {
    let mut rig = Rig::new(Roi::Whole);
    let (reader, context, thread) = rig.with_records(5);
    on_serial_line(&context, |wire| {
        // The name of the station with a key.
        wire.say(&hello("s"));
        wire.find(&|message| matches!(message, FromCamera::Record { sequence: 5, .. }));
        wire.say(&ToCamera::Acknowledge { sequence: 5 });
        wire.say(&observe(1));
        wire.find(&is_done);
        // A name that is not allowed gets no session.
        wire.say(&hello("serial:s"));
        wire.find(&|message| match message {
            FromCamera::Goodbye { reason } => reason.contains("does not begin with"),
            _ => false,
        });
    });
    let positions = rig.positions.lock().unwrap();
    assert_eq!(positions.get("s"), None, "that of the station with a key");
    assert_eq!(positions.get("serial:s"), Some(5));
    drop(positions);
    rig.reporter.close();
    thread.join().unwrap();
    let signed: Vec<String> = records(&reader)
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Event(Event::SettingChanged { station, .. }) => Some(station),
            _ => None,
        })
        .collect();
    assert_eq!(signed, ["serial:s"]);
}

#[test]
fn a_change_is_answered_once_its_record_is_on_the_disk() {
    let mut rig = Rig::new(Roi::Whole);
    let set = || Command::SetMode {
        mode: Mode::Observe,
        reason: "a test".to_owned(),
    };
    // A file where the journal's folder should be: nothing can be written.
    let folder = rig.folder.path().join("journal");
    std::fs::write(&folder, "in the way").unwrap();
    let (journal, opened) = Journal::open_or_wait(&folder, SMALL).unwrap();
    assert!(opened.is_err());
    let reader = journal.reader();
    let server = rig.serve(journal.reader());
    let thread = rig.report(journal, None);
    let mut station = Station::greet(&server, "one");
    station.ask(1, set());
    let Answer::Refused { reason } = station.reply(1) else {
        panic!("the record is not on the disk");
    };
    assert!(reason.contains("not on the disk"), "{reason}");
    assert!(!rig.readiness.journal_ok() && rig.readiness.is_fault());
    std::fs::remove_file(&folder).unwrap();
    let deadline = Instant::now() + PATIENCE;
    for id in 2.. {
        station.ask(id, set());
        if station.reply(id) == Answer::Done {
            break;
        }
        assert!(Instant::now() < deadline, "the disk works again");
        std::thread::sleep(Duration::from_millis(100));
    }
    let changes = records(&reader)
        .into_iter()
        .filter(|record| matches!(record.body, Body::Event(Event::SettingChanged { .. })))
        .count();
    assert!(changes >= 2, "also the first one, which waited");
    assert!(rig.readiness.journal_ok());
    server.stop();
    rig.reporter.close();
    thread.join().unwrap();
}

#[test]
fn reports_do_not_evict_the_record_of_a_change() {
    let mut rig = Rig::new(Roi::Whole);
    let journal = rig.journal();
    let reader = journal.reader();
    let thread = rig.report(journal, None);
    let change = Event::SettingChanged {
        setting: "threshold".to_owned(),
        before: "1".to_owned(),
        after: "0.5".to_owned(),
        reason: "complaint 12".to_owned(),
        station: "one".to_owned(),
    };
    rig.reporter.part(part(1, None));
    rig.reporter.event(change.clone());
    for number in 2..=300 {
        rig.reporter.part(part(number, None));
        std::thread::sleep(Duration::from_millis(2));
    }
    rig.reporter.close();
    thread.join().unwrap();
    assert!(reader.oldest().unwrap() > 10, "evicted");
    // A station that has nothing yet but its place in the list.
    rig.positions.lock().unwrap().acknowledge("s", 1).unwrap();
    let server = rig.serve(reader);
    let mut station = Station::greet(&server, "one");
    let (sequence, event) = station.find(|message| match message {
        FromCamera::Record { sequence, record } => Some((sequence, record.body)),
        _ => None,
    });
    assert_eq!((sequence, event), (2, Body::Event(change)));
    server.stop();
}

#[test]
fn settings_of_stations_survive_a_restart_and_belong_to_their_package() {
    let rig = Rig::new(Roi::Whole);
    let path = rig.folder.path().join("settings.json");
    let started = |threshold: Option<f32>, mode: Mode| {
        let package = Loaded::new(package(&manifest())).unwrap();
        let trust = Trust::Only(vec![key().verifying_key()]);
        let mut inspector = Inspector::new(&package.verify(&trust).unwrap()).unwrap();
        if let Some(threshold) = threshold {
            inspector = inspector.with_threshold(threshold);
        }
        let parts = Parts::new(PARTS);
        let control = Control::new(
            Some(inspector),
            mode,
            GoldenFrames::default(),
            Arc::new(LineShared::new(parts, false)),
            rig.reporter.clone(),
            Arc::clone(&rig.metrics),
            Arc::default(),
        );
        let (settings, error) = StationSettings::open(&path);
        assert!(error.is_none());
        let configured = ConfiguredSettings {
            threshold,
            mask: false,
            mode,
        };
        control.with_settings(settings, configured)
    };
    let set = |control: &Control, command| {
        let (answer, _) = control.execute("office", command);
        assert_eq!(answer, Answer::Done);
    };
    let reason = || "complaint 12".to_owned();
    let control = started(None, Mode::Inspect);
    let value = 0.25;
    let roi = Roi::Polygons(vec![vec![[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]]);
    set(
        &control,
        Command::SetThreshold {
            value,
            reason: reason(),
        },
    );
    set(
        &control,
        Command::SetMask {
            roi: roi.clone(),
            reason: reason(),
        },
    );
    set(
        &control,
        Command::SetMode {
            mode: Mode::Observe,
            reason: reason(),
        },
    );
    drop(control);
    let control = started(None, Mode::Inspect);
    let inspector = control.inspector().unwrap();
    assert_eq!(inspector.threshold(), Some(value));
    assert_eq!(inspector.manifest().roi, roi);
    assert_eq!(control.mode(), Mode::Observe);
    let (answer, _) = control.execute("office", Command::ReadSettings);
    let Answer::Settings(settings) = answer else {
        panic!("{answer:?}");
    };
    let by_office = |source: &SettingSource| {
        matches!(source, SettingSource::Station { station, reason, .. }
            if station == "office" && reason == "complaint 12")
    };
    assert!(by_office(&settings.threshold_from) && by_office(&settings.mask_from));
    assert!(by_office(&settings.mode_from));
    // A change of camera.toml takes the place of what a station has set.
    let control = started(Some(0.75), Mode::Inspect);
    assert_eq!(control.inspector().unwrap().threshold(), Some(0.75));
    let control = started(None, Mode::Inspect);
    assert_ne!(control.inspector().unwrap().threshold(), Some(value));
    assert_eq!(control.inspector().unwrap().manifest().roi, roi);
}

#[test]
fn pictures_that_the_disk_does_not_take_are_given_up_and_reports_are_not() {
    let mut rig = Rig::new(Roi::Whole);
    let (sender, pictures) = crossbeam_channel::bounded(1);
    let images = ImageSink {
        sampler: Sampler::new(0),
        sender,
    };
    let journal = Journal::open(&rig.folder.path().join("journal"), Limits::new(1 << 20));
    let journal = journal.unwrap().0;
    let reader = journal.reader();
    let thread = rig.report(journal, Some(images));
    let mut inspection = inspection(&frame(16), ScoreMap::zeros(8, 8));
    inspection.verdict = Some(Verdict::Ng);
    for number in 1..=3 {
        let scored = Some((frame(16), inspection.clone()));
        rig.reporter.part(part(number, scored));
    }
    rig.reporter.close();
    thread.join().unwrap();
    assert_eq!(rig.metrics.drops(Loss::Images), 2);
    assert_eq!(records(&reader).len(), 3);
    assert_eq!(pictures.try_iter().count(), 1);
}
