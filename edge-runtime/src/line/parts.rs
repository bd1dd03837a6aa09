//! Parts between trigger, camera and reject gate.
//!
//! In: triggers, exposure times of frames, decisions, the time and the encoder count. Out: the part
//! that a frame shows, whether a decision came in time, and the level of the reject output. No
//! clock and no device. Every part is settled exactly once, in whatever order decisions come; a
//! part without a decision at its deadline gets the safe action.

use std::collections::VecDeque;
use std::time::Duration;

use proto::report::GateAction;

use super::conveyor::{Due, Moment, Travel};
use super::pairing::Pairing;

/// Number of a part since the start, from 1.
pub type PartId = u64;

/// Most parts between trigger and gate.
pub const MAX_IN_FLIGHT: usize = 4_096;

/// How long an untracked part counts as on the line where no gate says when it has left.
const UNTRACKED_WITHOUT_GATE: Duration = Duration::from_secs(1);

/// How long no trigger and no frame may come before pairing starts anew after a shift.
const REST: Duration = Duration::from_secs(2);

/// Position and pulse of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// Distance from trigger to gate; zero: the output follows the verdict at once.
    pub delay: Travel,
    /// How long the output stays active.
    pub pulse: Travel,
}

/// Deadlines, gate and safe action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Longest time from trigger to decision; a later decision has no effect.
    pub deadline: Option<Duration>,
    /// Longest time from trigger to frame, and from trigger to the start of its exposure.
    pub frame_within: Duration,
    /// Longest time from an edge of the trigger to its report. A frame that comes earlier than this
    /// after the start of its exposure is assigned only then: its own trigger may be unreported.
    pub edges_reported_within: Duration,
    /// How long a frame that belongs to no part is kept for a trigger that is reported later, after
    /// its debounce.
    pub early_frame_within: Duration,
    /// Every trigger makes the camera take exactly one frame, and nothing else does.
    pub camera_is_triggered: bool,
    /// The gate, if there is one.
    pub gate: Option<GateSettings>,
    /// Action for a part without a decision.
    pub safe_action: GateAction,
}

/// How a part was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// What the gate does with the part, or did.
    pub action: GateAction,
    /// The decision came after the deadline, or after the part had reached the gate.
    pub late: bool,
}

/// Number of a frame that waits for its trigger, since the start.
pub type EarlyFrameId = u64;

/// The part that a frame shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameAssignment {
    /// The part; `None` if no part waits that was triggered before the exposure.
    pub part: Option<PartId>,
    /// Without a part: the number under which the frame waits for a trigger that is reported later.
    pub waits_as: Option<EarlyFrameId>,
    /// Older parts whose frame was lost; they still need their decision.
    pub skipped: Vec<PartId>,
}

/// A frame whose trigger has not been reported yet.
#[derive(Debug, Clone, Copy)]
struct EarlyFrame {
    id: EarlyFrameId,
    exposed_from: Duration,
    /// When it can be assigned because every edge before its exposure has been reported; `None` once
    /// that has been tried.
    assign_at: Option<Duration>,
    expires: Duration,
    /// A part waited when it came, but was triggered after its exposure began.
    part_waited: bool,
}

#[derive(Debug, Clone)]
struct Flight {
    part: PartId,
    start: Moment,
    awaits_frame: bool,
    /// Start of the exposure of its frame.
    exposed_from: Option<Duration>,
    /// Action of the gate, and whether it is the safe action of a part that was not decided in
    /// time.
    action: Option<(GateAction, bool)>,
    /// When the action was chosen.
    decided_at: Moment,
    settled: bool,
    /// Past the gate.
    passed: bool,
}

impl Flight {
    /// Chooses the safe action if there is no decision after the deadline or at the gate.
    fn expire_decision(&mut self, settings: &Settings, safe: GateAction, now: Moment) {
        let deadline = settings.deadline.map(|limit| self.start.time + limit);
        let late = deadline.is_some_and(|deadline| now.time > deadline);
        let at_gate = settings.gate.is_some_and(|gate| {
            !gate.delay.is_zero() && gate.delay.due_after(self.start).reached(now)
        });
        if self.action.is_none() && (late || at_gate) {
            self.action = Some((safe, true));
            self.decided_at = now;
        }
    }

    fn is_over(&self) -> bool {
        self.passed && self.settled
    }
}

/// The parts in flight.
#[derive(Debug)]
pub struct Parts {
    settings: Settings,
    flights: VecDeque<Flight>,
    newest: PartId,
    /// End of the pulse that runs.
    active_until: Option<Due>,
    /// Until then an untracked part may come to the gate.
    blind_until: Option<Due>,
    observe: bool,
    early_frames: VecDeque<EarlyFrame>,
    next_early_frame: EarlyFrameId,
    /// Frames that found their part when its trigger was reported.
    matched: Vec<(EarlyFrameId, PartId)>,
    pairing: Pairing,
    /// Since when no part and no frame waits, after a shift.
    at_rest_since: Option<Duration>,
    missed_pulses: u64,
    /// When the pulse was due that began since [`Parts::take_pulse_due`].
    pulse_due: Option<Due>,
}

impl Parts {
    /// An empty line.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            flights: VecDeque::new(),
            newest: 0,
            active_until: None,
            blind_until: None,
            observe: false,
            early_frames: VecDeque::new(),
            next_early_frame: 0,
            matched: Vec::new(),
            pairing: Pairing::default(),
            at_rest_since: None,
            missed_pulses: 0,
            pulse_due: None,
        }
    }

    /// Turns observing on or off. While observing, the gate lets every part pass; parts that were
    /// decided so are untracked when observing ends.
    pub fn set_observe(&mut self, observe: bool, now: Moment) {
        let ends = self.observe && !observe;
        self.observe = observe;
        if ends {
            self.hold_unseen(now);
        }
    }

    /// Holds the gate until all that is on the line now is past it, because nobody saw it: at the
    /// start, after an outage of the camera. Does nothing without a gate.
    pub fn hold_unseen(&mut self, now: Moment) {
        if self.settings.gate.is_some() {
            self.lose_track(now);
        }
    }

    /// Whether frames and parts do not go together one to one, so that verdicts may be about
    /// another part.
    pub fn is_shifted(&self) -> bool {
        self.settings.camera_is_triggered && self.pairing.is_shifted()
    }

    /// Whether every trigger makes the camera take exactly one frame, and nothing else does.
    pub fn camera_is_triggered(&self) -> bool {
        self.settings.camera_is_triggered
    }

    /// The driver says that it dropped frames between two others.
    pub fn frames_dropped(&mut self, count: u32) {
        self.pairing.frames_dropped(count);
    }

    /// Starts counting frames and parts anew: the camera was opened again, or edges were lost.
    pub fn reset_pairing(&mut self) {
        self.pairing.reset();
    }

    /// Whether the gate lets every part pass.
    pub fn is_observing(&self) -> bool {
        self.observe
    }

    /// Whether the distance to the gate is in encoder counts.
    pub fn is_by_encoder(&self) -> bool {
        let delay = self.settings.gate.map(|gate| gate.delay);
        matches!(delay, Some(Travel::Counts(_)))
    }

    /// Begins a part at the trigger; `awaits_frame` unless its frame is already there.
    ///
    /// `None` if [`MAX_IN_FLIGHT`] parts are on the line already: the line runs faster than parts
    /// can be tracked, and this one is untracked ([`Self::lose_track`]).
    pub fn begin(&mut self, now: Moment, awaits_frame: bool) -> Option<PartId> {
        if self.flights.len() >= MAX_IN_FLIGHT {
            self.merge_settled();
        }
        if self.flights.len() >= MAX_IN_FLIGHT {
            self.lose_track(now);
            return None;
        }
        // A trigger was reported so late that its frame has been taken for an older part's, whose
        // own frame was lost.
        let is_mistaken =
            |flight: &Flight| flight.exposed_from.is_some_and(|from| from >= now.time);
        if awaits_frame && self.flights.iter().any(is_mistaken) {
            self.lose_track(now);
        }
        self.at_rest_since = None;
        self.newest += 1;
        self.flights.push_back(Flight {
            part: self.newest,
            start: now,
            awaits_frame,
            exposed_from: None,
            action: None,
            decided_at: now,
            settled: false,
            passed: self.settings.gate.is_none(),
        });
        if awaits_frame {
            self.match_early_frame(now.time);
        }
        Some(self.newest)
    }

    /// Gives the newest part the first frame that was exposed after its trigger, if the trigger was
    /// reported even later than [`Settings::edges_reported_within`].
    fn match_early_frame(&mut self, start: Duration) {
        // The frame of a trigger begins when the trigger does. A later one may be another part's
        // whose trigger is reported late as well.
        let within = self.settings.edges_reported_within;
        let latest = start + within.min(self.settings.frame_within);
        // A frame that can still be assigned in order may show a part triggered later than this one.
        let shows = |frame: &EarlyFrame| {
            frame.assign_at.is_none() && (start..=latest).contains(&frame.exposed_from)
        };
        let Some(index) = self.early_frames.iter().position(shows) else {
            return;
        };
        if let (Some(frame), Some(flight)) =
            (self.early_frames.remove(index), self.flights.back_mut())
        {
            flight.awaits_frame = false;
            flight.exposed_from = Some(frame.exposed_from);
            self.matched.push((frame.id, flight.part));
            self.pairing.pair();
        }
    }

    /// Frames that have found their part since the last call, with that part.
    pub fn take_matched(&mut self) -> Vec<(EarlyFrameId, PartId)> {
        std::mem::take(&mut self.matched)
    }

    /// Gives up frames whose trigger has not been reported in time; returns their numbers.
    pub fn expire_early_frames(&mut self, now: Duration) -> Vec<EarlyFrameId> {
        let mut expired = Vec::new();
        while let Some(frame) = self.early_frames.pop_front_if(|frame| now > frame.expires) {
            self.pairing.frame_without_part(frame.part_waited);
            expired.push(frame.id);
        }
        expired
    }

    /// Records that untracked parts are on the line: [`Self::is_blind`] until even one that passes
    /// the trigger now is past the gate.
    pub fn lose_track(&mut self, now: Moment) {
        let gate = self.settings.gate.unwrap_or(GateSettings {
            delay: Travel::Time(Duration::ZERO),
            pulse: Travel::Time(UNTRACKED_WITHOUT_GATE),
        });
        let end = gate.delay.plus(gate.pulse).due_after(now);
        self.blind_until = Some(self.blind_until.map_or(end, |other| other.later_of(end)));
    }

    /// Makes room while the conveyor stands and frames go on. Drops finished parts; of neighbouring
    /// settled parts that are due at the gate together, keeps one, a rejected one if there is any.
    fn merge_settled(&mut self) {
        let Some(gate) = self.settings.gate else {
            return;
        };
        let due = |flight: &Flight| {
            (flight.settled && !flight.passed).then(|| gate.delay.due_after(flight.start))
        };
        let rejects = |flight: &Flight| matches!(flight.action, Some((GateAction::Reject, _)));
        let mut kept: VecDeque<Flight> = VecDeque::new();
        for flight in self.flights.drain(..) {
            match kept.back_mut() {
                _ if flight.is_over() => {}
                Some(last) if due(&flight).is_some() && due(last) == due(&flight) => {
                    if rejects(&flight) {
                        *last = flight;
                    }
                }
                _ => kept.push_back(flight),
            }
        }
        self.flights = kept;
    }

    /// Assigns a frame to the newest part triggered before its exposure began, at most
    /// [`Settings::frame_within`] before.
    ///
    /// Older parts that still wait have lost their frame. Giving the oldest of them this frame
    /// would shift all later verdicts by one part. A frame waits if it has no part, or if its own
    /// trigger may not have been reported yet.
    pub fn assign_frame(&mut self, exposed_from: Duration, now: Duration) -> FrameAssignment {
        let assign_at = exposed_from + self.settings.edges_reported_within;
        if now < assign_at {
            return FrameAssignment {
                waits_as: Some(self.keep_early_frame(exposed_from, Some(assign_at), now)),
                ..FrameAssignment::default()
            };
        }
        let mut assigned = self.assign_now(exposed_from);
        if assigned.part.is_none() {
            assigned.waits_as = Some(self.keep_early_frame(exposed_from, None, now));
        }
        assigned
    }

    fn assign_now(&mut self, exposed_from: Duration) -> FrameAssignment {
        let within = self.settings.frame_within;
        let mut waiting: Vec<(PartId, bool)> = self
            .flights
            .iter_mut()
            .filter(|flight| flight.awaits_frame && flight.start.time <= exposed_from)
            .map(|flight| {
                flight.awaits_frame = false;
                (flight.part, exposed_from <= flight.start.time + within)
            })
            .collect();
        let part = waiting
            .pop_if(|(_, in_time)| *in_time)
            .map(|(part, _)| part);
        for _ in &waiting {
            self.pairing.part_without_frame();
        }
        if let Some(part) = part {
            self.pairing.pair();
            let flight = self.flights.iter_mut().find(|flight| flight.part == part);
            if let Some(flight) = flight {
                flight.exposed_from = Some(exposed_from);
            }
        }
        FrameAssignment {
            part,
            waits_as: None,
            skipped: waiting.into_iter().map(|(part, _)| part).collect(),
        }
    }

    fn keep_early_frame(
        &mut self,
        exposed_from: Duration,
        assign_at: Option<Duration>,
        now: Duration,
    ) -> EarlyFrameId {
        self.next_early_frame += 1;
        let part_waited = self.flights.iter().any(|flight| flight.awaits_frame);
        self.early_frames.push_back(EarlyFrame {
            id: self.next_early_frame,
            exposed_from,
            assign_at,
            expires: now.max(assign_at.unwrap_or_default()) + self.settings.early_frame_within,
            part_waited,
        });
        self.next_early_frame
    }

    /// Assigns frames that waited until every edge before their exposure was reported. Returns those
    /// that have a part now; the others wait on until they expire.
    pub fn assign_early_frames(&mut self, now: Duration) -> Vec<(EarlyFrameId, FrameAssignment)> {
        let mut assigned = Vec::new();
        let mut index = 0;
        while let Some(frame) = self.early_frames.get(index).copied() {
            index += 1;
            if frame.assign_at.is_none_or(|at| now < at) {
                continue;
            }
            let found = self.assign_now(frame.exposed_from);
            if found.part.is_some() || !found.skipped.is_empty() {
                assigned.push((frame.id, found.clone()));
            }
            if found.part.is_some() {
                index -= 1;
                self.early_frames.remove(index);
            } else if let Some(frame) = self.early_frames.get_mut(index - 1) {
                frame.assign_at = None;
            }
        }
        assigned
    }

    /// Stops waiting for overdue frames and returns their parts, which still need their decision.
    pub fn expire_frames(&mut self, now: Duration) -> Vec<PartId> {
        let within = self.settings.frame_within;
        let overdue: Vec<PartId> = self
            .flights
            .iter_mut()
            .filter(|flight| flight.awaits_frame && now.saturating_sub(flight.start.time) > within)
            .map(|flight| {
                flight.awaits_frame = false;
                flight.part
            })
            .collect();
        // At a stop no frame comes any more, which is no shift.
        if now < Duration::MAX {
            for _ in &overdue {
                self.pairing.part_without_frame();
            }
        }
        overdue
    }

    /// Settles a part with the `wanted` action, or with the safe action if it is late.
    ///
    /// Without a gate the action is [`GateAction::None`], and lateness is determined all the same.
    /// `None` if there is no such part or it is settled already.
    pub fn decide(&mut self, part: PartId, wanted: GateAction, now: Moment) -> Option<Settlement> {
        let wanted = self.effective_action(wanted);
        let safe = self.effective_action(self.settings.safe_action);
        let settings = self.settings;
        let flight = self
            .flights
            .iter_mut()
            .find(|flight| flight.part == part && !flight.settled)?;
        flight.expire_decision(&settings, safe, now);
        flight.settled = true;
        flight.awaits_frame = false;
        let (action, late) = *flight.action.get_or_insert((wanted, false));
        if !late {
            flight.decided_at = now;
        }
        self.remove_finished();
        Some(Settlement { action, late })
    }

    fn remove_finished(&mut self) {
        while self.flights.front().is_some_and(Flight::is_over) {
            self.flights.pop_front();
        }
    }

    /// The `wanted` action, unless there is no gate or every part passes.
    fn effective_action(&self, wanted: GateAction) -> GateAction {
        match (self.settings.gate, self.observe) {
            (None, _) => GateAction::None,
            (_, true) => GateAction::Pass,
            _ => wanted,
        }
    }

    /// Advances to `now`: deadlines expire, parts reach the gate, pulses begin and end. Returns the
    /// level of the reject output.
    ///
    /// Only the thread that sets the output may call it. Pulses begin only here, so none can end
    /// before it was output.
    pub fn advance(&mut self, now: Moment) -> bool {
        let safe = self.effective_action(self.settings.safe_action);
        for flight in &mut self.flights {
            flight.expire_decision(&self.settings, safe, now);
            let Some(gate) = self.settings.gate.filter(|_| !flight.passed) else {
                continue;
            };
            let immediate = gate.delay.is_zero();
            if !immediate && !gate.delay.due_after(flight.start).reached(now) {
                continue;
            }
            let Some((action, _)) = flight.action else {
                continue;
            };
            flight.passed = true;
            if action == GateAction::Reject {
                let due = if immediate {
                    Due::Time(flight.decided_at.time)
                } else {
                    gate.delay.due_after(flight.start)
                };
                self.pulse_due.get_or_insert(due);
                // The length of a pulse counts from when it was due, not from this call, which may
                // come a little later.
                let start = if immediate {
                    flight.decided_at
                } else {
                    match (gate.delay, gate.pulse) {
                        (Travel::Time(delay), Travel::Time(_)) => Moment {
                            time: flight.start.time + delay,
                            ..now
                        },
                        (Travel::Counts(delay), Travel::Counts(_)) => Moment {
                            counts: flight.start.counts + delay,
                            ..now
                        },
                        _ => now,
                    }
                };
                let mut end = gate.pulse.due_after(start);
                if end.reached(now) {
                    // The pulse should be over already. A late one is better than none; it is
                    // counted as missed.
                    self.missed_pulses += 1;
                    end = gate.pulse.due_after(now);
                }
                let until = self.active_until;
                self.active_until = Some(until.map_or(end, |other| other.later_of(end)));
            }
        }
        self.remove_finished();
        self.restart_pairing_at_rest(now);
        if self.blind_until.is_some_and(|until| until.reached(now)) {
            self.blind_until = None;
        }
        if self.active_until.is_some_and(|until| until.reached(now)) {
            self.active_until = None;
        }
        self.active_until.is_some()
    }

    /// Once the line has stood still, starts pairing anew after a shift: what is on the line then
    /// was decided by another part's frame and is untracked. Without a shift, single frames that
    /// were lost until then are forgotten.
    fn restart_pairing_at_rest(&mut self, now: Moment) {
        let waits = self.flights.iter().any(|flight| flight.awaits_frame);
        if waits || !self.early_frames.is_empty() {
            self.at_rest_since = None;
            return;
        }
        let since = *self.at_rest_since.get_or_insert(now.time);
        if now.time.saturating_sub(since) < REST {
            return;
        }
        if self.is_shifted() {
            self.at_rest_since = None;
            self.pairing.reset();
            self.hold_unseen(now);
        } else {
            self.pairing.rest();
        }
    }

    /// When to call [`Self::advance`] next, unless a decision or an encoder count comes before.
    pub fn next_change(&self) -> Option<Duration> {
        let flights = self.flights.iter().filter(|flight| !flight.is_over());
        let changes = flights.flat_map(|flight| {
            let start = flight.start.time;
            let deadline = (flight.action.is_none())
                .then_some(self.settings.deadline)
                .flatten()
                // At the deadline itself a decision is still in time.
                .map(|limit| start + limit + Duration::from_nanos(1));
            let gate = self.settings.gate.filter(|_| !flight.passed);
            let gate = gate.and_then(|gate| match gate.delay {
                delay if delay.is_zero() => flight.action.map(|_| flight.decided_at.time),
                Travel::Counts(_) => None,
                Travel::Time(delay) => Some(start + delay),
            });
            let frame = flight
                .awaits_frame
                .then(|| start + self.settings.frame_within + Duration::from_nanos(1));
            [deadline, gate, frame]
        });
        changes
            .flatten()
            .chain(self.active_until.and_then(Due::time))
            .chain(self.blind_until.and_then(Due::time))
            .chain(self.early_frames.iter().filter_map(|frame| frame.assign_at))
            .min()
    }

    /// Number of parts that are not settled.
    pub fn undecided(&self) -> usize {
        self.flights.iter().filter(|flight| !flight.settled).count()
    }

    /// Number of pulses that began after they should have ended; the part may have passed the gate
    /// by then.
    pub fn missed_pulses(&self) -> u64 {
        self.missed_pulses
    }

    /// When the first pulse was due that [`Self::advance`] has begun since the last call of this.
    pub fn take_pulse_due(&mut self) -> Option<Due> {
        self.pulse_due.take()
    }

    /// Whether an untracked part may come to the gate.
    pub fn is_blind(&self) -> bool {
        self.blind_until.is_some()
    }

    /// Whether every part is settled and past the gate, and no pulse runs.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.active_until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment {
            time: Duration::from_millis(ms),
            counts: 0,
        }
    }

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn line(delay_ms: u64, pulse_ms: u64, deadline_ms: Option<u64>) -> Parts {
        Parts::new(Settings {
            deadline: deadline_ms.map(ms),
            frame_within: ms(30),
            edges_reported_within: ms(2),
            early_frame_within: ms(20),
            camera_is_triggered: true,
            gate: Some(GateSettings {
                delay: Travel::Time(ms(delay_ms)),
                pulse: Travel::Time(ms(pulse_ms)),
            }),
            safe_action: GateAction::Reject,
        })
    }

    /// Changes of the output in milliseconds, if `advance` is called exactly when `next_change`
    /// says.
    fn levels(parts: &mut Parts, mut now: u64, until: u64) -> Vec<(u64, bool)> {
        let mut level = false;
        let mut changes = Vec::new();
        while now <= until {
            let new = parts.advance(at(now));
            if new != level {
                level = new;
                changes.push((now, level));
            }
            let Some(next) = parts.next_change() else {
                break;
            };
            now = (next.as_micros() as u64).div_ceil(1_000).max(now + 1);
        }
        changes
    }

    #[test]
    fn the_pulse_begins_at_the_gate_and_has_its_length() {
        let mut parts = line(100, 20, None);
        let part = parts.begin(at(5), false).unwrap();
        let settled = parts.decide(part, GateAction::Reject, at(40)).unwrap();
        assert_eq!(
            settled,
            Settlement {
                action: GateAction::Reject,
                late: false
            }
        );
        assert_eq!(levels(&mut parts, 40, 500), [(105, true), (125, false)]);
        assert!(parts.is_idle());
    }

    #[test]
    fn two_parts_in_flight_are_not_confused_whichever_is_decided_first() {
        let mut parts = line(100, 10, None);
        let first = parts.begin(at(0), false).unwrap();
        let second = parts.begin(at(50), false).unwrap();
        parts.decide(second, GateAction::Reject, at(60)).unwrap();
        parts.decide(first, GateAction::Pass, at(70)).unwrap();
        assert_eq!(levels(&mut parts, 70, 500), [(150, true), (160, false)]);
    }

    #[test]
    fn pulses_that_touch_become_one() {
        let mut parts = line(100, 30, None);
        for start in [0, 20] {
            let part = parts.begin(at(start), false).unwrap();
            parts
                .decide(part, GateAction::Reject, at(start + 5))
                .unwrap();
        }
        assert_eq!(levels(&mut parts, 25, 500), [(100, true), (150, false)]);
    }

    #[test]
    fn without_a_decision_in_time_the_safe_action_stands_and_the_decision_is_late() {
        let mut parts = line(100, 10, Some(80));
        let part = parts.begin(at(0), false).unwrap();
        parts.advance(at(80));
        assert_eq!(parts.next_change(), Some(ms(80) + Duration::from_nanos(1)));
        parts.advance(at(81));
        let settled = parts.decide(part, GateAction::Pass, at(90)).unwrap();
        assert_eq!(
            settled,
            Settlement {
                action: GateAction::Reject,
                late: true
            }
        );
        assert_eq!(levels(&mut parts, 90, 500), [(100, true), (110, false)]);
        assert_eq!(parts.decide(part, GateAction::Pass, at(95)), None);
    }

    #[test]
    fn a_part_at_the_gate_without_a_decision_is_rejected_even_without_a_deadline() {
        let mut parts = line(100, 10, None);
        let part = parts.begin(at(0), false).unwrap();
        assert_eq!(levels(&mut parts, 0, 500), [(100, true), (110, false)]);
        let settled = parts.decide(part, GateAction::Pass, at(600)).unwrap();
        assert!(settled.late);
        assert!(parts.is_idle());
    }

    #[test]
    fn a_gate_without_delay_follows_the_verdict() {
        let mut parts = line(0, 10, Some(50));
        let part = parts.begin(at(0), false).unwrap();
        assert!(!parts.advance(at(20)));
        parts.decide(part, GateAction::Reject, at(20)).unwrap();
        assert_eq!(levels(&mut parts, 20, 100), [(20, true), (30, false)]);
    }

    fn assigned_to(part: PartId) -> FrameAssignment {
        FrameAssignment {
            part: Some(part),
            ..FrameAssignment::default()
        }
    }

    fn waits(parts: &mut Parts, exposed_ms: u64, now_ms: u64) -> EarlyFrameId {
        let assigned = parts.assign_frame(ms(exposed_ms), ms(now_ms));
        assert_eq!(assigned.part, None, "{assigned:?}");
        assigned.waits_as.unwrap()
    }

    #[test]
    fn frames_go_to_the_part_triggered_before_them() {
        let mut parts = line(100, 10, None);
        let first = parts.begin(at(10), true).unwrap();
        waits(&mut parts, 9, 12);
        assert_eq!(parts.assign_frame(ms(15), ms(18)), assigned_to(first));
        waits(&mut parts, 20, 22);
        let second = parts.begin(at(25), true).unwrap();
        assert_eq!(parts.assign_frame(ms(30), ms(33)), assigned_to(second));
        waits(&mut parts, 31, 34);
        let third = parts.begin(at(40), true).unwrap();
        assert!(parts.expire_frames(ms(70)).is_empty());
        assert_eq!(parts.expire_frames(ms(71)), [third]);
        assert!(parts.expire_frames(ms(99)).is_empty(), "returned once");
        waits(&mut parts, 80, 83);
    }

    #[test]
    fn a_frame_that_comes_before_its_edge_is_reported_goes_to_its_part() {
        let mut parts = line(100, 10, None);
        // Edge at 10, exposed at 11, here at 15, the edge reported after its debounce at 20.
        let frame = waits(&mut parts, 11, 15);
        let part = parts.begin(at(10), true).unwrap();
        assert_eq!(parts.take_matched(), [(frame, part)]);
        assert!(
            parts.expire_frames(ms(1_000)).is_empty(),
            "it has its frame"
        );
        // And the next one is not shifted.
        let next = waits(&mut parts, 51, 55);
        let second = parts.begin(at(50), true).unwrap();
        assert_eq!(parts.take_matched(), [(next, second)]);
        assert!(!parts.is_shifted());
    }

    #[test]
    fn a_frame_waits_until_its_own_edge_would_have_been_reported() {
        let mut parts = line(100, 10, None);
        let lost = parts.begin(at(0), true).unwrap();
        // The first part's frame is lost; this one is of a part whose edge at 10 is not reported
        // yet.
        let frame = waits(&mut parts, 11, 12);
        assert!(parts.assign_early_frames(ms(12)).is_empty());
        let second = parts.begin(at(10), true).unwrap();
        let shown = FrameAssignment {
            part: Some(second),
            waits_as: None,
            skipped: vec![lost],
        };
        assert_eq!(parts.assign_early_frames(ms(13)), [(frame, shown)]);
        // Without such an edge it is the waiting part's.
        let third = parts.begin(at(50), true).unwrap();
        let frame = waits(&mut parts, 51, 52);
        assert_eq!(parts.next_change(), Some(ms(53)));
        assert_eq!(
            parts.assign_early_frames(ms(53)),
            [(frame, assigned_to(third))]
        );
    }

    #[test]
    fn an_early_frame_is_given_up_after_its_time_and_is_never_an_older_parts() {
        let mut parts = line(100, 10, None);
        let frame = waits(&mut parts, 11, 15);
        parts.begin(at(12), true).unwrap();
        assert!(
            parts.take_matched().is_empty(),
            "exposed before the trigger"
        );
        assert!(parts.expire_early_frames(ms(35)).is_empty());
        assert_eq!(parts.expire_early_frames(ms(36)), [frame]);
    }

    #[test]
    fn a_frame_exposed_too_long_after_a_trigger_is_not_its_parts() {
        let mut parts = line(1_000, 10, None);
        let part = parts.begin(at(0), true).unwrap();
        let assigned = parts.assign_frame(ms(31), ms(35));
        assert_eq!((assigned.part, assigned.skipped), (None, vec![part]));
    }

    #[test]
    fn a_shift_by_one_is_found_and_ends_when_the_line_has_stood_still() {
        let mut parts = line(100, 10, None);
        // A camera whose exposure is believed to begin a frame interval, 20 ms, too early.
        let believed = |real: u64| (real - 20).max(1);
        let mut now = 100;
        for _ in 0..12 {
            parts.begin(at(now), true).unwrap();
            parts.assign_frame(ms(believed(now + 1)), ms(now + 15));
            now += 20;
            parts.expire_early_frames(ms(now));
            parts.advance(at(now));
        }
        assert!(parts.is_shifted());
        // The last part's frame never comes.
        parts.expire_frames(ms(now + 100));
        parts.expire_early_frames(ms(now + 100));
        parts.advance(at(now + 100));
        parts.advance(at(now + 2_200));
        assert!(!parts.is_shifted());
    }

    #[test]
    fn leaving_observe_mode_holds_the_gate_until_parts_decided_by_it_are_past() {
        let mut parts = line(100, 10, None);
        parts.set_observe(true, at(0));
        let part = parts.begin(at(0), false).unwrap();
        parts.decide(part, GateAction::Reject, at(5)).unwrap();
        parts.set_observe(false, at(10));
        assert!(parts.is_blind());
        parts.advance(at(119));
        assert!(parts.is_blind());
        parts.advance(at(120));
        assert!(!parts.is_blind());
    }

    #[test]
    fn a_lost_frame_costs_its_own_part_and_shifts_no_other() {
        let mut parts = line(1_000, 10, None);
        let lost = parts.begin(at(0), true).unwrap();
        let second = parts.begin(at(20), true).unwrap();
        assert_eq!(
            parts.assign_frame(ms(21), ms(25)),
            FrameAssignment {
                part: Some(second),
                skipped: vec![lost],
                waits_as: None,
            }
        );
        let third = parts.begin(at(40), true).unwrap();
        assert_eq!(parts.assign_frame(ms(41), ms(45)), assigned_to(third));
        assert!(parts.expire_frames(ms(900)).is_empty());
    }

    #[test]
    fn a_pulse_begins_when_it_is_output_even_if_another_part_was_decided_meanwhile() {
        let mut parts = line(0, 10, None);
        let first = parts.begin(at(0), false).unwrap();
        parts.decide(first, GateAction::Reject, at(5)).unwrap();
        // The gate thread slept meanwhile.
        let second = parts.begin(at(50), false).unwrap();
        parts.decide(second, GateAction::Pass, at(60)).unwrap();
        assert_eq!(parts.next_change(), Some(ms(5)), "at once");
        assert_eq!(levels(&mut parts, 70, 500), [(70, true), (80, false)]);
        assert_eq!(parts.missed_pulses(), 1);
    }

    #[test]
    fn an_untracked_part_blinds_until_it_is_past_the_gate() {
        let mut parts = line(100, 10, None);
        assert!(!parts.is_blind());
        parts.lose_track(at(5));
        parts.advance(at(114));
        assert!(parts.is_blind());
        assert_eq!(parts.next_change(), Some(ms(115)));
        parts.advance(at(115));
        assert!(!parts.is_blind());
    }

    #[test]
    fn a_standing_belt_does_not_fill_the_line() {
        let mut parts = Parts::new(Settings {
            deadline: None,
            frame_within: ms(30),
            edges_reported_within: ms(2),
            early_frame_within: ms(20),
            camera_is_triggered: true,
            gate: Some(GateSettings {
                delay: Travel::Counts(100),
                pulse: Travel::Counts(5),
            }),
            safe_action: GateAction::Reject,
        });
        let moment = |counts| Moment {
            time: ms(1),
            counts,
        };
        for round in 0..3 * MAX_IN_FLIGHT {
            let part = parts.begin(moment(7), false).unwrap();
            let action = if round == 9 {
                GateAction::Reject
            } else {
                GateAction::Pass
            };
            parts.decide(part, action, moment(7)).unwrap();
        }
        let undecided = parts.begin(moment(7), false).unwrap();
        assert!(!parts.is_blind());
        let settled = parts.decide(undecided, GateAction::Pass, moment(50));
        assert!(!settled.unwrap().late);
        assert!(parts.advance(moment(107)), "the rejected part is kept");
        assert!(!parts.advance(moment(112)));
        assert!(parts.is_idle());
    }

    #[test]
    fn a_pulse_that_begins_too_late_is_output_and_counted_as_missed() {
        let mut parts = line(100, 10, None);
        let part = parts.begin(at(0), false).unwrap();
        parts.decide(part, GateAction::Reject, at(5)).unwrap();
        assert_eq!(levels(&mut parts, 150, 500), [(150, true), (160, false)]);
        assert_eq!(parts.missed_pulses(), 1);
    }

    #[test]
    fn with_an_encoder_only_counts_matter() {
        let mut parts = Parts::new(Settings {
            deadline: None,
            frame_within: ms(30),
            edges_reported_within: ms(2),
            early_frame_within: ms(20),
            camera_is_triggered: true,
            gate: Some(GateSettings {
                delay: Travel::Counts(100),
                pulse: Travel::Counts(5),
            }),
            safe_action: GateAction::Pass,
        });
        let moment = |time, counts| Moment {
            time: ms(time),
            counts,
        };
        let part = parts.begin(moment(0, 7), false).unwrap();
        parts
            .decide(part, GateAction::Reject, moment(10, 8))
            .unwrap();
        assert!(!parts.advance(moment(100_000, 106)), "the belt stands");
        assert!(parts.advance(moment(100_001, 107)));
        assert!(parts.advance(moment(200_000, 111)));
        assert!(!parts.advance(moment(200_001, 112)));
    }

    #[test]
    fn while_observing_nothing_is_rejected() {
        let mut parts = line(100, 10, Some(50));
        parts.set_observe(true, at(0));
        let part = parts.begin(at(0), false).unwrap();
        parts.begin(at(1), false).unwrap();
        let settled = parts.decide(part, GateAction::Reject, at(10)).unwrap();
        assert_eq!(settled.action, GateAction::Pass);
        assert_eq!(levels(&mut parts, 10, 500), []);
    }

    #[test]
    fn the_line_is_bounded() {
        let mut parts = line(100, 10, None);
        for _ in 0..MAX_IN_FLIGHT {
            assert!(parts.begin(at(0), false).is_some());
        }
        assert!(!parts.is_blind());
        assert_eq!(parts.begin(at(0), false), None);
        assert!(parts.is_blind());
    }

    proptest! {
        /// With triggers 30 ms apart and decisions in any order before the gate, the output is
        /// active for the rejected parts and for no other.
        #[test]
        fn each_part_gets_its_own_action(
            wanted in prop::collection::vec(any::<bool>(), 1..12),
            order in any::<u64>(),
        ) {
            let mut parts = line(1_000, 20, None);
            let ids: Vec<PartId> =
                (0..wanted.len()).map(|n| parts.begin(at(30 * n as u64), false).unwrap()).collect();
            let mut turn: Vec<usize> = (0..wanted.len()).collect();
            turn.sort_by_key(|&n| (n as u64 + 1).wrapping_mul(order | 1));
            for n in turn {
                let action = if wanted[n] { GateAction::Reject } else { GateAction::Pass };
                parts.decide(ids[n], action, at(500)).unwrap();
            }
            for (n, &reject) in wanted.iter().enumerate() {
                let gate = 1_000 + 30 * n as u64;
                prop_assert_eq!(parts.advance(at(gate + 10)), reject);
                prop_assert!(!parts.advance(at(gate + 25)));
            }
        }
    }
}
