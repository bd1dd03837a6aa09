//! The queue from the stages to the report thread: settled parts and events, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use proto::message::cut_text;
use proto::report::{Event, GateAction, Outcome};
use scoring::inspect::frame::Frame;
use scoring::inspector::Inspection;

use crate::metrics::{Loss, Metrics};

/// Length of the queue.
const QUEUE_ITEMS: usize = 64;

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

pub(super) enum QueueItem {
    Part(Box<PartResult>),
    Event(Box<Event>),
    End,
}

/// Sends parts and events to the report thread.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: Sender<QueueItem>,
    lossless: bool,
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
/// report is lost and counted.
pub fn channel(lossless: bool, metrics: Arc<Metrics>) -> (Reporter, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE_ITEMS);
    let lost_records = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        sender,
        lossless,
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
    pub fn part(&self, result: PartResult) {
        self.metrics.part(result.outcome);
        self.send(QueueItem::Part(Box::new(result)));
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
            self.lost_records.fetch_add(1, Ordering::Relaxed);
            self.metrics.dropped(Loss::Journal, 1);
        }
    }
}
