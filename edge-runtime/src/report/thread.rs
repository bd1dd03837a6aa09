//! The report thread: from verdicts to the journal. It is a thread of its own so that a slow disk
//! never holds up scoring.
//!
//! In: the report queue. Out: journal records, pictures for the image store, and a
//! [`DurableSignal`] when records are durable. Stations are served by `link`.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use proto::limits::MAX_REGIONS;
use proto::message::Message;
use proto::report::{Body, Event, Fault, Outcome, PartReport, Record};
use scoring::inspect::drift::Appearance;
use scoring::inspect::verdict::Verdict;

use super::drift::{DRIFT_KINDS, DriftMonitor};
use super::durable::DurableSignal;
use super::order::ReorderBuffer;
use super::pictures::{ImageSink, Picture, heat_map, model_text, thumbnail, wire_region};
use super::queue::{FoundPictures, Inbox, QueueItem, QueuedPart};
use crate::clock::unix_ms;
use crate::config::{Pictures, Report};
use crate::disk_space::DiskSpace;
use crate::error_text::one_line;
use crate::image_store::item_id;
use crate::journal::boot_counter::BootCounter;
use crate::journal::events::EventLog;
use crate::journal::positions::{self, Positions};
use crate::journal::{Journal, JournalReader};
use crate::line::readiness::{Condition, Readiness};
use crate::metrics::{Loss, Metrics, Queue, Stage};
use crate::model::active::{Control, LastPart};

/// Longest interval between two polls of the queue.
const REPORT_ROUND: Duration = Duration::from_millis(100);

/// Records at the journal's end that are read for the boot counter: several, because some may be
/// damaged.
const BOOT_RECORDS: u64 = 16;

/// The highest boot counter in the journal's newest records; 0 if there is none, or none can be
/// read.
pub fn last_boot(journal: &JournalReader) -> u32 {
    let newest = journal.durable().and_then(|last| {
        let first = last.saturating_sub(BOOT_RECORDS);
        journal.read_from(first, usize::MAX, usize::MAX).ok()
    });
    let records = newest.into_iter().flat_map(|batch| batch.records);
    let boots = records.filter_map(|(_, payload)| Some(Record::decode(&payload).ok()?.boot));
    boots.max().unwrap_or(0)
}

/// What was appended to the journal since everything in it was last durable.
#[derive(Debug, Default)]
struct Unkept {
    /// Number of records.
    appended: u64,
    /// The events among them, each with its index from 0.
    events: Vec<(u64, Vec<u8>)>,
}

impl Unkept {
    fn add(&mut self, payload: Vec<u8>, is_event: bool) {
        if is_event {
            self.events.push((self.appended, payload));
        }
        self.appended += 1;
    }
}

/// Everything that the report thread works with.
pub struct ReportThread {
    /// Source of parts and events.
    pub inbox: Inbox,
    /// Destination of records.
    pub journal: Journal,
    /// Second copies of the events.
    pub events: EventLog,
    /// Positions that stations acknowledged; this thread writes them to disk.
    pub positions: Arc<Mutex<Positions>>,
    /// Notified when records are durable.
    pub signal: Arc<DurableSignal>,
    /// Longest time that a record waits to be synced to disk.
    pub sync_every: Duration,
    /// The queue to the image store, if images are stored.
    pub images: Option<ImageSink>,
    /// Told whether the disk has room for reports, so that pictures make room.
    pub disk: Arc<DiskSpace>,
    /// Drift detection.
    pub drift: DriftMonitor,
    /// What reports carry.
    pub report: Report,
    /// Number of starts of the program, part of every record.
    pub boot_counter: BootCounter,
    /// Keeps the last part, for snapshots.
    pub control: Arc<Control>,
    /// Where it is recorded whether the journal can be written.
    pub readiness: Arc<Readiness>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl ReportThread {
    /// Runs until [`Reporter::close`](super::queue::Reporter::close), and journals everything that
    /// was sent before. Calls `beat` in every round.
    pub fn run(mut self, beat: &dyn Fn()) {
        let mut order = ReorderBuffer::new();
        // Since when a record waits to be synced.
        let mut unsynced: Option<Instant> = None;
        let mut events = VecDeque::new();
        // Those who wait until everything so far is durable.
        let mut flushes: Vec<Sender<()>> = Vec::new();
        let mut unkept = Unkept::default();
        let mut lost_reported = 0;
        let mut positions_failing = false;
        loop {
            beat();
            let patience = unsynced.map_or(REPORT_ROUND, |since| {
                self.sync_every
                    .saturating_sub(since.elapsed())
                    .min(REPORT_ROUND)
            });
            let closed = match self.inbox.receiver.recv_timeout(patience) {
                Ok(QueueItem::Part(part)) => {
                    order.push(part);
                    false
                }
                Ok(QueueItem::Event(event)) => {
                    events.push_back(Body::Event(*event));
                    false
                }
                Ok(QueueItem::Flush(done)) => {
                    flushes.push(done);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Ok(QueueItem::End) | Err(RecvTimeoutError::Disconnected) => true,
            };
            while let Some(part) = order.pop(closed) {
                let started = Instant::now();
                let unix_ms = part.result.unix_ms;
                let (report, drift_events) = self.report_of(*part);
                self.append(unix_ms, Body::Part(report), &mut unkept);
                events.extend(drift_events.into_iter().map(Body::Event));
                self.metrics.took(Stage::Report, started.elapsed());
                unsynced.get_or_insert_with(Instant::now);
            }
            for event in events.drain(..) {
                self.append(unix_ms(), event, &mut unkept);
                unsynced.get_or_insert_with(Instant::now);
            }
            let hurry = closed || !flushes.is_empty();
            let due = unsynced.is_some_and(|since| hurry || since.elapsed() >= self.sync_every);
            let lost = self.inbox.lost_records.load(Ordering::Relaxed);
            let mut is_durable = unsynced.is_none();
            if due || (unsynced.is_none() && lost > lost_reported) {
                let durable = self.sync(&mut unkept);
                is_durable = durable;
                // After the sync: while unsynced records fill the memory, there is no room for this
                // event either.
                let reported = durable
                    && lost > lost_reported
                    && self.report_lost(lost - lost_reported, &mut unkept);
                if reported {
                    lost_reported = lost;
                }
                if reported && closed {
                    self.sync(&mut unkept);
                }
                unsynced = (reported || !durable).then(Instant::now);
            }
            if due && !is_durable {
                // The disk refuses writes: whoever waits learns it now.
                flushes.clear();
            }
            if is_durable {
                for done in flushes.drain(..) {
                    // Whoever waited may have given up.
                    done.send(()).ok();
                }
            }
            self.metrics
                .waiting(Queue::Reports, self.inbox.receiver.len());
            self.metrics.waiting(Queue::Journal, self.journal.pending());
            let written = positions::flush(&self.positions, Instant::now(), closed);
            match written {
                Ok(wrote) => positions_failing &= !wrote,
                Err(error) => {
                    if !std::mem::replace(&mut positions_failing, true) {
                        tracing::warn!(
                            error = one_line(&error),
                            "cannot write the positions of stations"
                        );
                    }
                }
            }
            if closed {
                return;
            }
        }
    }

    fn report_lost(&mut self, count: u64, unkept: &mut Unkept) -> bool {
        let reason = "disk or processor too slow, or disk full".to_owned();
        let event = Event::RecordsLost { count, reason };
        self.append(unix_ms(), Body::Event(event), unkept)
    }

    fn append(&mut self, unix_ms: u64, body: Body, unkept: &mut Unkept) -> bool {
        let record = Record {
            unix_ms,
            boot: self.boot_counter.number(),
            body,
        };
        let is_event = matches!(record.body, Body::Event(_));
        let payload = record.encode();
        let appended = if !is_event && self.journal.is_nearly_full() {
            Err("the disk refuses writes, and the memory is kept for events".to_owned())
        } else {
            let appended = self.journal.append(&payload);
            appended.map_err(|error| error.to_string())
        };
        match appended {
            Ok(_) => {
                unkept.add(payload, is_event);
                true
            }
            Err(error) => {
                if self.readiness.journal_ok() {
                    tracing::error!(error, "cannot append to the journal");
                }
                self.readiness.set_journal_ok(false);
                if !matches!(record.body, Body::Event(Event::RecordsLost { .. })) {
                    self.inbox.lost_records.fetch_add(1, Ordering::Relaxed);
                    self.metrics.dropped(Loss::Journal, 1);
                }
                false
            }
        }
    }

    /// Makes all records durable. Returns whether they are.
    fn sync(&mut self, unkept: &mut Unkept) -> bool {
        let synced = match self.boot_counter.keep() {
            Ok(()) => {
                let synced = self.journal.sync();
                self.disk.report_written(&synced);
                synced.map_err(|error| one_line(&error))
            }
            kept @ Err(_) => {
                self.disk.report_written(&kept);
                kept.map(|()| None).map_err(|error| one_line(&error))
            }
        };
        let was_ok = self.readiness.journal_ok();
        self.readiness.set_journal_ok(synced.is_ok());
        match &synced {
            Ok(_) => {
                if !was_ok {
                    tracing::info!("the journal is written again");
                }
                self.keep_events(unkept);
                self.count_evicted();
                self.signal.notify();
            }
            Err(error) if was_ok => {
                tracing::error!(error, "journal cannot be written; inspection goes on");
            }
            Err(_) => {}
        }
        synced.is_ok()
    }

    /// Copies events that are durable now.
    fn keep_events(&mut self, unkept: &mut Unkept) {
        let Unkept { appended, events } = std::mem::take(unkept);
        let Some(last) = self.journal.durable().filter(|_| !events.is_empty()) else {
            return;
        };
        let first = (last + 1).saturating_sub(appended);
        let numbered = events
            .iter()
            .map(|(index, payload)| (first + index, &payload[..]));
        if let Err(error) = self.events.keep(numbered) {
            tracing::warn!(error = one_line(&error), "cannot keep a copy of an event");
        }
    }

    /// Counts records that the journal's size limit evicted before any station acknowledged them.
    fn count_evicted(&mut self) {
        let evicted = self.journal.take_evicted();
        if evicted.is_empty() {
            return;
        }
        let positions = self.positions.lock();
        let positions = positions.unwrap_or_else(PoisonError::into_inner);
        let first = positions.highest().map_or(0, |last| last + 1);
        let lost = evicted.end.saturating_sub(evicted.start.max(first));
        self.metrics.dropped(Loss::Evicted, lost);
    }

    /// The report of a part, and drift events that it raises. Sends the part to the image store and
    /// keeps it for snapshots.
    fn report_of(&mut self, part: QueuedPart) -> (PartReport, Vec<Event>) {
        let QueuedPart { result, found } = part;
        let mut report = PartReport {
            part: result.part,
            frame_sequence: result.frame_sequence,
            model_id: result.model_id,
            outcome: result.outcome,
            action: result.action,
            score: None,
            threshold: result.threshold,
            latency_us: u32::try_from(result.latency.as_micros()).unwrap_or(u32::MAX),
            regions: Vec::new(),
            regions_found: 0,
            heat_map: None,
            thumbnail_jpeg: None,
        };
        let mut events = Vec::new();
        let Some(found) = found else {
            return (report, events);
        };
        report.score = Some(found.score);
        report.regions_found = found.regions.len() as u32;
        let regions = found.regions.iter().take(MAX_REGIONS);
        report.regions = regions.map(wire_region).collect();
        let Some(pictures) = found.pictures else {
            return (report, events);
        };
        let FoundPictures {
            frame,
            inspection,
            room,
        } = pictures;
        let wanted = |pictures: Pictures| match pictures {
            Pictures::None => false,
            Pictures::Ng => inspection.verdict == Some(Verdict::Ng),
            Pictures::All => true,
        };
        if wanted(self.report.heat_map) {
            report.heat_map = heat_map(&inspection.map, result.threshold);
        }
        if wanted(self.report.thumbnail) {
            report.thumbnail_jpeg = thumbnail(&frame, self.report.thumbnail_px);
        }
        let drift = match result.outcome {
            Outcome::Ok => self.drift.watch_of(result.model_id, &self.control),
            _ => None,
        };
        if let Some(drift) = drift {
            let changes = drift.add(Appearance::of(&inspection.prepared), inspection.score);
            for (kind, name) in DRIFT_KINDS {
                self.metrics.drift(name, drift.is_out(kind));
            }
            let is_out = DRIFT_KINDS.iter().any(|&(kind, _)| drift.is_out(kind));
            self.readiness.set_failing(Condition::Drift, is_out);
            for change in changes {
                let (found, expected) = (change.found, change.expected);
                tracing::warn!(kind = ?change.kind, found, expected, "drift");
                events.push(Event::Drift {
                    kind: change.kind,
                    found,
                    expected,
                });
            }
        }
        let verdict = inspection.verdict;
        let scored = Arc::new(LastPart {
            part: result.part,
            frame,
            inspection,
        });
        if let (Some(images), Some(verdict), Some(threshold)) =
            (&mut self.images, verdict, result.threshold)
            // Nobody learns from a frame that shows no part.
            && result.outcome != Outcome::Fault(Fault::Implausible)
            && images.sampler.wants(verdict)
        {
            let sent = images.sender.try_send(Picture {
                id: item_id(self.boot_counter.number(), result.part),
                unix_ms: result.unix_ms,
                verdict,
                threshold,
                model: model_text(&self.control, result.model_id),
                scored: Arc::clone(&scored),
                _room: room,
            });
            self.metrics.waiting(Queue::Pictures, images.sender.len());
            if sent.is_err() {
                self.metrics.dropped(Loss::Images, 1);
            }
        }
        self.control.set_last_part(scored);
        (report, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Limits;

    #[test]
    fn the_boot_counter_is_found_in_the_newest_records() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), Limits::new(1 << 20)).unwrap();
        assert_eq!(last_boot(&journal.reader()), 0);
        for boot in [7, 8, 9] {
            let record = Record {
                unix_ms: 0,
                boot,
                body: Body::Event(Event::Stopping),
            };
            journal.append(&record.encode()).unwrap();
        }
        journal.append(b"damaged").unwrap();
        journal.sync().unwrap();
        assert_eq!(last_boot(&journal.reader()), 9);
    }
}
