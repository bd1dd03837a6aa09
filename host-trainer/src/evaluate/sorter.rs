//! Sorts more keys than fit in memory: sorted runs are spilled to an unnamed temporary file and
//! then merged.
//!
//! Exact pixel metrics need all scores in order, and a thousand maps of 1024 × 1024 have a thousand
//! million scores. One file holds all runs, so that the number of open files does not grow with the
//! data.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Size of a key in bytes.
const KEY_BYTES: usize = size_of::<u64>();
/// Keys per run that are written or read at once: enough that the merge spends little time seeking.
const BLOCK_KEYS: usize = 1 << 15;

/// Collects keys and returns them in ascending order.
#[derive(Debug)]
pub(super) struct Sorter {
    buffer: Vec<u64>,
    capacity: usize,
    /// Folder of the temporary file.
    folder: PathBuf,
    file: Option<File>,
    /// Number of keys of each run; the runs follow one another in the file.
    runs: Vec<u64>,
}

impl Sorter {
    /// A sorter that keeps at most `capacity` keys of 8 bytes in memory while it collects. The
    /// others go to a temporary file in `folder`.
    pub(super) fn new(capacity: usize, folder: &Path) -> Self {
        Self {
            buffer: Vec::new(),
            capacity: capacity.max(1),
            folder: folder.to_owned(),
            file: None,
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

    /// Sorts the keys in memory and appends them to the file as a run.
    fn spill(&mut self) -> io::Result<()> {
        self.buffer.sort_unstable();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.folder)?,
        };
        let mut bytes = Vec::with_capacity(BLOCK_KEYS * KEY_BYTES);
        for block in self.buffer.chunks(BLOCK_KEYS) {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|key| key.to_le_bytes()));
            file.write_all(&bytes)?;
        }
        self.runs.push(self.buffer.len() as u64);
        self.buffer.clear();
        self.file = Some(file);
        Ok(())
    }

    /// Calls `visit` with every key in ascending order.
    pub(super) fn for_each(mut self, mut visit: impl FnMut(u64)) -> io::Result<()> {
        if self.file.is_some() {
            // The last keys become a run too, which frees their memory for the merge.
            self.spill()?;
            self.buffer = Vec::new();
        }
        let Some(mut file) = self.file else {
            self.buffer.sort_unstable();
            self.buffer.iter().for_each(|&key| visit(key));
            return Ok(());
        };
        let mut at = 0;
        let mut runs: Vec<Run> = Vec::with_capacity(self.runs.len());
        for keys in self.runs {
            runs.push(Run::new(at, keys));
            at += keys * KEY_BYTES as u64;
        }
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (index, run) in runs.iter_mut().enumerate() {
            heap.extend(run.next(&mut file)?.map(|key| Reverse((key, index))));
        }
        while let Some(mut least) = heap.peek_mut() {
            let Reverse((key, index)) = *least;
            visit(key);
            match runs[index].next(&mut file)? {
                Some(next) => *least = Reverse((next, index)),
                None => {
                    PeekMut::pop(least);
                }
            }
        }
        Ok(())
    }
}

/// A sorted run in the file, which is read block by block.
struct Run {
    /// Position of its unread keys in the file, in bytes.
    at: u64,
    /// Number of unread keys in the file.
    unread: u64,
    /// The block that was read last.
    block: Vec<u8>,
    /// Position of the next key in the block, in bytes.
    position: usize,
}

impl Run {
    fn new(at: u64, keys: u64) -> Self {
        Self {
            at,
            unread: keys,
            block: Vec::new(),
            position: 0,
        }
    }

    fn next(&mut self, file: &mut File) -> io::Result<Option<u64>> {
        if self.position == self.block.len() {
            let keys = self.unread.min(BLOCK_KEYS as u64);
            if keys == 0 {
                return Ok(None);
            }
            self.block.resize(keys as usize * KEY_BYTES, 0);
            file.seek(SeekFrom::Start(self.at))?;
            file.read_exact(&mut self.block)?;
            self.at += self.block.len() as u64;
            self.unread -= keys;
            self.position = 0;
        }
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&self.block[self.position..self.position + KEY_BYTES]);
        self.position += KEY_BYTES;
        Ok(Some(u64::from_le_bytes(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(keys: &[u64], capacity: usize) -> Vec<u64> {
        let mut sorter = Sorter::new(capacity, &std::env::temp_dir());
        for &key in keys {
            sorter.push(key).unwrap();
        }
        let mut found = Vec::new();
        sorter.for_each(|key| found.push(key)).unwrap();
        found
    }

    proptest! {
        #[test]
        fn spilled_or_not_the_order_is_the_same(
            keys in proptest::collection::vec(any::<u64>(), 0..300),
            capacity in 1usize..50,
        ) {
            let mut expected = keys.clone();
            expected.sort_unstable();
            prop_assert_eq!(&sorted(&keys, capacity), &expected);
            prop_assert_eq!(&sorted(&keys, 1 << 20), &expected);
        }
    }

    #[test]
    fn runs_longer_than_a_block_are_returned_whole() {
        // Multiplying by an odd number permutes the integers, and leaves no order to profit from.
        let count = 5 * BLOCK_KEYS as u64 / 2 + 3;
        let keys: Vec<u64> = (0..count)
            .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            .collect();
        let mut expected = keys.clone();
        expected.sort_unstable();
        assert_eq!(sorted(&keys, BLOCK_KEYS + 1), expected);
    }
}
