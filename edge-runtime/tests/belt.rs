//! The gate against a simple model of the belt: triggers, frames, losses, decisions, faults, mode
//! changes and outages in any order. Whatever happens, no part passes the gate unseen; and once the
//! line is undisturbed again, a good part passes.
//!
//! The model knows only physics: a part that passes the camera is at the gate `delay` later, in
//! time or, with an encoder, in millimetres of a belt that may stand. It asks of each part at that
//! moment whether the output was active, and compares that with what is known of the part. CI runs some thousand steps; `AWR_BELT_CASES=100000 cargo test
//! --workspace --test belt` runs some four million.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_runtime::line::conveyor::{Moment, Travel};
use edge_runtime::line::parts::{EarlyFrameId, GateSettings, PartId, Parts, Settings};
use proptest::prelude::*;
use proto::report::GateAction;

const DELAY_MS: u64 = 200;
const PULSE_MS: u64 = 12;
const DEADLINE_MS: u64 = 150;
const FRAME_WITHIN_MS: u64 = 40;
const EARLY_MS: u64 = 8;
/// Longest time from an edge to its report. Longer than the program reckons with, and longer than a
/// pulse and a part's distance to the next one.
const REPORTED_MS: u64 = 32;

/// One thing that happens. Times are in milliseconds.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes; the gate thread looks at the line at its end.
    Wait(u64),
    /// A part passes the trigger, which is reported this much later. Its frame follows.
    Part {
        reported_after: u64,
        frame: FrameFate,
    },
    /// A part passes while nobody looks: its edge is lost, and the driver says so.
    LostEdge,
    /// The oldest undecided part that has its frame is judged.
    Judge(bool),
    /// The oldest undecided part cannot be scored.
    ScoringFault,
    /// Observing is turned on or off.
    Observe(bool),
    /// The program starts anew: all that it knew is gone.
    Restart,
    /// The belt stops or goes on. Only with an encoder: otherwise nobody would notice.
    Stop(bool),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum FrameFate {
    Comes,
    IsLost,
}

fn reported_after() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..EARLY_MS, 1 => EARLY_MS..REPORTED_MS]
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![4 => Just(FrameFate::Comes), 1 => Just(FrameFate::IsLost)];
    prop_oneof![
        6 => (1u64..60).prop_map(Step::Wait),
        6 => (reported_after(), fate)
            .prop_map(|(reported_after, frame)| Step::Part { reported_after, frame }),
        1 => Just(Step::LostEdge),
        6 => any::<bool>().prop_map(Step::Judge),
        1 => Just(Step::ScoringFault),
        1 => any::<bool>().prop_map(Step::Observe),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Stop),
    ]
}

/// A real part on the belt.
#[derive(Debug, Clone)]
struct RealPart {
    /// Position of the belt when it passed the camera.
    passed_camera: u64,
    /// Judged OK in time, by its own frame.
    judged_ok: bool,
    /// Observe mode was on when it was settled: it passes on purpose.
    observed: bool,
    /// The program knows it under this number.
    known_as: Option<PartId>,
}

struct Belt {
    now: u64,
    /// Distance that the belt has moved: 1 mm and one count of the encoder in a millisecond.
    position: u64,
    stands: bool,
    by_encoder: bool,
    parts: Parts,
    real: Vec<RealPart>,
    /// Real part that each frame shows which waits for its trigger.
    early: BTreeMap<EarlyFrameId, usize>,
    /// Parts with their frame, in order, which can be judged: program's number and whose pixels.
    scorable: Vec<(PartId, usize)>,
    /// Edges that are still to be reported, in order: when, the edge, real part.
    edges: Vec<(u64, Moment, usize)>,
    observing: bool,
    /// Whether the output is active, by a pulse or because it is held.
    level: bool,
}

fn settings(by_encoder: bool) -> Settings {
    let travel = |ms| match by_encoder {
        true => Travel::Counts(ms),
        false => Travel::Time(Duration::from_millis(ms)),
    };
    Settings {
        deadline: Some(Duration::from_millis(DEADLINE_MS)),
        frame_within: Duration::from_millis(FRAME_WITHIN_MS),
        edges_reported_within: Duration::from_millis(EARLY_MS),
        early_frame_within: Duration::from_millis(EARLY_MS + 10),
        camera_is_triggered: true,
        gate: Some(GateSettings {
            delay: travel(DELAY_MS),
            pulse: travel(PULSE_MS),
        }),
        safe_action: GateAction::Reject,
    }
}

impl Belt {
    fn new(by_encoder: bool) -> Self {
        let mut belt = Self {
            now: 1_000,
            position: 1_000,
            stands: false,
            by_encoder,
            parts: Parts::new(settings(by_encoder)),
            real: Vec::new(),
            early: BTreeMap::new(),
            scorable: Vec::new(),
            edges: Vec::new(),
            observing: false,
            level: true,
        };
        belt.parts.hold_unseen(belt.moment());
        belt
    }

    fn moment(&self) -> Moment {
        Moment {
            time: Duration::from_millis(self.now),
            counts: self.position,
        }
    }

    /// One millisecond: edges are reported, the gate thread looks, parts reach the gate.
    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.now += 1;
        self.position += u64::from(!self.stands);
        let due: Vec<(u64, Moment, usize)> = self
            .edges
            .extract_if(.., |(reported, _, _)| *reported <= self.now)
            .collect();
        for (_, edge, real) in due {
            self.begin(edge, real);
        }
        let now = Duration::from_millis(self.now);
        for (frame, assigned) in self.parts.assign_early_frames(now) {
            for part in assigned.skipped {
                self.settle(part, GateAction::Reject, None);
            }
            if let (Some(part), Some(shown)) = (assigned.part, self.early.remove(&frame)) {
                self.scorable.push((part, shown));
            }
        }
        for id in self.parts.expire_early_frames(now) {
            self.early.remove(&id);
        }
        for part in self.parts.expire_frames(now) {
            self.settle(part, GateAction::Reject, None);
        }
        let active = self.parts.advance(self.moment());
        let held = self.parts.is_blind() || self.parts.is_shifted();
        self.level = active || (held && !self.observing);
        for part in &self.real {
            if part.passed_camera + DELAY_MS + 1 != self.position {
                continue;
            }
            let may_pass = part.judged_ok || part.observed || self.observing;
            prop_assert!(
                may_pass || self.level,
                "a part passes unseen at {} ms: {part:?}",
                self.now
            );
        }
        let oldest = self.position.saturating_sub(2 * DELAY_MS);
        if self.real.iter().all(|part| part.passed_camera < oldest) {
            self.real.clear();
            self.scorable.clear();
            self.edges.clear();
            self.early.clear();
        }
        Ok(())
    }

    fn begin(&mut self, edge: Moment, real: usize) {
        let begun = self.parts.begin(edge, true);
        if let Some(part) = self.real.get_mut(real) {
            part.known_as = begun;
        }
        for (frame, part) in self.parts.take_matched() {
            if let Some(shown) = self.early.remove(&frame) {
                self.scorable.push((part, shown));
            }
        }
    }

    fn settle(&mut self, part: PartId, action: GateAction, shown: Option<usize>) {
        let observing = self.observing;
        let Some(settled) = self.parts.decide(part, action, self.moment()) else {
            return;
        };
        let known = |real: &RealPart| real.known_as == Some(part);
        if let Some(index) = self.real.iter().position(known) {
            let own = shown == Some(index);
            let real = &mut self.real[index];
            real.observed |= observing;
            real.judged_ok |= own && settled.action == GateAction::Pass && !observing;
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Wait(ms) => {
                for _ in 0..ms {
                    self.tick()?;
                }
            }
            Step::Part {
                reported_after,
                frame,
            } => {
                // Parts are further apart than a pulse is long.
                for _ in 0..PULSE_MS + 3 {
                    self.tick()?;
                }
                self.real.push(RealPart {
                    passed_camera: self.position,
                    judged_ok: false,
                    observed: self.observing,
                    known_as: None,
                });
                let real = self.real.len() - 1;
                let edge = self.moment();
                // The kernel queues edges: none overtakes an earlier one.
                let last = self.edges.last().map_or(0, |(reported, _, _)| *reported);
                let reported = (self.now + reported_after).max(last);
                if reported == self.now {
                    self.begin(edge, real);
                } else {
                    self.edges.push((reported, edge, real));
                }
                if frame == FrameFate::Comes {
                    for _ in 0..4 {
                        self.tick()?;
                    }
                    let exposed = edge.time + Duration::from_millis(1);
                    let now = Duration::from_millis(self.now);
                    let assigned = self.parts.assign_frame(exposed, now);
                    for part in assigned.skipped {
                        self.settle(part, GateAction::Reject, None);
                    }
                    match (assigned.part, assigned.waits_as) {
                        (Some(part), _) => self.scorable.push((part, real)),
                        (None, Some(frame)) => {
                            self.early.insert(frame, real);
                        }
                        (None, None) => {}
                    }
                }
            }
            Step::LostEdge => {
                for _ in 0..PULSE_MS + 3 {
                    self.tick()?;
                }
                self.real.push(RealPart {
                    passed_camera: self.position,
                    judged_ok: false,
                    observed: self.observing,
                    known_as: None,
                });
                let now = self.moment();
                self.parts.lose_track(now);
            }
            Step::Judge(ok) => {
                if !self.scorable.is_empty() {
                    let (part, shown) = self.scorable.remove(0);
                    let action = if ok {
                        GateAction::Pass
                    } else {
                        GateAction::Reject
                    };
                    self.settle(part, action, Some(shown));
                }
            }
            Step::ScoringFault => {
                if !self.scorable.is_empty() {
                    let (part, _) = self.scorable.remove(0);
                    self.settle(part, GateAction::Reject, None);
                }
            }
            Step::Observe(observe) => {
                self.observing = observe;
                let now = self.moment();
                self.parts.set_observe(observe, now);
            }
            Step::Restart => {
                self.parts = Parts::new(settings(self.by_encoder));
                let now = self.moment();
                self.parts.hold_unseen(now);
                self.observing = false;
                self.early.clear();
                self.scorable.clear();
                // Edges that nobody has reported yet are lost with the program that listened.
                self.edges.clear();
                for real in &mut self.real {
                    real.known_as = None;
                }
            }
            Step::Stop(stands) => self.stands = stands && self.by_encoder,
        }
        Ok(())
    }

    /// Nothing disturbs the line any more: after a while a good part passes.
    fn undisturbed(&mut self) -> Result<(), TestCaseError> {
        self.run(&Step::Stop(false))?;
        self.run(&Step::Observe(false))?;
        // Longer than anything lasts that holds the gate.
        self.run(&Step::Wait(3_000))?;
        self.scorable.clear();
        self.run(&Step::Part {
            reported_after: 0,
            frame: FrameFate::Comes,
        })?;
        let camera = self.position;
        self.run(&Step::Wait(2 * EARLY_MS))?;
        self.run(&Step::Judge(true))?;
        while self.position < camera + DELAY_MS {
            self.tick()?;
            prop_assert!(
                !self.level || self.position < camera,
                "a good part is not let through at {} ms, {} ms after it came",
                self.now,
                self.position - camera
            );
        }
        Ok(())
    }
}

fn cases() -> u32 {
    let wanted = std::env::var("AWR_BELT_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_part_passes_the_gate_unseen(
        by_encoder in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut belt = Belt::new(by_encoder);
        for step in &steps {
            belt.run(step)?;
        }
        belt.run(&Step::Wait(2 * DELAY_MS))?;
        belt.undisturbed()?;
    }
}
