//! The switch to another model: verify, try, commit, activate; then confirm or roll back.
//!
//! The new model is loaded and warmed up on the caller's thread while the old one inspects. The
//! switch itself happens between two frames.

use proto::manifest::{Input, InputSize};
use proto::message::cut_text;
use proto::report::Event;
use scoring::inspector::Inspector;
use scoring::package::{Loaded, Verified};

use super::active::{Control, model_name};
use super::error::UpdateError;
use super::incoming::IncomingError;
use super::slots::{Slots, SlotsError};
use super::update::{SlotSummary, Updater};
use crate::error_text::one_line;
use crate::report::queue::Reporter;

/// Number of frames in a row that cannot be scored after which a package on trial is rolled back.
const FAILURES_OF_TRIAL: u32 = 5;

impl Updater {
    /// Ends a transfer: verifies, tries, commits and activates the package.
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
            let slot = slots.slot_holding(&sha256).ok_or(UpdateError::NotBegun)?;
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
                // The rest can still come.
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

    /// Checks signature, consistency, compatibility and parity, and scores a first frame.
    fn try_package(
        &self,
        bytes: Vec<u8>,
        control: &Control,
    ) -> Result<(Verified, Inspector), UpdateError> {
        let refused = |error: &dyn std::error::Error| UpdateError::Refused(one_line(error));
        let package = Loaded::new(bytes)
            .and_then(|loaded| loaded.verify(&self.requirements.trust))
            .map_err(|error| refused(&error))?;
        if let Some(before) = control.inspector()
            && !self.requirements.any_input
        {
            let (old, new) = (&before.manifest().input, &package.manifest().input);
            if old.size != new.size || old.colour != new.colour {
                return Err(UpdateError::Refused(format!(
                    "the package is for {}, this camera inspects {}; model.any_input = true in \
                     its configuration allows it",
                    describe(new),
                    describe(old)
                )));
            }
        }
        let inspector = self.requirements.inspector(&package, false)?;
        warm_up(&inspector, control)?;
        Ok((package, inspector))
    }

    /// Makes `slots` durable, with this package as the active one. Returns whether it is on trial.
    fn commit(
        &self,
        slots: Slots,
        package: &Verified,
        inspector: &Inspector,
    ) -> Result<bool, UpdateError> {
        let mut state = self.state();
        let disk = |error| UpdateError::Disk(one_line(&error));
        state.store.commit(slots).map_err(disk)?;
        state.add_summary(SlotSummary::of(package, Some(inspector)));
        Ok(state.store.slots().on_trial())
    }

    /// Activates the active package of `slots`, which is on disk already. With `flashed` it is
    /// reported as activated, otherwise as rolled back to.
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
            .and_then(|loaded| loaded.verify(&self.requirements.trust))
            .map_err(|error| UpdateError::Refused(one_line(&error)))?;
        let is_configured = slots.configured() == Some(*package.sha256());
        let inspector = self.requirements.inspector(&package, is_configured)?;
        warm_up(&inspector, control)?;
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

    /// Ends the trial of the active package.
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

    /// Activates the other slot's package.
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

    /// Rolls back a package on trial with which frames cannot be scored.
    pub fn watch_trial(&self, control: &Control, reporter: &Reporter) {
        if control.failures_in_a_row() < FAILURES_OF_TRIAL || !self.on_trial() {
            return;
        }
        let reason = "frames could not be scored";
        if let Err(error) = self.roll_back("", reason, control, reporter) {
            tracing::error!(
                error = one_line(&error),
                "cannot roll back the package on trial"
            );
        }
    }
}

/// Scores the last frame: the first one takes longer than later ones, and a package may not be able
/// to score frames of this size at all.
fn warm_up(inspector: &Inspector, control: &Control) -> Result<(), UpdateError> {
    if let Some(last) = control.last_part() {
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
