//! A session with a camera, over TCP or a serial line.
//!
//! In: commands and requests. Out: their answers, and messages. Messages that this build does not
//! know are ignored, so that it can still work with a newer camera, and recover it.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{
    Answer, CameraHello, Command, FromCamera, Message, Start, StationHello, ToCamera,
};
use proto::name::StationName;
use proto::recovery::{MARK, Request, Response};
use proto::version::{MAGIC, MIN_VERSION, SCHEMA_HASH, VERSION};
use secure::handshake::Intent;
use secure::tcp::open;

use crate::key_store::KeyStore;

/// Longest time from connecting to the camera's hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Longest time for an answer. Activating a package takes longest, on a slow processor.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Time after opening a serial line in which a goodbye may have been meant for an earlier session.
const STALE_FOR: Duration = Duration::from_secs(1);
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

    /// Says hello and waits for the camera's hello.
    pub(crate) fn hello(&mut self, start: Start) -> Result<CameraHello> {
        self.send(&ToCamera::Hello(StationHello {
            magic: MAGIC,
            min_version: MIN_VERSION,
            max_version: VERSION,
            schema_hash: SCHEMA_HASH,
            station: station_name().into(),
            start,
        }))?;
        let deadline = Instant::now() + HELLO_WITHIN;
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
        bail!(
            "the camera does not answer within {} s",
            HELLO_WITHIN.as_secs()
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
        self.writer
            .write_all(&wire)
            .and_then(|()| self.writer.flush())
            .context("the link to the camera is broken")
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

    /// Sends a command and waits for its answer; a refusal is an error.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer> {
        let id = self.send_command(command)?;
        self.receive_answer(id)
    }

    /// Sends a command and returns its id.
    pub(crate) fn send_command(&mut self, command: Command) -> Result<u32> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&ToCamera::Command { id, command })?;
        Ok(id)
    }

    /// Waits for the answer to a command; a refusal is an error.
    pub(crate) fn receive_answer(&mut self, id: u32) -> Result<Answer> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            let Some(Received::Message(message)) = self.receive()? else {
                continue;
            };
            match *message {
                FromCamera::Reply { id: of, answer } if of == id => match answer {
                    Answer::Refused { reason } => return Err(Refused(reason).into()),
                    answer => return Ok(answer),
                },
                FromCamera::Goodbye { reason } => bail!("the camera ended the link: {reason}"),
                _ => {}
            }
        }
        bail!(
            "the camera does not answer within {} s",
            ANSWER_WITHIN.as_secs()
        )
    }

    /// Waits for the answer to a request of the recovery exchange; a refusal is an error.
    pub(crate) fn receive_response(&mut self) -> Result<Response> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            match self.receive()? {
                Some(Received::Recovery(Response::Refused { reason })) => {
                    return Err(Refused(reason).into());
                }
                Some(Received::Recovery(response)) => return Ok(response),
                Some(Received::Message(message)) => {
                    if let FromCamera::Goodbye { reason } = *message {
                        bail!("the camera ended the link: {reason}");
                    }
                }
                None => {}
            }
        }
        bail!(
            "the camera does not answer within {} s",
            ANSWER_WITHIN.as_secs()
        )
    }

    /// Fetches a file from byte `offset` on. `take` gets its chunks in order, with the length of
    /// the whole file.
    pub(crate) fn fetch(
        &mut self,
        command: Command,
        mut offset: u64,
        mut take: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let id = self.send_command(command)?;
        let Answer::File { bytes: total } = self.receive_answer(id)? else {
            bail!("expected a file from the camera, found another answer");
        };
        let mut last_received = Instant::now();
        while offset < total {
            if last_received.elapsed() > ANSWER_WITHIN {
                bail!(
                    "the camera has sent nothing of the file for {} s",
                    ANSWER_WITHIN.as_secs()
                );
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
                    if offset_bytes != offset {
                        bail!("expected byte {offset} of the file, found byte {offset_bytes}");
                    }
                    if bytes.len() as u64 > total - offset {
                        bail!("expected a file of {total} bytes, found more");
                    }
                    last_received = Instant::now();
                    offset += bytes.len() as u64;
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
        Ok(())
    }
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
