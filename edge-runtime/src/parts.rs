//! Parts between trigger, camera and reject gate. Pure: time and encoder counts are given, output levels come back.
//!
//! In: triggers, frames' time stamps, decisions, the time. Out: which part a frame shows, whether a decision still
//! counts, and the level of the reject output. Every part is settled exactly once, in whatever order decisions come;
//! a part whose decision is missing at its deadline gets the safe action.

use std::collections::VecDeque;
use std::time::Duration;

use proto::report::GateAction;

/// Number of a part since the start, from 1.
pub type PartId = u64;

/// Most parts between trigger and gate.
pub const MAX_IN_FLIGHT: usize = 4_096;
/// Without a gate, a part that cannot be followed is a fault for so long.
const LOSS_SHOWN: Duration = Duration::from_secs(1);
/// Moves of the conveyor that are remembered: a second of a fast encoder.
const MAX_MOVES: usize = 8_192;

/// A point of time (since any fixed instant) and of the conveyor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Time.
    pub time: Duration,
    /// Encoder counts; 0 without an encoder.
    pub counts: u64,
}

/// A way along the conveyor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Travel {
    /// By time.
    Time(Duration),
    /// By encoder counts.
    Counts(u64),
}

impl Travel {
    fn is_zero(self) -> bool {
        matches!(self, Self::Time(Duration::ZERO) | Self::Counts(0))
    }

    fn from(self, start: Moment) -> Due {
        match self {
            Self::Time(way) => Due::Time(start.time + way),
            Self::Counts(way) => Due::Counts(start.counts + way),
        }
    }

    fn and(self, more: Self) -> Self {
        match (self, more) {
            (Self::Time(a), Self::Time(b)) => Self::Time(a + b),
            (Self::Counts(a), Self::Counts(b)) => Self::Counts(a + b),
            (_, more) => more,
        }
    }
}

/// When something is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    Time(Duration),
    /// When the conveyor has come so far.
    Counts(u64),
}

impl Due {
    fn reached(self, now: Moment) -> bool {
        match self {
            Self::Time(time) => now.time >= time,
            Self::Counts(counts) => now.counts >= counts,
        }
    }

    fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Counts(_) => None,
        }
    }

    fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Time(a), Self::Time(b)) => Self::Time(a.max(b)),
            (Self::Counts(a), Self::Counts(b)) => Self::Counts(a.max(b)),
            (_, other) => other,
        }
    }
}

/// The gate's place and pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// From trigger to gate; zero: the output follows the verdict at once.
    pub delay: Travel,
    /// How long the output stays active.
    pub pulse: Travel,
}

/// What is known of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From trigger to the last moment that a decision counts.
    pub deadline: Option<Duration>,
    /// A frame must come within so long after the trigger.
    pub frame_within: Duration,
    /// The gate, if there is one.
    pub gate: Option<GateSettings>,
    /// What a part without a decision gets.
    pub safe_action: GateAction,
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What the gate does, or did.
    pub action: GateAction,
    /// The decision came after the deadline, or after the part had passed the gate.
    pub late: bool,
}

/// Whom a frame shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// The part; `None` if no part waits that was triggered before the exposure.
    pub part: Option<PartId>,
    /// Older parts whose frame will not come any more; they still need their decision.
    pub skipped: Vec<PartId>,
}

/// Where the conveyor is, and was when something happened that is only handled now.
#[derive(Debug, Default)]
pub struct Conveyor {
    /// Before the oldest move that is remembered.
    before: u64,
    /// When the conveyor moved and how many counts it had then, oldest first.
    moves: VecDeque<(Duration, u64)>,
}

impl Conveyor {
    /// It moved on by so many counts.
    pub fn advance(&mut self, counts: u64, time: Duration) {
        let now = self.counts() + counts;
        if self.moves.len() >= MAX_MOVES
            && let Some((_, oldest)) = self.moves.pop_front()
        {
            self.before = oldest;
        }
        self.moves.push_back((time, now));
    }

    /// Counts so far.
    pub fn counts(&self) -> u64 {
        self.moves.back().map_or(self.before, |&(_, counts)| counts)
    }

    /// Counts at a time; the oldest that is remembered for a time before.
    pub fn at(&self, time: Duration) -> u64 {
        let moved = self.moves.partition_point(|&(moved, _)| moved <= time);
        let last = moved.checked_sub(1).and_then(|last| self.moves.get(last));
        last.map_or(self.before, |&(_, counts)| counts)
    }

    /// When it had come so far; `None` if that is forgotten or still to come.
    pub fn reached(&self, counts: u64) -> Option<Duration> {
        let before = self.moves.partition_point(|&(_, then)| then < counts);
        let known = counts > self.before;
        self.moves
            .get(before)
            .filter(|_| known)
            .map(|&(time, _)| time)
    }
}

#[derive(Debug, Clone)]
struct Flight {
    part: PartId,
    start: Moment,
    awaits_frame: bool,
    /// What the gate will do, and whether the deadline chose it.
    action: Option<(GateAction, bool)>,
    /// When the action was known.
    known: Moment,
    settled: bool,
    passed: bool,
}

impl Flight {
    /// Chooses the safe action where no decision can count any more: after the deadline, or at the gate.
    fn expire(&mut self, settings: &Settings, safe: GateAction, now: Moment) {
        let deadline = settings.deadline.map(|way| self.start.time + way);
        let late = deadline.is_some_and(|deadline| now.time > deadline);
        let at_gate = settings
            .gate
            .is_some_and(|gate| !gate.delay.is_zero() && gate.delay.from(self.start).reached(now));
        if self.action.is_none() && (late || at_gate) {
            self.action = Some((safe, true));
            self.known = now;
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
    begun: PartId,
    active_until: Option<Due>,
    /// Until then a part that is not followed may come to the gate.
    unknown_until: Option<Due>,
    observe: bool,
    missed: u64,
    begun_pulse: Option<Due>,
}

impl Parts {
    /// An empty line.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            flights: VecDeque::new(),
            begun: 0,
            active_until: None,
            unknown_until: None,
            observe: false,
            missed: 0,
            begun_pulse: None,
        }
    }

    /// While observing, every part passes.
    pub fn set_observe(&mut self, observe: bool) {
        self.observe = observe;
    }

    /// Whether every part passes.
    pub fn is_observing(&self) -> bool {
        self.observe
    }

    /// Whether the gate is reached by encoder counts.
    pub fn is_by_encoder(&self) -> bool {
        let delay = self.settings.gate.map(|gate| gate.delay);
        matches!(delay, Some(Travel::Counts(_)))
    }

    /// A part passes the trigger; `awaits_frame` unless its frame is already there. `None`: too many are in flight,
    /// the line runs faster than it can be followed, and the part is lost ([`Self::lose`]).
    pub fn begin(&mut self, now: Moment, awaits_frame: bool) -> Option<PartId> {
        if self.flights.len() >= MAX_IN_FLIGHT {
            self.merge();
        }
        if self.flights.len() >= MAX_IN_FLIGHT {
            self.lose(now);
            return None;
        }
        self.begun += 1;
        self.flights.push_back(Flight {
            part: self.begun,
            start: now,
            awaits_frame,
            action: None,
            known: now,
            settled: false,
            passed: self.settings.gate.is_none(),
        });
        Some(self.begun)
    }

    /// Parts are or were on the line that nothing is known of: until they must be past the gate, [`Self::is_blind`].
    pub fn lose(&mut self, now: Moment) {
        let gate = self.settings.gate.unwrap_or(GateSettings {
            delay: Travel::Time(Duration::ZERO),
            pulse: Travel::Time(LOSS_SHOWN),
        });
        let end = gate.delay.and(gate.pulse).from(now);
        self.unknown_until = Some(self.unknown_until.map_or(end, |other| other.later(end)));
    }

    /// Makes room: of decided parts at one place of the conveyor (it stands, and frames go on) one rejected part
    /// speaks for all.
    fn merge(&mut self) {
        let Some(gate) = self.settings.gate else {
            return;
        };
        let place = |flight: &Flight| {
            (flight.settled && !flight.passed).then(|| gate.delay.from(flight.start))
        };
        let rejects = |flight: &Flight| matches!(flight.action, Some((GateAction::Reject, _)));
        let mut kept: VecDeque<Flight> = VecDeque::new();
        for flight in self.flights.drain(..) {
            match kept.back_mut() {
                _ if flight.is_over() => {}
                Some(last) if place(&flight).is_some() && place(last) == place(&flight) => {
                    if rejects(&flight) {
                        *last = flight;
                    }
                }
                _ => kept.push_back(flight),
            }
        }
        self.flights = kept;
    }

    /// Whom a frame shows whose exposure began at this time: of the parts that wait and were triggered before, the
    /// newest. An older one's frame was lost: to give it this one would shift all verdicts after it by a part.
    pub fn frame(&mut self, exposed_from: Duration) -> Shown {
        let mut waiting: Vec<PartId> = self
            .flights
            .iter_mut()
            .filter(|flight| flight.awaits_frame && flight.start.time <= exposed_from)
            .map(|flight| {
                flight.awaits_frame = false;
                flight.part
            })
            .collect();
        Shown {
            part: waiting.pop(),
            skipped: waiting,
        }
    }

    /// Parts whose frame did not come in time; each is named once and still needs its decision.
    pub fn without_frame(&mut self, now: Duration) -> Vec<PartId> {
        let within = self.settings.frame_within;
        self.flights
            .iter_mut()
            .filter(|flight| flight.awaits_frame && now > flight.start.time + within)
            .map(|flight| {
                flight.awaits_frame = false;
                flight.part
            })
            .collect()
    }

    /// Settles a part: `wanted` counts unless it is late. Without a gate there is nothing to do, but being late is
    /// told all the same. `None`: no such part, or it is settled already.
    pub fn decide(&mut self, part: PartId, wanted: GateAction, now: Moment) -> Option<Settled> {
        let wanted = self.allowed(wanted);
        let safe = self.allowed(self.settings.safe_action);
        let settings = self.settings;
        let flight = self
            .flights
            .iter_mut()
            .find(|flight| flight.part == part && !flight.settled)?;
        flight.expire(&settings, safe, now);
        flight.settled = true;
        flight.awaits_frame = false;
        let (action, late) = *flight.action.get_or_insert((wanted, false));
        if !late {
            flight.known = now;
        }
        self.forget();
        Some(Settled { action, late })
    }

    fn forget(&mut self) {
        while self.flights.front().is_some_and(Flight::is_over) {
            self.flights.pop_front();
        }
    }

    fn allowed(&self, wanted: GateAction) -> GateAction {
        match (self.settings.gate, self.observe) {
            (None, _) => GateAction::None,
            (_, true) => GateAction::Pass,
            _ => wanted,
        }
    }

    /// Lets time pass: deadlines fall due, parts reach the gate, pulses end. The level of the reject output.
    ///
    /// To be called by whoever sets the output, and by nobody else: only here does a pulse begin, so that none can be
    /// over before it was put out.
    pub fn advance(&mut self, now: Moment) -> bool {
        let safe = self.allowed(self.settings.safe_action);
        for flight in &mut self.flights {
            flight.expire(&self.settings, safe, now);
            let Some(gate) = self.settings.gate.filter(|_| !flight.passed) else {
                continue;
            };
            let immediate = gate.delay.is_zero();
            if !immediate && !gate.delay.from(flight.start).reached(now) {
                continue;
            }
            let Some((action, _)) = flight.action else {
                continue;
            };
            flight.passed = true;
            if action == GateAction::Reject {
                let due = if immediate {
                    Due::Time(flight.known.time)
                } else {
                    gate.delay.from(flight.start)
                };
                self.begun_pulse.get_or_insert(due);
                // A pulse begins when the part is at the gate, even if this is noticed a little later, but never
                // before the decision.
                let start = if immediate {
                    flight.known
                } else {
                    match (gate.delay, gate.pulse) {
                        (Travel::Time(way), Travel::Time(_)) => Moment {
                            time: flight.start.time + way,
                            ..now
                        },
                        (Travel::Counts(way), Travel::Counts(_)) => Moment {
                            counts: flight.start.counts + way,
                            ..now
                        },
                        _ => now,
                    }
                };
                let mut end = gate.pulse.from(start);
                if end.reached(now) {
                    // Noticed when the pulse should have been over: late is better than not at all, and is told.
                    self.missed += 1;
                    end = gate.pulse.from(now);
                }
                self.active_until = Some(self.active_until.map_or(end, |other| other.later(end)));
            }
        }
        self.forget();
        if self.unknown_until.is_some_and(|until| until.reached(now)) {
            self.unknown_until = None;
        }
        if self.active_until.is_some_and(|until| until.reached(now)) {
            self.active_until = None;
        }
        self.active_until.is_some()
    }

    /// When to call [`Self::advance`] next, if nothing else happens before; the encoder is "something else".
    pub fn next_change(&self) -> Option<Duration> {
        let flights = self.flights.iter().filter(|flight| !flight.is_over());
        let changes = flights.flat_map(|flight| {
            let start = flight.start.time;
            let deadline = (flight.action.is_none())
                .then_some(self.settings.deadline)
                .flatten()
                // Later than the deadline, not at it.
                .map(|way| start + way + Duration::from_nanos(1));
            let gate = self.settings.gate.filter(|_| !flight.passed);
            let gate = gate.and_then(|gate| match gate.delay {
                delay if delay.is_zero() => flight.action.map(|_| flight.known.time),
                Travel::Counts(_) => None,
                Travel::Time(way) => Some(start + way),
            });
            let frame = flight
                .awaits_frame
                .then(|| start + self.settings.frame_within + Duration::from_nanos(1));
            [deadline, gate, frame]
        });
        changes
            .flatten()
            .chain(self.active_until.and_then(Due::time))
            .chain(self.unknown_until.and_then(Due::time))
            .min()
    }

    /// Parts without a settled decision.
    pub fn undecided(&self) -> usize {
        self.flights.iter().filter(|flight| !flight.settled).count()
    }

    /// Pulses that began later than they should have ended, since the start: the part may have passed the gate.
    pub fn missed_pulses(&self) -> u64 {
        self.missed
    }

    /// When the pulse was due that [`Self::advance`] has begun since this was last asked; of several, the first.
    pub fn take_begun_pulse(&mut self) -> Option<Due> {
        self.begun_pulse.take()
    }

    /// Whether a part may come to the gate that nothing is known of.
    pub fn is_blind(&self) -> bool {
        self.unknown_until.is_some()
    }

    /// Whether all parts are settled and past the gate and no pulse runs.
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
            gate: Some(GateSettings {
                delay: Travel::Time(ms(delay_ms)),
                pulse: Travel::Time(ms(pulse_ms)),
            }),
            safe_action: GateAction::Reject,
        })
    }

    /// Times at which the output changes, found by sleeping exactly as `next_change` says.
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
    fn the_pulse_comes_at_the_gate_and_lasts_as_long_as_asked() {
        let mut parts = line(100, 20, None);
        let part = parts.begin(at(5), false).unwrap();
        let settled = parts.decide(part, GateAction::Reject, at(40)).unwrap();
        assert_eq!(
            settled,
            Settled {
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
    fn no_decision_in_time_is_the_safe_action_and_the_late_decision_is_told_so() {
        let mut parts = line(100, 10, Some(80));
        let part = parts.begin(at(0), false).unwrap();
        parts.advance(at(80));
        assert_eq!(parts.next_change(), Some(ms(80) + Duration::from_nanos(1)));
        parts.advance(at(81));
        let settled = parts.decide(part, GateAction::Pass, at(90)).unwrap();
        assert_eq!(
            settled,
            Settled {
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

    fn shows(part: PartId) -> Shown {
        Shown {
            part: Some(part),
            skipped: Vec::new(),
        }
    }

    #[test]
    fn frames_go_to_the_part_triggered_before_them() {
        let mut parts = line(100, 10, None);
        let nobody = Shown::default();
        let first = parts.begin(at(10), true).unwrap();
        assert_eq!(parts.frame(ms(9)), nobody, "exposed before the trigger");
        assert_eq!(parts.frame(ms(15)), shows(first));
        let second = parts.begin(at(25), true).unwrap();
        assert_eq!(
            parts.frame(ms(20)),
            nobody,
            "the second part was not there yet"
        );
        assert_eq!(parts.frame(ms(30)), shows(second));
        assert_eq!(parts.frame(ms(31)), nobody);
        let third = parts.begin(at(40), true).unwrap();
        assert!(parts.without_frame(ms(70)).is_empty());
        assert_eq!(parts.without_frame(ms(71)), [third]);
        assert!(parts.without_frame(ms(99)).is_empty(), "told once");
        assert_eq!(parts.frame(ms(80)), nobody, "too late for the third");
    }

    #[test]
    fn a_lost_frame_costs_its_own_part_and_shifts_no_other() {
        let mut parts = line(1_000, 10, None);
        let lost = parts.begin(at(0), true).unwrap();
        let second = parts.begin(at(20), true).unwrap();
        assert_eq!(
            parts.frame(ms(21)),
            Shown {
                part: Some(second),
                skipped: vec![lost]
            }
        );
        let third = parts.begin(at(40), true).unwrap();
        assert_eq!(parts.frame(ms(41)), shows(third));
        assert!(parts.without_frame(ms(900)).is_empty());
    }

    #[test]
    fn a_pulse_begins_when_it_is_put_out_whoever_decided_meanwhile() {
        let mut parts = line(0, 10, None);
        let first = parts.begin(at(0), false).unwrap();
        parts.decide(first, GateAction::Reject, at(5)).unwrap();
        // The output's thread slept through all of it, and another decision came.
        let second = parts.begin(at(50), false).unwrap();
        parts.decide(second, GateAction::Pass, at(60)).unwrap();
        assert_eq!(parts.next_change(), Some(ms(5)), "at once");
        assert_eq!(levels(&mut parts, 70, 500), [(70, true), (80, false)]);
        assert_eq!(parts.missed_pulses(), 1);
    }

    #[test]
    fn a_part_that_is_not_followed_blinds_until_it_is_past_the_gate() {
        let mut parts = line(100, 10, None);
        assert!(!parts.is_blind());
        parts.lose(at(5));
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
        assert!(
            parts.advance(moment(107)),
            "the rejected one is not forgotten"
        );
        assert!(!parts.advance(moment(112)));
        assert!(parts.is_idle());
    }

    #[test]
    fn the_conveyor_tells_where_it_was() {
        let mut conveyor = Conveyor::default();
        assert_eq!((conveyor.counts(), conveyor.at(ms(5))), (0, 0));
        conveyor.advance(1, ms(10));
        conveyor.advance(3, ms(20));
        assert_eq!(conveyor.counts(), 4);
        let found = [9, 10, 19, 20, 99].map(|time| conveyor.at(ms(time)));
        assert_eq!(found, [0, 1, 1, 4, 4]);
        for step in 0..2 * MAX_MOVES as u64 {
            conveyor.advance(1, ms(100 + step));
        }
        assert_eq!(
            conveyor.at(ms(100 + MAX_MOVES as u64)),
            4 + MAX_MOVES as u64 + 1
        );
        assert_eq!(conveyor.at(ms(0)), 4 + MAX_MOVES as u64, "the oldest known");
    }

    #[test]
    fn a_pulse_noticed_too_late_still_comes_and_is_counted() {
        let mut parts = line(100, 10, None);
        let part = parts.begin(at(0), false).unwrap();
        parts.decide(part, GateAction::Reject, at(5)).unwrap();
        assert_eq!(levels(&mut parts, 150, 500), [(150, true), (160, false)]);
        assert_eq!(parts.missed_pulses(), 1);
    }

    #[test]
    fn by_encoder_only_counts_matter() {
        let mut parts = Parts::new(Settings {
            deadline: None,
            frame_within: ms(30),
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
        parts.set_observe(true);
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
        /// Triggers 30 ms apart, decisions in any order before the gate: rejected parts, and only they, see the output
        /// active when they pass.
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
