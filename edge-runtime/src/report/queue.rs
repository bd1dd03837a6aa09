//! The queue from the stages to the report thread: settled parts and events, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use proto::message::cut_text;
use proto::report::{Event, GateAction, Outcome};
use scoring::inspect::frame::{Frame, Pixels};
use scoring::inspect::region::Region;
use scoring::inspector::Inspection;

use super::room::{MAX_WAITING_BYTES, PictureRoom, Room};
use crate::metrics::{Loss, Metrics};

/// Length of the queue. Without pictures, a settled part takes some hundred bytes and its regions.
const QUEUE_ITEMS: usize = 4_096;

/// Most entries that parts may fill. The rest is left to events: many parts do not keep the record
/// of a change from being written.
const PART_ITEMS: usize = 3_072;

/// A settled part.
#[derive(Debug)]
pub struct PartResult {
    /// Number of the part.
    pub part: u64,
    /// Wall-clock time at which its frame came, or at which it was settled without a score.
    pub unix_ms: u64,
    /// The driver's frame counter.
    pub frame_sequence: u32,
    /// Model that was active.
    pub model_id: [u8; 8],
    /// Threshold that was active.
    pub threshold: Option<f32>,
    /// Verdict or fault.
    pub outcome: Outcome,
    /// Action of the gate.
    pub action: GateAction,
    /// Time from capture to verdict.
    pub latency: Duration,
    /// The frame and its inspection, if it was scored.
    pub scored: Option<(Frame, Inspection)>,
}

/// A settled part in the queue.
#[derive(Debug)]
pub(super) struct QueuedPart {
    /// The part; what scoring found is in the next field.
    pub(super) result: PartResult,
    pub(super) found: Option<Found>,
}

/// What scoring found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) score: f32,
    pub(super) regions: Vec<Region>,
    /// `None` if there was no room for them.
    pub(super) pictures: Option<FoundPictures>,
}

/// The pictures of a part, and the room that they take.
#[derive(Debug)]
pub(super) struct FoundPictures {
    pub(super) frame: Frame,
    pub(super) inspection: Inspection,
    pub(super) room: Room,
}

pub(super) enum QueueItem {
    Part(Box<QueuedPart>),
    Event(Box<Event>),
    /// Answered once everything sent before is durable.
    Flush(Sender<()>),
    End,
}

/// Sends parts and events to the report thread.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: Sender<QueueItem>,
    lossless: bool,
    room: PictureRoom,
    lost_records: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for QueueItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueItem")
    }
}

/// Receiving end of the queue.
#[derive(Debug)]
pub struct Inbox {
    pub(super) receiver: Receiver<QueueItem>,
    pub(super) lost_records: Arc<AtomicU64>,
}

#[cfg(test)]
impl Inbox {
    /// The events that wait.
    pub(crate) fn events(&self) -> Vec<Event> {
        let items = self.receiver.try_iter();
        items
            .filter_map(|item| match item {
                QueueItem::Event(event) => Some(*event),
                _ => None,
            })
            .collect()
    }
}

/// Makes the queue. With `lossless`, for replays, a full queue blocks the sender; otherwise the
/// report is lost and counted. Where there is no room for pictures, the report goes without them.
pub fn channel(lossless: bool, metrics: Arc<Metrics>) -> (Reporter, Inbox) {
    channel_with_room(lossless, MAX_WAITING_BYTES, metrics)
}

fn channel_with_room(lossless: bool, max_bytes: usize, metrics: Arc<Metrics>) -> (Reporter, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE_ITEMS);
    let lost_records = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        sender,
        lossless,
        room: PictureRoom::new(max_bytes),
        lost_records: Arc::clone(&lost_records),
        metrics,
    };
    let inbox = Inbox {
        receiver,
        lost_records,
    };
    (reporter, inbox)
}

impl Reporter {
    /// Reports a settled part.
    pub fn part(&self, mut result: PartResult) {
        self.metrics.part(result.outcome);
        let found = result.scored.take().map(|scored| self.found(scored));
        let full = !self.lossless && self.sender.len() >= PART_ITEMS;
        if full {
            self.count_lost();
            return;
        }
        self.send(QueueItem::Part(Box::new(QueuedPart { result, found })));
    }

    fn found(&self, (frame, inspection): (Frame, Inspection)) -> Found {
        let bytes =
            frame_bytes(&frame) + frame_bytes(&inspection.prepared) + 4 * inspection.map.data.len();
        let room = self.room.take(bytes, self.lossless);
        if room.is_none() {
            self.metrics.dropped(Loss::Pictures, 1);
        }
        Found {
            score: inspection.score,
            regions: inspection.regions.clone(),
            pictures: room.map(|room| FoundPictures {
                frame,
                inspection,
                room,
            }),
        }
    }

    /// Waits until every event that was reported before is on the disk. Returns false if the disk
    /// refuses writes, or if it takes longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, wait) = crossbeam_channel::bounded(1);
        self.sender
            .send_timeout(QueueItem::Flush(done), patience)
            .is_ok()
            && wait.recv_timeout(patience).is_ok()
    }

    /// Reports an event.
    pub fn event(&self, mut event: Event) {
        // No station can read a record with a text that is too long.
        if let Event::CaptureLost { reason }
        | Event::RecordsLost { reason, .. }
        | Event::StageRestarted { reason, .. }
        | Event::GateFault { reason }
        | Event::LinkRefused { reason, .. }
        | Event::PackageRefused { reason, .. } = &mut event
        {
            *reason = cut_text(reason);
        }
        self.send(QueueItem::Event(Box::new(event)));
    }

    /// Ends the report thread once it has written everything sent before.
    pub fn close(&self) {
        // Blocks until there is room. An error means that the thread has ended already.
        self.sender.send(QueueItem::End).ok();
    }

    fn send(&self, item: QueueItem) {
        let lost = if self.lossless {
            self.sender.send(item).is_err()
        } else {
            matches!(
                self.sender.try_send(item),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            )
        };
        if lost {
            self.count_lost();
        }
    }

    fn count_lost(&self) {
        self.lost_records.fetch_add(1, Ordering::Relaxed);
        self.metrics.dropped(Loss::Journal, 1);
    }
}

fn frame_bytes(frame: &Frame) -> usize {
    match frame.pixels() {
        Pixels::U8(values) => values.len(),
        Pixels::U16(values) => 2 * values.len(),
    }
}

#[cfg(test)]
mod tests {
    use scoring::inspect::frame::Channels;
    use scoring::inspect::map::ScoreMap;

    use super::*;

    const SIDE_PX: u32 = 100;

    fn part(number: u64) -> PartResult {
        let pixels = Pixels::U8(vec![0; (SIDE_PX * SIDE_PX) as usize]);
        let frame = Frame::new(SIDE_PX, SIDE_PX, Channels::Grey, pixels).unwrap();
        let inspection = Inspection {
            prepared: frame.clone(),
            map: ScoreMap::zeros(SIDE_PX as usize, SIDE_PX as usize),
            inside: None,
            score: 2.0,
            regions: Vec::new(),
            verdict: None,
            elapsed: Duration::ZERO,
        };
        PartResult {
            part: number,
            unix_ms: 0,
            frame_sequence: 0,
            model_id: [0; 8],
            threshold: Some(1.0),
            outcome: Outcome::Ng,
            action: GateAction::Reject,
            latency: Duration::ZERO,
            scored: Some((frame, inspection)),
        }
    }

    #[test]
    fn while_the_disk_stalls_pictures_are_given_up_and_no_report_is() {
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        // Frame, prepared frame and map of a part take six bytes a pixel: room for two.
        let bytes = 2 * 6 * (SIDE_PX * SIDE_PX) as usize;
        let (reporter, inbox) = channel_with_room(false, bytes, Arc::clone(&metrics));
        for number in 1..=500 {
            reporter.part(part(number));
        }
        assert_eq!(metrics.drops(Loss::Journal), 0);
        assert_eq!(metrics.drops(Loss::Pictures), 498);
        let queued: Vec<_> = inbox.receiver.try_iter().collect();
        let scores = queued.iter().filter_map(|item| match item {
            QueueItem::Part(part) => part.found.as_ref(),
            _ => None,
        });
        assert_eq!(
            scores.clone().filter(|found| found.score == 2.0).count(),
            500
        );
        assert_eq!(scores.filter(|found| found.pictures.is_some()).count(), 2);
        drop(queued);
        reporter.part(part(501));
        assert_eq!(metrics.drops(Loss::Pictures), 498, "there is room again");
    }

    #[test]
    fn events_have_room_when_parts_fill_the_queue() {
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, inbox) = channel(false, Arc::clone(&metrics));
        for number in 0..2 * QUEUE_ITEMS as u64 {
            let scored = None;
            reporter.part(PartResult {
                scored,
                ..part(number)
            });
        }
        assert!(metrics.drops(Loss::Journal) > 0);
        reporter.event(Event::Stopping);
        assert_eq!(inbox.events(), [Event::Stopping]);
    }
}
