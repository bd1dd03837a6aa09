//! Stopping in order, so that no report is lost and the gate is safe whatever goes wrong.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow};
use proto::report::Event;

use super::running::Camera;
use super::threads::{ends_within, join, join_within};
use super::watchdog::HANGS_AFTER;

/// Longest wait at a stop for a source that delivers no frame.
const CAPTURE_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait at a stop for the gate thread: a little longer than it waits for the last parts.
const GATE_ENDS_WITHIN: Duration = Duration::from_secs(12);

/// Longest wait for the links: a station that is stuck is given up after 10 s.
const LINKS_END_WITHIN: Duration = Duration::from_secs(20);

/// Longest wait for the gate thread to make the gate safe when the camera is abandoned.
const ABANDONED_WITHIN: Duration = Duration::from_secs(1);

impl Camera {
    /// Waits until every captured frame is scored.
    fn finish_scoring(&mut self) -> Result<()> {
        let captured = match self.capture.take() {
            Some(capture) if ends_within(&capture, CAPTURE_ENDS_WITHIN) => {
                join("capture", capture).and_then(|captured| Ok(captured?))
            }
            // The capture thread still waits for a frame. It ends with the program and begins no
            // further part.
            Some(_) | None => Ok(()),
        };
        self.context.slot.close();
        let mut ended = captured;
        for thread in self.scoring.drain(..) {
            ended = ended.and(join_within("score", thread, HANGS_AFTER));
        }
        ended
    }

    /// Stops capture, scoring, gate, links and journal, in this order, so that no report is lost.
    /// A thread that hangs or has failed does not keep the later steps from being taken; the first
    /// error is returned. Whatever goes wrong, dropping the camera makes the gate safe.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.context.stop.store(true, Ordering::Relaxed);
        let mut ended = self.finish_scoring();
        if let Some(trigger) = self.trigger.take() {
            ended = ended.and(join_within("trigger", trigger, HANGS_AFTER));
        }
        self.context.drained.store(true, Ordering::Relaxed);
        self.context.line.wake();
        if let Some(gate) = self
            .gate
            .take_if(|gate| ends_within(gate, GATE_ENDS_WITHIN))
        {
            ended = ended.and(join("gate", gate));
        } else if self.gate.is_some() {
            ended = ended.and(Err(anyhow!("the gate thread hangs")));
        }
        self.context.reporter.event(Event::Stopping);
        self.link_stop.store(true, Ordering::Relaxed);
        for thread in self.links.drain(..) {
            ended = ended.and(join_within("link", thread, LINKS_END_WITHIN));
        }
        self.context.reporter.close();
        if let Some(report) = self.report.take() {
            ended = ended.and(join("report", report));
        }
        if let Some(images) = self.images.take() {
            ended = ended.and(join("images", images));
        }
        ended
    }
}

/// Makes the gate safe however a camera ends, also after an error or a panic, without waiting for
/// threads that may hang. After [`Camera::stop`] there is nothing left to do. The journal is
/// consistent at every moment.
impl Drop for Camera {
    fn drop(&mut self) {
        self.context.stop.store(true, Ordering::Relaxed);
        self.context.abandon.store(true, Ordering::Relaxed);
        self.link_stop.store(true, Ordering::Relaxed);
        self.context.slot.close();
        self.context.line.wake();
        if let Some(gate) = &self.gate
            && !ends_within(gate, ABANDONED_WITHIN)
        {
            tracing::error!("the gate thread hangs: the gate may not be safe");
        }
    }
}
