//! Answers on their way from the reading half of a session to its writing half.
//!
//! Short answers queue up. A snapshot or a file, which takes many messages, is sent in chunks, one
//! transfer at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::limits::MAX_CHUNK_BYTES;
use proto::message::{Answer, FromCamera, Message, SnapshotKind, cut_text};

use super::files::OutgoingFile;
use crate::report::durable::DurableSignal;

/// Most bytes of answers that wait to be sent. A station that keeps asking without reading loses
/// further answers.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Size of a piece of a picture: small enough that health reports and records behind it are not
/// late on a serial line.
const CHUNK_BYTES: usize = 16 << 10;
/// Size of a piece of a file. It is larger because files are fetched over fast links.
const FILE_CHUNK_BYTES: usize = 32 << 10;
const _: () = assert!(CHUNK_BYTES <= MAX_CHUNK_BYTES && FILE_CHUNK_BYTES <= MAX_CHUNK_BYTES);

/// The pictures of a snapshot, as chunks.
#[derive(Debug)]
pub(super) struct SnapshotChunks {
    id: u32,
    left: VecDeque<(SnapshotKind, Vec<u8>)>,
    offset: usize,
}

impl SnapshotChunks {
    /// Answers the command with this number.
    pub(super) fn new(id: u32, pictures: Vec<(SnapshotKind, Vec<u8>)>) -> Self {
        Self {
            id,
            left: pictures
                .into_iter()
                .filter(|(_, picture)| !picture.is_empty())
                .collect(),
            offset: 0,
        }
    }

    /// The next chunk, encoded, and whether more follow.
    fn chunk(&mut self) -> Option<(Vec<u8>, bool)> {
        let (kind, picture) = self.left.front()?;
        let end = picture.len().min(self.offset + CHUNK_BYTES);
        let chunk = FromCamera::Chunk {
            id: self.id,
            kind: *kind,
            total_bytes: picture.len() as u32,
            offset_bytes: self.offset as u32,
            bytes: picture[self.offset..end].to_vec(),
        };
        let encoded = chunk.encode();
        if end == picture.len() {
            self.left.pop_front();
            self.offset = 0;
        } else {
            self.offset = end;
        }
        Some((encoded, !self.left.is_empty()))
    }
}

/// An answer that takes many messages.
#[derive(Debug)]
pub(super) enum ChunkedAnswer {
    /// The pictures of a snapshot.
    Snapshot(SnapshotChunks),
    /// A file, for the command with this number.
    File(u32, OutgoingFile),
}

impl ChunkedAnswer {
    /// The next chunk, encoded, and whether more may follow.
    fn chunk(&mut self) -> Option<(Vec<u8>, bool)> {
        match self {
            Self::Snapshot(chunks) => chunks.chunk(),
            Self::File(id, file) => match file.next(FILE_CHUNK_BYTES) {
                Ok((_, bytes)) if bytes.is_empty() => None,
                Ok((offset_bytes, bytes)) => {
                    let id = *id;
                    let chunk = FromCamera::FileChunk {
                        id,
                        offset_bytes,
                        bytes,
                    };
                    Some((chunk.encode(), !file.is_at_end()))
                }
                // The file was evicted or cannot be read: the station must not wait for the rest.
                Err(error) => {
                    let reason = cut_text(&error.to_string());
                    let answer = Answer::Refused { reason };
                    Some((FromCamera::Reply { id: *id, answer }.encode(), false))
                }
            },
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    payloads: VecDeque<Vec<u8>>,
    bytes: usize,
    chunked: Option<ChunkedAnswer>,
}

/// The queue of answers between the two halves of a session.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    signal: Arc<DurableSignal>,
}

impl Outbox {
    pub(super) fn new(signal: Arc<DurableSignal>) -> Self {
        Self {
            waiting: Mutex::default(),
            signal,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an answer.
    pub(super) fn put(&self, payload: Vec<u8>) {
        self.put_with(payload, None);
    }

    /// Queues an answer that the chunks follow.
    pub(super) fn put_chunked(&self, answer: Vec<u8>, chunked: ChunkedAnswer) {
        self.put_with(answer, Some(chunked));
    }

    fn put_with(&self, payload: Vec<u8>, chunked: Option<ChunkedAnswer>) {
        let mut waiting = self.lock();
        if waiting.bytes + payload.len() <= MAX_WAITING_BYTES {
            waiting.bytes += payload.len();
            waiting.payloads.push_back(payload);
            waiting.chunked = chunked.or(waiting.chunked.take());
        } else {
            tracing::warn!("a station asks without reading; an answer is dropped");
        }
        drop(waiting);
        self.signal.notify();
    }

    /// Whether a snapshot or a file is being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.lock().chunked.is_some()
    }

    /// The next answer, encoded.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        let payload = waiting.payloads.pop_front()?;
        waiting.bytes -= payload.len();
        Some(payload)
    }

    /// The next chunk, encoded, unless an answer waits: a chunk must not overtake its own answer.
    pub(super) fn take_chunk(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        if !waiting.payloads.is_empty() {
            return None;
        }
        let chunk = waiting.chunked.as_mut()?.chunk();
        if chunk.as_ref().is_none_or(|(_, more)| !more) {
            waiting.chunked = None;
        }
        chunk.map(|(payload, _)| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_that_has_the_last_piece_may_ask_for_the_next_snapshot() {
        let outbox = Outbox::new(Arc::default());
        let pictures = vec![
            (SnapshotKind::FramePng, vec![1; CHUNK_BYTES + 1]),
            (SnapshotKind::MapTiff, Vec::new()),
            (SnapshotKind::MapTiff, vec![2; CHUNK_BYTES]),
        ];
        let chunks = ChunkedAnswer::Snapshot(SnapshotChunks::new(7, pictures));
        outbox.put_chunked(vec![0], chunks);
        assert!(outbox.take_chunk().is_none(), "the answer comes first");
        assert_eq!(outbox.take(), Some(vec![0]));
        let mut sizes = Vec::new();
        while outbox.is_sending() {
            let chunk = outbox.take_chunk().unwrap();
            match FromCamera::decode(&chunk) {
                Ok(FromCamera::Chunk { kind, bytes, .. }) => sizes.push((kind, bytes.len())),
                other => panic!("{other:?}"),
            }
        }
        let expected = [
            (SnapshotKind::FramePng, CHUNK_BYTES),
            (SnapshotKind::FramePng, 1),
            (SnapshotKind::MapTiff, CHUNK_BYTES),
        ];
        assert_eq!(sizes, expected);
        assert!(outbox.take_chunk().is_none());
    }
}
