//! A running `edge-runtime run` under test, and a small station that talks to it. A failure here
//! fails the calling test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::limits::MAX_CHUNK_BYTES;
use proto::message::{
    Answer, CameraHello, Command as Ask, FromCamera, Message, Role, Start, StationHello, ToCamera,
};
use proto::recovery::{Request, Response};
use proto::report::{Body, PartReport, Record};
use proto::version::{MAGIC, SCHEMA_HASH, VERSION};
use secure::access::{Access, Entry};
use secure::handshake::Intent;
use secure::identity::Identity;
use secure::tcp::open;
use sha2::{Digest, Sha256};

use crate::program;

/// Longest time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The camera's program, killed when dropped.
pub struct Camera {
    child: Child,
    /// The address for stations.
    pub tcp: SocketAddr,
    /// The address of the metrics.
    pub http: SocketAddr,
    log: PathBuf,
    state: PathBuf,
}

/// Writes `camera.toml` in `folder` for a replay of `frames` with the package `m.awr`. `capture`
/// continues its section [capture], and `more` its section [link].
pub fn configure(folder: &Path, capture: &str, more: &str) {
    let text = format!(
        "name = \"camera under test\"\nstate = \"state\"\n\
         [model]\npackage = \"m.awr\"\ntrust = [\"k.key.pub\"]\n\
         [capture]\nkind = \"replay\"\npath = \"frames\"\n{capture}\n\
         [metrics]\nhttp = \"127.0.0.1:0\"\n\
         [link]\ntcp = \"127.0.0.1:0\"\n{more}\n"
    );
    std::fs::write(folder.join("camera.toml"), text).expect("the folder can be written");
}

impl Camera {
    /// Starts it with the camera.toml of `folder`, and waits until it listens.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let endpoints = folder.join("state/endpoints.json");
        std::fs::remove_file(&endpoints).ok();
        let log = folder.join("log.txt");
        let child = Command::new(program("edge-runtime"))
            .args(["run", "--config", "camera.toml"])
            .args(arguments)
            .current_dir(folder)
            .stderr(File::create(&log).expect("the folder can be written"))
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut camera = Self {
            child,
            tcp: ([127, 0, 0, 1], 1).into(),
            http: ([127, 0, 0, 1], 1).into(),
            log,
            state: folder.join("state"),
        };
        let started = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&endpoints) {
                break text;
            }
            let ended = camera.child.try_wait().expect("it can be waited for");
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "it did not start: {}",
                camera.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let found: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let address = |key: &str| {
            let text = found[key].as_str().expect("the address is there");
            text.parse().expect("it is an address")
        };
        (camera.tcp, camera.http) = (address("tcp"), address("http"));
        camera
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL, without any clean-up.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Ends it with SIGTERM, and returns its exit status.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.expect("kill runs").success());
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it hangs: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The response to a GET request at the metrics port, with its headers.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("metrics are served");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    }

    /// A value of the metrics; 0 while the series is absent.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0.0, |value| value.parse().expect("it is a number"))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A station over any byte stream, whose reader must time out.
pub struct Station {
    reader: Box<dyn Read>,
    writer: Box<dyn Write>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    /// The camera's hello.
    pub hello: CameraHello,
    /// Every received record by its sequence number. One that is delivered again must be the same.
    pub records: BTreeMap<u64, Record>,
    /// The sequence number of the last received record.
    pub last: u64,
    /// Number of records that were delivered again.
    pub repeated: usize,
}

/// The key of a station under test: its name, padded to the length of a key.
pub fn identity(name: &str) -> Identity {
    let mut secret = [7; 32];
    let length = name.len().min(32);
    secret[..length].copy_from_slice(&name.as_bytes()[..length]);
    Identity::from_secret(secret).expect("it is a key")
}

/// Gives a station access, as pairing does.
pub fn admit(state: &Path, name: &str, role: Role) {
    let access = Access::at(&state.join("stations"));
    let entry = Entry {
        key: *identity(name).public(),
        role,
        name: name.to_owned(),
    };
    access.admit(entry).expect("the list can be written");
}

fn hello(name: &str, start: Start) -> ToCamera {
    ToCamera::Hello(StationHello {
        magic: MAGIC,
        min_version: VERSION,
        max_version: VERSION,
        schema_hash: SCHEMA_HASH,
        station: name.to_owned(),
        start,
    })
}

impl Station {
    /// Connects over TCP, as a station of this name that is paired as an engineer.
    pub fn connect(camera: &Camera, name: &str, start: Start) -> Self {
        admit(&camera.state, name, Role::Engineer);
        Self::connect_as_is(camera, name, start)
    }

    /// Connects over TCP, as a station of this name with the role that it has.
    pub fn connect_as_is(camera: &Camera, name: &str, start: Start) -> Self {
        let link = open(
            camera.tcp,
            &identity(name),
            None,
            &Intent::Session,
            PATIENCE,
        );
        let link = link.expect("the camera lets it in");
        Self::over(Box::new(link.reader), Box::new(link.writer), name, start)
    }

    /// Connects over a byte stream: says hello and waits for the camera's hello.
    pub fn over(reader: Box<dyn Read>, writer: Box<dyn Write>, name: &str, start: Start) -> Self {
        let mut station = Self {
            reader,
            writer,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            hello: CameraHello {
                magic: MAGIC,
                version: 0,
                schema_hash: 0,
                camera: String::new(),
                program: String::new(),
                model_id: [0; 8],
                model: String::new(),
                boot: 0,
                oldest: 0,
                next: 0,
            },
            records: BTreeMap::new(),
            last: 0,
            repeated: 0,
        };
        station.send(&hello(name, start));
        let started = Instant::now();
        loop {
            match station.receive() {
                Some(FromCamera::Hello(hello)) => {
                    station.hello = hello;
                    return station;
                }
                Some(other) => panic!("expected a hello, found {other:?}"),
                None => assert!(started.elapsed() < PATIENCE, "the camera says no hello"),
            }
        }
    }

    /// Adds the records that an earlier session of this station has received.
    pub fn resume(mut self, earlier: Self) -> Self {
        for (sequence, record) in std::mem::take(&mut self.records) {
            assert_eq!(earlier.records.get(&sequence).unwrap_or(&record), &record);
        }
        self.records = earlier.records;
        self.repeated = earlier.repeated;
        self
    }

    /// Sends a message. A broken link does not fail the test.
    pub fn send(&mut self, message: &ToCamera) {
        let wire = encode(&message.encode()).expect("it is short");
        self.send_bytes(&wire);
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = self.writer.write_all(bytes);
        sent.and_then(|()| self.writer.flush()).ok();
    }

    /// Acknowledges all records up to `sequence`.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.send(&ToCamera::Acknowledge { sequence });
    }

    /// Receives the next message; `None` if none comes within the reader's time-out. Records are
    /// checked and added to `records`.
    pub fn receive(&mut self) -> Option<FromCamera> {
        let payload = self.payload()?;
        let message = FromCamera::decode(&payload).expect("it is a message");
        self.keep(&message);
        Some(message)
    }

    /// The payload of the next frame.
    fn payload(&mut self) -> Option<Vec<u8>> {
        let mut piece = [0; 65_536];
        loop {
            let all = std::mem::take(&mut self.bytes);
            match self.accumulator.feed(&all) {
                Fed::NeedMore => {}
                Fed::Frame { payload, rest } => {
                    let payload = payload.to_vec();
                    self.bytes = rest.to_vec();
                    return Some(payload);
                }
                Fed::Discarded { reason, rest } => {
                    // A session may start in the middle of a frame of an earlier one.
                    assert_eq!(self.hello.version, 0, "{reason:?}");
                    self.bytes = rest.to_vec();
                    continue;
                }
            }
            match self.reader.read(&mut piece) {
                Ok(count @ 1..) => self.bytes.extend_from_slice(&piece[..count]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Sends a request of the recovery exchange, and returns its answer.
    pub fn recover(&mut self, request: &Request) -> Response {
        self.send_bytes(&encode(&request.encode()).expect("it is short"));
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let Some(payload) = self.payload() else {
                continue;
            };
            match Response::decode(&payload) {
                Ok(response) => return response,
                Err(_) => self.keep(&FromCamera::decode(&payload).expect("it is a message")),
            }
        }
        panic!("no answer to {request:?}")
    }

    /// Transfers a package and lets the camera activate it; returns the last answer.
    pub fn flash(&mut self, package: &[u8]) -> Response {
        let begin = Request::FlashBegin {
            total_bytes: package.len() as u64,
            sha256: Sha256::digest(package).into(),
        };
        let mut answer = self.recover(&begin);
        while let Response::Continue { offset_bytes } = answer
            && offset_bytes < package.len() as u64
        {
            let bytes = &package[offset_bytes as usize..];
            let bytes = bytes[..bytes.len().min(MAX_CHUNK_BYTES)].to_vec();
            answer = self.recover(&Request::FlashChunk {
                offset_bytes,
                bytes,
            });
        }
        match answer {
            Response::Continue { .. } => self.recover(&Request::FlashEnd),
            other => other,
        }
    }

    /// Checks a record and adds it.
    fn keep(&mut self, message: &FromCamera) {
        let FromCamera::Record { sequence, record } = message else {
            return;
        };
        assert!(*sequence > self.last, "{sequence} after {}", self.last);
        self.last = *sequence;
        if let Some(before) = self.records.insert(*sequence, record.clone()) {
            assert_eq!(&before, record, "record {sequence} changed");
            self.repeated += 1;
        }
    }

    /// Receives until `enough` returns true.
    pub fn receive_until(&mut self, mut enough: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !enough(self) {
            self.receive();
            assert!(
                started.elapsed() < PATIENCE,
                "waited for {PATIENCE:?} in vain; {} records, the last is {}",
                self.records.len(),
                self.last
            );
        }
    }

    /// Sends a command, and waits for its answer.
    pub fn ask(&mut self, id: u32, command: Ask) -> Answer {
        self.send(&ToCamera::Command { id, command });
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(FromCamera::Reply { id: of, answer }) = self.receive()
                && of == id
            {
                return answer;
            }
        }
        panic!("no answer to command {id}")
    }

    /// The parts among the records, in order of delivery.
    pub fn parts(&self) -> impl Iterator<Item = &PartReport> {
        self.records
            .values()
            .filter_map(|record| match &record.body {
                Body::Part(part) => Some(part),
                Body::Event(_) => None,
            })
    }

    /// Panics unless the received sequence numbers are consecutive from 1.
    pub fn assert_complete(&self) {
        for (expected, &sequence) in (1..).zip(self.records.keys()) {
            assert_eq!(sequence, expected, "a record is missing");
        }
    }
}
