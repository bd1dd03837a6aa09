//! Replacing the model while the line runs: one update at a time, and the contents of the slots.
//!
//! In: requests of stations. Out: packages on disk ([`super::store`]), an active inspector
//! ([`super::active`]), events. The steps are [`super::startup`], [`super::transfer`] and
//! [`super::switch`]. `link` checks who may send which request.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use proto::message::{PackageState, SlotInfo, cut_text};
use proto::recovery::{SlotState, SlotStatus};
use scoring::inspector::Inspector;
use scoring::package::{Verified, key_id};

use super::error::UpdateError;
use super::incoming::Incoming;
use super::requirements::Requirements;
use super::slots::{Sha256, SlotId, Slots};
use super::store::Store;

/// Description of a package in a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SlotSummary {
    pub(super) sha256: Sha256,
    pub(super) model: String,
    pub(super) signer: String,
    pub(super) parity_off: Option<f32>,
    pub(super) threshold: Option<f32>,
}

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) station: String,
    pub(super) last_piece: Instant,
    pub(super) incoming: Incoming,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) summaries: Vec<SlotSummary>,
    pub(super) transfer: Option<Transfer>,
    /// A package that was offered and is in a slot already.
    pub(super) offered: Option<Sha256>,
}

/// Replaces the active model.
#[derive(Debug)]
pub struct Updater {
    state: Mutex<State>,
    /// Held while a package is tried and committed, which takes seconds.
    working: Mutex<()>,
    pub(super) requirements: Requirements,
}

impl Updater {
    pub(super) fn new(
        store: Store,
        summaries: Vec<SlotSummary>,
        mut requirements: Requirements,
    ) -> Self {
        // From now on, frames are inspected while packages are tried, which disturbs measurements.
        requirements.tuning.disturbed = true;
        Self {
            state: Mutex::new(State {
                store,
                summaries,
                transfer: None,
                offered: None,
            }),
            working: Mutex::new(()),
            requirements,
        }
    }

    /// Locks the state, for a short time.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an update; [`UpdateError::Busy`] while another one works.
    pub(super) fn work(&self) -> Result<MutexGuard<'_, ()>, UpdateError> {
        match self.working.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(guard)) => Ok(guard.into_inner()),
            Err(TryLockError::WouldBlock) => Err(UpdateError::Busy("another station".to_owned())),
        }
    }

    /// The slots with the digests of their packages, for the recovery exchange.
    pub fn slots(&self) -> [SlotStatus; 2] {
        let state = self.state();
        let slots = state.store.slots();
        SlotId::BOTH.map(|slot| SlotStatus {
            state: match slot_state(slots, slot) {
                PackageState::Empty => SlotState::Empty,
                PackageState::Ready => SlotState::Ready,
                PackageState::Active => SlotState::Active,
                PackageState::Trial => SlotState::Trial,
            },
            sha256: slots.package(slot).unwrap_or_default(),
        })
    }

    /// The slots with the names of their models, for operators.
    pub fn slot_infos(&self) -> Vec<SlotInfo> {
        let mut state = self.state();
        // The inactive slot is read on the first request, because reading it at the start would
        // delay the inspection.
        for slot in SlotId::BOTH {
            let sha256 = state.store.slots().package(slot);
            let unknown = sha256.is_some_and(|sha256| {
                state
                    .summaries
                    .iter()
                    .all(|summary| summary.sha256 != sha256)
            });
            if unknown && let Some(Ok(package)) = state.store.read(slot, &self.requirements.trust) {
                state.add_summary(SlotSummary::of(&package, None));
            }
        }
        let slots = state.store.slots();
        let info = |slot: SlotId| {
            let sha256 = slots.package(slot).unwrap_or_default();
            let summary = state
                .summaries
                .iter()
                .find(|summary| summary.sha256 == sha256);
            SlotInfo {
                state: slot_state(slots, slot),
                sha256,
                model: summary.map_or_else(String::new, |summary| cut_text(&summary.model)),
                signer: summary.map_or_else(String::new, |summary| summary.signer.clone()),
                parity_off: summary.and_then(|summary| summary.parity_off),
                threshold: summary.and_then(|summary| summary.threshold),
            }
        };
        SlotId::BOTH.map(info).into()
    }

    /// Whether a package is on trial.
    pub fn on_trial(&self) -> bool {
        self.state().store.slots().on_trial()
    }
}

impl State {
    /// Keeps a summary in place of an older one of the same package, and drops those of packages
    /// that are in no slot.
    pub(super) fn add_summary(&mut self, summary: SlotSummary) {
        self.summaries
            .retain(|other| other.sha256 != summary.sha256);
        let slots = self.store.slots();
        self.summaries
            .retain(|other| slots.slot_holding(&other.sha256).is_some());
        self.summaries.push(summary);
    }
}

impl SlotSummary {
    /// With an inspector, threshold and parity are those of the running model.
    pub(super) fn of(package: &Verified, inspector: Option<&Inspector>) -> Self {
        let manifest = package.manifest();
        Self {
            sha256: *package.sha256(),
            model: format!("{} {}", manifest.name, manifest.version),
            signer: key_id(package.signer()),
            parity_off: inspector.map(Inspector::parity_off),
            threshold: match inspector {
                Some(inspector) => inspector.threshold(),
                None => manifest.threshold.as_ref().map(|threshold| threshold.value),
            },
        }
    }
}

fn slot_state(slots: &Slots, slot: SlotId) -> PackageState {
    match slots.package(slot) {
        None => PackageState::Empty,
        Some(_) if slots.active() != Some(slot) => PackageState::Ready,
        Some(_) if slots.on_trial() => PackageState::Trial,
        Some(_) => PackageState::Active,
    }
}
