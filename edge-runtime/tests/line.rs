//! The line from trigger to reject output, with wires that remember: what the gate thread does with parts, and in
//! every outage. Times are real, so nothing here may depend on how long the machine takes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{key, manifest, package};
use edge_runtime::capture::{
    Captured, Delivery, FourCc, RawFrame, Source, SourceError, StreamInfo,
};
use edge_runtime::clock::monotonic;
use edge_runtime::control::{Control, GoldenFrames};
use edge_runtime::inspector::Inspector;
use edge_runtime::metrics::{Drop, Metrics};
use edge_runtime::outputs::{Outputs, Pin};
use edge_runtime::package::{Loaded, Trust};
use edge_runtime::parts::{GateSettings, Moment, Parts, Settings, Travel};
use edge_runtime::pipeline::{self, Edge, Failing, LineShared, Listener, Need, Shared};
use edge_runtime::reporting::{self, Inbox};
use edge_runtime::slot::{Slot, WhenFull};
use proto::message::Mode;
use proto::report::GateAction;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A wire that remembers its levels, and can be cut.
#[derive(Clone, Default)]
struct Wire {
    levels: Arc<Mutex<Vec<bool>>>,
    cut: Arc<AtomicBool>,
}

impl Pin for Wire {
    fn set(&mut self, active: bool) -> Result<(), String> {
        if self.cut.load(Ordering::Relaxed) {
            return Err("cut".to_owned());
        }
        self.levels.lock().unwrap().push(active);
        Ok(())
    }
}

impl Wire {
    fn levels(&self) -> Vec<bool> {
        self.levels.lock().unwrap().clone()
    }

    fn is_active(&self) -> bool {
        self.levels().last() == Some(&true)
    }

    fn pin(&self) -> Option<Box<dyn Pin>> {
        Some(Box::new(self.clone()))
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(ms(1));
    }
}

fn shared(settings: Settings, triggered: bool, mode: Mode) -> (Shared, Inbox) {
    let trust = Trust::Only(vec![key().verifying_key()]);
    let package = Loaded::new(package(&manifest()))
        .unwrap()
        .verify(&trust)
        .unwrap();
    let metrics = Arc::new(Metrics::new("top"));
    let line = Arc::new(LineShared::new(Parts::new(settings), triggered));
    let (reporter, inbox) = reporting::channel(false, Arc::clone(&metrics));
    let control = Control::new(
        Some(Inspector::new(&package).unwrap()),
        mode,
        GoldenFrames::default(),
        Arc::clone(&line),
        reporter.clone(),
        Arc::clone(&metrics),
    );
    let shared = Shared {
        line,
        slot: Slot::new(WhenFull::Displace),
        control: Arc::new(control),
        reporter,
        metrics,
        stop: AtomicBool::new(false),
        drained: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        failing: Failing::default(),
        safe_action: GateAction::Reject,
        live: true,
    };
    (shared, inbox)
}

fn by_time(delay_ms: u64, pulse_ms: u64) -> Settings {
    Settings {
        deadline: None,
        frame_within: ms(30),
        gate: Some(GateSettings {
            delay: Travel::Time(ms(delay_ms)),
            pulse: Travel::Time(ms(pulse_ms)),
        }),
        safe_action: GateAction::Reject,
    }
}

fn by_encoder(delay: u64) -> Settings {
    Settings {
        gate: Some(GateSettings {
            delay: Travel::Counts(delay),
            pulse: Travel::Counts(5),
        }),
        ..by_time(0, 1)
    }
}

fn outputs(reject: &Wire, ready: &Wire, fault: &Wire) -> Outputs {
    let signals = [None, ready.pin(), fault.pin()];
    Outputs::new(reject.pin(), signals, GateAction::Reject)
}

/// Runs the gate thread, with frames coming, while `work` runs; then stops as a camera does. The reject levels.
fn with_gate(shared: &Shared, work: impl FnOnce(&Wire)) -> Vec<bool> {
    let reject = Wire::default();
    let mut outputs = outputs(&reject, &Wire::default(), &Wire::default());
    shared.metrics.set_capturing(true);
    std::thread::scope(|scope| {
        scope.spawn(|| pipeline::gate(shared, &mut outputs, &|| ()));
        wait_for("inspection", || !reject.is_active());
        work(&reject);
        shared.stop.store(true, Ordering::Relaxed);
        shared.drained.store(true, Ordering::Relaxed);
        shared.line.wake();
    });
    reject.levels()
}

#[test]
fn a_part_without_a_frame_is_pushed_out_once_even_where_the_gate_has_no_delay() {
    let (shared, _inbox) = shared(by_time(0, 50), true, Mode::Inspect);
    let levels = with_gate(&shared, |reject| {
        assert!(shared.line.trigger(monotonic()));
        wait_for("the pulse", || reject.levels().len() >= 4);
    });
    // Held safe, inspecting, the pulse, and held safe at the end.
    assert_eq!(levels, [true, false, true, false, true]);
    assert_eq!(shared.metrics.health(Mode::Inspect).parts, [0, 0, 1]);
}

#[test]
fn every_reject_decision_moves_the_gate_once() {
    const PARTS: usize = 100;
    let (shared, _inbox) = shared(by_time(0, 2), false, Mode::Inspect);
    let levels = with_gate(&shared, |reject| {
        for part in 0..PARTS {
            let now = shared.line.now();
            let id = shared.line.with(|parts| parts.begin(now, false)).unwrap();
            let reject_it = |parts: &mut Parts| parts.decide(id, GateAction::Reject, now);
            assert!(shared.line.with(reject_it).is_some());
            wait_for("the pulse", || reject.levels().len() >= 4 + 2 * part);
        }
    });
    let rises = levels.iter().filter(|&&level| level).count();
    assert_eq!(rises, PARTS + 2, "and those of both ends");
}

#[test]
fn parts_that_wait_for_frames_at_a_stop_are_settled_at_once() {
    let settings = Settings {
        frame_within: Duration::from_secs(3_600),
        ..by_time(0, 5)
    };
    let (shared, _inbox) = shared(settings, true, Mode::Inspect);
    let started = Instant::now();
    with_gate(&shared, |_| assert!(shared.line.trigger(monotonic())));
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
    assert_eq!(shared.metrics.health(Mode::Inspect).parts, [0, 0, 1]);
}

fn reject_by_encoder(shared: &Shared) {
    shared.line.with(|parts| {
        let part = parts.begin(Moment::default(), false).unwrap();
        parts
            .decide(part, GateAction::Reject, Moment::default())
            .unwrap();
    });
}

#[test]
fn a_stop_waits_for_the_belt_to_bring_the_last_part_to_the_gate() {
    let (shared, _inbox) = shared(by_encoder(100), false, Mode::Inspect);
    let ended = AtomicBool::new(false);
    let levels = std::thread::scope(|scope| {
        let levels = with_gate(&shared, |_| {
            reject_by_encoder(&shared);
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    shared.line.count(1, monotonic());
                    std::thread::sleep(ms(1));
                }
            });
        });
        ended.store(true, Ordering::Relaxed);
        levels
    });
    // The hold at the end goes on from the pulse.
    assert_eq!(levels, [true, false, true]);
    assert!(shared.line.now().counts >= 105);
}

#[test]
fn a_stop_does_not_wait_for_a_belt_that_stands() {
    let (shared, _inbox) = shared(by_encoder(100), false, Mode::Inspect);
    let started = Instant::now();
    let levels = with_gate(&shared, |_| reject_by_encoder(&shared));
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
    assert_eq!(levels, [true, false, true], "held safe");
}

#[test]
fn an_abandoned_gate_is_safe_at_once_whatever_is_on_the_line() {
    let (shared, _inbox) = shared(by_time(3_600_000, 50), false, Mode::Inspect);
    let started = Instant::now();
    let levels = with_gate(&shared, |_| {
        let now = shared.line.now();
        shared.line.with(|parts| parts.begin(now, false)).unwrap();
        shared.abandon.store(true, Ordering::Relaxed);
    });
    assert_eq!(levels, [true, false, true]);
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
}

#[test]
fn a_gate_thread_that_fails_again_and_again_is_safe_and_starts_ever_more_rarely() {
    let (shared, _inbox) = shared(by_time(0, 50), false, Mode::Inspect);
    shared.metrics.set_capturing(true);
    let reject = Wire::default();
    let mut outputs = outputs(&reject, &Wire::default(), &Wire::default());
    let starts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pipeline::supervise(&shared, "gate", &|| (), &mut || {
                starts.fetch_add(1, Ordering::Relaxed);
                let rounds = AtomicUsize::new(0);
                pipeline::gate(&shared, &mut outputs, &|| {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    assert!(round < 1, "on purpose, after the first round");
                });
            });
        });
        wait_for("a third start", || starts.load(Ordering::Relaxed) >= 3);
        std::thread::sleep(ms(1_000));
        assert!(reject.is_active(), "safe between starts");
        shared.abandon.store(true, Ordering::Relaxed);
    });
    // At 0, 0.1, 0.3, 0.7, 1.5 s.
    assert!(starts.load(Ordering::Relaxed) <= 5, "{starts:?}");
    assert!(reject.is_active());
}

#[test]
fn a_broken_output_takes_ready_away_until_it_works_again() {
    let (shared, _inbox) = shared(by_time(0, 50), false, Mode::Inspect);
    shared.metrics.set_capturing(true);
    let [reject, ready, fault] = [(); 3].map(|()| Wire::default());
    let mut outputs = outputs(&reject, &ready, &fault);
    std::thread::scope(|scope| {
        scope.spawn(|| pipeline::gate(&shared, &mut outputs, &|| ()));
        wait_for("ready", || ready.is_active() && !fault.is_active());
        reject.cut.store(true, Ordering::Relaxed);
        // Seen when it is used.
        let now = shared.line.now();
        shared.line.with(|parts| {
            let part = parts.begin(now, false).unwrap();
            parts.decide(part, GateAction::Reject, now).unwrap();
        });
        wait_for("fault", || !ready.is_active() && fault.is_active());
        assert!(!shared.metrics.gate_ok());
        reject.cut.store(false, Ordering::Relaxed);
        wait_for("ready again", || ready.is_active() && !fault.is_active());
        wait_for("inspection", || !reject.is_active());
        // A signal's wire costs no part.
        ready.cut.store(true, Ordering::Relaxed);
        shared.metrics.set_capturing(false);
        wait_for("fault", || fault.is_active());
        shared.metrics.set_capturing(true);
        wait_for("inspection", || !reject.is_active());
        assert!(shared.metrics.gate_ok() && fault.is_active());
        shared.abandon.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_dead_input_holds_the_gate_and_is_opened_anew() {
    let (shared, _inbox) = shared(by_time(50, 10), true, Mode::Inspect);
    let edge = Edge {
        timestamp: ms(1),
        lost: 0,
    };
    let listener = |answers: Vec<Result<Option<Edge>, String>>| -> Listener {
        let mut answers = answers.into_iter();
        Box::new(move || {
            std::thread::sleep(ms(1));
            answers.next().unwrap_or(Ok(None))
        })
    };
    let first = listener(vec![Ok(Some(edge)), Err("torn off".to_owned())]);
    let opened = AtomicUsize::new(0);
    let mut reopen = || match opened.fetch_add(1, Ordering::Relaxed) {
        0 => Err("still gone".to_owned()),
        _ => Ok(listener(vec![Ok(Some(edge))])),
    };
    let (edges, seen_dead) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut on_edge = |_| {
        edges.fetch_add(1, Ordering::Relaxed);
    };
    let levels = std::thread::scope(|scope| {
        with_gate(&shared, |reject| {
            scope.spawn(|| {
                let beat = || {
                    seen_dead.fetch_or(shared.failing.any(), Ordering::Relaxed);
                };
                let need = Need::Trigger;
                let ended = &shared.stop;
                pipeline::listen(
                    &shared,
                    need,
                    first,
                    &mut reopen,
                    &mut on_edge,
                    ended,
                    &beat,
                );
            });
            wait_for("both edges", || edges.load(Ordering::Relaxed) == 2);
            wait_for("inspection", || !reject.is_active());
        })
    });
    assert!(seen_dead.load(Ordering::Relaxed));
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    // Held while it was dead, and until what had passed unseen was past the gate.
    assert_eq!(levels, [true, false, true, false, true]);
}

#[test]
fn lost_parts_hold_the_gate_until_they_are_past_it() {
    let (shared, _inbox) = shared(by_time(40, 10), true, Mode::Inspect);
    let begun = Instant::now();
    let levels = with_gate(&shared, |reject| {
        shared.lost_parts(3, monotonic());
        wait_for("the end", || reject.levels().len() >= 4);
        assert!(begun.elapsed() >= ms(50));
    });
    assert_eq!(levels, [true, false, true, false, true]);
    assert_eq!(shared.metrics.drops(Drop::Parts), 3);
}

#[test]
fn while_observing_the_gate_is_not_held_although_nothing_is_seen() {
    let (shared, _inbox) = shared(by_time(0, 50), true, Mode::Observe);
    let levels = with_gate(&shared, |reject| {
        shared.metrics.set_capturing(false);
        shared.line.wake();
        assert!(shared.line.trigger(monotonic()));
        std::thread::sleep(ms(100));
        assert!(!reject.is_active());
    });
    assert_eq!(levels, [true, false, true]);
}

#[test]
fn a_part_is_where_the_conveyor_was_at_its_edge_not_when_the_edge_was_handled() {
    let (shared, _inbox) = shared(by_encoder(10), true, Mode::Inspect);
    let line = &shared.line;
    line.count(5, ms(1_000));
    line.count(5, ms(3_000));
    assert!(line.trigger(ms(2_000)));
    let now = |counts| Moment {
        time: ms(4_000),
        counts,
    };
    line.with(|parts| {
        parts.decide(1, GateAction::Reject, now(12)).unwrap();
        assert!(!parts.advance(now(14)));
        assert!(parts.advance(now(15)));
    });
}

/// A camera that stamps the end of its frames.
struct Script(Vec<Delivery>, StreamInfo);

impl Source for Script {
    fn next(&mut self) -> Result<Delivery, SourceError> {
        if self.0.is_empty() {
            return Err(SourceError::Ended);
        }
        Ok(self.0.remove(0))
    }

    fn info(&self) -> &StreamInfo {
        &self.1
    }

    fn exposure_to_stamp(&self) -> Duration {
        ms(33)
    }
}

#[test]
fn a_frame_whose_exposure_began_before_the_trigger_does_not_show_the_part() {
    let settings = Settings {
        frame_within: Duration::from_secs(60),
        ..by_time(0, 10)
    };
    let (shared, _inbox) = shared(settings, true, Mode::Inspect);
    let trigger = monotonic().checked_sub(ms(100)).unwrap();
    assert!(shared.line.trigger(trigger));
    let frame = |sequence, after_ms| {
        Delivery::Frame(Captured {
            raw: RawFrame {
                format: FourCc(*b"GREY"),
                width_px: 2,
                height_px: 1,
                stride_bytes: 2,
                data: vec![0; 2],
            },
            sequence,
            timestamp: trigger + ms(after_ms),
        })
    };
    let damaged = Delivery::Damaged {
        sequence: 1,
        timestamp: trigger + ms(20),
    };
    let info = StreamInfo {
        format: FourCc(*b"GREY"),
        width_px: 2,
        height_px: 1,
        controls: Vec::new(),
    };
    let deliveries = vec![frame(0, 10), damaged, frame(2, 40), frame(3, 50)];
    let mut source = Some(Box::new(Script(deliveries, info)) as Box<dyn Source>);
    let mut open = || source.take().ok_or(SourceError::Ended);
    pipeline::capture(&shared, &mut open, &|| ()).unwrap();
    // The first two, and the last because the part has its frame.
    assert_eq!(shared.metrics.drops(Drop::Unassigned), 3);
    assert!(shared.slot.take(&|| ()).is_some());
    assert_eq!(shared.metrics.health(Mode::Inspect).parts, [0, 0, 0]);
}
