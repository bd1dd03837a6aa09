//! Edges of an input line: the kernel notes when each came and counts them.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use gpiocdev::line::{Bias, EdgeDetection, EventClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{GpioError, Pin, request};

/// Edges that the kernel keeps for us; beyond it drops the oldest.
const KERNEL_BUFFER_EDGES: u32 = 256;

/// Which edges of the logical level count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Inactive → active.
    Rising,
    /// Active → inactive.
    Falling,
    /// Both.
    Both,
}

/// An edge, as the kernel saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeEvent {
    /// CLOCK_MONOTONIC at the interrupt (after debouncing, if any).
    pub timestamp: Duration,
    /// The kernel's count of edges on this line since it was opened; the first is 1.
    pub line_seqno: u32,
    /// Edges between the previous event and this one that the kernel dropped because they were not fetched in time.
    pub lost: u32,
}

/// The edges of an input line, one after the other.
#[derive(Debug)]
pub struct Edges {
    pin: Pin,
    /// Room for one event in the kernel's layout. gpiocdev's own `read_edge_event` reads several and returns the first.
    buffer: Vec<u64>,
    last_seqno: u32,
}

impl Edges {
    /// Takes a line as input with edge detection. The kernel ignores changes shorter than `debounce`; zero lets all
    /// pass. `bias` is the pull resistor, `None` leaves it as it is.
    pub fn open(
        chip: &Path,
        line: u32,
        edge: Edge,
        debounce: Duration,
        active_low: bool,
        bias: Option<Bias>,
    ) -> Result<Self, GpioError> {
        let detection = match edge {
            Edge::Rising => EdgeDetection::RisingEdge,
            Edge::Falling => EdgeDetection::FallingEdge,
            Edge::Both => EdgeDetection::BothEdges,
        };
        let pin = request(chip, line, active_low, |builder| {
            builder
                .as_input()
                .with_bias(bias)
                .with_edge_detection(detection)
                .with_event_clock(EventClock::Monotonic)
                .with_kernel_event_buffer_size(KERNEL_BUFFER_EDGES);
            if !debounce.is_zero() {
                builder.with_debounce_period(debounce);
            }
        })?;
        Ok(Self {
            buffer: vec![0; pin.request.edge_event_u64_size()],
            pin,
            last_seqno: 0,
        })
    }

    /// The next edge, or `None` if there is none within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<EdgeEvent>, GpioError> {
        let failed = self.pin.failed("wait for an edge");
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // Beyond what the clock can express is for ever.
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut line = [PollFd::from_borrowed_fd(
                self.pin.request.as_fd(),
                PollFlags::IN,
            )];
            match poll(&mut line, left.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(std::io::Error::from(error).into())),
            }
        }
        let request = &self.pin.request;
        let event = request
            .read_edge_events_into_slice(&mut self.buffer)
            .and_then(|words| request.edge_event_from_slice(&self.buffer[..words]))
            .map_err(failed)?;
        let lost = lost_between(self.last_seqno, event.line_seqno);
        self.last_seqno = event.line_seqno;
        Ok(Some(EdgeEvent {
            timestamp: Duration::from_nanos(event.timestamp_ns),
            line_seqno: event.line_seqno,
            lost,
        }))
    }
}

/// Edges between two that the kernel counted, where 0 stands for none before; the count wraps.
fn lost_between(last_seqno: u32, seqno: u32) -> u32 {
    seqno.wrapping_sub(last_seqno).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_count_is_what_was_lost() {
        assert_eq!(lost_between(0, 1), 0, "the first edge");
        assert_eq!(lost_between(0, 4), 3);
        assert_eq!(lost_between(7, 8), 0);
        assert_eq!(lost_between(7, 300), 292);
        assert_eq!(lost_between(u32::MAX, 0), 0, "the count wraps");
    }
}
