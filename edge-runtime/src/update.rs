//! Putting another model to work while the line runs: receive, verify, try, commit, swap; confirm or roll back.
//!
//! In: what stations ask for. Out: packages on disk ([`crate::package::store`]), an inspector in force
//! ([`crate::control`]), events. The new model is loaded and warmed on the caller's thread, beside the one that inspects;
//! the swap itself is between two frames. Does not know who may ask: that is `link`.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use proto::limits::MAX_CHUNK_BYTES;
use proto::manifest::{Input, InputSize, Roi};
use proto::message::{PackageState, SlotInfo, cut_text};
use proto::recovery::{Slot, SlotState};
use proto::report::Event;

use crate::control::Control;
use crate::infer::Tuning;
use crate::inspector::Inspector;
use crate::package::incoming::{Incoming, IncomingError};
use crate::package::slots::{Sha256, SlotId, Slots, SlotsError};
use crate::package::store::Store;
use crate::package::{Loaded, Trust, Verified, key_id};
use crate::reporting::{Reporter, one_line};

/// A transfer that brings nothing for so long may be displaced by another station's.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// A package on trial under which so many frames in a row cannot be scored is rolled back.
const FAILURES_OF_TRIAL: u32 = 5;

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Somebody else is at it.
    #[error("{0:?} is updating this camera")]
    Busy(String),
    /// Pieces without a beginning.
    #[error("no transfer has begun")]
    NotBegun,
    /// The transfer.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// A compressed piece.
    #[error("expected a piece of {expected} bytes, compressed; found damage")]
    Deflate {
        /// Announced length.
        expected: usize,
    },
    /// The package cannot be used here.
    #[error("{0}")]
    Refused(String),
    /// The slots do not allow it.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The disk.
    #[error("{0}")]
    Disk(String),
}

/// What the configuration demands of packages.
#[derive(Debug, Clone)]
pub struct Demands {
    /// Whose signatures are accepted.
    pub trust: Trust,
    /// Inspect this part of the frame, whatever the package says.
    pub roi: Option<Roi>,
    /// Decide by this instead of the configured package's threshold; another package's scores have another scale.
    pub threshold: Option<f32>,
    /// Whether a package may want frames of another size or colour than the one before.
    pub any_input: bool,
    /// How to run its network.
    pub tuning: Tuning,
}

impl Demands {
    /// Loads a package and lets it through the parity gate.
    pub fn inspector(
        &self,
        package: &Verified,
        is_configured: bool,
    ) -> Result<Inspector, UpdateError> {
        let refused = |reason: String| UpdateError::Refused(reason);
        let mut inspector =
            Inspector::tuned(package, &self.tuning).map_err(|error| refused(one_line(&error)))?;
        if let Some(threshold) = self.threshold.filter(|_| is_configured) {
            inspector = inspector.with_threshold(threshold);
        }
        if let Some(roi) = &self.roi {
            inspector = inspector.with_roi(roi.clone());
        }
        if inspector.threshold().is_none() {
            return Err(refused(
                "the package has no threshold, so there would be no verdicts: calibrate it"
                    .to_owned(),
            ));
        }
        Ok(inspector)
    }
}

/// What is known of a package in a slot beside its hash.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    sha256: Sha256,
    model: String,
    signer: String,
    parity_off: Option<f32>,
    threshold: Option<f32>,
}

#[derive(Debug)]
struct Transfer {
    station: String,
    heard: Instant,
    incoming: Incoming,
}

#[derive(Debug)]
struct State {
    store: Store,
    facts: Vec<Facts>,
    transfer: Option<Transfer>,
    /// A package that was offered and is in a slot already.
    offered: Option<Sha256>,
}

/// The way to another model.
#[derive(Debug)]
pub struct Updater {
    state: Mutex<State>,
    /// Held while a package is tried and committed, which takes seconds.
    working: Mutex<()>,
    demands: Demands,
}

/// The model to begin with, and how it came about.
#[derive(Debug)]
pub struct Begun {
    /// The updater.
    pub updater: Updater,
    /// What inspects; `None`: no model yet, the gate stays safe.
    pub inspector: Option<Inspector>,
    /// What happened on the way.
    pub events: Vec<Event>,
}

impl Updater {
    /// Finds the model to begin with: the active one of the slots, or `configured` (which displaces it when it is not the
    /// one that was configured before). A package on trial is given up; an unusable one makes way for the other.
    pub fn begin(
        mut store: Store,
        demands: Demands,
        configured: Option<&Verified>,
    ) -> Result<Begun, UpdateError> {
        let mut events = Vec::new();
        let mut facts = Vec::new();
        let mut slots = store.slots().clone().restarted();
        let gave_up = slots != *store.slots();
        if let Some(package) = configured
            && slots.configured() != Some(*package.sha256())
        {
            let inspector = demands.inspector(package, true)?;
            let sha256 = *package.sha256();
            let slot = slots.holding(&sha256).unwrap_or(slots.free());
            slots = slots.configured_as(slot, sha256);
            facts.push(Facts::of(package, Some(&inspector)));
            let put = store
                .put(&sha256, package.bytes())
                .and_then(|()| store.commit(slots.clone()));
            if let Err(error) = put {
                tracing::error!(
                    error = one_line(&error),
                    "the configured package cannot be kept in a slot; it inspects all the same"
                );
                store.pretend(slots);
            }
            let updater = Self::new(store, facts, demands);
            return Ok(Begun {
                updater,
                inspector: Some(inspector),
                events,
            });
        }
        let mut found = None;
        while let Some(slot) = slots.active() {
            store.pretend(slots.clone());
            let tried = match store.read(slot, &demands.trust) {
                Some(Ok(package)) => {
                    let is_configured = slots.configured() == Some(*package.sha256());
                    let tried = demands.inspector(&package, is_configured);
                    tried
                        .map(|inspector| (package, inspector))
                        .map_err(|error| one_line(&error))
                }
                Some(Err(error)) => Err(one_line(&error)),
                None => Err("the slot is empty".to_owned()),
            };
            match tried {
                Ok((package, inspector)) => {
                    facts.push(Facts::of(&package, Some(&inspector)));
                    found = Some(inspector);
                    break;
                }
                Err(reason) => {
                    tracing::error!(reason, slot = slot.name(), "package cannot be used");
                    events.push(Event::PackageRefused {
                        reason: cut_text(&reason),
                        station: String::new(),
                    });
                    slots = slots.lost(slot);
                }
            }
        }
        // The configured package is better than none: its slot may be what was damaged.
        if found.is_none()
            && let Some(package) = configured
        {
            let inspector = demands.inspector(package, true)?;
            facts.push(Facts::of(package, Some(&inspector)));
            slots = slots.clone().configured_as(slots.free(), *package.sha256());
            if let Err(error) = store.put(package.sha256(), package.bytes()) {
                tracing::error!(error = one_line(&error), "slot");
            }
            found = Some(inspector);
        }
        if let Err(error) = store.commit(slots.clone()) {
            tracing::error!(error = one_line(&error), "slots cannot be written");
            store.pretend(slots.clone());
        }
        if let (true, Some(inspector)) = (gave_up, &found) {
            events.push(Event::RolledBack {
                model_id: inspector.model_id(),
                model: model_name(inspector),
                reason: "the package on trial was not confirmed before the program ended"
                    .to_owned(),
                station: String::new(),
            });
        }
        Ok(Begun {
            updater: Self::new(store, facts, demands),
            inspector: found,
            events,
        })
    }

    fn new(store: Store, facts: Vec<Facts>, mut demands: Demands) -> Self {
        // From here on packages are tried while frames are inspected.
        demands.tuning.disturbed = true;
        Self {
            state: Mutex::new(State {
                store,
                facts,
                transfer: None,
                offered: None,
            }),
            working: Mutex::new(()),
            demands,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> Result<MutexGuard<'_, ()>, UpdateError> {
        match self.working.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(guard)) => Ok(guard.into_inner()),
            Err(TryLockError::WouldBlock) => Err(UpdateError::Busy("another station".to_owned())),
        }
    }

    /// The slots, for the recovery exchange.
    pub fn slots(&self) -> [Slot; 2] {
        let state = self.state();
        let slots = state.store.slots();
        SlotId::BOTH.map(|slot| Slot {
            state: match slot_state(slots, slot) {
                PackageState::Empty => SlotState::Empty,
                PackageState::Ready => SlotState::Ready,
                PackageState::Active => SlotState::Active,
                PackageState::Trial => SlotState::Trial,
            },
            sha256: slots.package(slot).unwrap_or_default(),
        })
    }

    /// The slots, for people.
    pub fn slot_infos(&self) -> Vec<SlotInfo> {
        let mut state = self.state();
        // What the other slot holds is not read at the start, which it would delay, but when somebody asks.
        for slot in SlotId::BOTH {
            let sha256 = state.store.slots().package(slot);
            let unknown =
                sha256.is_some_and(|sha256| state.facts.iter().all(|facts| facts.sha256 != sha256));
            if unknown && let Some(Ok(package)) = state.store.read(slot, &self.demands.trust) {
                state.learn(Facts::of(&package, None));
            }
        }
        let slots = state.store.slots();
        let info = |slot: SlotId| {
            let sha256 = slots.package(slot).unwrap_or_default();
            let facts = state.facts.iter().find(|facts| facts.sha256 == sha256);
            SlotInfo {
                state: slot_state(slots, slot),
                sha256,
                model: facts.map_or_else(String::new, |facts| cut_text(&facts.model)),
                signer: facts.map_or_else(String::new, |facts| facts.signer.clone()),
                parity_off: facts.and_then(|facts| facts.parity_off),
                threshold: facts.and_then(|facts| facts.threshold),
            }
        };
        SlotId::BOTH.map(info).into()
    }

    /// Whether a package is on trial.
    pub fn on_trial(&self) -> bool {
        self.state().store.slots().on_trial()
    }

    /// A station offers a package; where it should begin.
    pub fn flash_begin(
        &self,
        station: &str,
        total_bytes: u64,
        sha256: Sha256,
    ) -> Result<u64, UpdateError> {
        let _working = self.work()?;
        let mut state = self.state();
        if let Some(transfer) = &state.transfer
            && transfer.station != station
            && transfer.heard.elapsed() < STALLED_AFTER
        {
            return Err(UpdateError::Busy(transfer.station.clone()));
        }
        state.offered = None;
        // An answer was lost, or the package was here before: nothing needs to be sent.
        if state.store.slots().holding(&sha256).is_some() {
            state.transfer = None;
            state.offered = Some(sha256);
            return Ok(total_bytes);
        }
        let same = state
            .transfer
            .take()
            .filter(|transfer| transfer.incoming.sha256() == sha256);
        let incoming = match same {
            Some(transfer) => transfer.incoming,
            None => Incoming::begin(state.store.folder(), total_bytes, sha256)?,
        };
        let offset_bytes = incoming.offset_bytes();
        state.transfer = Some(Transfer {
            station: station.to_owned(),
            heard: Instant::now(),
            incoming,
        });
        Ok(offset_bytes)
    }

    /// The next piece; where to go on.
    pub fn flash_chunk(
        &self,
        station: &str,
        offset_bytes: u64,
        bytes: &[u8],
    ) -> Result<u64, UpdateError> {
        let mut state = self.state();
        let transfer = state.transfer.as_mut().ok_or(UpdateError::NotBegun)?;
        if transfer.station != station {
            return Err(UpdateError::Busy(transfer.station.clone()));
        }
        transfer.heard = Instant::now();
        Ok(transfer.incoming.take(offset_bytes, bytes)?)
    }

    /// The next piece, compressed.
    pub fn flash_deflated(
        &self,
        station: &str,
        offset_bytes: u64,
        plain_bytes: u32,
        deflated: &[u8],
    ) -> Result<u64, UpdateError> {
        let expected = plain_bytes as usize;
        let limit = expected.min(MAX_CHUNK_BYTES);
        let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, limit);
        let bytes = bytes.ok().filter(|bytes| bytes.len() == expected);
        let bytes = bytes.ok_or(UpdateError::Deflate { expected })?;
        self.flash_chunk(station, offset_bytes, &bytes)
    }

    /// Everything has come: verifies, tries and commits the package, and puts it to work.
    pub fn flash_end(
        &self,
        station: &str,
        control: &Control,
        reporter: &Reporter,
    ) -> Result<(), UpdateError> {
        let _working = self.work()?;
        let done = self.try_and_commit(station, control, reporter);
        if let Err(error) = &done {
            let reason = one_line(error);
            tracing::error!(reason, station, "package refused");
            reporter.event(Event::PackageRefused {
                reason: cut_text(&reason),
                station: cut_text(station),
            });
        }
        done
    }

    fn try_and_commit(
        &self,
        station: &str,
        control: &Control,
        reporter: &Reporter,
    ) -> Result<(), UpdateError> {
        let mut state = self.state();
        let offered = state.offered;
        if let Some(sha256) = offered {
            let slots = state.store.slots().clone();
            let slot = slots.holding(&sha256).ok_or(UpdateError::NotBegun)?;
            drop(state);
            if slots.active() == Some(slot) {
                return Ok(());
            }
            return self.switch(
                station,
                slots.activated(slot, sha256),
                true,
                "",
                control,
                reporter,
            );
        }
        let mut transfer = state.transfer.take().ok_or(UpdateError::NotBegun)?;
        if transfer.station != station {
            let holder = transfer.station.clone();
            state.transfer = Some(transfer);
            return Err(UpdateError::Busy(holder));
        }
        drop(state);
        let bytes = match transfer.incoming.finish() {
            Ok(bytes) => bytes,
            Err(error @ IncomingError::Short { .. }) => {
                // It can still become whole.
                self.state().transfer = Some(transfer);
                return Err(error.into());
            }
            Err(error) => {
                transfer.incoming.discard();
                return Err(error.into());
            }
        };
        let tried = self.try_package(bytes, control);
        let (package, inspector) = match tried {
            Ok(tried) => tried,
            Err(error) => {
                transfer.incoming.discard();
                return Err(error);
            }
        };
        let state = self.state();
        let sha256 = *package.sha256();
        transfer.incoming.keep(&state.store.path(&sha256))?;
        let slots = state.store.slots().clone();
        drop(state);
        let slots = slots.clone().activated(slots.free(), sha256);
        let trial = self.commit(slots, &package, &inspector)?;
        activate(inspector, trial, station, control, reporter);
        Ok(())
    }

    /// Signature, consistency, compatibility, parity, and a first frame.
    fn try_package(
        &self,
        bytes: Vec<u8>,
        control: &Control,
    ) -> Result<(Verified, Inspector), UpdateError> {
        let refused = |error: &dyn std::error::Error| UpdateError::Refused(one_line(error));
        let package = Loaded::new(bytes)
            .and_then(|loaded| loaded.verify(&self.demands.trust))
            .map_err(|error| refused(&error))?;
        if let Some(before) = control.inspector()
            && !self.demands.any_input
        {
            let (old, new) = (&before.manifest().input, &package.manifest().input);
            if old.size != new.size || old.colour != new.colour {
                return Err(UpdateError::Refused(format!(
                    "the package is for {}, this camera inspects {}; model.any_input = true in its configuration allows it",
                    describe(new),
                    describe(old)
                )));
            }
        }
        let inspector = self.demands.inspector(&package, false)?;
        warm(&inspector, control)?;
        Ok((package, inspector))
    }

    /// From now on the slots are these, of which this package is the active one; whether it is on trial.
    fn commit(
        &self,
        slots: Slots,
        package: &Verified,
        inspector: &Inspector,
    ) -> Result<bool, UpdateError> {
        let mut state = self.state();
        let disk = |error| UpdateError::Disk(one_line(&error));
        state.store.commit(slots).map_err(disk)?;
        state.learn(Facts::of(package, Some(inspector)));
        Ok(state.store.slots().on_trial())
    }

    /// Puts the package that `slots` says to work.
    fn switch(
        &self,
        station: &str,
        slots: Slots,
        flashed: bool,
        reason: &str,
        control: &Control,
        reporter: &Reporter,
    ) -> Result<(), UpdateError> {
        let Some(slot) = slots.active() else {
            return Err(SlotsError::NothingBefore.into());
        };
        let state = self.state();
        let path = slots.package(slot).map(|sha256| state.store.path(&sha256));
        let bytes = path.map(std::fs::read).transpose();
        drop(state);
        let bytes = bytes
            .map_err(|error| UpdateError::Disk(error.to_string()))?
            .unwrap_or_default();
        let package = Loaded::new(bytes)
            .and_then(|loaded| loaded.verify(&self.demands.trust))
            .map_err(|error| UpdateError::Refused(one_line(&error)))?;
        let is_configured = slots.configured() == Some(*package.sha256());
        let inspector = self.demands.inspector(&package, is_configured)?;
        warm(&inspector, control)?;
        let trial = self.commit(slots, &package, &inspector)?;
        if flashed {
            activate(inspector, trial, station, control, reporter);
        } else {
            reporter.event(Event::RolledBack {
                model_id: inspector.model_id(),
                model: model_name(&inspector),
                reason: cut_text(reason),
                station: cut_text(station),
            });
            tracing::warn!(
                model = model_name(&inspector),
                reason,
                station,
                "rolled back"
            );
            control.activate(inspector);
        }
        Ok(())
    }

    /// Keeps the package on trial.
    pub fn confirm(
        &self,
        station: &str,
        control: &Control,
        reporter: &Reporter,
    ) -> Result<(), UpdateError> {
        let _working = self.work()?;
        let mut state = self.state();
        let slots = state.store.slots().clone().confirmed()?;
        let disk = |error| UpdateError::Disk(one_line(&error));
        state.store.commit(slots).map_err(disk)?;
        drop(state);
        if let Some(inspector) = control.inspector() {
            let model = model_name(&inspector);
            tracing::info!(model, station, "package confirmed");
            reporter.event(Event::PackageConfirmed {
                model_id: inspector.model_id(),
                model,
                station: cut_text(station),
            });
        }
        Ok(())
    }

    /// Puts the other slot's package to work.
    pub fn roll_back(
        &self,
        station: &str,
        reason: &str,
        control: &Control,
        reporter: &Reporter,
    ) -> Result<(), UpdateError> {
        let _working = self.work()?;
        let slots = self.state().store.slots().clone().rolled_back()?;
        self.switch(station, slots, false, reason, control, reporter)
    }

    /// Gives a package on trial up under which frames cannot be scored.
    pub fn watch_trial(&self, control: &Control, reporter: &Reporter) {
        if control.failures_in_a_row() < FAILURES_OF_TRIAL || !self.on_trial() {
            return;
        }
        let reason = "frames could not be scored";
        if let Err(error) = self.roll_back("", reason, control, reporter) {
            tracing::error!(error = one_line(&error), "cannot roll back");
        }
    }
}

impl State {
    fn learn(&mut self, facts: Facts) {
        self.facts.retain(|other| other.sha256 != facts.sha256);
        let slots = self.store.slots();
        self.facts
            .retain(|other| slots.holding(&other.sha256).is_some());
        self.facts.push(facts);
    }
}

impl Facts {
    fn of(package: &Verified, inspector: Option<&Inspector>) -> Self {
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

/// The first frame takes longer than those after it, and a package may not like frames of this size at all.
fn warm(inspector: &Inspector, control: &Control) -> Result<(), UpdateError> {
    if let Some(last) = control.last() {
        inspector
            .inspect(&last.frame)
            .map_err(|error| UpdateError::Refused(one_line(&error)))?;
    }
    Ok(())
}

fn activate(
    inspector: Inspector,
    trial: bool,
    station: &str,
    control: &Control,
    reporter: &Reporter,
) {
    let model = model_name(&inspector);
    tracing::info!(model, trial, station, "package activated");
    let event = Event::PackageActivated {
        model_id: inspector.model_id(),
        model,
        parity_off: inspector.parity_off(),
        trial,
        station: cut_text(station),
    };
    control.activate(inspector);
    reporter.event(event);
}

/// Name and version of the model, as messages have it.
pub fn model_name(inspector: &Inspector) -> String {
    let manifest = inspector.manifest();
    cut_text(&format!("{} {}", manifest.name, manifest.version))
}

fn slot_state(slots: &Slots, slot: SlotId) -> PackageState {
    match slots.package(slot) {
        None => PackageState::Empty,
        Some(_) if slots.active() != Some(slot) => PackageState::Ready,
        Some(_) if slots.on_trial() => PackageState::Trial,
        Some(_) => PackageState::Active,
    }
}

fn describe(input: &Input) -> String {
    let colour = format!("{:?}", input.colour).to_lowercase();
    match input.size {
        InputSize::Fixed {
            width_px,
            height_px,
        } => format!("{colour} images of {width_px}×{height_px} px"),
        other => format!("{colour} images, size {other:?}").to_lowercase(),
    }
}
