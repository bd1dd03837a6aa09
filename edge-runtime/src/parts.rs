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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Time(Duration),
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

/// The parts in flight.
#[derive(Debug)]
pub struct Parts {
    settings: Settings,
    flights: VecDeque<Flight>,
    begun: PartId,
    active_until: Option<Due>,
    observe: bool,
    missed: u64,
}

impl Parts {
    /// An empty line.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            flights: VecDeque::new(),
            begun: 0,
            active_until: None,
            observe: false,
            missed: 0,
        }
    }

    /// While observing, every part passes.
    pub fn set_observe(&mut self, observe: bool) {
        self.observe = observe;
    }

    /// A part passes the trigger; `awaits_frame` unless its frame is already there. `None`: too many are in flight,
    /// the line runs faster than it can be followed, and nothing is known of this part.
    pub fn begin(&mut self, now: Moment, awaits_frame: bool) -> Option<PartId> {
        if self.flights.len() >= MAX_IN_FLIGHT {
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
            passed: false,
        });
        Some(self.begun)
    }

    /// The part that a frame of this time stamp shows: the oldest that waits and was triggered before it.
    pub fn frame(&mut self, timestamp: Duration) -> Option<PartId> {
        let flight = self
            .flights
            .iter_mut()
            .find(|flight| flight.awaits_frame && flight.start.time <= timestamp)?;
        flight.awaits_frame = false;
        Some(flight.part)
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
        self.advance(now);
        let wanted = self.allowed(wanted);
        let flight = self
            .flights
            .iter_mut()
            .find(|flight| flight.part == part && !flight.settled)?;
        flight.settled = true;
        flight.awaits_frame = false;
        let (action, late) = *flight.action.get_or_insert((wanted, false));
        if !late {
            flight.known = now;
        }
        self.advance(now);
        Some(Settled { action, late })
    }

    fn allowed(&self, wanted: GateAction) -> GateAction {
        match (self.settings.gate, self.observe) {
            (None, _) => GateAction::None,
            (_, true) => GateAction::Pass,
            _ => wanted,
        }
    }

    /// Lets time pass: deadlines fall due, parts reach the gate, pulses end. The level of the reject output.
    pub fn advance(&mut self, now: Moment) -> bool {
        let safe = self.allowed(self.settings.safe_action);
        for flight in &mut self.flights {
            let deadline = self.settings.deadline.map(|way| flight.start.time + way);
            if flight.action.is_none() && deadline.is_some_and(|deadline| now.time > deadline) {
                flight.action = Some((safe, true));
                flight.known = now;
            }
            let Some(gate) = self.settings.gate else {
                flight.passed = true;
                continue;
            };
            if flight.passed {
                continue;
            }
            let immediate = gate.delay.is_zero();
            let arrived = immediate || gate.delay.from(flight.start).reached(now);
            if !arrived {
                continue;
            }
            if flight.action.is_none() && !immediate {
                flight.action = Some((safe, true));
                flight.known = now;
            }
            let Some((action, _)) = flight.action else {
                continue;
            };
            flight.passed = true;
            if action == GateAction::Reject {
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
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.passed && flight.settled)
        {
            self.flights.pop_front();
        }
        if self.active_until.is_some_and(|until| until.reached(now)) {
            self.active_until = None;
        }
        self.active_until.is_some()
    }

    /// When to call [`Self::advance`] next, if nothing else happens before; the encoder is "something else".
    pub fn next_change(&self) -> Option<Duration> {
        let flights = self
            .flights
            .iter()
            .filter(|flight| !flight.passed || !flight.settled);
        let changes = flights.flat_map(|flight| {
            let start = flight.start.time;
            let deadline = (flight.action.is_none())
                .then_some(self.settings.deadline)
                .flatten()
                // Later than the deadline, not at it.
                .map(|way| start + way + Duration::from_nanos(1));
            let gate = self.settings.gate.filter(|_| !flight.passed);
            let gate = gate.and_then(|gate| match gate.delay {
                Travel::Time(Duration::ZERO) | Travel::Counts(_) => None,
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

    #[test]
    fn frames_go_to_the_oldest_part_triggered_before_them() {
        let mut parts = line(100, 10, None);
        let first = parts.begin(at(10), true).unwrap();
        let second = parts.begin(at(25), true).unwrap();
        assert_eq!(parts.frame(ms(9)), None, "exposed before the trigger");
        assert_eq!(parts.frame(ms(15)), Some(first));
        assert_eq!(
            parts.frame(ms(20)),
            None,
            "the second part was not there yet"
        );
        assert_eq!(parts.frame(ms(30)), Some(second));
        assert_eq!(parts.frame(ms(31)), None);
        let third = parts.begin(at(40), true).unwrap();
        assert!(parts.without_frame(ms(70)).is_empty());
        assert_eq!(parts.without_frame(ms(71)), [third]);
        assert!(parts.without_frame(ms(99)).is_empty(), "told once");
        assert_eq!(parts.frame(ms(80)), None, "too late for the third");
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
        assert_eq!(parts.begin(at(0), false), None);
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
