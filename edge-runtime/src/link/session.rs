//! One session with a station, from hello to goodbye, on the two halves of a byte stream.
//!
//! This thread reads and a second one ([`super::deliver`]) writes, so that commands are received
//! even if the station reads slowly.

use std::io::{Read, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::message::{CameraHello, FromCamera, Message, Start, StationHello, ToCamera, cut_text};
use proto::name::{InvalidName, SERIAL_PREFIX, StationName};
use proto::version::{MAGIC, MIN_VERSION, SCHEMA_HASH, VERSION, agree};

use super::access_control::Caller;
use super::commands::{Requester, answer, flash_deflated, recover};
use super::context::LinkContext;
use super::deliver::{Session, deliver};
use super::incoming::{MessageReader, Received};
use super::outbox::Outbox;
use super::repeats::Repeats;
use super::writing::{goodbye, send};
use crate::metrics::Loss;
use crate::model::active::model_name;

/// Time within which a station must send its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A link without any message for this time is closed.
const SILENCE: Duration = Duration::from_secs(30);
/// Interval at which a session checks whether its station was revoked.
const CHECK_ACCESS_EVERY: Duration = Duration::from_secs(2);

/// The kind of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// A connection carries one session.
    Tcp,
    /// There are no connections: every hello begins a new session.
    Serial {
        /// Whether the recovery exchange is answered.
        recovery: bool,
        /// Whether reports carry their pictures.
        pictures: bool,
        /// Bits per second.
        baud: u32,
    },
}

impl LinkKind {
    fn is_serial(self) -> bool {
        matches!(self, Self::Serial { .. })
    }

    /// Whether the recovery exchange is answered.
    fn recovers(self) -> bool {
        match self {
            Self::Tcp => true,
            Self::Serial { recovery, .. } => recovery,
        }
    }

    /// Whether reports carry their pictures.
    fn carries_pictures(self) -> bool {
        match self {
            Self::Tcp => true,
            Self::Serial { pictures, .. } => pictures,
        }
    }

    /// Bits per second of a serial line.
    fn baud(self) -> Option<u32> {
        match self {
            Self::Tcp => None,
            Self::Serial { baud, .. } => Some(baud),
        }
    }
}

/// Why a session ended.
enum End {
    /// The peer is gone or silent, or the program stops.
    Closed,
    /// A station with a higher role took the place.
    Displaced,
    /// A new hello arrived on a serial line.
    Hello(StationHello),
}

/// What a station is told whose place another one takes.
const DISPLACED: &str = "a station with a higher role took this place; all are taken";

/// Serves stations on a stream until it closes, the program stops, or `displaced` is set. The reader
/// must have a short time-out (about 100 ms).
pub(super) fn serve(
    context: &LinkContext,
    kind: LinkKind,
    caller: &Caller,
    displaced: &AtomicBool,
    reader: impl Read,
    mut writer: impl Write + Send,
) {
    let mut incoming = MessageReader::new(reader, context);
    let opened = Instant::now();
    let mut hello = None;
    loop {
        let first = match hello.take() {
            Some(first) => first,
            None => {
                match wait_for_hello(&mut incoming, &mut writer, kind, caller, displaced, opened) {
                    Some(first) => first,
                    None => return,
                }
            }
        };
        let station = match known_as(caller, &first) {
            Ok(station) => station,
            Err(error) => {
                goodbye(&mut writer, &format!("the station's name: {error}"));
                continue;
            }
        };
        let first = StationHello { station, ..first };
        match session(
            context,
            kind,
            caller,
            displaced,
            &first,
            &mut incoming,
            &mut writer,
        ) {
            End::Displaced => {
                tracing::info!(station = first.station, "displaced by a higher role");
                goodbye(&mut writer, DISPLACED);
                return;
            }
            End::Hello(next) => hello = Some(next),
            End::Closed if kind == LinkKind::Tcp || context.stop.load(Ordering::Relaxed) => return,
            End::Closed => {}
        }
    }
}

/// The name under which the camera keeps the station's position and journals what it does. A station
/// with a key is known by its name on the access list: if it could choose one, it could acknowledge
/// another station's records. On a serial line a station chooses, among names that none with a key
/// can have.
fn known_as(caller: &Caller, hello: &StationHello) -> Result<String, InvalidName> {
    match &caller.name {
        Some(name) => Ok(name.clone()),
        None => StationName::new(&hello.station).map(|name| name.on_serial_line()),
    }
}

fn wait_for_hello<R: Read>(
    incoming: &mut MessageReader<'_, R>,
    writer: &mut impl Write,
    kind: LinkKind,
    caller: &Caller,
    displaced: &AtomicBool,
    mut last_request: Instant,
) -> Option<StationHello> {
    let context = incoming.context;
    let requester = Requester {
        context,
        recovery: kind.recovers(),
        role: caller.role,
        station: caller.name.as_deref().unwrap_or(SERIAL_PREFIX),
    };
    loop {
        if context.stop.load(Ordering::Relaxed) {
            return None;
        }
        if displaced.load(Ordering::Relaxed) {
            goodbye(writer, DISPLACED);
            return None;
        }
        match incoming.next() {
            Received::Message(ToCamera::Hello(hello)) if hello.magic == MAGIC => {
                return Some(hello);
            }
            // Compressed pieces belong to flashing, which is allowed before the hello, although
            // they are not part of the recovery exchange's frozen format.
            Received::Message(ToCamera::FlashDeflated {
                offset_bytes,
                plain_bytes,
                deflated,
            }) => {
                last_request = Instant::now();
                let response = flash_deflated(&requester, offset_bytes, plain_bytes, &deflated);
                send(writer, &response.encode(), &context.stop).ok()?;
            }
            Received::Message(_) => context.metrics.dropped(Loss::Link, 1),
            Received::Recovery(request) => {
                // A station of another version sends no hello that this camera understands, but it
                // may still recover the camera.
                last_request = Instant::now();
                let response = recover(&requester, &request);
                send(writer, &response.encode(), &context.stop).ok()?;
            }
            Received::Nothing => {}
            Received::Closed => return None,
        }
        if kind == LinkKind::Tcp && last_request.elapsed() > HELLO_WITHIN {
            goodbye(writer, "no hello within 5 s");
            return None;
        }
    }
}

fn session<R: Read>(
    context: &LinkContext,
    kind: LinkKind,
    caller: &Caller,
    displaced: &AtomicBool,
    hello: &StationHello,
    incoming: &mut MessageReader<'_, R>,
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
    if version == VERSION && hello.max_version == VERSION && hello.schema_hash != SCHEMA_HASH {
        tracing::warn!(
            station = hello.station,
            "the station was built from another schema"
        );
    }
    let positions = lock_positions(context);
    let acknowledged = positions.get(&hello.station);
    // If the journal could not be read yet, its numbers continue at least after those that stations
    // have.
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
    // An acknowledgement covers everything before it, so it is recorded only if this session sends
    // every record that the station does not have.
    let records_acknowledgements = start <= after;
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
    let connected = Connected::new(context);
    let outbox = Outbox::new(std::sync::Arc::clone(&context.signal));
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(start - 1);
    let acknowledged = AtomicU64::new(0);
    let end = std::thread::scope(|scope| {
        let writing = Session {
            context,
            outbox: &outbox,
            over: &over,
            sent: &sent,
            acknowledged: &acknowledged,
            baud: kind.baud(),
            pictures: kind.carries_pictures(),
        };
        // Whichever half ends first, by a panic too, ends the other one.
        let writer_ends = EndsSession {
            context,
            over: &over,
        };
        scope.spawn(move || {
            let _ends = writer_ends;
            deliver(&writing, start, writer);
        });
        let _ends = EndsSession {
            context,
            over: &over,
        };
        listen(
            context,
            kind,
            caller,
            displaced,
            hello,
            incoming,
            &outbox,
            &over,
            (&sent, &acknowledged),
            records_acknowledgements,
        )
    });
    drop(connected);
    tracing::info!(station = hello.station, "station gone");
    end
}

/// Counts a connected station until it is dropped.
struct Connected<'a>(&'a LinkContext);

impl<'a> Connected<'a> {
    fn new(context: &'a LinkContext) -> Self {
        context.metrics.stations().inc();
        Self(context)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.metrics.stations().dec();
    }
}

/// Ends both halves of a session when it is dropped.
struct EndsSession<'a> {
    context: &'a LinkContext,
    over: &'a AtomicBool,
}

impl Drop for EndsSession<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.context.signal.notify();
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the reading half of one session; a struct would only rename them"
)]
fn listen<R: Read>(
    context: &LinkContext,
    kind: LinkKind,
    caller: &Caller,
    displaced: &AtomicBool,
    hello: &StationHello,
    incoming: &mut MessageReader<'_, R>,
    outbox: &Outbox,
    over: &AtomicBool,
    (sent, acknowledged): (&AtomicU64, &AtomicU64),
    records_acknowledgements: bool,
) -> End {
    let mut repeats = Repeats::default();
    let mut received_at = Instant::now();
    let mut access_checked_at = Instant::now();
    let requester = Requester {
        context,
        recovery: kind.recovers(),
        role: caller.role,
        station: &hello.station,
    };
    while !over.load(Ordering::Relaxed) && !context.stop.load(Ordering::Relaxed) {
        if displaced.load(Ordering::Relaxed) {
            return End::Displaced;
        }
        let received = incoming.next();
        if !matches!(received, Received::Nothing) {
            received_at = Instant::now();
        }
        if access_checked_at.elapsed() > CHECK_ACCESS_EVERY {
            access_checked_at = Instant::now();
            if !context.access_control.still_admits(caller) {
                tracing::info!(station = hello.station, "has no access any more");
                return End::Closed;
            }
        }
        match received {
            Received::Closed => return End::Closed,
            Received::Nothing if received_at.elapsed() > SILENCE => {
                tracing::info!(
                    station = hello.station,
                    "no message from the station for 30 s"
                );
                return End::Closed;
            }
            Received::Nothing | Received::Message(ToCamera::Alive) => {}
            Received::Message(ToCamera::Hello(next)) => {
                if kind.is_serial() && next.magic == MAGIC {
                    return End::Hello(next);
                }
                context.metrics.dropped(Loss::Link, 1);
            }
            Received::Message(ToCamera::Acknowledge { sequence }) => {
                // A record that was not sent cannot be acknowledged.
                if sequence > sent.load(Ordering::Acquire) {
                    context.metrics.dropped(Loss::Link, 1);
                    continue;
                }
                acknowledged.fetch_max(sequence, Ordering::Release);
                if records_acknowledgements
                    && let Err(error) =
                        lock_positions(context).acknowledge(&hello.station, sequence)
                {
                    tracing::warn!(%error, "acknowledgement");
                }
            }
            Received::Message(ToCamera::Command { id, command }) if kind.is_serial() => {
                match repeats.answer(id, &command, Instant::now()) {
                    Some(reply) => outbox.put(reply),
                    None => {
                        let reply = answer(&requester, id, command.clone(), outbox);
                        repeats.keep(id, command, reply, Instant::now());
                    }
                }
            }
            Received::Message(ToCamera::Command { id, command }) => {
                answer(&requester, id, command, outbox);
            }
            Received::Message(ToCamera::FlashDeflated {
                offset_bytes,
                plain_bytes,
                deflated,
            }) => {
                let response = flash_deflated(&requester, offset_bytes, plain_bytes, &deflated);
                outbox.put(response.encode());
            }
            Received::Recovery(request) => outbox.put(recover(&requester, &request).encode()),
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
