//! The capture thread: opens the source, reads frames, assigns each to its part and puts it into
//! the slot.
//!
//! In: a source. Out: jobs for scoring; faults of parts whose frame is damaged or lost. Reopens the
//! source when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::report::{Event, Fault};
use scoring::source::{Delivery, Source, SourceError};

use super::context::StageContext;
use super::early::Arrival;
use super::supervise::panic_text;
use crate::clock::monotonic;
use crate::error_text::one_line;
use crate::metrics::Loss;

/// Pause before the source is first reopened; it doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two attempts to open the source.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Greatest distance of a driver's time stamp from the monotonic clock. A stamp farther away is on
/// another clock.
const SAME_CLOCK: Duration = Duration::from_secs(10);

/// Frames dropped by the driver in a row that are settled as parts of their own. With more, the
/// gate is held until all of them are past it.
const MAX_DROPPED_PARTS: u32 = 64;

/// Times of a frame, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct FrameTimes {
    stamped: Duration,
    exposed_from: Duration,
}

/// Ends capturing however the thread ends, also in a panic.
struct NotCapturing<'a>(&'a StageContext);

impl Drop for NotCapturing<'_> {
    fn drop(&mut self) {
        self.0.readiness.set_capturing(false);
        self.0.line.wake();
    }
}

/// Runs code of a driver. A panic in it is a failure of the device, which is opened again.
fn contain<T>(work: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(SourceError::Device {
            device: "the camera's driver".to_owned(),
            source: std::io::Error::other(format!("it panicked: {}", panic_text(&*panic))),
        })
    })
}

/// Opens the source and reads it until it ends or the stages stop. Reopens it with growing pauses
/// when it fails. Returns an error if the first attempt finds a source that cannot be used at all.
pub fn capture(
    context: &StageContext,
    open: &mut dyn FnMut() -> Result<Box<dyn Source>, SourceError>,
    beat: &dyn Fn(),
) -> Result<(), SourceError> {
    let _not_capturing = NotCapturing(context);
    let mut outage = Outage::default();
    let mut first = true;
    while !context.stopping() {
        beat();
        context.liveness.set_opening(true);
        let opened = contain(&mut *open);
        context.liveness.set_opening(false);
        beat();
        let error = match opened {
            Ok(mut source) => {
                // Otherwise the first frame tells whether its part can be found.
                if source.exposure_to_stamp().is_some() {
                    outage.end_without_frame(context);
                }
                let error = read(context, &mut *source, &mut outage, beat);
                // A panic in a driver's clean-up must not end the program.
                if catch_unwind(AssertUnwindSafe(|| drop(source))).is_err() {
                    tracing::warn!("the camera's driver failed while closing");
                }
                error
            }
            Err(error) => error,
        };
        match error {
            SourceError::Ended => break,
            // Only at first: later the device may not be ready yet, or another one is plugged in,
            // and that can change.
            SourceError::Unsupported { .. } if first => return Err(error),
            error => outage.record_failure(context, &error),
        }
        first = false;
        context.sleep(outage.pause, beat);
    }
    Ok(())
}

/// The time without frames since the source failed.
#[derive(Debug)]
struct Outage {
    since: Option<Instant>,
    attempts: u32,
    pause: Duration,
    /// It was ended without a frame, and none has come since.
    ended_without_frame: bool,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            since: None,
            attempts: 0,
            pause: FIRST_PAUSE,
            ended_without_frame: false,
        }
    }
}

impl Outage {
    fn record_failure(&mut self, context: &StageContext, error: &SourceError) {
        context.readiness.set_capturing(false);
        context.line.wake();
        let reason = one_line(error);
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::error!(reason, "capture lost");
            context.reporter.event(Event::CaptureLost { reason });
        } else {
            tracing::debug!(reason, "capture still lost");
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.attempts += 1;
        context.metrics.reopened();
    }

    /// Ends the outage of a camera that takes a frame only when a trigger comes: a PLC that waits
    /// for *ready* would wait for ever for a part to cause the first frame. A camera that opens and
    /// then fails again must deliver a frame first. A part whose frame does not come is a fault.
    fn end_without_frame(&mut self, context: &StageContext) {
        let waits = context.live && context.line.drives_camera() && !context.readiness.capturing();
        if waits && !self.ended_without_frame {
            self.end(context);
            self.ended_without_frame = true;
        }
    }

    fn end(&mut self, context: &StageContext) {
        if let Some(since) = self.since.take() {
            let after_ms = since.elapsed().as_millis() as u64;
            tracing::info!(after_ms, attempts = self.attempts, "capture resumed");
            context.reporter.event(Event::CaptureResumed {
                after_ms,
                attempts: self.attempts,
            });
        }
        *self = Self::default();
        if context.live {
            // Whatever passed the camera before this frame is on its way to the gate unseen. With a
            // trigger such parts are known, and each is a fault of its own.
            if !context.line.is_triggered() {
                let now = context.line.now();
                context.line.with_parts(|parts| parts.hold_unseen(now));
            }
            let now = context.line.now();
            context.line.with_parts(|parts| {
                // Parts in flight were judged by a neighbour's frame.
                if parts.is_shifted() {
                    parts.hold_unseen(now);
                }
                parts.reset_pairing();
            });
        }
        context.readiness.set_capturing(true);
        context.line.wake();
    }
}

/// Gives a frame to its part: with a trigger, the one triggered before the exposure began; without,
/// a new one. With a trigger, a frame without a part waits for a trigger that is reported later.
fn assign(context: &StageContext, times: FrameTimes, arrival: Arrival, beat: &dyn Fn()) {
    if !context.line.is_triggered() {
        let moment = context.line.moment(times.stamped);
        match context.line.with_parts(|parts| parts.begin(moment, false)) {
            Some(part) => context.deliver(part, arrival, beat),
            None => context.lose_track(1, times.stamped),
        }
        return;
    }
    let mut early = context.early.lock();
    let assigned = context
        .line
        .with_parts(|parts| parts.assign_frame(times.exposed_from, arrival.arrived));
    let part = match (assigned.part, assigned.waits_as) {
        (Some(part), _) => Some((part, arrival)),
        (None, Some(id)) => {
            if early.keep(id, arrival) {
                context.metrics.dropped(Loss::Unassigned, 1);
            }
            None
        }
        (None, None) => None,
    };
    drop(early);
    for part in assigned.skipped {
        context.fault(part, Fault::NoFrame, 0);
    }
    if let Some((part, arrival)) = part {
        context.deliver(part, arrival, beat);
    }
}

/// Without a trigger every frame is a part, so frames that the driver dropped were parts too: each
/// begins where it should have been seen, and is a fault.
fn settle_dropped(context: &StageContext, count: u32, last: Duration, next: Duration) {
    if !context.live {
        return;
    }
    if context.line.is_triggered() {
        context.line.with_parts(|parts| parts.frames_dropped(count));
        return;
    }
    if count > MAX_DROPPED_PARTS {
        context.lose_track(u64::from(count), next);
        return;
    }
    let step = next.saturating_sub(last) / (count + 1);
    for index in 1..=count {
        let stamped = last + step * index;
        let moment = context.line.moment(stamped);
        match context.line.with_parts(|parts| parts.begin(moment, false)) {
            Some(part) => context.fault(part, Fault::NoFrame, 0),
            None => context.lose_track(1, stamped),
        }
    }
}

/// Times of a frame, from the driver's time stamp where that is on the monotonic clock, otherwise
/// from its arrival.
fn frame_times(
    context: &StageContext,
    stamp: Duration,
    source: &dyn Source,
    arrived: Duration,
) -> FrameTimes {
    let usable = context.live && stamp.abs_diff(arrived) < SAME_CLOCK;
    let stamped = if usable { stamp } else { arrived };
    FrameTimes {
        stamped,
        exposed_from: stamped.saturating_sub(source.exposure_to_stamp().unwrap_or_default()),
    }
}

/// Reads frames until the source fails or the stages stop.
fn read(
    context: &StageContext,
    source: &mut dyn Source,
    outage: &mut Outage,
    beat: &dyn Fn(),
) -> SourceError {
    let mut expected = None;
    loop {
        if context.stopping() {
            return SourceError::Ended;
        }
        beat();
        let delivery = match contain(|| source.next()) {
            Ok(delivery) => delivery,
            Err(error @ SourceError::Unreadable { .. }) => {
                tracing::warn!(%error, "frame skipped");
                let arrived = monotonic();
                let times = frame_times(context, Duration::ZERO, source, arrived);
                let delivery = Delivery::Damaged {
                    sequence: 0,
                    timestamp: Duration::ZERO,
                };
                context.metrics.dropped(Loss::Damaged, 1);
                assign(context, times, Arrival::now(delivery, arrived), beat);
                continue;
            }
            Err(error) => return error,
        };
        if context.drained.load(Ordering::Relaxed) {
            return SourceError::Ended;
        }
        if context.live && context.line.is_triggered() && source.exposure_to_stamp().is_none() {
            return SourceError::Unsupported {
                device: "capture.exposure_to_stamp_us".to_owned(),
                reason: "expected the time from the start of the exposure to the frame's time \
                         stamp, because a trigger's part is found by it; found neither this key \
                         nor a driver that stamps the start of the exposure"
                    .to_owned(),
            };
        }
        context.metrics.frame();
        if let Some(frames) = &context.frames {
            frames.beat(monotonic());
        }
        if !context.readiness.capturing() {
            outage.end(context);
        }
        outage.ended_without_frame = false;
        let (sequence, stamp) = match &delivery {
            Delivery::Frame(captured) => (captured.sequence, captured.timestamp),
            Delivery::Damaged {
                sequence,
                timestamp,
            } => (*sequence, *timestamp),
        };
        let arrived = monotonic();
        let times = frame_times(context, stamp, source, arrived);
        if let Some((expected, last)) = expected
            && sequence > expected
        {
            let dropped = sequence - expected;
            context.metrics.dropped(Loss::Driver, u64::from(dropped));
            settle_dropped(context, dropped, last, times.stamped);
        }
        expected = sequence.checked_add(1).map(|next| (next, times.stamped));
        if matches!(delivery, Delivery::Damaged { .. }) {
            context.metrics.dropped(Loss::Damaged, 1);
        }
        assign(context, times, Arrival::now(delivery, arrived), beat);
    }
}
