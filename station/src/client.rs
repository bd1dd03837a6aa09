//! A session with a camera, over TCP or a serial line: requests and their answers.
//!
//! In: commands. Out: answers. Messages that this build does not know are passed over, so that a newer camera can be
//! talked to, and saved.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{
    Answer, CameraHello, Command, FromCamera, Message, Start, StationHello, ToCamera,
};
use proto::recovery::{MARK, Request, Response};
use proto::version::{MAGIC, MIN_VERSION, SCHEMA_HASH, VERSION};
use secure::handshake::Intent;
use secure::tcp::open;

use crate::home::Home;

/// From connecting to the camera's hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A camera answers within so long; putting a package to work on a small processor takes longest.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// On a serial line, what comes within so long may have been meant for somebody else.
const STALE: Duration = Duration::from_secs(1);
/// The camera closes a link that is silent for 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// The camera understood and will not do it: to try again leads to the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the camera refuses: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// Where a camera is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One of the paired, over TCP.
    Paired(String),
    /// At the other end of a cable.
    Serial {
        /// The port.
        path: PathBuf,
        /// Bits a second.
        baud: u32,
    },
}

impl std::str::FromStr for Place {
    type Err = anyhow::Error;

    /// A paired camera's name, or `serial:/dev/ttyUSB0` (`@BAUD` unless it is 115200).
    fn from_str(text: &str) -> Result<Self> {
        let Some(line) = text.strip_prefix("serial:") else {
            return Ok(Self::Paired(text.to_owned()));
        };
        let (path, baud) = match line.rsplit_once('@') {
            Some((path, baud)) => (path, baud.parse().context("expected serial:PATH@BAUD")?),
            None => (line, 115_200),
        };
        Ok(Self::Serial {
            path: path.into(),
            baud,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paired(name) => f.write_str(name),
            Self::Serial { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message(Box<FromCamera>),
    /// An answer of the recovery exchange.
    Recovery(Response),
}

/// The link.
pub(crate) struct Client {
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    next_id: u32,
    spoke: Instant,
    /// Until then a goodbye is one that was said to somebody before: a serial line keeps what nobody has read.
    stale_until: Instant,
}

impl Client {
    /// Connects; nothing is said yet.
    pub(crate) fn connect(home: &Home, place: &Place) -> Result<Self> {
        match place {
            Place::Paired(name) => {
                let camera = home.camera(name)?;
                let pinned = camera.key()?;
                let identity = home.identity()?;
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
            Place::Serial { path, baud } => {
                let port = edge_runtime::io::serial::open(path, *baud)?;
                // What is left of an earlier session; what a converter holds back comes in spite of it.
                port.discard_input_buffer()?;
                let writer = port.try_clone()?;
                let mut client = Self::over(Box::new(port), Box::new(writer));
                client.stale_until += STALE;
                Ok(client)
            }
        }
    }

    /// Over any two halves; the reader must time out.
    pub(crate) fn over(reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>) -> Self {
        Self {
            reader,
            writer,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            next_id: 0,
            spoke: Instant::now(),
            stale_until: Instant::now(),
        }
    }

    /// Connects and says hello; where delivery of records begins is the caller's choice.
    pub(crate) fn greet(home: &Home, place: &Place, start: Start) -> Result<(Self, CameraHello)> {
        let mut client = Self::connect(home, place)?;
        let hello = client
            .hello(start)
            .with_context(|| format!("camera {place}"))?;
        Ok((client, hello))
    }

    /// Says hello and waits for the camera's.
    pub(crate) fn hello(&mut self, start: Start) -> Result<CameraHello> {
        self.send(&ToCamera::Hello(StationHello {
            magic: MAGIC,
            min_version: MIN_VERSION,
            max_version: VERSION,
            schema_hash: SCHEMA_HASH,
            station: station_name(),
            start,
        }))?;
        let deadline = Instant::now() + HELLO_WITHIN;
        while Instant::now() < deadline {
            match self.next()? {
                Some(Heard::Message(message)) => match *message {
                    FromCamera::Hello(hello) => return Ok(hello),
                    FromCamera::Goodbye { reason } => return Err(Refused(reason).into()),
                    _ => {}
                },
                Some(Heard::Recovery(_)) | None => {}
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
        self.spoke = Instant::now();
        self.writer
            .write_all(&wire)
            .and_then(|()| self.writer.flush())
            .context("the link to the camera is broken")
    }

    /// Tells the camera that somebody is there, where it is time to.
    pub(crate) fn keep_alive(&mut self) -> Result<()> {
        if self.spoke.elapsed() > ALIVE_EVERY {
            self.send(&ToCamera::Alive)?;
        }
        Ok(())
    }

    /// The next message, if one comes within the reader's time-out.
    pub(crate) fn next(&mut self) -> Result<Option<Heard>> {
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
                            return Ok(Some(Heard::Recovery(response)));
                        }
                    } else if let Ok(message) = FromCamera::decode(payload) {
                        let is_goodbye = matches!(message, FromCamera::Goodbye { .. });
                        if is_goodbye && Instant::now() < self.stale_until {
                            continue;
                        }
                        return Ok(Some(Heard::Message(Box::new(message))));
                    }
                    // From a newer camera.
                    continue;
                }
                // A serial line begins in the middle of something.
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

    /// Gives a command and waits for its answer; a refusal is an error.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer> {
        let id = self.command(command)?;
        self.answer(id)
    }

    /// Gives a command; its number.
    pub(crate) fn command(&mut self, command: Command) -> Result<u32> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&ToCamera::Command { id, command })?;
        Ok(id)
    }

    /// The answer to a command.
    pub(crate) fn answer(&mut self, id: u32) -> Result<Answer> {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < deadline {
            let Some(Heard::Message(message)) = self.next()? else {
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
        bail!("the camera does not answer")
    }

    /// The answer to a request of the recovery exchange; a refusal is an error.
    pub(crate) fn response(&mut self) -> Result<Response> {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < deadline {
            match self.next()? {
                Some(Heard::Recovery(Response::Refused { reason })) => {
                    return Err(Refused(reason).into());
                }
                Some(Heard::Recovery(response)) => return Ok(response),
                Some(Heard::Message(message)) => {
                    if let FromCamera::Goodbye { reason } = *message {
                        bail!("the camera ended the link: {reason}");
                    }
                }
                None => {}
            }
        }
        bail!("the camera does not answer")
    }

    /// Fetches a file, behind the bytes that are there already; `take` gets the pieces in order and the whole length.
    pub(crate) fn fetch(
        &mut self,
        command: Command,
        mut offset: u64,
        mut take: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let id = self.command(command)?;
        let Answer::File { bytes: total } = self.answer(id)? else {
            bail!("the camera answers something else");
        };
        let mut heard = Instant::now();
        while offset < total {
            if heard.elapsed() > ANSWERS_WITHIN {
                bail!("the camera sends no more of the file");
            }
            let Some(Heard::Message(message)) = self.next()? else {
                continue;
            };
            match *message {
                FromCamera::FileChunk {
                    id: of,
                    offset_bytes,
                    bytes,
                } if of == id => {
                    if offset_bytes != offset {
                        bail!("a piece of the file is missing");
                    }
                    heard = Instant::now();
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

/// What cameras without keys (on a cable) know the station as, and what it suggests when pairing.
pub(crate) fn station_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    match host.trim() {
        "" => "station".to_owned(),
        host => host.chars().take(32).collect(),
    }
}

/// Whether a path is a file that can be read, with a hint.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
