//! State that the stages share, and what any of them may do with it: settle a part that cannot be
//! scored, and record which devices fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::message::cut_text;
use proto::report::{Event, Fault, GateAction, Outcome};
use scoring::source::Delivery;

use super::early::{Arrival, EarlyFrames};
use super::plausibility::Plausibility;
use super::slot::{FrameSlot, Job, WhenFull};
use crate::clock::unix_ms;
use crate::line::liveness::{Heartbeat, Liveness};
use crate::line::parts::{PartId, Parts};
use crate::line::readiness::{Condition, Readiness};
use crate::line::shared::LineShared;
use crate::metrics::{Loss, Metrics};
use crate::model::active::Control;
use crate::report::queue::{PartResult, Reporter};

/// State shared by the threads of all stages.
#[derive(Debug)]
pub struct StageContext {
    /// Parts in flight.
    pub line: Arc<LineShared>,
    /// Frames that wait for their trigger to be reported.
    pub early: EarlyFrames,
    /// Frames for scoring.
    pub slot: FrameSlot<Job>,
    /// The active model and its settings.
    pub control: Arc<Control>,
    /// Reports and events.
    pub reporter: Reporter,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Set to stop all stages.
    pub stop: AtomicBool,
    /// Set when no part begins any more: the gate thread may end once the line is empty.
    pub drained: AtomicBool,
    /// Set when a thread hangs: the gate thread ends at once and leaves the gate safe.
    pub abandon: AtomicBool,
    /// Whether the gate may follow the parts.
    pub readiness: Arc<Readiness>,
    /// Signs of life of all threads.
    pub liveness: Arc<Liveness>,
    /// Beats with every frame of a live camera.
    pub frames: Option<Heartbeat>,
    /// Action for a part without a verdict.
    pub safe_action: GateAction,
    /// The source is a camera, so its time stamps may be on the monotonic clock.
    pub live: bool,
    /// Finds frames that cannot show a part.
    pub plausibility: Plausibility,
}

impl StageContext {
    /// The stages of a live camera, with nothing under way.
    pub fn new(
        line: Arc<LineShared>,
        control: Arc<Control>,
        reporter: Reporter,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        plausibility: Plausibility,
    ) -> Self {
        Self {
            line,
            early: EarlyFrames::default(),
            slot: FrameSlot::new(WhenFull::Evict),
            control,
            reporter,
            metrics,
            stop: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            readiness,
            liveness: Arc::default(),
            frames: None,
            safe_action: GateAction::Reject,
            live: true,
            plausibility,
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Settles a part that could not be scored.
    pub(super) fn fault(&self, part: PartId, fault: Fault, sequence: u32) {
        let now = self.line.now();
        let settled = self
            .line
            .with_parts(|parts| parts.decide(part, self.safe_action, now));
        let Some(settled) = settled else { return };
        // Without a model nothing can be scored, and readiness says so already.
        if fault != Fault::NoModel {
            self.record_part(false);
        }
        let inspector = self.control.inspector();
        self.reporter.part(PartResult {
            part,
            unix_ms: unix_ms(),
            frame_sequence: sequence,
            model_id: inspector
                .as_ref()
                .map_or([0; 8], |inspector| inspector.model_id()),
            threshold: inspector.and_then(|inspector| inspector.threshold()),
            outcome: Outcome::Fault(fault),
            action: settled.action,
            latency: Duration::ZERO,
            scored: None,
        });
    }

    /// Hands the frame of a part to scoring, or settles the part if the frame was damaged.
    pub(super) fn deliver(&self, part: PartId, arrival: Arrival, beat: &dyn Fn()) {
        let captured = match arrival.delivery {
            Delivery::Frame(captured) => captured,
            Delivery::Damaged { sequence, .. } => {
                self.fault(part, Fault::DamagedFrame, sequence);
                return;
            }
        };
        let job = Job {
            part,
            captured,
            arrived: arrival.arrived,
            unix_ms: arrival.unix_ms,
        };
        let evicted = self.slot.put(job, beat);
        if let Some(job) = evicted {
            self.metrics.dropped(Loss::Slot, 1);
            self.fault(job.part, Fault::Displaced, job.captured.sequence);
        }
    }

    /// Begins a part at an edge of the trigger at `time` of the monotonic clock, and gives it the
    /// frame that came before the edge was reported, if there is one.
    pub fn trigger(&self, time: Duration) {
        let mut early = self.early.lock();
        if !self.line.trigger(time) {
            self.lose_track(1, time);
        }
        let matched = self.line.with_parts(Parts::take_matched);
        let arrivals = matched
            .into_iter()
            .map(|(id, part)| (part, early.take(id)))
            .collect();
        drop(early);
        self.deliver_early(arrivals);
    }

    /// Assigns frames that had to wait for reports of the trigger, and gives up those whose trigger
    /// has not been reported in time.
    pub fn settle_early_frames(&self, now: Duration) {
        let mut early = self.early.lock();
        let mut arrivals = Vec::new();
        let mut skipped = Vec::new();
        for (id, assigned) in self.line.assign_early_frames(now) {
            skipped.extend(assigned.skipped);
            if let Some(part) = assigned.part {
                arrivals.push((part, early.take(id)));
            }
        }
        for id in self.line.expire_early_frames(now) {
            if early.take(id).is_some() {
                self.metrics.dropped(Loss::Unassigned, 1);
            }
        }
        drop(early);
        for part in skipped {
            self.fault(part, Fault::NoFrame, 0);
        }
        self.deliver_early(arrivals);
    }

    fn deliver_early(&self, arrivals: Vec<(PartId, Option<Arrival>)>) {
        for (part, arrival) in arrivals {
            match arrival {
                Some(arrival) => self.deliver(part, arrival, &|| ()),
                // Too many frames waited.
                None => self.fault(part, Fault::NoFrame, 0),
            }
        }
    }

    /// Records whether a part got a verdict in time. Several in a row without one are a fault, also
    /// where the gate lets such parts pass.
    pub(super) fn record_part(&self, has_verdict: bool) {
        // At a stop, parts whose frame no longer comes are no sign of a fault.
        if !has_verdict && self.stopping() {
            return;
        }
        let failed = self.readiness.is_failing(Condition::Verdicts);
        if let Some(count) = self.readiness.record_part(has_verdict) {
            let reason = format!("{count} parts in a row got no verdict: parts are not inspected");
            tracing::error!(reason, "gate fault");
            self.reporter.event(Event::GateFault { reason });
            self.line.wake();
        } else if failed && has_verdict {
            tracing::info!("parts get verdicts again");
            self.line.wake();
        }
    }

    /// Counts parts that passed the trigger at about `time` and cannot be tracked. The gate is held
    /// until they are past it.
    pub fn lose_track(&self, count: u64, time: Duration) {
        self.metrics.dropped(Loss::Parts, count);
        let moment = self.line.moment(time);
        self.line.with_parts(|parts| {
            parts.lose_track(moment);
            parts.reset_pairing();
        });
    }

    /// Records that a device fails. Reports the first failure of an outage.
    pub fn mark_failing(&self, need: Condition, reason: &str) {
        if self.readiness.set_failing(need, true) {
            let reason = cut_text(reason);
            tracing::error!(condition = need.name(), reason, "gate fault");
            self.reporter.event(Event::GateFault { reason });
            self.line.wake();
        }
    }

    /// Records that a device works.
    pub fn mark_working(&self, need: Condition) {
        if !self.readiness.is_failing(need) {
            return;
        }
        tracing::info!(condition = need.name(), "works again");
        if need.loses_parts() {
            // Parts between trigger and gate came unseen, or are not where the count says.
            let now = self.line.now();
            self.line.with_parts(|parts| {
                parts.lose_track(now);
                // Frames of parts that nobody saw belong to nobody.
                parts.reset_pairing();
            });
        }
        self.readiness.set_failing(need, false);
        self.line.wake();
    }

    /// Sleeps for `time`, or until `stop` is set, calling `beat` at intervals.
    pub(super) fn sleep(&self, time: Duration, beat: &dyn Fn()) {
        let end = Instant::now() + time;
        while !self.stopping() && Instant::now() < end {
            beat();
            std::thread::sleep(time.min(Duration::from_millis(20)));
        }
    }
}
