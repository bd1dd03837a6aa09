//! Reads messages from a station. In: bytes. Out: messages.

use std::io::{self, Read};

use proto::accumulator::{Accumulator, Fed};
use proto::frame::MAX_STUFFED_BYTES;
use proto::message::{Message, ToCamera};
use proto::recovery::{self, MARK};

use super::context::LinkContext;
use crate::metrics::Loss;

/// Splits a byte stream into messages.
pub(super) struct MessageReader<'a, R> {
    reader: R,
    accumulator: Accumulator<Vec<u8>>,
    bytes: Vec<u8>,
    pub(super) context: &'a LinkContext,
}

/// The outcome of one read.
pub(super) enum Received {
    Message(ToCamera),
    Recovery(recovery::Request),
    /// No complete message arrived before the reader's time-out.
    Nothing,
    Closed,
}

impl<'a, R: Read> MessageReader<'a, R> {
    pub(super) fn new(reader: R, context: &'a LinkContext) -> Self {
        Self {
            reader,
            accumulator: Accumulator::new(vec![0; MAX_STUFFED_BYTES]),
            bytes: Vec::new(),
            context,
        }
    }

    /// The next message, after at most one read: the caller must be able to check between two reads
    /// whether the session is over, whatever a peer (or noise on an open serial line) keeps
    /// sending. Bytes that are not a message are counted and ignored.
    pub(super) fn next(&mut self) -> Received {
        if let Some(received) = self.message() {
            return received;
        }
        let mut piece = [0; 4_096];
        match self.reader.read(&mut piece) {
            Ok(0) => Received::Closed,
            Ok(count) => {
                self.bytes.extend_from_slice(&piece[..count]);
                self.message().unwrap_or(Received::Nothing)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Received::Nothing,
                _ => Received::Closed,
            },
        }
    }

    /// The first complete message in the bytes read so far.
    fn message(&mut self) -> Option<Received> {
        while !self.bytes.is_empty() {
            let all = std::mem::take(&mut self.bytes);
            let (payload, rest) = match self.accumulator.feed(&all) {
                Fed::NeedMore => break,
                Fed::Frame { payload, rest } => (Some(payload.to_vec()), rest.to_vec()),
                Fed::Discarded { reason, rest } => {
                    tracing::debug!(?reason, "bytes from a station discarded");
                    self.context.metrics.dropped(Loss::Link, 1);
                    (None, rest.to_vec())
                }
            };
            self.bytes = rest;
            let Some(payload) = payload else { continue };
            if payload.first() == Some(&MARK) {
                match recovery::Request::decode(&payload) {
                    Ok(request) => return Some(Received::Recovery(request)),
                    Err(_) => self.context.metrics.dropped(Loss::Link, 1),
                }
                continue;
            }
            match ToCamera::decode(&payload) {
                Ok(message) => return Some(Received::Message(message)),
                Err(error) => {
                    tracing::debug!(%error, "message from a station ignored");
                    self.context.metrics.dropped(Loss::Link, 1);
                }
            }
        }
        None
    }
}
