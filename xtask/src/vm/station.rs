//! A station as small as it can be: says hello, takes records, acknowledges, and is strict about what the protocol
//! promises. Over TCP or the guest's serial port.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::accumulator::{Accumulator, Fed};
use proto::frame::{MAX_STUFFED_BYTES, encode};
use proto::message::{CameraHello, FromCamera, Message, Start, StationHello, ToCamera};
use proto::report::{Body, Event, PartReport, Record};
use proto::version::{MAGIC, SCHEMA_HASH, VERSION};

/// From connecting to the camera's hello: an emulated camera that has just started is slow.
const HELLO: Duration = Duration::from_secs(20);
/// The camera closes a link that is silent for long.
const ALIVE: Duration = Duration::from_secs(3);

/// All that a station ever received, across links and restarts of the camera.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<u64, Record>,
    /// The highest number that was acknowledged, heard by the camera or not.
    acknowledged: u64,
    /// Records that came again, as they may.
    pub(crate) repeated: usize,
}

impl Ledger {
    /// The highest number received.
    pub(crate) fn last(&self) -> u64 {
        self.records.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn records(&self) -> &BTreeMap<u64, Record> {
        &self.records
    }

    /// Parts in order.
    pub(crate) fn parts(&self) -> Vec<&PartReport> {
        self.parts_after(0)
    }

    /// Parts behind the record of this number, in order.
    pub(crate) fn parts_after(&self, sequence: u64) -> Vec<&PartReport> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Part(part) => Some(part),
                Body::Event(_) => None,
            })
            .collect()
    }

    /// Events behind the record of this number, in order.
    pub(crate) fn events_after(&self, sequence: u64) -> Vec<&Event> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Event(event) => Some(event),
                Body::Part(_) => None,
            })
            .collect()
    }

    /// Same number, same record, for ever.
    fn take(&mut self, sequence: u64, record: Record) -> Result<()> {
        match self.records.get(&sequence) {
            None => {
                self.records.insert(sequence, record);
            }
            Some(before) if *before == record => self.repeated += 1,
            Some(before) => bail!("record {sequence} was {before:?} and came again as {record:?}"),
        }
        Ok(())
    }

    /// Numbers are consecutive from the first of all.
    pub(crate) fn check_complete(&self) -> Result<()> {
        match (1..).zip(self.records.keys()).find(|(n, key)| n != *key) {
            Some((missing, _)) => bail!("record {missing} never came"),
            None => Ok(()),
        }
    }
}

/// One session.
pub(crate) struct Station {
    reader: Box<dyn Read>,
    writer: Box<dyn Write>,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    spoke: Instant,
    /// The number that has to come next; `None` before the first.
    next: Option<u64>,
    /// What the camera said first.
    pub(crate) hello: CameraHello,
}

impl Station {
    /// Over TCP, behind what was acknowledged last.
    pub(crate) fn tcp(address: SocketAddr, name: &str, ledger: &Ledger) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the camera")?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_write_timeout(Some(HELLO))?;
        let reader = stream.try_clone()?;
        Self::open(Box::new(reader), Box::new(stream), name, ledger)
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
        let wire = encode(&message.encode()).context("a message is too long")?;
        self.spoke = Instant::now();
        self.writer
            .write_all(&wire)
            .context("sending to the camera")
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
                let tail: Vec<_> = ledger.records.values().rev().take(3).collect();
                bail!(
                    "waited {} s in vain for {what}; {} records, the last: {}",
                    limit.as_secs(),
                    ledger.records.len(),
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
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
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
