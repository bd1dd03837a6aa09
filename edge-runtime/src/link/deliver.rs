//! The writing half of a session: sends answers, health reports, pictures, and every journal record
//! from a starting point on.
//!
//! It sends one message at a time and then decides again what comes next. So on a slow line nothing
//! long (a snapshot, a backlog of records) delays the rest, the end of the session, or the end of
//! the program.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::message::{FromCamera, Message};
use proto::report::{Body, Record};

use super::context::LinkContext;
use super::outbox::Outbox;
use super::resend::Resend;
use super::writing::{goodbye, send};
use crate::error_text::one_line;
use crate::journal::JournalError;

/// Interval of health reports.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Most records read from the journal at a time.
const BATCH_RECORDS: usize = 64;
/// Most bytes of records read from the journal at a time.
const BATCH_BYTES: usize = 256 << 10;
/// Pause before an unreadable record is read again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Attempts to read before an unreadable record is skipped.
const MAX_READ_ATTEMPTS: u32 = 3;

/// The session, as its writing half sees it.
pub(super) struct Session<'a> {
    pub(super) context: &'a LinkContext,
    pub(super) outbox: &'a Outbox,
    /// Set by either half to end the session.
    pub(super) over: &'a AtomicBool,
    /// The last sequence number that was sent.
    pub(super) sent: &'a AtomicU64,
    /// The last sequence number that the station has acknowledged in this session; 0 for none.
    pub(super) acknowledged: &'a AtomicU64,
    /// Bits per second of a serial line, which may lose a frame.
    pub(super) baud: Option<u32>,
    /// Whether reports carry their pictures. On a slow line every verdict behind a picture would
    /// wait for it.
    pub(super) pictures: bool,
}

/// The journal records to send, in order; missing ones are reported to the station.
struct Backlog<'a> {
    session: &'a Session<'a>,
    /// The first number that was neither sent nor reported missing.
    next: u64,
    records: VecDeque<(u64, Vec<u8>)>,
    /// The number after the last that `records` covers, missing records included.
    end: u64,
    failures: u32,
    retry_at: Option<Instant>,
    /// On a serial line, when records are sent again.
    resend: Option<Resend>,
}

impl Backlog<'_> {
    /// Sends a record or reports missing ones. Returns the number of bytes sent, or `None` if there
    /// is nothing to send now.
    fn send_one(&mut self, writer: &mut impl Write) -> io::Result<Option<usize>> {
        if self.records.is_empty() && self.end == self.next {
            self.read();
        }
        let Some((sequence, payload)) = self.records.pop_front() else {
            if self.end == self.next && self.go_back() {
                return Ok(Some(0));
            }
            return self.report_missing(writer, self.end);
        };
        // A record that cannot be decoded is reported missing together with the next one.
        let mut record = match Record::decode(&payload) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(sequence, %error, "journal record");
                return Ok(Some(0));
            }
        };
        if !self.session.pictures {
            remove_pictures(&mut record);
        }
        self.report_missing(writer, sequence)?;
        // Updated before writing, because the acknowledgement may arrive before `send` returns.
        let Session { sent, over, .. } = self.session;
        sent.fetch_max(sequence, Ordering::Release);
        let message = FromCamera::Record { sequence, record }.encode();
        send(writer, &message, over)?;
        self.next = sequence + 1;
        if let Some(resend) = &mut self.resend {
            resend.sent(message.len(), Instant::now());
        }
        Ok(Some(message.len()))
    }

    /// Goes back to the first record that the station has not acknowledged, if it should have by
    /// now. Returns whether it did.
    fn go_back(&mut self) -> bool {
        let acknowledged = self.session.acknowledged.load(Ordering::Acquire);
        let resend = self.resend.as_mut();
        let due = resend.and_then(|resend| resend.due(acknowledged, self.next, Instant::now()));
        if let Some(first) = due {
            tracing::debug!(first, "records are sent again on a serial line");
            (self.next, self.end) = (first, first);
        }
        due.is_some()
    }

    /// Reports that the unsent records before `to` will not come.
    fn report_missing(&mut self, writer: &mut impl Write, to: u64) -> io::Result<Option<usize>> {
        let from = self.next;
        if from >= to {
            return Ok(None);
        }
        let Session { sent, over, .. } = self.session;
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
        let context = self.session.context;
        match context
            .journal
            .read_from(self.next, BATCH_RECORDS, BATCH_BYTES)
        {
            Ok(batch) => {
                self.failures = 0;
                self.retry_at = None;
                let first = batch.first;
                self.records = batch.records.into();
                self.end = batch.next.max(self.next);
                self.fill_gap(first);
            }
            Err(error) => {
                self.failures += 1;
                tracing::error!(error = one_line(&error), "journal cannot be read");
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                // A bad sector stays bad: the records after it must not wait for ever.
                if let JournalError::Unreadable { resume_at, .. } = error
                    && self.failures >= MAX_READ_ATTEMPTS
                {
                    context.metrics.unreadable(self.next, resume_at);
                    self.failures = 0;
                    self.retry_at = None;
                    self.end = resume_at.max(self.next);
                    self.fill_gap(self.end);
                }
            }
        }
    }

    /// Puts the events before `first` in front, if the journal no longer has the records there.
    fn fill_gap(&mut self, first: u64) {
        if first <= self.next {
            return;
        }
        let events = &self.session.context.events;
        match events.between(self.next, first, BATCH_BYTES) {
            Ok(kept) => {
                if kept.complete_to < first {
                    self.records.clear();
                    self.end = kept.complete_to;
                }
                for event in kept.records.into_iter().rev() {
                    self.records.push_front(event);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = one_line(&error),
                    "the copies of events cannot be read"
                );
            }
        }
    }
}

/// Leaves the verdict, the score and the regions.
fn remove_pictures(record: &mut Record) {
    if let Body::Part(part) = &mut record.body {
        part.heat_map = None;
        part.thumbnail_jpeg = None;
    }
}

/// Sends until the session is over, the program stops or the link fails.
pub(super) fn deliver(session: &Session<'_>, start: u64, writer: &mut impl Write) {
    let Session { context, over, .. } = session;
    let stopping = || context.stop.load(Ordering::Relaxed);
    let mut schedule = Schedule {
        session,
        backlog: Backlog {
            session,
            next: start,
            records: VecDeque::new(),
            end: start,
            failures: 0,
            retry_at: None,
            resend: session.baud.map(Resend::new),
        },
        health_at: Instant::now(),
        owed_bytes: 0,
    };
    let mut seen = 0;
    while !over.load(Ordering::Relaxed) && !stopping() {
        match schedule.send_next(writer) {
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

/// Decides what is sent next.
struct Schedule<'a> {
    session: &'a Session<'a>,
    backlog: Backlog<'a>,
    health_at: Instant,
    /// Bytes of records to send before the next chunk, so that chunks and records alternate.
    owed_bytes: usize,
}

impl Schedule<'_> {
    /// Sends a health report if one is due, an answer if one waits, and a record or a chunk.
    /// Returns whether there was anything to send.
    fn send_next(&mut self, writer: &mut impl Write) -> io::Result<bool> {
        let Session {
            context,
            outbox,
            over,
            ..
        } = self.session;
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

#[cfg(test)]
mod tests {
    use proto::report::{GateAction, HeatMap, Outcome, PartReport, RegionReport};

    use super::*;

    /// Bytes that a line of 115,200 baud carries in a second: ten bits a byte.
    const SLOW_BYTES_PER_S: usize = 11_520;

    #[test]
    fn without_pictures_a_slow_line_keeps_up_with_verdicts() {
        let region = RegionReport {
            x_px: 1_000,
            y_px: 1_000,
            width_px: 100,
            height_px: 100,
            area_px: 5e3,
            peak: 2.0,
            mean: 1.5,
            centroid_px: [1_050.0, 1_050.0],
        };
        let mut record = Record {
            unix_ms: 1_790_000_000_000,
            boot: 70_000,
            body: Body::Part(PartReport {
                part: 1 << 30,
                frame_sequence: 1 << 30,
                model_id: [255; 8],
                outcome: Outcome::Ng,
                action: GateAction::Reject,
                score: Some(2.0),
                threshold: Some(1.0),
                latency_us: 100_000,
                regions: vec![region; 4],
                regions_found: 4,
                heat_map: Some(HeatMap {
                    full_scale: 2.0,
                    png: vec![0; 20 << 10],
                }),
                thumbnail_jpeg: Some(vec![0; 6 << 10]),
            }),
        };
        let bytes = |record: &Record| {
            let record = record.clone();
            let sequence = 1 << 30;
            FromCamera::Record { sequence, record }.encode().len()
        };
        assert!(bytes(&record) > 2 * SLOW_BYTES_PER_S, "over two seconds");
        remove_pictures(&mut record);
        let left = bytes(&record);
        assert!(
            left * 40 < SLOW_BYTES_PER_S,
            "{left} bytes: 40 NG parts a second"
        );
    }
}
