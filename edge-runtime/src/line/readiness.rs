//! Whether parts are being inspected: the one list of conditions from which the signals *ready*
//! and *fault* and the held gate follow.
//!
//! In: the state of each condition (frames come, an input line works, parts get verdicts). Out:
//! whether the gate may follow the parts, and what the signals say. Metrics observe this state;
//! they never decide.

use std::sync::atomic::{AtomicU32, Ordering};

/// Something that inspection depends on, or that a person at the line must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Frames come.
    Frames,
    /// A model is active.
    Model,
    /// The trigger input can be read; without it parts pass unseen.
    Trigger,
    /// The trigger has had an edge lately: its wire may be cut.
    TriggerSilent,
    /// The encoder input can be read; without it the position of parts is unknown.
    Encoder,
    /// The encoder has counted lately: its wire may be cut.
    EncoderSilent,
    /// The encoder counts while parts come.
    EncoderStands,
    /// The reject output can be set and reads back as set; without it no part is rejected.
    RejectOutput,
    /// The input that confirms rejects can be read.
    ConfirmInput,
    /// The last reject was confirmed.
    Confirmed,
    /// Every part on the line is followed.
    Tracking,
    /// Frames and parts go together one to one.
    Pairing,
    /// The threads that inspect show signs of life.
    Threads,
    /// Parts get a verdict.
    Verdicts,
    /// The last golden-sample check passed.
    Golden,
    /// The frames of the golden-sample check can be read.
    GoldenFrames,
    /// Good parts look as they did at calibration.
    Drift,
    /// The settings that stations have made can be used.
    Settings,
    /// Reports are journalled.
    Journal,
    /// The outputs *busy*, *ready*, *fault* and *heartbeat* can be set.
    Signals,
    /// Verdicts drive the gate. In the mode *observe* they do not.
    Inspecting,
}

impl Condition {
    /// All conditions.
    pub const ALL: [Self; 21] = [
        Self::Frames,
        Self::Model,
        Self::Trigger,
        Self::TriggerSilent,
        Self::Encoder,
        Self::EncoderSilent,
        Self::EncoderStands,
        Self::RejectOutput,
        Self::ConfirmInput,
        Self::Confirmed,
        Self::Tracking,
        Self::Pairing,
        Self::Threads,
        Self::Verdicts,
        Self::Golden,
        Self::GoldenFrames,
        Self::Drift,
        Self::Settings,
        Self::Journal,
        Self::Signals,
        Self::Inspecting,
    ];

    /// The name in metrics, in `/health` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Model => "model",
            Self::Trigger => "trigger",
            Self::TriggerSilent => "trigger_edges",
            Self::Encoder => "encoder",
            Self::EncoderSilent => "encoder_counts",
            Self::EncoderStands => "encoder_with_parts",
            Self::RejectOutput => "reject_output",
            Self::ConfirmInput => "confirm_input",
            Self::Confirmed => "reject_confirmed",
            Self::Tracking => "tracking",
            Self::Pairing => "pairing",
            Self::Threads => "threads",
            Self::Verdicts => "verdicts",
            Self::Golden => "golden",
            Self::GoldenFrames => "golden_frames",
            Self::Drift => "drift",
            Self::Settings => "settings",
            Self::Journal => "journal",
            Self::Signals => "signals",
            Self::Inspecting => "inspecting",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether parts may have come unseen, or are not where the encoder says, while this failed.
    pub fn loses_parts(self) -> bool {
        matches!(
            self,
            Self::Trigger
                | Self::TriggerSilent
                | Self::Encoder
                | Self::EncoderSilent
                | Self::EncoderStands
        )
    }
}

/// What a condition that fails does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The gate is held, *ready* goes off and *fault* on.
    Hold,
    /// The gate is held and *fault* goes on, but *ready* stays: parts that come now are inspected.
    HoldOnly,
    /// *fault* goes on.
    Fault,
    /// *ready* goes off.
    NotReady,
    /// It is only shown.
    Show,
}

/// What the configurable conditions do when they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Parts in a row without a verdict from which on [`Condition::Verdicts`] fails.
    pub faults_in_a_row: u32,
    /// [`Condition::Tracking`]. With an encoder, only the belt's motion ends it, and a PLC that
    /// waits for *ready* before it moves the belt would wait for ever.
    pub tracking: Effect,
    /// [`Condition::Verdicts`].
    pub verdicts: Effect,
    /// [`Condition::TriggerSilent`], [`Condition::EncoderSilent`] and
    /// [`Condition::EncoderStands`].
    pub silence: Effect,
    /// [`Condition::ConfirmInput`] and [`Condition::Confirmed`].
    pub confirm: Effect,
    /// [`Condition::Golden`].
    pub golden: Effect,
    /// [`Condition::Drift`].
    pub drift: Effect,
    /// [`Condition::Journal`].
    pub journal: Effect,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            faults_in_a_row: 3,
            tracking: Effect::Hold,
            verdicts: Effect::Hold,
            silence: Effect::Hold,
            confirm: Effect::Hold,
            golden: Effect::Hold,
            drift: Effect::Fault,
            journal: Effect::Fault,
        }
    }
}

impl Policy {
    fn effect(&self, condition: Condition) -> Effect {
        match condition {
            Condition::Frames
            | Condition::Model
            | Condition::Trigger
            | Condition::Encoder
            | Condition::RejectOutput
            | Condition::Pairing
            | Condition::Threads => Effect::Hold,
            Condition::TriggerSilent | Condition::EncoderSilent | Condition::EncoderStands => {
                self.silence
            }
            Condition::ConfirmInput | Condition::Confirmed => self.confirm,
            Condition::Tracking => self.tracking,
            Condition::Verdicts => self.verdicts,
            Condition::Golden => self.golden,
            Condition::Drift => self.drift,
            Condition::Journal => self.journal,
            Condition::Signals | Condition::GoldenFrames | Condition::Settings => Effect::Fault,
            Condition::Inspecting => Effect::NotReady,
        }
    }

    /// The bits of the conditions that have one of these effects.
    fn mask(&self, effects: &[Effect]) -> u32 {
        let has = |condition: &&Condition| effects.contains(&self.effect(**condition));
        let bits = Condition::ALL.iter().filter(has);
        bits.fold(0, |mask, condition| mask | condition.bit())
    }
}

/// State of everything that inspection depends on, shared by all threads.
#[derive(Debug)]
pub struct Readiness {
    /// Bits of the conditions that fail now.
    failing: AtomicU32,
    /// Parts without a verdict since the last one that had one.
    faults: AtomicU32,
    faults_in_a_row: u32,
    /// Bits of the conditions that hold the gate.
    holds: u32,
    /// Bits of the conditions without which parts are not being inspected.
    needed: u32,
    /// Bits of the conditions that are a fault.
    alarms: u32,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// The state at the start, with the default policy: no frame has come and nothing has failed.
    pub fn new() -> Self {
        Self::with_policy(&Policy::default())
    }

    /// The state at the start: no frame has come and nothing has failed.
    pub fn with_policy(policy: &Policy) -> Self {
        Self {
            failing: AtomicU32::new(Condition::Frames.bit()),
            faults: AtomicU32::new(0),
            faults_in_a_row: policy.faults_in_a_row,
            holds: policy.mask(&[Effect::Hold, Effect::HoldOnly]),
            needed: policy.mask(&[Effect::Hold, Effect::NotReady]),
            alarms: policy.mask(&[Effect::Hold, Effect::HoldOnly, Effect::Fault]),
        }
    }

    fn fails_one_of(&self, mask: u32) -> bool {
        self.failing.load(Ordering::Relaxed) & mask != 0
    }

    /// Whether parts are being inspected and rejected.
    pub fn is_ready(&self) -> bool {
        !self.fails_one_of(self.needed)
    }

    /// Whether anything is wrong that a person at the line must know.
    pub fn is_fault(&self) -> bool {
        self.fails_one_of(self.alarms)
    }

    /// Whether the gate must be held in its safe state.
    pub fn holds_gate(&self) -> bool {
        self.fails_one_of(self.holds)
    }

    /// The conditions that hold the gate, apart from those that the gate thread finds itself in
    /// every round. See [`Self::still_held_by`].
    pub fn held_by_others(&self) -> u32 {
        let own = [
            Condition::Model,
            Condition::Tracking,
            Condition::Pairing,
            Condition::Threads,
        ];
        let own = own.iter().fold(0, |mask, condition| mask | condition.bit());
        self.failing.load(Ordering::Relaxed) & self.holds & !own
    }

    /// Whether anything holds the gate now, or did when `before` was read ([`Self::held_by_others`]):
    /// whoever ends a failure makes the line blind first, and a view of the line that was taken
    /// before that says nothing about it.
    pub fn still_held_by(&self, before: u32) -> bool {
        before != 0 || self.holds_gate()
    }

    /// The same, apart from frames that do not come, which is no fault at a stop.
    pub fn still_failing_since(&self, before: u32) -> bool {
        before & !Condition::Frames.bit() != 0 || self.any_failing()
    }

    /// The state for a station.
    pub(crate) fn snapshot(&self) -> proto::message::Readiness {
        let failing = Condition::ALL
            .into_iter()
            .filter(|condition| self.is_failing(*condition));
        proto::message::Readiness {
            ready: self.is_ready(),
            fault: self.is_fault(),
            gate_held: self.holds_gate(),
            failing: failing
                .map(|condition| condition.name().to_owned())
                .collect(),
        }
    }

    /// Whether anything but missing frames holds the gate.
    pub fn any_failing(&self) -> bool {
        self.fails_one_of(self.holds & !Condition::Frames.bit())
    }

    /// Whether this condition fails.
    pub fn is_failing(&self, condition: Condition) -> bool {
        self.fails_one_of(condition.bit())
    }

    /// Records whether a condition fails. Returns whether that is a change.
    pub fn set_failing(&self, condition: Condition, fails: bool) -> bool {
        let bit = condition.bit();
        let before = if fails {
            self.failing.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.failing.fetch_and(!bit, Ordering::Relaxed)
        };
        (before & bit != 0) != fails
    }

    /// Records whether a part got a verdict in time. Returns the number of parts without one in a
    /// row where that makes [`Condition::Verdicts`] fail.
    ///
    /// While frames do not come or there is no model, parts without a verdict do not count: those
    /// conditions say so already, and they end without a part.
    pub fn record_part(&self, has_verdict: bool) -> Option<u32> {
        if has_verdict {
            self.trust_verdicts();
            return None;
        }
        if self.fails_one_of(Condition::Frames.bit() | Condition::Model.bit()) {
            return None;
        }
        let count = self
            .faults
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let fails = count >= self.faults_in_a_row;
        (fails && self.set_failing(Condition::Verdicts, true)).then_some(count)
    }

    /// Records that parts can get a verdict: one did, a golden-sample check passed, or another
    /// model is active. Returns whether that is a change.
    pub fn trust_verdicts(&self) -> bool {
        self.faults.store(0, Ordering::Relaxed);
        self.set_failing(Condition::Verdicts, false)
    }

    /// Whether frames come.
    pub fn capturing(&self) -> bool {
        !self.is_failing(Condition::Frames)
    }

    /// Records whether frames come.
    pub fn set_capturing(&self, capturing: bool) {
        self.set_failing(Condition::Frames, !capturing);
    }

    /// Whether the gate can be trusted: nothing holds it, apart from frames that do not come.
    pub fn gate_ok(&self) -> bool {
        !self.any_failing()
    }

    /// Whether reports are journalled.
    pub fn journal_ok(&self) -> bool {
        !self.is_failing(Condition::Journal)
    }

    /// Records whether reports are journalled.
    pub fn set_journal_ok(&self, ok: bool) {
        self.set_failing(Condition::Journal, !ok);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A camera to which frames come.
    fn inspecting() -> Readiness {
        let readiness = Readiness::new();
        readiness.set_capturing(true);
        readiness
    }

    #[test]
    fn each_condition_fails_by_itself_and_is_reported_once() {
        let readiness = inspecting();
        assert!(readiness.set_failing(Condition::Encoder, true));
        assert!(!readiness.set_failing(Condition::Encoder, true));
        assert!(readiness.set_failing(Condition::RejectOutput, true));
        assert!(readiness.set_failing(Condition::Encoder, false));
        assert!(readiness.any_failing() && readiness.is_failing(Condition::RejectOutput));
        assert!(!readiness.is_failing(Condition::Encoder));
        assert!(!readiness.is_failing(Condition::Trigger));
    }

    #[test]
    fn before_the_first_frame_nothing_is_being_captured() {
        let readiness = Readiness::new();
        assert!(!readiness.capturing() && !readiness.is_ready() && readiness.holds_gate());
        assert!(readiness.gate_ok());
    }

    #[test]
    fn every_condition_has_its_effect_and_a_name_of_its_own() {
        use Condition as C;
        for condition in Condition::ALL {
            let readiness = inspecting();
            assert!(readiness.is_ready() && !readiness.is_fault() && !readiness.holds_gate());
            readiness.set_failing(condition, true);
            let found = [
                readiness.is_ready(),
                readiness.is_fault(),
                readiness.holds_gate(),
            ];
            let expected = match condition {
                C::Journal | C::Signals | C::Drift | C::GoldenFrames | C::Settings => {
                    [true, true, false]
                }
                C::Inspecting => [false, false, false],
                _ => [false, true, true],
            };
            assert_eq!(found, expected, "{}", condition.name());
            let same = |other: &&Condition| other.name() == condition.name();
            assert_eq!(Condition::ALL.iter().filter(same).count(), 1);
        }
    }

    #[test]
    fn with_an_encoder_a_plc_that_waits_for_ready_can_move_the_belt() {
        let policy = Policy {
            tracking: Effect::HoldOnly,
            ..Policy::default()
        };
        let readiness = Readiness::with_policy(&policy);
        readiness.set_capturing(true);
        readiness.set_failing(Condition::Tracking, true);
        assert!(readiness.is_ready() && readiness.is_fault() && readiness.holds_gate());
    }

    #[test]
    fn what_holds_the_gate_is_configurable() {
        let policy = Policy {
            golden: Effect::Show,
            journal: Effect::Hold,
            ..Policy::default()
        };
        let readiness = Readiness::with_policy(&policy);
        readiness.set_capturing(true);
        readiness.set_failing(Condition::Golden, true);
        assert!(readiness.is_ready() && !readiness.is_fault());
        readiness.set_journal_ok(false);
        assert!(!readiness.is_ready() && readiness.holds_gate());
    }

    #[test]
    fn parts_in_a_row_without_a_verdict_fail_until_one_has_one() {
        let readiness = inspecting();
        let faults = |count: u32| {
            (0..count)
                .filter_map(|_| readiness.record_part(false))
                .last()
        };
        assert_eq!(faults(2), None);
        assert_eq!(readiness.record_part(true), None);
        assert_eq!(faults(2), None, "a verdict begins a new row");
        assert!(readiness.is_ready());
        assert_eq!(faults(1), Some(3));
        assert!(!readiness.is_ready() && readiness.holds_gate() && readiness.is_fault());
        assert_eq!(faults(5), None, "reported once");
        readiness.record_part(true);
        assert!(readiness.is_ready());
    }

    #[test]
    fn parts_without_a_verdict_in_an_outage_are_the_outages() {
        let readiness = inspecting();
        readiness.set_capturing(false);
        assert!((0..9).all(|_| readiness.record_part(false).is_none()));
        readiness.set_capturing(true);
        // Otherwise a line that waits for *ready* would wait for ever.
        assert!(readiness.is_ready());
    }
}
