//! The model at the start: the active one of the slots, or the configured package.

use proto::message::cut_text;
use proto::report::Event;
use scoring::inspector::Inspector;
use scoring::io::atomic::WriteError;
use scoring::package::Verified;

use super::active::model_name;
use super::error::UpdateError;
use super::requirements::Requirements;
use super::slots::Slots;
use super::store::Store;
use super::update::{SlotSummary, Updater};
use crate::error_text::one_line;

/// The model at the start.
#[derive(Debug)]
pub struct StartupModel {
    /// Replaces the model later.
    pub updater: Updater,
    /// The active inspector; `None` if there is no model yet, so that the gate stays safe.
    pub inspector: Option<Inspector>,
    /// Events to report, such as a package that cannot be used.
    pub events: Vec<Event>,
}

impl Updater {
    /// Chooses the model: the active one of the slots, or `configured` if another package was
    /// configured at the last start. A package on trial is rolled back, and that is made durable. If
    /// the active package cannot be used, the other slot's is tried, then `configured`. On disk a
    /// slot is only emptied if its package is lost: after an error that passes, or a mistake in the
    /// configuration, the next start finds it again.
    pub fn start(
        mut store: Store,
        requirements: Requirements,
        configured: Option<&Verified>,
    ) -> Result<StartupModel, UpdateError> {
        let mut events = Vec::new();
        let mut summaries = Vec::new();
        let mut slots = store.slots().clone().restarted();
        let rolled_back = slots != *store.slots();
        let mut refused = None;
        let newly_configured = match configured {
            Some(package) if slots.configured() != Some(*package.sha256()) => {
                match requirements.inspector(package, true) {
                    Ok(inspector) => Some((package, inspector)),
                    // The package in a slot is better than none.
                    Err(error) if slots.active().is_some() => {
                        let reason = one_line(&error);
                        tracing::error!(reason, "cannot use the configured package");
                        events.push(Event::PackageRefused {
                            reason: cut_text(&reason),
                            station: String::new(),
                        });
                        refused = Some(error);
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => None,
        };
        if let Some((package, inspector)) = newly_configured {
            let sha256 = *package.sha256();
            let slot = slots.slot_holding(&sha256).unwrap_or(slots.free());
            slots = slots.configured_as(slot, sha256);
            summaries.push(SlotSummary::of(package, Some(&inspector)));
            let put = store.put(&sha256, package.bytes());
            let put = put.and_then(|()| write(&mut store, &slots));
            if let Err(error) = put {
                tracing::error!(
                    error = one_line(&error),
                    "cannot write the configured package to a slot; it inspects all the same"
                );
                store.set_unsaved(slots);
            }
            let updater = Self::new(store, summaries, requirements);
            return Ok(StartupModel {
                updater,
                inspector: Some(inspector),
                events,
            });
        }
        // What is to be on disk. It differs from `slots` by packages that cannot be used now.
        let mut lasting = slots.clone();
        let mut found = None;
        while let Some(slot) = slots.active() {
            store.set_unsaved(slots.clone());
            let tried = match store.read(slot, &requirements.trust) {
                Some(Ok(package)) => {
                    let is_configured = slots.configured() == Some(*package.sha256());
                    let tried = requirements.inspector(&package, is_configured);
                    tried
                        .map(|inspector| (package, inspector))
                        .map_err(|error| one_line(&error))
                }
                Some(Err(error)) => Err(one_line(&error)),
                None => Err("the slot is empty".to_owned()),
            };
            match tried {
                Ok((package, inspector)) => {
                    summaries.push(SlotSummary::of(&package, Some(&inspector)));
                    found = Some(inspector);
                    break;
                }
                Err(reason) => {
                    tracing::error!(
                        reason,
                        slot = slot.name(),
                        "cannot use the package in a slot"
                    );
                    events.push(Event::PackageRefused {
                        reason: cut_text(&reason),
                        station: String::new(),
                    });
                    if store.is_lost(slot) {
                        lasting = lasting.cleared(slot);
                    }
                    slots = slots.cleared(slot);
                }
            }
        }
        // The configured package is better than none: perhaps only its copy in a slot is damaged.
        if found.is_none()
            && let Some(package) = configured
        {
            if let Some(error) = refused {
                return Err(error);
            }
            let inspector = requirements.inspector(package, true)?;
            summaries.push(SlotSummary::of(package, Some(&inspector)));
            let sha256 = *package.sha256();
            let slot = lasting.slot_holding(&sha256).unwrap_or(slots.free());
            slots = slots.configured_as(slot, sha256);
            lasting = lasting.configured_as(slot, sha256);
            if let Err(error) = store.put(&sha256, package.bytes()) {
                tracing::error!(
                    error = one_line(&error),
                    "cannot write the configured package to a slot"
                );
            }
            found = Some(inspector);
        }
        if let Err(error) = write(&mut store, &lasting) {
            tracing::error!(error = one_line(&error), "cannot write the slots");
        }
        store.set_unsaved(slots);
        if let (true, Some(inspector)) = (rolled_back, &found) {
            events.push(Event::RolledBack {
                model_id: inspector.model_id(),
                model: model_name(inspector),
                reason: "the package on trial was not confirmed before the program ended"
                    .to_owned(),
                station: String::new(),
            });
        }
        Ok(StartupModel {
            updater: Self::new(store, summaries, requirements),
            inspector: found,
            events,
        })
    }
}

/// Writes the slots, unless it is unknown what they were.
fn write(store: &mut Store, slots: &Slots) -> Result<(), WriteError> {
    if store.is_known() {
        return store.commit(slots.clone());
    }
    store.set_unsaved(slots.clone());
    Ok(())
}

#[cfg(test)]
mod tests;
