//! Which of two packages is active: the rules, without files or clocks.
//!
//! ```text
//!                 flash                         confirm
//!   (A active) ──────────→ (A ready, B on trial) ──────────→ (A ready, B active)
//!        ↑                     │ restart, roll back               │ roll back
//!        └─────────────────────┘                                  ↓
//!                                                        (A active, B ready)
//! ```
//! In: a step. Out: which package is active now, and which after a restart. A package on trial that
//! nobody confirmed is not active after a restart: whatever it did to the program, its predecessor
//! comes back.

use serde::{Deserialize, Serialize};

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotId {
    /// The first slot.
    A,
    /// The second slot.
    B,
}

impl SlotId {
    /// Both slots, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other slot.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// Name of the slot in log messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// SHA-256 of a package.
pub type Sha256 = [u8; 32];

/// Contents of the slots and which one is active, as stored on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slots {
    packages: [Option<Sha256>; 2],
    active: Option<SlotId>,
    trial: bool,
    /// Packages that nobody wants to inspect with: never confirmed, or rolled back. They become
    /// active by a person's decision only, never because the other slot cannot be read.
    #[serde(default, skip_serializing_if = "are_confirmed")]
    unconfirmed: [bool; 2],
    /// The configured package that was put into a slot last. If the configuration names another one
    /// at a start, that one replaces the active package.
    configured: Option<Sha256>,
}

/// Earlier versions did not keep this, and the checksum of their files is without it.
fn are_confirmed(unconfirmed: &[bool; 2]) -> bool {
    *unconfirmed == [false; 2]
}

/// Why a step is not possible now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// The other slot is empty.
    #[error("the other slot holds no package to roll back to")]
    NothingBefore,
    /// No package is on trial.
    #[error("no package is on trial")]
    NoTrial,
}

impl Slots {
    /// The package in a slot.
    pub fn package(&self, slot: SlotId) -> Option<Sha256> {
        self.packages[slot.index()]
    }

    /// The active slot.
    pub fn active(&self) -> Option<SlotId> {
        self.active
    }

    /// Whether the active package is on trial.
    pub fn on_trial(&self) -> bool {
        self.trial
    }

    /// The configured package that was put into a slot last.
    pub fn configured(&self) -> Option<Sha256> {
        self.configured
    }

    /// The slot for the next package: the inactive one, but during a trial that of the package on
    /// trial, because its predecessor is needed after a restart.
    pub fn free(&self) -> SlotId {
        match self.active {
            None if self.package(SlotId::A).is_some() && self.package(SlotId::B).is_none() => {
                SlotId::B
            }
            None => SlotId::A,
            Some(active) if self.trial => active,
            Some(active) => active.other(),
        }
    }

    /// The slots after a package was put into a slot and activated: on trial if there is another
    /// one to roll back to.
    #[must_use]
    pub fn activated(mut self, slot: SlotId, package: Sha256) -> Self {
        self.packages[slot.index()] = Some(package);
        self.active = Some(slot);
        self.trial = self.package(slot.other()).is_some();
        self.unconfirmed[slot.index()] = self.trial;
        self
    }

    /// The slots with a package that was found on disk and is not active.
    #[must_use]
    pub fn found(mut self, slot: SlotId, package: Sha256) -> Self {
        self.packages[slot.index()] = Some(package);
        self.unconfirmed[slot.index()] = true;
        self
    }

    /// The slots after the configured package was put into a slot and activated. It is not on
    /// trial, because the configuration demands it.
    #[must_use]
    pub fn configured_as(mut self, slot: SlotId, package: Sha256) -> Self {
        self = self.activated(slot, package);
        self.trial = false;
        self.unconfirmed[slot.index()] = false;
        self.configured = Some(package);
        self
    }

    /// The slots after the package on trial was confirmed.
    pub fn confirmed(mut self) -> Result<Self, SlotsError> {
        if !self.trial {
            return Err(SlotsError::NoTrial);
        }
        self.trial = false;
        if let Some(active) = self.active {
            self.unconfirmed[active.index()] = false;
        }
        Ok(self)
    }

    /// The slots after the other slot's package was activated.
    pub fn rolled_back(mut self) -> Result<Self, SlotsError> {
        let other = self.active.map_or(SlotId::A, SlotId::other);
        if self.package(other).is_none() {
            return Err(SlotsError::NothingBefore);
        }
        self.active = Some(other);
        self.trial = false;
        self.unconfirmed = SlotId::BOTH.map(|slot| slot != other);
        Ok(self)
    }

    /// The slots after a restart: a package on trial is rolled back.
    #[must_use]
    pub fn restarted(self) -> Self {
        if !self.trial {
            return self;
        }
        let rolled_back = self.clone().rolled_back();
        rolled_back.unwrap_or(self)
    }

    /// The slots after a package turned out to be unusable. If it was active, the other one is, if
    /// it has ever been confirmed and was not rolled back.
    #[must_use]
    pub fn cleared(mut self, slot: SlotId) -> Self {
        self.packages[slot.index()] = None;
        if self.active == Some(slot) {
            let other = slot.other();
            let usable = self.package(other).is_some() && !self.unconfirmed[other.index()];
            self.active = usable.then_some(other);
            self.trial = false;
        }
        self
    }

    /// The slot that holds a package.
    pub fn slot_holding(&self, package: &Sha256) -> Option<SlotId> {
        let holds = |slot: &SlotId| self.package(*slot).as_ref() == Some(package);
        SlotId::BOTH.into_iter().find(holds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sha(seed: u8) -> Sha256 {
        [seed; 32]
    }

    #[test]
    fn a_flash_is_on_trial_until_confirmed() {
        let slots = Slots::default().configured_as(SlotId::A, sha(1));
        assert!(!slots.on_trial());
        assert_eq!(slots.free(), SlotId::B);
        let flashed = slots.activated(SlotId::B, sha(2));
        assert!(flashed.on_trial());
        let restarted = flashed.clone().restarted();
        assert_eq!(restarted.active(), Some(SlotId::A));
        assert_eq!(
            restarted.package(SlotId::B),
            Some(sha(2)),
            "it can be flashed again without a transfer"
        );
        let kept = flashed.confirmed();
        let kept = kept.map(Slots::restarted).map(|slots| slots.active());
        assert_eq!(kept, Ok(Some(SlotId::B)));
    }

    #[test]
    fn a_second_flash_during_a_trial_keeps_the_predecessor() {
        let slots = Slots::default().configured_as(SlotId::A, sha(1));
        let flashed = slots.activated(SlotId::B, sha(2));
        assert_eq!(flashed.free(), SlotId::B);
        let again = flashed.activated(SlotId::B, sha(3));
        assert_eq!(again.package(SlotId::A), Some(sha(1)));
        assert!(again.on_trial());
        assert_eq!(again.restarted().active(), Some(SlotId::A));
    }

    #[test]
    fn an_unusable_package_is_replaced_by_the_other() {
        let slots = Slots::default().configured_as(SlotId::A, sha(1));
        let flashed = slots.activated(SlotId::B, sha(2)).cleared(SlotId::B);
        assert_eq!(
            (flashed.active(), flashed.on_trial()),
            (Some(SlotId::A), false)
        );
        assert_eq!(flashed.slot_holding(&sha(2)), None);
        assert_eq!(flashed.cleared(SlotId::A).active(), None);
    }

    #[test]
    fn a_package_that_was_rolled_back_or_never_confirmed_does_not_replace_an_unreadable_one() {
        let slots = Slots::default().configured_as(SlotId::A, sha(1));
        let on_trial = slots.activated(SlotId::B, sha(2));
        // Never confirmed: the program was restarted.
        let restarted = on_trial.clone().restarted();
        assert_eq!(restarted.active(), Some(SlotId::A));
        assert_eq!(restarted.cleared(SlotId::A).active(), None);
        // Confirmed and rolled back later.
        let confirmed = on_trial.confirmed().unwrap();
        let rolled_back = confirmed.clone().rolled_back().unwrap();
        assert_eq!(rolled_back.clone().cleared(SlotId::A).active(), None);
        // Confirmed and replaced by a newer one that is confirmed: both have been trusted.
        let newer = confirmed.activated(SlotId::A, sha(3)).confirmed().unwrap();
        assert_eq!(newer.cleared(SlotId::A).active(), Some(SlotId::B));
        // A person's decision counts.
        let chosen = rolled_back.rolled_back().unwrap();
        assert_eq!(chosen.cleared(SlotId::B).active(), None);
    }

    #[test]
    fn there_is_nothing_to_roll_back_to_at_first() {
        let slots = Slots::default();
        assert_eq!(slots.clone().rolled_back(), Err(SlotsError::NothingBefore));
        assert_eq!(slots.clone().confirmed(), Err(SlotsError::NoTrial));
        // The first package is not on trial: without it no part would be inspected.
        let first = slots.activated(SlotId::A, sha(1));
        assert!(!first.on_trial());
        assert_eq!(first.clone().restarted(), first);
        assert_eq!(first.rolled_back(), Err(SlotsError::NothingBefore));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Flash(u8),
        Configure(u8),
        Confirm,
        RollBack,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..9u8).prop_map(Step::Flash),
            (0..9u8).prop_map(Step::Configure),
            Just(Step::Confirm),
            Just(Step::RollBack),
            Just(Step::Restart),
        ]
    }

    proptest! {
        /// In whatever order steps are taken, there is an active package once there was one, also
        /// after a restart, and a flash never replaces the package that a restart needs.
        #[test]
        fn there_is_always_an_active_package(steps in proptest::collection::vec(step(), 1..40)) {
            let mut slots = Slots::default().configured_as(SlotId::A, sha(0));
            for step in steps {
                let needed = slots.clone().restarted();
                let needed = needed.active().and_then(|slot| needed.package(slot));
                slots = match step {
                    Step::Flash(seed) | Step::Configure(seed) => {
                        let free = slots.free();
                        let next = match step {
                            Step::Flash(_) => slots.activated(free, sha(seed)),
                            _ => slots.configured_as(free, sha(seed)),
                        };
                        let kept = |needed: Sha256| next.slot_holding(&needed).is_some();
                        prop_assert!(needed.is_some_and(kept));
                        next
                    }
                    Step::Confirm => slots.clone().confirmed().unwrap_or(slots),
                    Step::RollBack => slots.clone().rolled_back().unwrap_or(slots),
                    Step::Restart => slots.restarted(),
                };
                let active = slots.active();
                prop_assert!(active.is_some_and(|active| slots.package(active).is_some()));
                let after = slots.clone().restarted();
                prop_assert!(!after.on_trial());
                prop_assert!(after.active().is_some_and(|active| after.package(active).is_some()));
            }
        }
    }
}
