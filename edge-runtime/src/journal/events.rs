//! A second copy of the events (changes of settings, packages and stations, outages), with room of
//! its own: the many reports of parts evict each other, and must not evict who changed what.
//!
//! The copy has the journal's numbers. A station that asks for records which the journal no longer
//! has gets the events among them from here. An event is copied after it is durable in the journal;
//! after a power cut between both it is in the journal only.

use std::path::Path;

use super::{Journal, JournalError, JournalReader, Limits};

/// Most bytes on disk: some hundred thousand events.
const MAX_BYTES: u64 = 16 << 20;

/// Most records read at a time.
const BATCH_RECORDS: usize = 256;

/// Most bytes read at a time.
const BATCH_BYTES: usize = 256 << 10;

/// Records at the end that are read for the highest number: several, because some may be damaged.
const LAST_RECORDS: u64 = 16;

/// Bytes of the journal's number before each record.
const NUMBER_BYTES: usize = 8;

/// Writes the copies of events.
pub struct EventLog(Journal);

/// Reads the copies of events from any thread.
#[derive(Debug, Clone)]
pub struct EventReader(JournalReader);

impl EventLog {
    /// Opens the log in a folder. If that fails, the second value says why, and every
    /// [`Self::keep`] tries again.
    pub fn open_or_wait(folder: &Path) -> Result<(Self, Option<JournalError>), JournalError> {
        Self::open_with(folder, Limits::new(MAX_BYTES))
    }

    fn open_with(
        folder: &Path,
        limits: Limits,
    ) -> Result<(Self, Option<JournalError>), JournalError> {
        let (journal, opened) = Journal::open_or_wait(folder, limits)?;
        Ok((Self(journal), opened.err()))
    }

    /// Makes copies of records durable, which are durable in the journal under these rising
    /// numbers.
    pub fn keep<'a>(
        &mut self,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<(), JournalError> {
        for (number, record) in records {
            self.0
                .append(&[&number.to_le_bytes()[..], record].concat())?;
        }
        self.0.sync().map(|_| ())
    }

    /// The highest number of the journal that a copy has; `None` if there is no copy, or none of
    /// the last ones can be read. A journal that was lost must not give it to another record.
    pub fn highest(&self) -> Option<u64> {
        let reader = self.0.reader();
        let first = reader.durable()?.saturating_sub(LAST_RECORDS);
        let batch = reader.read_from(first, usize::MAX, usize::MAX).ok()?;
        let numbers = batch.records.iter().filter_map(|(_, payload)| {
            let number = payload.first_chunk::<NUMBER_BYTES>()?;
            Some(u64::from_le_bytes(*number))
        });
        numbers.max()
    }

    /// A handle for reading from other threads.
    pub fn reader(&self) -> EventReader {
        EventReader(self.0.reader())
    }
}

/// Events with the journal's numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct KeptEvents {
    /// Rising numbers, and records.
    pub records: Vec<(u64, Vec<u8>)>,
    /// All events with lower numbers are in `records`, or were evicted here too.
    pub complete_to: u64,
}

impl EventReader {
    /// The events with numbers from `from` up to, but without, `to`: the first ones of at most
    /// `max_bytes`, but at least one.
    pub fn between(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<KeptEvents, JournalError> {
        let mut kept = KeptEvents {
            records: Vec::new(),
            complete_to: to,
        };
        let mut bytes = 0;
        let mut next = self.0.oldest().unwrap_or(0);
        loop {
            let batch = self.0.read_from(next, BATCH_RECORDS, BATCH_BYTES)?;
            if batch.next == next {
                return Ok(kept);
            }
            next = batch.next;
            for (_, payload) in batch.records {
                let Some((number, record)) = payload.split_first_chunk::<NUMBER_BYTES>() else {
                    continue;
                };
                let number = u64::from_le_bytes(*number);
                if number >= to {
                    return Ok(kept);
                }
                if number < from {
                    continue;
                }
                if !kept.records.is_empty() && bytes + record.len() > max_bytes {
                    kept.complete_to = number;
                    return Ok(kept);
                }
                bytes += record.len();
                kept.records.push((number, record.to_vec()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path) -> EventLog {
        EventLog::open_or_wait(folder).unwrap().0
    }

    #[test]
    fn events_are_found_by_the_numbers_of_the_journal_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = log(folder.path());
        let record = |number: u64| format!("event {number}").into_bytes();
        for number in [3, 40, 41, 1_000] {
            events.keep([(number, &record(number)[..])]).unwrap();
        }
        assert_eq!(events.highest(), Some(1_000));
        drop(events);
        assert_eq!(log(&folder.path().join("new")).highest(), None);
        assert_eq!(log(folder.path()).highest(), Some(1_000));
        let reader = log(folder.path()).reader();
        let numbers = |from, to, max_bytes| {
            let kept = reader.between(from, to, max_bytes).unwrap();
            for (number, payload) in &kept.records {
                assert_eq!(*payload, record(*number));
            }
            let numbers: Vec<u64> = kept.records.into_iter().map(|(number, _)| number).collect();
            (numbers, kept.complete_to)
        };
        assert_eq!(numbers(0, 2_000, 1_000), (vec![3, 40, 41, 1_000], 2_000));
        assert_eq!(numbers(4, 41, 1_000), (vec![40], 41));
        assert_eq!(numbers(42, 999, 1_000), (vec![], 999));
        // A limit returns the first ones and says where to go on.
        assert_eq!(numbers(0, 2_000, 1), (vec![3], 40));
        assert_eq!(numbers(40, 2_000, 16), (vec![40, 41], 1_000));
    }
}
