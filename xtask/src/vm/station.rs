//! A station as small as it can be: says hello, takes records, acknowledges, and is strict about what the protocol
//! promises. Over TCP or the guest's serial port.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{CameraHello, FromCamera, Message, Start, StationHello, ToCamera};
use proto::recovery::{MARK, Request, Response};
use proto::version::{MAGIC, SCHEMA_HASH, VERSION};
use secure::handshake::Intent;
use secure::identity::Identity;
use secure::tcp::open;

use super::ledger::Ledger;

/// From connecting to the camera's hello: an emulated camera that has just started is slow.
const HELLO: Duration = Duration::from_secs(20);
/// The camera closes a link that is silent for long.
const ALIVE: Duration = Duration::from_secs(3);

/// The key of a station of this name: the name, filled up.
pub(crate) fn identity(name: &str) -> Result<Identity> {
    let mut secret = [7; 32];
    let length = name.len().min(32);
    secret[..length].copy_from_slice(&name.as_bytes()[..length]);
    Ok(Identity::from_secret(secret)?)
}

/// A camera's access list that lets these stations in (`secure::access`).
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

/// One session.
pub(crate) struct Station {
    reader: Box<dyn Read>,
    writer: Box<dyn Write>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    responses: VecDeque<Response>,
    spoke: Instant,
    /// The number that has to come next; `None` before the first.
    next: Option<u64>,
    /// What the camera said first.
    pub(crate) hello: CameraHello,
    /// All that came over the link.
    pub(crate) received_bytes: u64,
}

impl Station {
    /// Over TCP, behind what was acknowledged last.
    pub(crate) fn tcp(address: SocketAddr, name: &str, ledger: &Ledger) -> Result<Self> {
        let link = open(address, &identity(name)?, None, &Intent::Session, HELLO);
        let link = link.context("connecting to the camera")?;
        Self::open(Box::new(link.reader), Box::new(link.writer), name, ledger)
    }

    /// Over the serial port's socket.
    pub(crate) fn serial(stream: UnixStream, name: &str, ledger: &Ledger) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_write_timeout(Some(HELLO))?;
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
            spoke: Instant::now(),
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
        let deadline = Instant::now() + HELLO;
        // On a serial line something of an earlier session may come first.
        station.hello = loop {
            match station.message()? {
                Some(FromCamera::Hello(hello)) => break hello,
                _ if Instant::now() > deadline => bail!("the camera says no hello"),
                _ => {}
            }
        };
        // What was received had been on the disk.
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
        self.spoke = Instant::now();
        let sent = self.writer.write_all(&wire);
        sent.and_then(|()| self.writer.flush())
            .context("sending to the camera")
    }

    /// A request of the recovery exchange.
    pub(crate) fn request(&mut self, request: &Request) -> Result<()> {
        self.send_payload(&request.encode())
    }

    /// The answer to a request, waiting at most until `deadline`.
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

    /// Everything up to `sequence` is safe here.
    pub(crate) fn acknowledge(&mut self, ledger: &mut Ledger, sequence: u64) -> Result<()> {
        ledger.acknowledged = ledger.acknowledged.max(sequence);
        self.send(&ToCamera::Acknowledge { sequence })
    }

    /// Takes what comes within some 50 ms into the ledger: at most one message.
    pub(crate) fn receive(&mut self, ledger: &mut Ledger) -> Result<()> {
        if self.spoke.elapsed() > ALIVE {
            self.send(&ToCamera::Alive)?;
        }
        match self.message()? {
            Some(FromCamera::Record { sequence, record }) => {
                match self.next {
                    Some(next) if next != sequence => {
                        bail!("record {sequence} came instead of {next}")
                    }
                    None if sequence > ledger.acknowledged + 1 => bail!(
                        "delivery began at {sequence}, but only {} was acknowledged",
                        ledger.acknowledged
                    ),
                    _ => {}
                }
                self.next = Some(sequence + 1);
                ledger.take(sequence, record)
            }
            Some(FromCamera::Displaced { from, to }) => {
                bail!("the camera lost the records {from} to {to}")
            }
            Some(FromCamera::Goodbye { reason }) => bail!("the camera says goodbye: {reason}"),
            _ => Ok(()),
        }
    }

    /// Receives until `enough`, for at most `limit`.
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
                    "waited {} s in vain for {what}; {} records, the last: {}",
                    limit.as_secs(),
                    ledger.records().len(),
                    short(&format!("{tail:?}"))
                );
            }
            self.receive(ledger)?;
        }
        Ok(())
    }

    /// The next message, if one is complete within the reader's time-out.
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
                            .push_back(response.context("a recovery answer")?);
                        return Ok(None);
                    }
                    let message = FromCamera::decode(payload);
                    let message = message.context("a message cannot be understood")?;
                    return Ok(Some(message));
                }
                Fed::Discarded { reason, rest } => {
                    self.bytes = rest.to_vec();
                    // A session may begin in the middle of another one's frame.
                    if self.hello.version != 0 {
                        bail!("a damaged frame came: {reason:?}");
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

/// Pictures in a record would fill the screen.
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

    /// A camera that answers the hello with `next` and these records, and then closes.
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
        let speaks = std::thread::spawn(move || {
            camera.read_exact(&mut [0; 10]).unwrap();
            for message in messages {
                camera.write_all(&encode(&message.encode()).unwrap()).ok();
            }
            camera.shutdown(std::net::Shutdown::Write).unwrap();
            camera.read_to_end(&mut Vec::new()).ok();
        });
        (station, speaks)
    }

    /// What the station thinks of it: the error in words, or that the link closed.
    fn verdict(ledger: &mut Ledger, next: u64, records: &[(u64, u64)]) -> String {
        let (stream, speaks) = camera(next, records);
        let found = Station::serial(stream, "test", ledger)
            .and_then(|mut station| station.receive_until(ledger, "the end", HELLO, |_| false));
        speaks.join().unwrap();
        format!("{:#}", found.unwrap_err())
    }

    #[test]
    fn what_comes_again_must_be_what_it_was() {
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
    fn holes_and_forgotten_records_are_noticed() {
        let mut ledger = Ledger::default();
        let hole = verdict(&mut ledger, 9, &[(1, 10), (3, 30)]);
        assert!(hole.contains("record 3 came instead of 2"), "{hole}");
        // Nothing was acknowledged, so nothing may be left out.
        let late = verdict(&mut ledger, 9, &[(2, 20)]);
        assert!(late.contains("delivery began at 2"), "{late}");
        ledger.take(3, record(30)).unwrap();
        assert!(ledger.check_complete().is_err());
        let forgotten = verdict(&mut ledger, 3, &[]);
        assert!(forgotten.contains("3 was received before"), "{forgotten}");
    }
}
