//! A minimal station, over TCP or the guest's serial port.
//!
//! It says hello, receives records and acknowledges them, and fails where the camera does not keep
//! what the protocol promises.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{
    Answer, CameraHello, Command, FromCamera, Message, Start, StationHello, ToCamera,
};
use proto::recovery::{MARK, Request, Response};
use proto::version::{MAGIC, SCHEMA_HASH, VERSION};
use secure::handshake::Intent;
use secure::identity::Identity;
use secure::tcp::open;

use super::ledger::Ledger;

/// Longest time from connecting to the camera's hello: an emulated camera that has just started is
/// slow.
const HELLO_WITHIN: Duration = Duration::from_secs(20);
/// Longest silence before the station says that it is alive: the camera closes silent links.
const ALIVE_EVERY: Duration = Duration::from_secs(3);

/// The key of a station: its name, padded to the length of a key.
pub(crate) fn identity(name: &str) -> Result<Identity> {
    let mut secret = [7; 32];
    let length = name.len().min(32);
    secret[..length].copy_from_slice(&name.as_bytes()[..length]);
    Ok(Identity::from_secret(secret)?)
}

/// The access list of a camera (see `secure::access`) that lets these stations in as engineers.
pub(crate) fn access_list(names: &[&str]) -> Result<String> {
    let lines: Result<Vec<String>> = names
        .iter()
        .map(|name| {
            let key = secure::hex(identity(name)?.public());
            Ok(format!("awr-station-v1 {key} engineer {name}\n"))
        })
        .collect();
    Ok(lines?.concat())
}

/// A session with a camera.
pub(crate) struct Station {
    reader: Box<dyn Read>,
    writer: Box<dyn Write>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    responses: VecDeque<Response>,
    last_sent: Instant,
    /// The sequence number that must come next; `None` before the first record.
    next: Option<u64>,
    /// The camera's hello.
    pub(crate) hello: CameraHello,
    /// Bytes received over the link.
    pub(crate) received_bytes: u64,
}

impl Station {
    /// Connects over TCP; delivery starts after the last acknowledged record.
    pub(crate) fn tcp(address: SocketAddr, name: &str, ledger: &Ledger) -> Result<Self> {
        let link = open(
            address,
            &identity(name)?,
            None,
            &Intent::Session,
            HELLO_WITHIN,
        );
        let link = link.context("connecting to the camera")?;
        Self::open(Box::new(link.reader), Box::new(link.writer), name, ledger)
    }

    /// Connects over the socket of the guest's serial port.
    pub(crate) fn serial(stream: UnixStream, name: &str, ledger: &Ledger) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_write_timeout(Some(HELLO_WITHIN))?;
        let reader = stream.try_clone()?;
        Self::open(Box::new(reader), Box::new(stream), name, ledger)
    }

    fn open(
        reader: Box<dyn Read>,
        writer: Box<dyn Write>,
        name: &str,
        ledger: &Ledger,
    ) -> Result<Self> {
        let mut station = Self {
            reader,
            writer,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            responses: VecDeque::new(),
            last_sent: Instant::now(),
            next: None,
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
            received_bytes: 0,
        };
        station.send(&ToCamera::Hello(StationHello {
            magic: MAGIC,
            min_version: VERSION,
            max_version: VERSION,
            schema_hash: SCHEMA_HASH,
            station: name.to_owned(),
            start: Start::Acknowledged,
        }))?;
        let deadline = Instant::now() + HELLO_WITHIN;
        // On a serial line, messages of an earlier session may come first.
        station.hello = loop {
            match station.message()? {
                Some(FromCamera::Hello(hello)) => break hello,
                _ if Instant::now() > deadline => bail!(
                    "the camera sent no hello within {} s",
                    HELLO_WITHIN.as_secs()
                ),
                _ => {}
            }
        };
        // The camera sends a record only after it is on the disk.
        if station.hello.next <= ledger.last() {
            bail!(
                "the camera's next record is {}, but {} was received before",
                station.hello.next,
                ledger.last()
            );
        }
        Ok(station)
    }

    fn send(&mut self, message: &ToCamera) -> Result<()> {
        self.send_payload(&message.encode())
    }

    fn send_payload(&mut self, payload: &[u8]) -> Result<()> {
        let wire = encode(payload).context("a message is too long")?;
        self.last_sent = Instant::now();
        let sent = self.writer.write_all(&wire);
        sent.and_then(|()| self.writer.flush())
            .context("sending to the camera")
    }

    /// Sends a command and waits for its answer; records go into the ledger.
    pub(crate) fn command(
        &mut self,
        ledger: &mut Ledger,
        id: u32,
        command: Command,
    ) -> Result<Answer> {
        self.send(&ToCamera::Command { id, command })?;
        let deadline = Instant::now() + HELLO_WITHIN;
        while Instant::now() < deadline {
            match self.message()? {
                Some(FromCamera::Reply { id: of, answer }) if of == id => return Ok(answer),
                Some(message) => self.take(ledger, message)?,
                None => {}
            }
        }
        bail!("no answer within {} s", HELLO_WITHIN.as_secs())
    }

    /// Takes a snapshot and receives its pictures; records are dropped.
    pub(crate) fn snapshot(&mut self, id: u32) -> Result<()> {
        let command = Command::Snapshot;
        self.send(&ToCamera::Command { id, command })?;
        let deadline = Instant::now() + HELLO_WITHIN;
        let mut missing_bytes = None;
        while missing_bytes != Some(0) {
            if Instant::now() > deadline {
                bail!("no snapshot within {} s", HELLO_WITHIN.as_secs());
            }
            match self.message()? {
                Some(FromCamera::Reply { id: of, answer }) if of == id => match answer {
                    Answer::Snapshot { bytes, .. } => {
                        missing_bytes = Some(bytes.iter().map(|&bytes| u64::from(bytes)).sum());
                    }
                    other => bail!("expected a snapshot, found {other:?}"),
                },
                Some(FromCamera::Chunk { bytes, .. }) => {
                    missing_bytes = missing_bytes
                        .map(|missing: u64| missing.saturating_sub(bytes.len() as u64));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends a request of the recovery exchange.
    pub(crate) fn request(&mut self, request: &Request) -> Result<()> {
        self.send_payload(&request.encode())
    }

    /// The answer to a request; `None` if there is none before `deadline`.
    pub(crate) fn response(
        &mut self,
        ledger: &mut Ledger,
        deadline: Instant,
    ) -> Result<Option<Response>> {
        while Instant::now() < deadline {
            if let Some(response) = self.responses.pop_front() {
                return Ok(Some(response));
            }
            self.receive(ledger)?;
        }
        Ok(self.responses.pop_front())
    }

    /// Acknowledges all records up to `sequence`.
    pub(crate) fn acknowledge(&mut self, ledger: &mut Ledger, sequence: u64) -> Result<()> {
        ledger.acknowledged = ledger.acknowledged.max(sequence);
        self.send(&ToCamera::Acknowledge { sequence })
    }

    /// Receives at most one message, within some 50 ms; a record goes into the ledger.
    pub(crate) fn receive(&mut self, ledger: &mut Ledger) -> Result<()> {
        if self.last_sent.elapsed() > ALIVE_EVERY {
            self.send(&ToCamera::Alive)?;
        }
        match self.message()? {
            Some(message) => self.take(ledger, message),
            None => Ok(()),
        }
    }

    /// Takes a message: a record goes into the ledger.
    fn take(&mut self, ledger: &mut Ledger, message: FromCamera) -> Result<()> {
        match message {
            FromCamera::Record { sequence, record } => {
                match self.next {
                    Some(next) if next != sequence => {
                        bail!("expected record {next}, found {sequence}")
                    }
                    None if sequence > ledger.acknowledged + 1 => bail!(
                        "delivery started at {sequence}, but only {} is acknowledged",
                        ledger.acknowledged
                    ),
                    _ => {}
                }
                self.next = Some(sequence + 1);
                ledger.insert(sequence, record)
            }
            FromCamera::Displaced { from, to } => {
                bail!("the camera has lost the records {from} to {to}")
            }
            FromCamera::Goodbye { reason } => bail!("the camera ended the session: {reason}"),
            _ => Ok(()),
        }
    }

    /// Receives until `enough` returns true, for at most `limit`.
    pub(crate) fn receive_until(
        &mut self,
        ledger: &mut Ledger,
        what: &str,
        limit: Duration,
        mut enough: impl FnMut(&Ledger) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !enough(ledger) {
            if Instant::now() > deadline {
                let tail: Vec<_> = ledger.records().values().rev().take(3).collect();
                bail!(
                    "waited {} s for {what} in vain; {} records, the last ones: {}",
                    limit.as_secs(),
                    ledger.records().len(),
                    short(&format!("{tail:?}"))
                );
            }
            self.receive(ledger)?;
        }
        Ok(())
    }

    /// The next message; `None` if none is complete within the reader's time-out. Answers of the
    /// recovery exchange go to `responses`.
    fn message(&mut self) -> Result<Option<FromCamera>> {
        let mut piece = [0; 16 << 10];
        loop {
            let all = std::mem::take(&mut self.bytes);
            match self.accumulator.feed(&all) {
                Fed::NeedMore => {}
                Fed::Frame { payload, rest } => {
                    self.bytes = rest.to_vec();
                    if payload.first() == Some(&MARK) {
                        let response = Response::decode(payload);
                        self.responses
                            .push_back(response.context("decoding a recovery answer")?);
                        return Ok(None);
                    }
                    let message = FromCamera::decode(payload);
                    let message = message.context("decoding a message")?;
                    return Ok(Some(message));
                }
                Fed::Discarded { reason, rest } => {
                    self.bytes = rest.to_vec();
                    // A session may start in the middle of a frame of an earlier one.
                    if self.hello.version != 0 {
                        bail!("received a damaged frame: {reason:?}");
                    }
                    continue;
                }
            }
            match self.reader.read(&mut piece) {
                Ok(0) => bail!("the camera closed the link"),
                Ok(count) => {
                    self.received_bytes += count as u64;
                    self.bytes.extend_from_slice(&piece[..count]);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("reading from the camera"),
            }
        }
    }
}

/// The start of a text: pictures in a record would fill the screen.
fn short(text: &str) -> String {
    text.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use proto::report::{Body, Event, Record};

    use super::*;

    fn record(part_ms: u64) -> Record {
        Record {
            unix_ms: part_ms,
            boot: 1,
            body: Body::Event(Event::Stopping),
        }
    }

    /// A fake camera, which answers the hello with `next`, sends these records and closes the link.
    fn camera(next: u64, records: &[(u64, u64)]) -> (UnixStream, JoinHandle<()>) {
        let (station, mut camera) = UnixStream::pair().unwrap();
        let hello = FromCamera::Hello(CameraHello {
            magic: MAGIC,
            version: VERSION,
            schema_hash: SCHEMA_HASH,
            camera: "fake".to_owned(),
            program: String::new(),
            model_id: [0; 8],
            model: String::new(),
            boot: 1,
            oldest: 1,
            next,
        });
        let mut messages = vec![hello];
        messages.extend(records.iter().map(|(sequence, ms)| FromCamera::Record {
            sequence: *sequence,
            record: record(*ms),
        }));
        let sender = std::thread::spawn(move || {
            camera.read_exact(&mut [0; 10]).unwrap();
            for message in messages {
                camera.write_all(&encode(&message.encode()).unwrap()).ok();
            }
            camera.shutdown(std::net::Shutdown::Write).unwrap();
            camera.read_to_end(&mut Vec::new()).ok();
        });
        (station, sender)
    }

    /// The error that the station ends with.
    fn verdict(ledger: &mut Ledger, next: u64, records: &[(u64, u64)]) -> String {
        let (stream, sender) = camera(next, records);
        let found = Station::serial(stream, "test", ledger).and_then(|mut station| {
            station.receive_until(ledger, "the end", HELLO_WITHIN, |_| false)
        });
        sender.join().unwrap();
        format!("{:#}", found.unwrap_err())
    }

    #[test]
    fn a_record_that_is_delivered_again_must_be_the_same() {
        let mut ledger = Ledger::default();
        let closed = "the camera closed the link";
        assert_eq!(verdict(&mut ledger, 3, &[(1, 10), (2, 20)]), closed);
        assert_eq!(
            verdict(&mut ledger, 4, &[(1, 10), (2, 20), (3, 30)]),
            closed
        );
        assert_eq!((ledger.last(), ledger.repeated), (3, 2));
        let changed = verdict(&mut ledger, 5, &[(1, 10), (2, 21)]);
        assert!(changed.contains("record 2 was"), "{changed}");
    }

    #[test]
    fn missing_and_forgotten_records_are_errors() {
        let mut ledger = Ledger::default();
        let hole = verdict(&mut ledger, 9, &[(1, 10), (3, 30)]);
        assert!(hole.contains("expected record 2, found 3"), "{hole}");
        // Nothing was acknowledged, so delivery must start at the first record.
        let late = verdict(&mut ledger, 9, &[(2, 20)]);
        assert!(late.contains("delivery started at 2"), "{late}");
        ledger.insert(3, record(30)).unwrap();
        assert!(ledger.check_complete().is_err());
        let forgotten = verdict(&mut ledger, 3, &[]);
        assert!(forgotten.contains("3 was received before"), "{forgotten}");
    }
}
