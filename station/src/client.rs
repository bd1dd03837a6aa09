//! A session with a camera, over TCP or a serial line.
//!
//! In: commands and requests. Out: their answers, and messages. Messages that this build does not
//! know are ignored, so that it can still work with a newer camera, and recover it. On a serial
//! line, which may lose a frame, what is not answered in time is sent again ([`crate::serial_line`];
//! the recovery exchange in [`crate::exchange`]).

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{
    Answer, CameraHello, Command, FileKind, FromCamera, Message, Start, StationHello, ToCamera,
};
use proto::name::StationName;
use proto::recovery::{MARK, Request, Response};
use proto::version::{MAGIC, MIN_VERSION, SCHEMA_HASH, VERSION};
use secure::handshake::Intent;
use secure::tcp::open;

use crate::key_store::KeyStore;
use crate::serial_line::{Retry, SerialLine};

/// Longest time from connecting to the camera's hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Longest time for an answer. Activating a package takes longest, on a slow processor.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Time after opening a serial line in which a goodbye may have been meant for an earlier session.
const STALE_FOR: Duration = Duration::from_secs(1);
/// A link that accepts no data for this time is broken.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// On a serial line a hello may be lost; this many are sent before the camera counts as absent.
const HELLO_TRIES: u32 = 3;
/// Bytes that a camera may send between two pieces of a file: a piece, and as many of records.
const FILE_PIECE_BYTES: usize = 64 << 10;
/// Longest silence before the station says that it is alive. The camera closes a link that is
/// silent for 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// The camera has understood a request and refuses it. Another try would be refused too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the camera refuses: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// How a camera is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Over TCP, by the name under which it was paired.
    Paired(String),
    /// Over a serial cable.
    Serial {
        /// The port.
        path: PathBuf,
        /// Bits per second.
        baud: u32,
    },
}

impl std::str::FromStr for Endpoint {
    type Err = anyhow::Error;

    /// Parses a paired camera's name, or `serial:PATH` with `@BAUD` after it unless it is 115200.
    fn from_str(text: &str) -> Result<Self> {
        let Some(line) = text.strip_prefix("serial:") else {
            return Ok(Self::Paired(text.to_owned()));
        };
        let (path, baud) = match line.rsplit_once('@') {
            Some((path, baud)) => (
                path,
                baud.parse()
                    .with_context(|| format!("expected serial:PATH@BAUD, found `{text}`"))?,
            ),
            None => (line, 115_200),
        };
        Ok(Self::Serial {
            path: path.into(),
            baud,
        })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paired(name) => f.write_str(name),
            Self::Serial { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// Something that a camera has sent.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message.
    Message(Box<FromCamera>),
    /// An answer of the recovery exchange.
    Recovery(Response),
}

/// A link to a camera.
pub(crate) struct Client {
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    next_id: u32,
    last_sent: Instant,
    /// A goodbye before this moment is ignored: a serial line keeps unread bytes, so it may have
    /// been meant for an earlier session.
    stale_until: Instant,
    /// The serial line, unless the link loses nothing.
    pub(crate) line: Option<SerialLine>,
}

impl Client {
    /// Connects without saying hello.
    pub(crate) fn connect(key_store: &KeyStore, endpoint: &Endpoint) -> Result<Self> {
        match endpoint {
            Endpoint::Paired(name) => {
                let camera = key_store.camera(name)?;
                let pinned = camera.key()?;
                let identity = key_store.identity()?;
                let address = camera.socket()?;
                let link = open(
                    address,
                    &identity,
                    Some(&pinned),
                    &Intent::Session,
                    HELLO_WITHIN,
                )
                .with_context(|| format!("camera {name}"))?;
                Ok(Self::over(Box::new(link.reader), Box::new(link.writer)))
            }
            Endpoint::Serial { path, baud } => {
                let port = secure::serial::open(path, *baud)?;
                // Discards what an earlier session has left. Bytes that are still in a USB
                // converter come all the same.
                port.discard_input_buffer()?;
                let writer = port.try_clone()?;
                let mut client = Self::over(Box::new(port), Box::new(writer));
                client.stale_until += STALE_FOR;
                client.line = Some(SerialLine { baud: *baud });
                Ok(client)
            }
        }
    }

    /// A client over any link; its reader must time out.
    pub(crate) fn over(reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>) -> Self {
        Self {
            reader,
            writer,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            next_id: 0,
            last_sent: Instant::now(),
            stale_until: Instant::now(),
            line: None,
        }
    }

    /// Connects and exchanges hellos; `start` says where delivery of records starts.
    pub(crate) fn greet(
        key_store: &KeyStore,
        endpoint: &Endpoint,
        start: Start,
    ) -> Result<(Self, CameraHello)> {
        let mut client = Self::connect(key_store, endpoint)?;
        let hello = client
            .hello(start)
            .with_context(|| format!("camera {endpoint}"))?;
        Ok((client, hello))
    }

    /// Says hello and waits for the camera's hello. On a serial line this begins a new session:
    /// nothing of the one before comes any more.
    pub(crate) fn hello(&mut self, start: Start) -> Result<CameraHello> {
        let hello = ToCamera::Hello(StationHello {
            magic: MAGIC,
            min_version: MIN_VERSION,
            max_version: VERSION,
            schema_hash: SCHEMA_HASH,
            station: station_name().into(),
            start,
        });
        let payload = hello.encode();
        let (tries, within) = match self.line {
            Some(line) => (HELLO_TRIES, line.answer_within(payload.len())),
            None => (1, HELLO_WITHIN),
        };
        let began = Instant::now();
        for _ in 0..tries {
            self.send_payload(&payload)?;
            let deadline = Instant::now() + within;
            while Instant::now() < deadline {
                match self.receive()? {
                    Some(Received::Message(message)) => match *message {
                        FromCamera::Hello(hello) => return Ok(hello),
                        FromCamera::Goodbye { reason } => return Err(Refused(reason).into()),
                        _ => {}
                    },
                    Some(Received::Recovery(_)) | None => {}
                }
            }
        }
        bail!(
            "the camera does not answer within {} s",
            began.elapsed().as_secs()
        )
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &ToCamera) -> Result<()> {
        self.send_payload(&message.encode())
    }

    /// Sends a request of the recovery exchange.
    pub(crate) fn request(&mut self, request: &Request) -> Result<()> {
        self.send_payload(&request.encode())
    }

    fn send_payload(&mut self, payload: &[u8]) -> Result<()> {
        let wire = encode(payload).context("a message is too long")?;
        self.last_sent = Instant::now();
        let written = write_patiently(&mut *self.writer, &wire);
        self.last_sent = Instant::now();
        written.context("the link to the camera is broken")
    }

    /// Tells the camera that the station is alive, if nothing was sent for some time.
    pub(crate) fn keep_alive(&mut self) -> Result<()> {
        if self.last_sent.elapsed() > ALIVE_EVERY {
            self.send(&ToCamera::Alive)?;
        }
        Ok(())
    }

    /// Receives the next message; `None` if none comes within the reader's time-out.
    pub(crate) fn receive(&mut self) -> Result<Option<Received>> {
        self.keep_alive()?;
        let mut piece = [0; 16 << 10];
        loop {
            let all = std::mem::take(&mut self.bytes);
            match self.accumulator.feed(&all) {
                Fed::NeedMore => {}
                Fed::Frame { payload, rest } => {
                    self.bytes = rest.to_vec();
                    if payload.first() == Some(&MARK) {
                        if let Ok(response) = Response::decode(payload) {
                            return Ok(Some(Received::Recovery(response)));
                        }
                    } else if let Ok(message) = FromCamera::decode(payload) {
                        let is_goodbye = matches!(message, FromCamera::Goodbye { .. });
                        if is_goodbye && Instant::now() < self.stale_until {
                            continue;
                        }
                        return Ok(Some(Received::Message(Box::new(message))));
                    }
                    // A message that this build does not know, from a newer camera.
                    continue;
                }
                // On a serial line, the first bytes may be the rest of a frame.
                Fed::Discarded { rest, .. } => {
                    self.bytes = rest.to_vec();
                    continue;
                }
            }
            match self.reader.read(&mut piece) {
                Ok(0) => bail!("the camera closed the link"),
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        return Ok(None);
                    }
                    _ => return Err(error).context("the link to the camera is broken"),
                },
            }
        }
    }

    /// Sends a command and waits for its answer; a refusal is an error. On a serial line it is sent
    /// again, with the same number, until the answer comes: the camera carries it out once.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer> {
        let (id, payload) = self.numbered(command);
        self.send_payload(&payload)?;
        let mut retry = self.line.map(|line| Retry::new(line, payload.len()));
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            if let Some(answer) = self.receive_reply(id)? {
                return Ok(answer);
            }
            if retry.as_mut().is_some_and(Retry::is_due) {
                self.send_payload(&payload)?;
            }
        }
        bail!(
            "the camera does not answer within {} s",
            ANSWER_WITHIN.as_secs()
        )
    }

    /// A command with the next number, encoded.
    fn numbered(&mut self, command: Command) -> (u32, Vec<u8>) {
        self.next_id += 1;
        let id = self.next_id;
        (id, ToCamera::Command { id, command }.encode())
    }

    /// Receives a message; an answer to the command with this number is returned, and a refusal is
    /// an error.
    fn receive_reply(&mut self, id: u32) -> Result<Option<Answer>> {
        let Some(Received::Message(message)) = self.receive()? else {
            return Ok(None);
        };
        match *message {
            FromCamera::Reply { id: of, answer } if of == id => match answer {
                Answer::Refused { reason } => Err(Refused(reason).into()),
                answer => Ok(Some(answer)),
            },
            FromCamera::Goodbye { reason } => bail!("the camera ended the link: {reason}"),
            _ => Ok(None),
        }
    }

    /// Fetches a file from byte `offset` on. `take` gets its chunks in order, with the length of
    /// the whole file. On a serial line, the rest is fetched in a new session if a frame is lost.
    pub(crate) fn fetch(
        &mut self,
        kind: FileKind,
        name: &str,
        mut offset: u64,
        mut take: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut last_progress = Instant::now();
        loop {
            let before = offset;
            if self.fetch_until_lost(kind, name, &mut offset, &mut take)? {
                return Ok(());
            }
            if offset > before {
                last_progress = Instant::now();
            }
            if self.line.is_none() || last_progress.elapsed() > ANSWER_WITHIN {
                bail!(
                    "the camera has sent nothing of the file for {} s",
                    ANSWER_WITHIN.as_secs()
                );
            }
            self.hello(Start::Now)?;
        }
    }

    /// Fetches a file up to its end (true), or until nothing of it comes in time or a piece is
    /// missing (false).
    fn fetch_until_lost(
        &mut self,
        kind: FileKind,
        name: &str,
        offset: &mut u64,
        take: &mut impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<bool> {
        let within = |bytes| {
            let line = self.line;
            line.map_or(ANSWER_WITHIN, |line| line.answer_within(bytes))
        };
        let (answer_within, piece_within) = (within(0), within(FILE_PIECE_BYTES));
        let (id, payload) = self.numbered(Command::FetchFile {
            kind,
            name: name.to_owned(),
            offset_bytes: *offset,
        });
        self.send_payload(&payload)?;
        let mut last_received = Instant::now();
        let total = loop {
            if last_received.elapsed() > answer_within {
                return Ok(false);
            }
            match self.receive_reply(id)? {
                Some(Answer::File { bytes }) => break bytes,
                Some(_) => bail!("expected a file from the camera, found another answer"),
                None => {}
            }
        };
        last_received = Instant::now();
        while *offset < total {
            if last_received.elapsed() > piece_within {
                return Ok(false);
            }
            let Some(Received::Message(message)) = self.receive()? else {
                continue;
            };
            match *message {
                FromCamera::FileChunk {
                    id: of,
                    offset_bytes,
                    bytes,
                } if of == id => {
                    if offset_bytes > *offset && self.line.is_some() {
                        return Ok(false);
                    }
                    if offset_bytes != *offset {
                        bail!("expected byte {offset} of the file, found byte {offset_bytes}");
                    }
                    if bytes.len() as u64 > total - *offset {
                        bail!("expected a file of {total} bytes, found more");
                    }
                    last_received = Instant::now();
                    *offset += bytes.len() as u64;
                    take(&bytes, total)?;
                }
                FromCamera::Reply {
                    id: of,
                    answer: Answer::Refused { reason },
                } if of == id => return Err(Refused(reason).into()),
                FromCamera::Goodbye { reason } => bail!("the camera ended the link: {reason}"),
                _ => {}
            }
        }
        Ok(true)
    }
}

/// Writes all bytes to a link that may be slow: a serial port takes no more than its buffer holds.
fn write_patiently(writer: &mut dyn Write, mut bytes: &[u8]) -> std::io::Result<()> {
    let mut accepted_at = Instant::now();
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                accepted_at = Instant::now();
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut
                    if accepted_at.elapsed() < STALLED_AFTER => {}
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    writer.flush()
}

/// The station's name: the default when pairing, and the only name on a serial cable. It is the
/// host's name, unless that cannot be a station's.
pub(crate) fn station_name() -> StationName {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(32).collect();
    StationName::new(&host).unwrap_or_else(|_| StationName::fallback())
}

/// Reads a file; the error names it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
