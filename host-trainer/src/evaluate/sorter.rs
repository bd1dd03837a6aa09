//! Sorting more keys than fit in memory: sorted runs are spilled to an unnamed temporary file and merged.
//!
//! Exact pixel metrics need all scores in order; a thousand 1024 × 1024 maps are a thousand million of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

/// Collects keys and gives them back in ascending order.
#[derive(Debug)]
pub(super) struct Sorter {
    buffer: Vec<u64>,
    capacity: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// Keeps at most `capacity` keys of 8 bytes in memory while collecting.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            buffer: Vec::new(),
            capacity: capacity.max(1),
            runs: Vec::new(),
        }
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: u64) -> io::Result<()> {
        if self.buffer.len() == self.capacity {
            self.spill()?;
        }
        self.buffer.push(key);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.buffer.sort_unstable();
        let mut writer = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for key in self.buffer.drain(..) {
            writer.write_all(&key.to_le_bytes())?;
        }
        self.runs
            .push(writer.into_inner().map_err(|error| error.into_error())?);
        Ok(())
    }

    /// Calls `visit` with every key in ascending order; may be called again.
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(u64)) -> io::Result<()> {
        self.buffer.sort_unstable();
        if self.runs.is_empty() {
            self.buffer.iter().for_each(|&key| visit(key));
            return Ok(());
        }
        let mut readers = Vec::new();
        for run in &mut self.runs {
            run.seek(SeekFrom::Start(0))?;
            readers.push(BufReader::with_capacity(1 << 18, run));
        }
        let memory = readers.len();
        let mut rest = self.buffer.iter().copied();
        let mut heap = BinaryHeap::new();
        for (index, reader) in readers.iter_mut().enumerate() {
            heap.extend(next_key(reader)?.map(|key| Reverse((key, index))));
        }
        heap.extend(rest.next().map(|key| Reverse((key, memory))));
        while let Some(Reverse((key, source))) = heap.pop() {
            visit(key);
            let next = match readers.get_mut(source) {
                Some(reader) => next_key(reader)?,
                None => rest.next(),
            };
            heap.extend(next.map(|key| Reverse((key, source))));
        }
        Ok(())
    }
}

fn next_key(reader: &mut impl Read) -> io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u64::from_le_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spilled_or_not_the_order_is_the_same(keys in proptest::collection::vec(any::<u64>(), 0..300), capacity in 1usize..50) {
            let mut sorter = Sorter::new(capacity);
            for &key in &keys {
                sorter.push(key).unwrap();
            }
            let mut expected = keys.clone();
            expected.sort_unstable();
            for _ in 0..2 {
                let mut found = Vec::new();
                sorter.for_each(|key| found.push(key)).unwrap();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
