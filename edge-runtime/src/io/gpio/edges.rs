//! Edges of an input line. The kernel stamps each with its time and counts them.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use gpiocdev::line::{Bias, EdgeDetection, EventClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::GpioError;
use super::pin::{Pin, request};

/// Edges that the kernel buffers; when the buffer is full, it drops the oldest.
const KERNEL_BUFFER_EDGES: u32 = 256;

/// Which edges of the logical level are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// From inactive to active.
    Rising,
    /// From active to inactive.
    Falling,
    /// Both.
    Both,
}

/// An edge, as the kernel recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeEvent {
    /// Time of the interrupt (after debouncing, if any) on CLOCK_MONOTONIC.
    pub timestamp: Duration,
    /// The kernel's count of edges since the line was requested; the first is 1.
    pub line_seqno: u32,
    /// Edges between the previous event and this one that were lost because they were not read in
    /// time.
    pub lost: u32,
}

/// Reads the edges of an input line one by one.
#[derive(Debug)]
pub struct Edges {
    pin: Pin,
    /// Buffer for exactly one event in the kernel's layout, because gpiocdev's `read_edge_event`
    /// reads several and returns only the first.
    buffer: Vec<u64>,
    last_seqno: u32,
}

impl Edges {
    /// Requests a line as an input with edge detection. The kernel ignores changes shorter than
    /// `debounce`; zero reports all. `bias` sets the pull resistor; `None` leaves it unchanged.
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

    /// Waits for the next edge; returns `None` if there is none within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<EdgeEvent>, GpioError> {
        let failed = self.pin.failed("wait for an edge");
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // A time-out beyond the range of the clock waits for ever.
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

/// Number of edges between two counts of the kernel; 0 stands for no edge yet. The count wraps.
fn lost_between(last_seqno: u32, seqno: u32) -> u32 {
    seqno.wrapping_sub(last_seqno).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_count_is_the_number_of_lost_edges() {
        assert_eq!(lost_between(0, 1), 0, "the first edge");
        assert_eq!(lost_between(0, 4), 3);
        assert_eq!(lost_between(7, 8), 0);
        assert_eq!(lost_between(7, 300), 292);
        assert_eq!(lost_between(u32::MAX, 0), 0, "the count wraps");
    }
}
