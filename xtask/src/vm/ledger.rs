//! All records that a station has received from a camera, and what must hold for them whatever
//! happens to links, program and power.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use proto::report::{Body, Event, PartReport, Record};

/// Every record that a station has received, across links and restarts of the camera.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<u64, Record>,
    /// The highest sequence number that was acknowledged, whether the camera received that or not.
    pub(super) acknowledged: u64,
    /// Records that were delivered again, which is allowed.
    pub(crate) repeated: usize,
}

impl Ledger {
    /// The highest sequence number received.
    pub(crate) fn last(&self) -> u64 {
        self.records.keys().next_back().copied().unwrap_or(0)
    }

    /// The highest sequence number that was acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn records(&self) -> &BTreeMap<u64, Record> {
        &self.records
    }

    /// All parts in order.
    pub(crate) fn parts(&self) -> Vec<&PartReport> {
        self.parts_after(0)
    }

    /// Parts after the record of this number, in order.
    pub(crate) fn parts_after(&self, sequence: u64) -> Vec<&PartReport> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Part(part) => Some(part),
                Body::Event(_) => None,
            })
            .collect()
    }

    /// Events after the record of this number, in order.
    pub(crate) fn events_after(&self, sequence: u64) -> Vec<&Event> {
        let records = self.records.range(sequence + 1..);
        records
            .filter_map(|(_, record)| match &record.body {
                Body::Event(event) => Some(event),
                Body::Part(_) => None,
            })
            .collect()
    }

    /// Drops all records, as a run that is too long to keep them must, and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.records).len()
    }

    /// Adds a record. One that is delivered again must be the same.
    pub(super) fn insert(&mut self, sequence: u64, record: Record) -> Result<()> {
        match self.records.get(&sequence) {
            None => {
                self.records.insert(sequence, record);
            }
            Some(before) if *before == record => self.repeated += 1,
            Some(before) => {
                bail!("record {sequence} was {before:?} and was delivered again as {record:?}")
            }
        }
        Ok(())
    }

    /// Fails unless the sequence numbers are consecutive from 1.
    pub(crate) fn check_complete(&self) -> Result<()> {
        match (1..).zip(self.records.keys()).find(|(n, key)| n != *key) {
            Some((missing, _)) => bail!("record {missing} is missing"),
            None => Ok(()),
        }
    }
}
