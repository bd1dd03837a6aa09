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
use super::slot::Job;
use super::supervise::panic_text;
use crate::clock::{monotonic, unix_ms};
use crate::error_text::one_line;
use crate::line::parts::PartId;
use crate::metrics::Loss;

/// Pause before the source is first reopened; it doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two attempts to open the source.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Greatest distance of a driver's time stamp from the monotonic clock. A stamp farther away is on
/// another clock.
const SAME_CLOCK: Duration = Duration::from_secs(10);

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
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            since: None,
            attempts: 0,
            pause: FIRST_PAUSE,
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
        context.readiness.set_capturing(true);
        context.line.wake();
    }
}

/// The part that a frame shows: with a trigger, the one triggered before the exposure began;
/// without, a new one.
fn assign_part(context: &StageContext, times: FrameTimes) -> Option<PartId> {
    if context.line.is_triggered() {
        let exposed_from = times.exposed_from;
        let assigned = context
            .line
            .with_parts(|parts| parts.assign_frame(exposed_from));
        for part in assigned.skipped {
            context.fault(part, Fault::NoFrame, 0);
        }
        if assigned.part.is_none() {
            context.metrics.dropped(Loss::Unassigned, 1);
        }
        return assigned.part;
    }
    let moment = context.line.moment(times.stamped);
    let part = context.line.with_parts(|parts| parts.begin(moment, false));
    if part.is_none() {
        context.lose_track(1, times.stamped);
    }
    part
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
        exposed_from: stamped.saturating_sub(source.exposure_to_stamp()),
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
                context.metrics.dropped(Loss::Damaged, 1);
                let times = frame_times(context, Duration::ZERO, source, monotonic());
                if let Some(part) = assign_part(context, times) {
                    context.fault(part, Fault::DamagedFrame, 0);
                }
                continue;
            }
            Err(error) => return error,
        };
        if context.drained.load(Ordering::Relaxed) {
            return SourceError::Ended;
        }
        context.metrics.frame();
        if let Some(frames) = &context.frames {
            frames.beat(monotonic());
        }
        if !context.readiness.capturing() {
            outage.end(context);
        }
        let sequence = match &delivery {
            Delivery::Frame(captured) => captured.sequence,
            Delivery::Damaged { sequence, .. } => *sequence,
        };
        if let Some(expected) = expected
            && sequence > expected
        {
            context
                .metrics
                .dropped(Loss::Driver, u64::from(sequence - expected));
        }
        expected = sequence.checked_add(1);
        let arrived = monotonic();
        match delivery {
            Delivery::Damaged {
                sequence,
                timestamp,
            } => {
                context.metrics.dropped(Loss::Damaged, 1);
                let times = frame_times(context, timestamp, source, arrived);
                if let Some(part) = assign_part(context, times) {
                    context.fault(part, Fault::DamagedFrame, sequence);
                }
            }
            Delivery::Frame(captured) => {
                let times = frame_times(context, captured.timestamp, source, arrived);
                let Some(part) = assign_part(context, times) else {
                    continue;
                };
                let job = Job {
                    part,
                    captured,
                    arrived,
                    unix_ms: unix_ms(),
                };
                let evicted = context.slot.put(job, beat);
                if let Some(job) = evicted {
                    context.metrics.dropped(Loss::Slot, 1);
                    context.fault(job.part, Fault::Displaced, job.captured.sequence);
                }
            }
        }
    }
}
