//! The writing half of a session: answers, health, and every journal record from a starting point on.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::message::{FromCamera, Message};
use proto::report::Record;

use super::LinkContext;
use super::session::{goodbye, send};
use crate::reporting::Signal;

/// Health is sent so often.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Records read from the journal at a time.
const BATCH: usize = 64;
/// And bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Answers that wait to be sent; a station that asks for more without reading loses the rest.
const MAX_WAITING: usize = 512;

/// Answers on their way to the writing half.
#[derive(Debug)]
pub(super) struct Outbox {
    payloads: Mutex<VecDeque<Vec<u8>>>,
    signal: Arc<Signal>,
}

impl Outbox {
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        Self {
            payloads: Mutex::default(),
            signal,
        }
    }

    pub(super) fn put(&self, payload: Vec<u8>) {
        let mut payloads = self.payloads.lock().unwrap_or_else(PoisonError::into_inner);
        if payloads.len() < MAX_WAITING {
            payloads.push_back(payload);
        }
        drop(payloads);
        self.signal.notify();
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.payloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
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

/// Tells of records that will not come.
fn missing(writer: &mut impl Write, from: u64, to: u64) -> std::io::Result<()> {
    if from >= to {
        return Ok(());
    }
    send(writer, &FromCamera::Displaced { from, to }.encode())
}

/// Writes until the session is over or the link fails.
pub(super) fn deliver(delivery: &Delivery<'_>, start: u64, writer: &mut impl Write) {
    let Delivery {
        context,
        outbox,
        over,
        sent,
    } = delivery;
    let stopping = || context.stop.load(Ordering::Relaxed);
    let mut next = start;
    let mut health_at = Instant::now();
    let mut seen = 0;
    while !over.load(Ordering::Relaxed) {
        let mut written = Ok(());
        while let Some(payload) = outbox.take() {
            written = written.and_then(|()| send(writer, &payload));
        }
        if health_at.elapsed() >= HEALTH_EVERY {
            health_at = Instant::now();
            let health = context.metrics.health(context.control.mode());
            written = written.and_then(|()| send(writer, &FromCamera::Health(health).encode()));
        }
        let batch = match context.journal.read_from(next, BATCH, BATCH_BYTES) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "journal cannot be read");
                std::thread::sleep(HEALTH_EVERY);
                continue;
            }
        };
        let idle = batch.records.is_empty();
        for (sequence, payload) in &batch.records {
            // A record that cannot be read counts as missing; the next one tells.
            let record = match Record::decode(payload) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(sequence, %error, "journal record");
                    continue;
                }
            };
            written = written.and_then(|()| missing(writer, next, *sequence));
            let sequence = *sequence;
            let message = FromCamera::Record { sequence, record };
            // Before writing: an acknowledgement may be faster than this thread.
            sent.fetch_max(sequence, Ordering::Release);
            written = written.and_then(|()| send(writer, &message.encode()));
            next = sequence + 1;
        }
        written = written.and_then(|()| missing(writer, next, batch.next));
        next = batch.next.max(next);
        sent.fetch_max(next - 1, Ordering::Release);
        if written.is_err() {
            break;
        }
        if idle {
            if stopping() {
                goodbye(writer, "the camera stops");
                break;
            }
            seen = context.signal.wait(seen, Duration::from_millis(200));
        }
    }
    over.store(true, Ordering::Relaxed);
}
