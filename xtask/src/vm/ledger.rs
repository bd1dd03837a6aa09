//! What a station knows of a camera, and what must hold of it whatever happens between them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use proto::report::{Body, Event, PartReport, Record};

/// All that a station ever received, across links and restarts of the camera.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<u64, Record>,
    /// The highest number that was acknowledged, heard by the camera or not.
    pub(super) acknowledged: u64,
    /// Records that came again, as they may.
    pub(crate) repeated: usize,
}

impl Ledger {
    /// The highest number received.
    pub(crate) fn last(&self) -> u64 {
        self.records.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn records(&self) -> &BTreeMap<u64, Record> {
        &self.records
    }

    /// Parts in order.
    pub(crate) fn parts(&self) -> Vec<&PartReport> {
        self.parts_after(0)
    }

    /// Parts behind the record of this number, in order.
    pub(crate) fn parts_after(&self, sequence: u64) -> Vec<&PartReport> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Part(part) => Some(part),
                Body::Event(_) => None,
            })
            .collect()
    }

    /// Events behind the record of this number, in order.
    pub(crate) fn events_after(&self, sequence: u64) -> Vec<&Event> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Event(event) => Some(event),
                Body::Part(_) => None,
            })
            .collect()
    }

    /// Drops all records, for a run that is too long to keep them; says how many.
    pub(crate) fn forget(&mut self) -> usize {
        std::mem::take(&mut self.records).len()
    }

    /// Same number, same record, for ever.
    pub(super) fn take(&mut self, sequence: u64, record: Record) -> Result<()> {
        match self.records.get(&sequence) {
            None => {
                self.records.insert(sequence, record);
            }
            Some(before) if *before == record => self.repeated += 1,
            Some(before) => bail!("record {sequence} was {before:?} and came again as {record:?}"),
        }
        Ok(())
    }

    /// Numbers are consecutive from the first of all.
    pub(crate) fn check_complete(&self) -> Result<()> {
        match (1..).zip(self.records.keys()).find(|(n, key)| n != *key) {
            Some((missing, _)) => bail!("record {missing} never came"),
            None => Ok(()),
        }
    }
}
