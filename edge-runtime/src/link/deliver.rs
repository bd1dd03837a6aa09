//! The writing half of a session: answers, health, pictures, and every journal record from a starting point on.
//!
//! One message at a time, looking up between two, so that nothing that takes long on a slow line (a snapshot, a
//! backlog) holds up the rest, the end of the session, or the program's.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::limits::MAX_CHUNK_BYTES;
use proto::message::{Answer, FromCamera, Message, SnapshotKind, cut_text};
use proto::report::Record;

use super::LinkContext;
use super::files::Sending;
use super::writing::{goodbye, send};
use crate::journal::JournalError;
use crate::reporting::{Signal, one_line};

/// Health is sent so often.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Records read from the journal at a time.
const BATCH: usize = 64;
/// And bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Answers that wait to be sent; a station that asks for more without reading loses the rest.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// A piece of a picture: small enough that health and records are not late behind it on a serial line.
const CHUNK_BYTES: usize = 16 << 10;
/// The same of a file; it is asked for over fast links.
const FILE_CHUNK_BYTES: usize = 32 << 10;
const _: () = assert!(CHUNK_BYTES <= MAX_CHUNK_BYTES && FILE_CHUNK_BYTES <= MAX_CHUNK_BYTES);
/// What cannot be read is tried again after so long,
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// and given up after so many tries.
const TRIES: u32 = 3;

/// The pictures of a snapshot, sent in chunks.
#[derive(Debug)]
pub(super) struct Pictures {
    id: u32,
    left: VecDeque<(SnapshotKind, Vec<u8>)>,
    offset: usize,
}

impl Pictures {
    /// Of the command with this number.
    pub(super) fn new(id: u32, pictures: Vec<(SnapshotKind, Vec<u8>)>) -> Self {
        Self {
            id,
            left: pictures.into(),
            offset: 0,
        }
    }

    /// The next chunk as a payload.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            let (kind, picture) = self.left.front()?;
            let end = picture.len().min(self.offset + CHUNK_BYTES);
            let bytes = picture[self.offset..end].to_vec();
            if bytes.is_empty() {
                self.left.pop_front();
                self.offset = 0;
                continue;
            }
            let chunk = FromCamera::Chunk {
                id: self.id,
                kind: *kind,
                total_bytes: picture.len() as u32,
                offset_bytes: self.offset as u32,
                bytes,
            };
            self.offset = end;
            return Some(chunk.encode());
        }
    }
}

/// What takes many messages, one at a time in a session.
#[derive(Debug)]
pub(super) enum Long {
    /// A snapshot's pictures.
    Pictures(Pictures),
    /// A file, for the command with this number.
    File(u32, Sending),
}

impl Long {
    /// The next chunk as a payload, and whether more may follow.
    fn chunk(&mut self) -> Option<(Vec<u8>, bool)> {
        match self {
            Self::Pictures(pictures) => pictures.chunk().map(|chunk| (chunk, true)),
            Self::File(id, sending) => match sending.next(FILE_CHUNK_BYTES) {
                Ok((_, bytes)) if bytes.is_empty() => None,
                Ok((offset_bytes, bytes)) => {
                    let id = *id;
                    let chunk = FromCamera::FileChunk {
                        id,
                        offset_bytes,
                        bytes,
                    };
                    Some((chunk.encode(), true))
                }
                // Displaced meanwhile, or the disk: the station must not wait for the rest.
                Err(error) => {
                    let reason = cut_text(&error.to_string());
                    let answer = Answer::Refused { reason };
                    Some((FromCamera::Reply { id: *id, answer }.encode(), false))
                }
            },
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    payloads: VecDeque<Vec<u8>>,
    bytes: usize,
    long: Option<Long>,
}

/// Answers on their way to the writing half.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    signal: Arc<Signal>,
}

impl Outbox {
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        Self {
            waiting: Mutex::default(),
            signal,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, payload: Vec<u8>) {
        self.put_with(payload, None);
    }

    /// A reply, then what belongs to it.
    pub(super) fn put_long(&self, reply: Vec<u8>, long: Long) {
        self.put_with(reply, Some(long));
    }

    fn put_with(&self, payload: Vec<u8>, long: Option<Long>) {
        let mut waiting = self.lock();
        if waiting.bytes + payload.len() <= MAX_WAITING_BYTES {
            waiting.bytes += payload.len();
            waiting.payloads.push_back(payload);
            waiting.long = long.or(waiting.long.take());
        } else {
            tracing::warn!("a station asks and does not read; an answer is left out");
        }
        drop(waiting);
        self.signal.notify();
    }

    /// Whether pictures or a file are on their way.
    pub(super) fn is_sending(&self) -> bool {
        self.lock().long.is_some()
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        let payload = waiting.payloads.pop_front()?;
        waiting.bytes -= payload.len();
        Some(payload)
    }

    /// The next piece of a picture or file, once no answer waits: its reply comes first.
    fn take_chunk(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        if !waiting.payloads.is_empty() {
            return None;
        }
        let chunk = waiting.long.as_mut()?.chunk();
        if chunk.as_ref().is_none_or(|(_, more)| !more) {
            waiting.long = None;
        }
        chunk.map(|(payload, _)| payload)
    }
}

/// What the writing half knows of its session.
pub(super) struct Delivery<'a> {
    pub(super) context: &'a LinkContext,
    pub(super) outbox: &'a Outbox,
    /// Set by either half when the session is over.
    pub(super) over: &'a AtomicBool,
    /// The last sequence number that was written to the link.
    pub(super) sent: &'a AtomicU64,
}

/// Journal records on their way, in order; what is missing is told.
struct Backlog<'a> {
    delivery: &'a Delivery<'a>,
    /// The first number that was neither sent nor told to be missing.
    next: u64,
    records: VecDeque<(u64, Vec<u8>)>,
    /// The number that comes after `records`, whatever is in them.
    end: u64,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Backlog<'_> {
    /// Sends a record, or tells what is missing; how many bytes that were, `None` if there is nothing now.
    fn send_one(&mut self, writer: &mut impl Write) -> io::Result<Option<usize>> {
        if self.records.is_empty() && self.end == self.next {
            self.read();
        }
        let Some((sequence, payload)) = self.records.pop_front() else {
            return self.missing(writer, self.end);
        };
        // A record that cannot be decoded counts as missing; the next one tells.
        let record = match Record::decode(&payload) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(sequence, %error, "journal record");
                return Ok(Some(0));
            }
        };
        self.missing(writer, sequence)?;
        // Before writing: an acknowledgement may be faster than this thread.
        let Delivery { sent, over, .. } = self.delivery;
        sent.fetch_max(sequence, Ordering::Release);
        let message = FromCamera::Record { sequence, record }.encode();
        send(writer, &message, over)?;
        self.next = sequence + 1;
        Ok(Some(message.len()))
    }

    /// Tells of records before `to` that will not come.
    fn missing(&mut self, writer: &mut impl Write, to: u64) -> io::Result<Option<usize>> {
        let from = self.next;
        if from >= to {
            return Ok(None);
        }
        let Delivery { sent, over, .. } = self.delivery;
        sent.fetch_max(to - 1, Ordering::Release);
        let message = FromCamera::Displaced { from, to }.encode();
        send(writer, &message, over)?;
        self.next = to;
        Ok(Some(message.len()))
    }

    fn read(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let context = self.delivery.context;
        match context.journal.read_from(self.next, BATCH, BATCH_BYTES) {
            Ok(batch) => {
                self.failures = 0;
                self.retry_at = None;
                self.records = batch.records.into();
                self.end = batch.next.max(self.next);
            }
            Err(error) => {
                self.failures += 1;
                tracing::error!(error = one_line(&error), "journal cannot be read");
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                // A sector that is gone stays gone: what is behind it must not wait for ever.
                if let JournalError::Unreadable { resume_at, .. } = error
                    && self.failures >= TRIES
                {
                    context.metrics.unreadable(self.next, resume_at);
                    self.failures = 0;
                    self.retry_at = None;
                    self.end = resume_at.max(self.next);
                }
            }
        }
    }
}

/// Writes until the session is over, the program stops or the link fails.
pub(super) fn deliver(delivery: &Delivery<'_>, start: u64, writer: &mut impl Write) {
    let Delivery { context, over, .. } = delivery;
    let stopping = || context.stop.load(Ordering::Relaxed);
    let mut round = Round {
        delivery,
        backlog: Backlog {
            delivery,
            next: start,
            records: VecDeque::new(),
            end: start,
            failures: 0,
            retry_at: None,
        },
        health_at: Instant::now(),
        owed_bytes: 0,
    };
    let mut seen = 0;
    while !over.load(Ordering::Relaxed) && !stopping() {
        match round.send_some(writer) {
            Ok(true) => {}
            Ok(false) => seen = context.signal.wait(seen, Duration::from_millis(200)),
            Err(error) => {
                tracing::debug!(%error, "link");
                break;
            }
        }
    }
    if stopping() {
        goodbye(writer, "the camera stops");
    }
    over.store(true, Ordering::Relaxed);
}

/// Takes turns.
struct Round<'a> {
    delivery: &'a Delivery<'a>,
    backlog: Backlog<'a>,
    health_at: Instant,
    /// So many bytes of records come before the next piece of a picture.
    owed_bytes: usize,
}

impl Round<'_> {
    /// Health if it is due, an answer if one waits, and a record or a piece of a picture; whether there was any.
    fn send_some(&mut self, writer: &mut impl Write) -> io::Result<bool> {
        let Delivery {
            context,
            outbox,
            over,
            ..
        } = self.delivery;
        if self.health_at.elapsed() >= HEALTH_EVERY {
            self.health_at = Instant::now();
            let health = context.metrics.health(context.control.mode());
            send(writer, &FromCamera::Health(health).encode(), over)?;
        }
        let answer = outbox.take();
        if let Some(answer) = &answer {
            send(writer, answer, over)?;
        }
        if self.owed_bytes == 0
            && let Some(chunk) = outbox.take_chunk()
        {
            self.owed_bytes = chunk.len();
            send(writer, &chunk, over)?;
            return Ok(true);
        }
        match self.backlog.send_one(writer)? {
            Some(bytes) => {
                self.owed_bytes = self.owed_bytes.saturating_sub(bytes);
                Ok(true)
            }
            None => Ok(answer.is_some() || std::mem::take(&mut self.owed_bytes) > 0),
        }
    }
}
