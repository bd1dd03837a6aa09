//! One station, from hello to goodbye. In: a byte stream in two halves. Out: the same.
//!
//! This thread reads; a second one ([`super::deliver`]) writes, so that a station that reads slowly can still be heard.

use std::io::{self, Read, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::accumulator::{Accumulator, Fed};
use proto::frame::MAX_STUFFED_BYTES;
use proto::limits::MAX_NAME_BYTES;
use proto::message::{CameraHello, FromCamera, Message, Start, StationHello, ToCamera, cut_text};
use proto::recovery::{self, MARK};
use proto::version::{MAGIC, MIN_VERSION, SCHEMA_HASH, VERSION, agree};

use super::LinkContext;
use super::commands::{Asked, answer, flash_deflated, recover};
use super::deliver::{Delivery, Outbox, deliver};
use super::door::Caller;
use super::writing::{goodbye, send};
use crate::journal::positions::NameError;
use crate::metrics::Drop;
use crate::update::model_name;

/// A station must say hello within so long.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A link that brings no message for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);

/// Kind of link, where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection ends, and the next one is another session.
    Tcp,
    /// There is no connection: a hello begins a session, whatever was before.
    Serial {
        /// Whether the recovery exchange is answered.
        recovery: bool,
    },
}

impl Kind {
    fn is_serial(self) -> bool {
        matches!(self, Self::Serial { .. })
    }

    /// Whether the recovery exchange is answered.
    fn recovers(self) -> bool {
        self != Self::Serial { recovery: false }
    }
}

/// A revoked station is noticed within so long.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why a session is over.
enum End {
    /// The peer has gone, or is silent, or the program stops.
    Closed,
    /// Another hello came (serial).
    Hello(StationHello),
}

/// Bytes in, messages out.
struct Incoming<'a, R> {
    reader: R,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    context: &'a LinkContext,
}

enum Heard {
    Message(ToCamera),
    Recovery(recovery::Request),
    /// No message: silence up to the reader's time-out, or bytes that are none.
    Nothing,
    Closed,
}

impl<'a, R: Read> Incoming<'a, R> {
    fn new(reader: R, context: &'a LinkContext) -> Self {
        Self {
            reader,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            context,
        }
    }

    /// The next message, after one read at most: whoever listens must look up between two reads, whatever a peer (or
    /// noise on an open serial line) keeps sending. What is no message is counted, and nothing was heard.
    fn next(&mut self) -> Heard {
        if let Some(heard) = self.message() {
            return heard;
        }
        let mut piece = [0; 4_096];
        match self.reader.read(&mut piece) {
            Ok(0) => Heard::Closed,
            Ok(count) => {
                self.bytes.extend_from_slice(&piece[..count]);
                self.message().unwrap_or(Heard::Nothing)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Heard::Nothing,
                _ => Heard::Closed,
            },
        }
    }

    /// The first message in what was read.
    fn message(&mut self) -> Option<Heard> {
        while !self.bytes.is_empty() {
            let all = std::mem::take(&mut self.bytes);
            let (payload, rest) = match self.accumulator.feed(&all) {
                Fed::NeedMore => break,
                Fed::Frame { payload, rest } => (Some(payload.to_vec()), rest.to_vec()),
                Fed::Discarded { reason, rest } => {
                    tracing::debug!(?reason, "bytes from a station discarded");
                    self.context.metrics.dropped(Drop::Link, 1);
                    (None, rest.to_vec())
                }
            };
            self.bytes = rest;
            let Some(payload) = payload else { continue };
            if payload.first() == Some(&MARK) {
                match recovery::Request::decode(&payload) {
                    Ok(request) => return Some(Heard::Recovery(request)),
                    Err(_) => self.context.metrics.dropped(Drop::Link, 1),
                }
                continue;
            }
            match ToCamera::decode(&payload) {
                Ok(message) => return Some(Heard::Message(message)),
                Err(error) => {
                    tracing::debug!(%error, "message from a station ignored");
                    self.context.metrics.dropped(Drop::Link, 1);
                }
            }
        }
        None
    }
}

/// Serves stations on a stream until it closes or everything stops. The reader must time out (about 100 ms).
pub(super) fn serve(
    context: &LinkContext,
    kind: Kind,
    caller: &Caller,
    reader: impl Read,
    mut writer: impl Write + Send,
) {
    let mut incoming = Incoming::new(reader, context);
    let opened = Instant::now();
    let mut hello = None;
    loop {
        let first = match hello.take() {
            Some(first) => first,
            None => match wait_for_hello(&mut incoming, &mut writer, kind, caller, opened) {
                Some(first) => first,
                None => return,
            },
        };
        // Where there are keys, nobody chooses a name: what was acknowledged under it is another's.
        let first = StationHello {
            station: caller.name.clone().unwrap_or(first.station),
            ..first
        };
        match session(context, kind, caller, &first, &mut incoming, &mut writer) {
            End::Hello(next) => hello = Some(next),
            End::Closed if kind == Kind::Tcp || context.stop.load(Ordering::Relaxed) => return,
            End::Closed => {}
        }
    }
}

fn wait_for_hello<R: Read>(
    incoming: &mut Incoming<'_, R>,
    writer: &mut impl Write,
    kind: Kind,
    caller: &Caller,
    mut heard_at: Instant,
) -> Option<StationHello> {
    let context = incoming.context;
    let asked = Asked {
        context,
        recovery: kind.recovers(),
        role: caller.role,
        station: caller.name.as_deref().unwrap_or("serial line"),
    };
    loop {
        if context.stop.load(Ordering::Relaxed) {
            return None;
        }
        match incoming.next() {
            Heard::Message(ToCamera::Hello(hello)) if hello.magic == MAGIC => return Some(hello),
            // Belongs to the recovery exchange, though not to what is frozen of it.
            Heard::Message(ToCamera::FlashDeflated {
                offset_bytes,
                plain_bytes,
                deflated,
            }) => {
                heard_at = Instant::now();
                let response = flash_deflated(&asked, offset_bytes, plain_bytes, &deflated);
                send(writer, &response.encode(), &context.stop).ok()?;
            }
            Heard::Message(_) => context.metrics.dropped(Drop::Link, 1),
            Heard::Recovery(request) => {
                // A station of another version says no hello that is understood, and may save the camera all the same.
                heard_at = Instant::now();
                let response = recover(&asked, &request);
                send(writer, &response.encode(), &context.stop).ok()?;
            }
            Heard::Nothing => {}
            Heard::Closed => return None,
        }
        if kind == Kind::Tcp && heard_at.elapsed() > HELLO_WITHIN {
            goodbye(writer, "no hello within 5 s");
            return None;
        }
    }
}

fn session<R: Read>(
    context: &LinkContext,
    kind: Kind,
    caller: &Caller,
    hello: &StationHello,
    incoming: &mut Incoming<'_, R>,
    writer: &mut (impl Write + Send),
) -> End {
    let theirs = (hello.min_version, hello.max_version);
    let Some(version) = agree((MIN_VERSION, VERSION), theirs) else {
        goodbye(
            writer,
            &format!(
                "this camera speaks versions {MIN_VERSION} to {VERSION}, the station {} to {}",
                theirs.0, theirs.1
            ),
        );
        return End::Closed;
    };
    if !(1..=MAX_NAME_BYTES).contains(&hello.station.len()) {
        let error = NameError {
            found_bytes: hello.station.len(),
        };
        goodbye(writer, &error.to_string());
        return End::Closed;
    }
    if version == VERSION && hello.max_version == VERSION && hello.schema_hash != SCHEMA_HASH {
        tracing::warn!(
            station = hello.station,
            "the station was built from another schema"
        );
    }
    let positions = lock_positions(context);
    let acknowledged = positions.get(&hello.station);
    // Where the journal could not be read yet, its numbers go on at least behind what stations have.
    let known = context.journal.durable().max(positions.highest());
    drop(positions);
    let next = known.map_or(1, |last| last + 1);
    let oldest = context.journal.oldest().unwrap_or(next);
    let after = acknowledged.map_or(oldest, |sequence| sequence + 1);
    let start = match hello.start {
        Start::Acknowledged => after,
        Start::Now => next,
        Start::At(sequence) => sequence.max(1),
    };
    // An acknowledgement covers everything before it, so it counts only where delivery leaves no hole behind.
    let counts = start <= after;
    let inspector = context.control.inspector();
    let greeting = FromCamera::Hello(CameraHello {
        magic: MAGIC,
        version,
        schema_hash: SCHEMA_HASH,
        camera: cut_text(&context.camera),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        model_id: inspector
            .as_ref()
            .map_or([0; 8], |inspector| inspector.model_id()),
        model: inspector.map_or_else(String::new, |inspector| model_name(&inspector)),
        boot: context.boot,
        oldest,
        next,
    });
    if send(writer, &greeting.encode(), &context.stop).is_err() {
        return End::Closed;
    }
    tracing::info!(station = hello.station, start, "station connected");
    context.metrics.stations().inc();
    let outbox = Outbox::new(std::sync::Arc::clone(&context.signal));
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(start - 1);
    let end = std::thread::scope(|scope| {
        let delivery = Delivery {
            context,
            outbox: &outbox,
            over: &over,
            sent: &sent,
        };
        scope.spawn(move || deliver(&delivery, start, writer));
        let end = listen(
            context, kind, caller, hello, incoming, &outbox, &over, &sent, counts,
        );
        over.store(true, Ordering::Relaxed);
        context.signal.notify();
        end
    });
    context.metrics.stations().dec();
    tracing::info!(station = hello.station, "station gone");
    end
}

#[expect(
    clippy::too_many_arguments,
    reason = "the reading half of one session; a struct would only rename them"
)]
fn listen<R: Read>(
    context: &LinkContext,
    kind: Kind,
    caller: &Caller,
    hello: &StationHello,
    incoming: &mut Incoming<'_, R>,
    outbox: &Outbox,
    over: &AtomicBool,
    sent: &AtomicU64,
    counts: bool,
) -> End {
    let mut heard_at = Instant::now();
    let mut looked = Instant::now();
    let asked = Asked {
        context,
        recovery: kind.recovers(),
        role: caller.role,
        station: &hello.station,
    };
    while !over.load(Ordering::Relaxed) && !context.stop.load(Ordering::Relaxed) {
        let heard = incoming.next();
        if !matches!(heard, Heard::Nothing) {
            heard_at = Instant::now();
        }
        if looked.elapsed() > LOOK_AGAIN {
            looked = Instant::now();
            if !context.door.still_admits(caller) {
                tracing::info!(station = hello.station, "access was revoked");
                return End::Closed;
            }
        }
        match heard {
            Heard::Closed => return End::Closed,
            Heard::Nothing if heard_at.elapsed() > SILENCE => {
                tracing::info!(
                    station = hello.station,
                    "no message from the station for 30 s"
                );
                return End::Closed;
            }
            Heard::Nothing | Heard::Message(ToCamera::Alive) => {}
            Heard::Message(ToCamera::Hello(next)) => {
                if kind.is_serial() && next.magic == MAGIC {
                    return End::Hello(next);
                }
                context.metrics.dropped(Drop::Link, 1);
            }
            Heard::Message(ToCamera::Acknowledge { sequence }) => {
                // What was not sent cannot have arrived.
                if sequence > sent.load(Ordering::Acquire) {
                    context.metrics.dropped(Drop::Link, 1);
                } else if counts
                    && let Err(error) =
                        lock_positions(context).acknowledge(&hello.station, sequence)
                {
                    tracing::warn!(%error, "acknowledgement");
                }
            }
            Heard::Message(ToCamera::Command { id, command }) => {
                answer(&asked, id, command, outbox);
            }
            Heard::Message(ToCamera::FlashDeflated {
                offset_bytes,
                plain_bytes,
                deflated,
            }) => {
                let response = flash_deflated(&asked, offset_bytes, plain_bytes, &deflated);
                outbox.put(response.encode());
            }
            Heard::Recovery(request) => outbox.put(recover(&asked, &request).encode()),
        }
    }
    End::Closed
}

fn lock_positions(
    context: &LinkContext,
) -> std::sync::MutexGuard<'_, crate::journal::positions::Positions> {
    context
        .positions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
