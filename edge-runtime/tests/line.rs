//! The line from trigger to reject output, with wires that record their levels: what the gate
//! thread does with parts and during outages. Times are real, so no test may depend on how long the
//! machine takes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../../scoring/tests/common/mod.rs"]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{key, manifest, package};
use edge_runtime::clock::monotonic;
use edge_runtime::line::conveyor::{Moment, Travel};
use edge_runtime::line::liveness::{Heartbeat, Watched};
use edge_runtime::line::outputs::{Outputs, Pin};
use edge_runtime::line::parts::{GateSettings, Parts, Settings};
use edge_runtime::line::readiness::{Condition, Readiness};
use edge_runtime::line::shared::LineShared;
use edge_runtime::line::silence::Limits;
use edge_runtime::metrics::{Loss, Metrics};
use edge_runtime::model::active::{Control, GoldenFrames};
use edge_runtime::report::queue::{self, Inbox};
use edge_runtime::stage::capture::capture;
use edge_runtime::stage::context::StageContext;
use edge_runtime::stage::gate::gate;
use edge_runtime::stage::input::{InputEdge, Listener, listen};
use edge_runtime::stage::plausibility::Plausibility;
use edge_runtime::stage::score::score;
use edge_runtime::stage::slot::{FrameSlot, WhenFull};
use edge_runtime::stage::supervise::supervise;
use proto::message::Mode;
use proto::report::GateAction;
use scoring::inspector::Inspector;
use scoring::package::{Loaded, Trust};
use scoring::source::{Captured, Delivery, FourCc, RawFrame, Source, SourceError, StreamInfo};

/// Far longer than any wait in these tests takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A wire that records its levels and can be cut.
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
        // Only changes: outputs are also refreshed.
        let mut levels = self.levels.lock().unwrap();
        if levels.last() != Some(&active) {
            levels.push(active);
        }
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

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(ms(1));
    }
}

fn context(settings: Settings, triggered: bool, mode: Mode) -> (StageContext, Inbox) {
    let trust = Trust::Only(vec![key().verifying_key()]);
    let package = Loaded::new(package(&manifest()))
        .unwrap()
        .verify(&trust)
        .unwrap();
    let readiness = Arc::new(Readiness::new());
    let metrics = Arc::new(Metrics::new("top", Arc::clone(&readiness)));
    let line = Arc::new(LineShared::new(Parts::new(settings), triggered));
    let (reporter, inbox) = queue::channel(false, Arc::clone(&metrics));
    let control = Control::new(
        Some(Inspector::new(&package).unwrap()),
        mode,
        GoldenFrames::default(),
        Arc::clone(&line),
        reporter.clone(),
        Arc::clone(&metrics),
        Arc::clone(&readiness),
    );
    let context = StageContext::new(
        line,
        Arc::new(control),
        reporter,
        metrics,
        readiness,
        Plausibility::new(true, 3),
    );
    (context, inbox)
}

fn by_time(delay_ms: u64, pulse_ms: u64) -> Settings {
    Settings {
        deadline: None,
        frame_within: ms(30),
        edges_reported_within: ms(1),
        early_frame_within: ms(20),
        camera_is_triggered: true,
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

/// Ends the gate thread when a test panics, which would otherwise wait for it for ever.
struct EndsInPanic<'a>(&'a StageContext);

impl Drop for EndsInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
            self.0.abandon.store(true, Ordering::Relaxed);
            self.0.line.wake();
        }
    }
}

/// Runs the gate thread, with frames coming, while `work` runs; then stops as a camera does.
/// Returns the levels of the reject output.
fn with_gate(context: &StageContext, work: impl FnOnce(&Wire)) -> Vec<bool> {
    with_gate_from_the_start(context, |reject| {
        wait_for("inspection", || !reject.is_active());
        work(reject);
    })
}

/// The same, with `work` from the first moment on.
fn with_gate_from_the_start(context: &StageContext, work: impl FnOnce(&Wire)) -> Vec<bool> {
    let reject = Wire::default();
    let mut outputs = outputs(&reject, &Wire::default(), &Wire::default());
    context.readiness.set_capturing(true);
    std::thread::scope(|scope| {
        let _ends = EndsInPanic(context);
        scope.spawn(|| gate(context, &mut outputs, &|| ()));
        work(&reject);
        context.stop.store(true, Ordering::Relaxed);
        context.drained.store(true, Ordering::Relaxed);
        context.line.wake();
    });
    reject.levels()
}

#[test]
fn a_part_without_a_frame_is_pushed_out_once_even_where_the_gate_has_no_delay() {
    let (context, _inbox) = context(by_time(0, 50), true, Mode::Inspect);
    let levels = with_gate(&context, |reject| {
        assert!(context.line.trigger(monotonic()));
        wait_for("the pulse", || reject.levels().len() >= 4);
    });
    // Held safe, inspecting, the pulse, and held safe at the end.
    assert_eq!(levels, [true, false, true, false, true]);
    assert_eq!(context.metrics.health(Mode::Inspect).parts, [0, 0, 1]);
}

#[test]
fn every_reject_decision_moves_the_gate_once() {
    const PARTS: usize = 100;
    let (context, _inbox) = context(by_time(0, 2), false, Mode::Inspect);
    let levels = with_gate(&context, |reject| {
        for part in 0..PARTS {
            let now = context.line.now();
            let id = context
                .line
                .with_parts(|parts| parts.begin(now, false))
                .unwrap();
            let reject_it = |parts: &mut Parts| parts.decide(id, GateAction::Reject, now);
            assert!(context.line.with_parts(reject_it).is_some());
            wait_for("the pulse", || reject.levels().len() >= 4 + 2 * part);
        }
    });
    let rises = levels.iter().filter(|&&level| level).count();
    assert_eq!(rises, PARTS + 2, "one for each part, and one at either end");
}

#[test]
fn parts_that_wait_for_frames_at_a_stop_are_settled_at_once() {
    let settings = Settings {
        frame_within: Duration::from_secs(3_600),
        ..by_time(0, 5)
    };
    let (context, _inbox) = context(settings, true, Mode::Inspect);
    let started = Instant::now();
    with_gate(&context, |_| assert!(context.line.trigger(monotonic())));
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
    assert_eq!(context.metrics.health(Mode::Inspect).parts, [0, 0, 1]);
}

fn reject_by_encoder(context: &StageContext) {
    context.line.with_parts(|parts| {
        let part = parts.begin(Moment::default(), false).unwrap();
        parts
            .decide(part, GateAction::Reject, Moment::default())
            .unwrap();
    });
}

#[test]
fn a_stop_waits_for_the_belt_to_bring_the_last_part_to_the_gate() {
    let (context, _inbox) = context(by_encoder(100), false, Mode::Inspect);
    let ended = AtomicBool::new(false);
    let levels = std::thread::scope(|scope| {
        let levels = with_gate(&context, |_| {
            reject_by_encoder(&context);
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    context.line.advance_conveyor(1, monotonic());
                    std::thread::sleep(ms(1));
                }
            });
        });
        ended.store(true, Ordering::Relaxed);
        levels
    });
    // The level stays from the pulse to the hold at the end.
    assert_eq!(levels, [true, false, true]);
    assert!(context.line.now().counts >= 105);
}

#[test]
fn a_stop_does_not_wait_for_a_belt_that_stands() {
    let (context, _inbox) = context(by_encoder(100), false, Mode::Inspect);
    let started = Instant::now();
    let levels = with_gate(&context, |_| reject_by_encoder(&context));
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
    assert_eq!(levels, [true, false, true], "held safe");
}

#[test]
fn an_abandoned_gate_is_safe_at_once_whatever_is_on_the_line() {
    let (context, _inbox) = context(by_time(3_600_000, 50), false, Mode::Inspect);
    let started = Instant::now();
    let levels = with_gate(&context, |_| {
        let now = context.line.now();
        context
            .line
            .with_parts(|parts| parts.begin(now, false))
            .unwrap();
        context.abandon.store(true, Ordering::Relaxed);
    });
    assert_eq!(levels, [true, false, true]);
    assert!(started.elapsed() < Duration::from_secs(9), "not the limit");
}

#[test]
fn a_gate_thread_that_keeps_failing_is_safe_and_restarts_with_growing_pauses() {
    let (context, _inbox) = context(by_time(0, 50), false, Mode::Inspect);
    context.readiness.set_capturing(true);
    let reject = Wire::default();
    let mut outputs = outputs(&reject, &Wire::default(), &Wire::default());
    let starts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            supervise(&context, "gate", &|| (), &mut || {
                starts.fetch_add(1, Ordering::Relaxed);
                let rounds = AtomicUsize::new(0);
                gate(&context, &mut outputs, &|| {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    assert!(round < 1, "on purpose, after the first round");
                });
            });
        });
        wait_for("a third start", || starts.load(Ordering::Relaxed) >= 3);
        std::thread::sleep(ms(1_000));
        assert!(reject.is_active(), "safe between starts");
        context.abandon.store(true, Ordering::Relaxed);
    });
    // At 0, 0.1, 0.3, 0.7, 1.5 s.
    assert!(starts.load(Ordering::Relaxed) <= 5, "{starts:?}");
    assert!(reject.is_active());
}

#[test]
fn a_broken_output_clears_ready_until_it_works_again() {
    let (context, _inbox) = context(by_time(0, 50), false, Mode::Inspect);
    context.readiness.set_capturing(true);
    let [reject, ready, fault] = [(); 3].map(|()| Wire::default());
    let mut outputs = outputs(&reject, &ready, &fault);
    std::thread::scope(|scope| {
        let _ends = EndsInPanic(&context);
        scope.spawn(|| gate(&context, &mut outputs, &|| ()));
        wait_for("ready", || ready.is_active() && !fault.is_active());
        reject.cut.store(true, Ordering::Relaxed);
        // The cut is noticed when the output is set.
        let now = context.line.now();
        context.line.with_parts(|parts| {
            let part = parts.begin(now, false).unwrap();
            parts.decide(part, GateAction::Reject, now).unwrap();
        });
        wait_for("fault", || !ready.is_active() && fault.is_active());
        assert!(!context.readiness.gate_ok());
        reject.cut.store(false, Ordering::Relaxed);
        wait_for("ready again", || ready.is_active() && !fault.is_active());
        wait_for("inspection", || !reject.is_active());
        // A broken signal does not affect parts.
        ready.cut.store(true, Ordering::Relaxed);
        context.readiness.set_capturing(false);
        wait_for("fault", || fault.is_active());
        context.readiness.set_capturing(true);
        wait_for("inspection", || !reject.is_active());
        assert!(context.readiness.gate_ok() && fault.is_active());
        context.abandon.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_failed_input_holds_the_gate_and_is_reopened() {
    let (context, _inbox) = context(by_time(50, 10), true, Mode::Inspect);
    let edge = InputEdge {
        timestamp: ms(1),
        lost_edges: 0,
    };
    let listener = |answers: Vec<Result<Option<InputEdge>, String>>| -> Listener {
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
    let (edges, seen_failing) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut on_edge = |_| {
        edges.fetch_add(1, Ordering::Relaxed);
    };
    let levels = std::thread::scope(|scope| {
        with_gate(&context, |reject| {
            scope.spawn(|| {
                let beat = || {
                    seen_failing.fetch_or(context.readiness.any_failing(), Ordering::Relaxed);
                };
                let need = Condition::Trigger;
                let ended = &context.stop;
                listen(
                    &context,
                    need,
                    &mut Some(first),
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
    assert!(seen_failing.load(Ordering::Relaxed));
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    // Held while the input failed, and until parts that passed it unseen were past the gate.
    assert_eq!(levels, [true, false, true, false, true]);
}

#[test]
fn untracked_parts_hold_the_gate_until_they_are_past_it() {
    let (context, _inbox) = context(by_time(40, 10), true, Mode::Inspect);
    let started = Instant::now();
    let levels = with_gate(&context, |reject| {
        context.lose_track(3, monotonic());
        wait_for("the end", || reject.levels().len() >= 4);
        assert!(started.elapsed() >= ms(50));
    });
    assert_eq!(levels, [true, false, true, false, true]);
    assert_eq!(context.metrics.drops(Loss::Parts), 3);
}

#[test]
fn while_observing_the_gate_is_not_held_even_without_frames() {
    let (context, _inbox) = context(by_time(0, 50), true, Mode::Observe);
    let levels = with_gate(&context, |reject| {
        context.readiness.set_capturing(false);
        context.line.wake();
        assert!(context.line.trigger(monotonic()));
        std::thread::sleep(ms(100));
        assert!(!reject.is_active());
    });
    assert_eq!(levels, [true, false, true]);
}

#[test]
fn a_part_starts_at_the_count_of_its_edge_not_at_that_of_its_handling() {
    let (context, _inbox) = context(by_encoder(10), true, Mode::Inspect);
    let line = &context.line;
    line.advance_conveyor(5, ms(1_000));
    line.advance_conveyor(5, ms(3_000));
    assert!(line.trigger(ms(2_000)));
    let now = |counts| Moment {
        time: ms(4_000),
        counts,
    };
    line.with_parts(|parts| {
        parts.decide(1, GateAction::Reject, now(12)).unwrap();
        assert!(!parts.advance(now(14)));
        assert!(parts.advance(now(15)));
    });
}

/// A camera whose time stamps are 33 ms after the start of the exposure, if that is known.
struct Script {
    deliveries: Vec<Delivery>,
    info: StreamInfo,
    exposure_to_stamp: Option<Duration>,
}

impl Script {
    fn new(deliveries: Vec<Delivery>) -> Self {
        let info = StreamInfo {
            format: FourCc(*b"GREY"),
            width_px: 2,
            height_px: 1,
            controls: Vec::new(),
        };
        Self {
            deliveries,
            info,
            exposure_to_stamp: Some(ms(33)),
        }
    }
}

fn small_frame(sequence: u32, timestamp: Duration) -> Delivery {
    Delivery::Frame(Captured {
        raw: RawFrame {
            format: FourCc(*b"GREY"),
            width_px: 2,
            height_px: 1,
            stride_bytes: 2,
            data: vec![0; 2],
        },
        sequence,
        timestamp,
    })
}

impl Source for Script {
    fn next(&mut self) -> Result<Delivery, SourceError> {
        if self.deliveries.is_empty() {
            return Err(SourceError::Ended);
        }
        Ok(self.deliveries.remove(0))
    }

    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn exposure_to_stamp(&self) -> Option<Duration> {
        self.exposure_to_stamp
    }
}

#[test]
fn a_frame_whose_exposure_began_before_the_trigger_does_not_show_the_part() {
    let settings = Settings {
        frame_within: Duration::from_secs(60),
        ..by_time(0, 10)
    };
    let (context, _inbox) = context(settings, true, Mode::Inspect);
    let trigger = monotonic().checked_sub(ms(100)).unwrap();
    assert!(context.line.trigger(trigger));
    let frame = |sequence, after_ms| small_frame(sequence, trigger + ms(after_ms));
    let damaged = Delivery::Damaged {
        sequence: 1,
        timestamp: trigger + ms(20),
    };
    let deliveries = vec![frame(0, 10), damaged, frame(2, 40), frame(3, 50)];
    let mut source = Some(Box::new(Script::new(deliveries)) as Box<dyn Source>);
    let mut open = || source.take().ok_or(SourceError::Ended);
    capture(&context, &mut open, &|| ()).unwrap();
    context.settle_early_frames(monotonic() + Duration::from_secs(1));
    // The first two were exposed too early, and at the last one the part had its frame.
    assert_eq!(context.metrics.drops(Loss::Unassigned), 3);
    assert!(context.slot.take(&|| ()).is_some());
    assert_eq!(context.metrics.health(Mode::Inspect).parts, [0, 0, 0]);
}

/// Runs capture over one source for each list of deliveries, with outages between them.
fn captured(context: &StageContext, sources: Vec<Script>) -> Result<(), SourceError> {
    let mut sources = sources.into_iter();
    let mut open = || match sources.next() {
        Some(source) => Ok(Box::new(source) as Box<dyn Source>),
        None => Err(SourceError::Ended),
    };
    capture(context, &mut open, &|| ())
}

#[test]
fn without_a_trigger_what_passed_before_the_first_frame_holds_the_gate() {
    let (context, _inbox) = context(by_time(2_000, 10), false, Mode::Inspect);
    let is_blind = || context.line.with_parts(|parts| parts.is_blind());
    assert!(!is_blind());
    let first = vec![small_frame(0, monotonic())];
    captured(&context, vec![Script::new(first)]).unwrap();
    assert!(is_blind(), "nobody saw what is between camera and gate");
    // The outage is over at the next first frame: two more seconds.
    context.line.with_parts(|parts| {
        parts.advance(Moment {
            time: monotonic() + ms(2_050),
            counts: 0,
        })
    });
    assert!(!is_blind());
    let second = vec![small_frame(0, monotonic())];
    captured(&context, vec![Script::new(second)]).unwrap();
    assert!(is_blind());
}

#[test]
fn frames_that_the_driver_dropped_are_parts_and_faults() {
    let (context, _inbox) = context(by_time(2_000, 10), false, Mode::Inspect);
    let now = monotonic();
    let deliveries = vec![small_frame(7, now), small_frame(11, now + ms(1))];
    captured(&context, vec![Script::new(deliveries)]).unwrap();
    assert_eq!(context.metrics.drops(Loss::Driver), 3);
    // Three without a frame, and the first of the two others was evicted by the second.
    assert_eq!(context.metrics.health(Mode::Inspect).parts, [0, 0, 4]);
}

#[test]
fn a_trigger_needs_to_know_when_the_exposure_began() {
    let (context, _inbox) = context(by_time(0, 10), true, Mode::Inspect);
    let mut script = Script::new(vec![small_frame(0, monotonic())]);
    script.exposure_to_stamp = None;
    let error = captured(&context, vec![script]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("capture.exposure_to_stamp_us: expected"),
        "{error}"
    );
    assert!(!context.readiness.capturing());
}

#[test]
fn a_camera_that_waits_for_a_trigger_is_ready_for_the_first_part() {
    let (context, _inbox) = context(by_time(0, 10), true, Mode::Inspect);
    let ready = Arc::new(Mutex::new(Vec::new()));
    let mut opened = 0;
    let mut open = || {
        opened += 1;
        if opened > 2 {
            return Err(SourceError::Ended);
        }
        let (ready, readiness) = (Arc::clone(&ready), Arc::clone(&context.readiness));
        Ok(scripted(move || {
            ready.lock().unwrap().push(readiness.is_ready());
            Err(SourceError::TimedOut(ms(1)))
        }))
    };
    capture(&context, &mut open, &|| ()).unwrap();
    // A PLC that waits for *ready* can bring the first part. A camera that has failed since then
    // must deliver a frame first.
    assert_eq!(*ready.lock().unwrap(), [true, false]);
}

#[test]
fn a_frame_that_comes_before_its_edge_is_reported_is_scored_as_its_parts() {
    let (context, _inbox) = context(by_time(0, 10), true, Mode::Inspect);
    let edge = monotonic();
    std::thread::sleep(ms(40));
    // Stamped 33 ms after the start of an exposure that began 1 ms after the edge.
    captured(
        &context,
        vec![Script::new(vec![small_frame(0, edge + ms(34))])],
    )
    .unwrap();
    context.trigger(edge);
    context.slot.close();
    assert!(context.slot.take(&|| ()).is_some());
    assert_eq!(context.metrics.drops(Loss::Unassigned), 0);
}

#[test]
fn more_dropped_frames_than_can_be_followed_hold_the_gate() {
    let (context, _inbox) = context(by_time(2_000, 10), false, Mode::Inspect);
    let now = monotonic();
    let deliveries = vec![small_frame(0, now), small_frame(100, now + ms(1))];
    captured(&context, vec![Script::new(deliveries)]).unwrap();
    assert_eq!(context.metrics.drops(Loss::Parts), 99);
    assert!(context.line.with_parts(|parts| parts.is_blind()));
}

#[test]
fn frames_with_the_stamps_of_another_clock_go_to_their_parts_by_their_arrival() {
    let (context, _inbox) = context(by_time(0, 10), true, Mode::Inspect);
    context.trigger(monotonic().saturating_sub(ms(35)));
    captured(
        &context,
        vec![Script::new(vec![small_frame(0, Duration::ZERO)])],
    )
    .unwrap();
    context.settle_early_frames(monotonic() + ms(2));
    context.slot.close();
    assert!(context.slot.take(&|| ()).is_some());
}

#[test]
fn without_a_model_the_gate_is_held_and_parts_are_faults() {
    let (mut context, _inbox) = context(by_time(0, 10), false, Mode::Inspect);
    let inspector = (*context.control.inspector().unwrap()).clone();
    let control = Control::new(
        None,
        Mode::Inspect,
        GoldenFrames::default(),
        Arc::clone(&context.line),
        context.reporter.clone(),
        Arc::clone(&context.metrics),
        Arc::clone(&context.readiness),
    );
    context.control = Arc::new(control);
    with_gate_from_the_start(&context, |reject| {
        wait_for("the hold", || reject.is_active());
        wait_for("the condition", || {
            context.readiness.is_failing(Condition::Model)
        });
        std::thread::scope(|scope| {
            scope.spawn(|| score(&context, &|| ()));
            captured(
                &context,
                vec![Script::new(vec![small_frame(0, monotonic())])],
            )
            .unwrap();
            context.slot.close();
        });
        assert_eq!(context.metrics.health(Mode::Inspect).parts, [0, 0, 1]);
        context.readiness.set_capturing(true);
        context.control.activate(inspector);
        wait_for("inspection", || !reject.is_active());
    });
}

#[test]
fn a_golden_frame_that_is_missing_is_a_fault_and_does_not_hold_the_gate() {
    let (mut context, _inbox) = context(by_time(0, 10), false, Mode::Inspect);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("good.png");
    let inspector = (*context.control.inspector().unwrap()).clone();
    let golden = GoldenFrames::new(Some(&missing), None);
    assert!(golden.problem(inspector.reading()).is_some());
    let control = Control::new(
        Some(inspector),
        Mode::Inspect,
        golden,
        Arc::clone(&context.line),
        context.reporter.clone(),
        Arc::clone(&context.metrics),
        Arc::clone(&context.readiness),
    );
    context.control = Arc::new(control);
    context.readiness.set_capturing(true);
    assert!(!context.control.golden_check().passed);
    let readiness = &context.readiness;
    assert!(readiness.is_fault() && readiness.is_ready() && !readiness.holds_gate());
    image::GrayImage::new(97, 80).save(&missing).unwrap();
    context.control.golden_check();
    assert!(!readiness.is_failing(Condition::GoldenFrames));
}

fn watch(context: &StageContext, watched: Watched, limit: Duration) -> Heartbeat {
    context.liveness.watch(watched, limit, monotonic())
}

#[test]
fn a_scoring_thread_that_hangs_holds_the_gate_until_it_shows_signs_of_life() {
    let (context, _inbox) = context(by_time(0, 50), false, Mode::Inspect);
    let levels = with_gate(&context, |reject| {
        let score = watch(&context, Watched::Score, ms(200));
        wait_for("the hold", || reject.is_active());
        assert!(!context.readiness.gate_ok());
        // Longer than any pause of a loaded machine.
        score.beat(monotonic() + PATIENCE);
        wait_for("inspection", || !reject.is_active());
        assert!(context.readiness.gate_ok());
    });
    assert_eq!(levels, [true, false, true, false, true]);
}

#[test]
fn a_trigger_thread_that_hangs_holds_the_gate_until_unseen_parts_are_past_it() {
    let (context, _inbox) = context(by_time(300, 10), true, Mode::Inspect);
    let hangs = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&hangs);
    let listener: Listener = Box::new(move || {
        while seen.load(Ordering::Relaxed) {
            std::thread::sleep(ms(1));
        }
        std::thread::sleep(ms(1));
        Ok(None)
    });
    std::thread::scope(|scope| {
        with_gate(&context, |reject| {
            let heartbeat = watch(&context, Watched::Trigger, ms(300));
            let context = &context;
            scope.spawn(move || {
                let beat = || heartbeat.beat(monotonic());
                let mut reopen = || Err("nothing to open".to_owned());
                let (mut line, ended) = (Some(listener), &context.stop);
                let need = Condition::Trigger;
                listen(
                    context,
                    need,
                    &mut line,
                    &mut reopen,
                    &mut |_| (),
                    ended,
                    &beat,
                );
            });
            hangs.store(true, Ordering::Relaxed);
            wait_for("the hold", || reject.is_active());
            assert!(context.readiness.is_failing(Condition::Trigger));
            let released = Instant::now();
            hangs.store(false, Ordering::Relaxed);
            wait_for("inspection", || !reject.is_active());
            assert!(
                released.elapsed() >= ms(300),
                "before unseen parts were past"
            );
        });
    });
}

/// A source whose every step is a call.
struct Scripted<F>(F, StreamInfo);

impl<F: FnMut() -> Result<Delivery, SourceError> + Send> Source for Scripted<F> {
    fn next(&mut self) -> Result<Delivery, SourceError> {
        (self.0)()
    }

    fn info(&self) -> &StreamInfo {
        &self.1
    }
}

fn scripted(
    next: impl FnMut() -> Result<Delivery, SourceError> + Send + 'static,
) -> Box<dyn Source> {
    let info = StreamInfo {
        format: FourCc(*b"GREY"),
        width_px: 2,
        height_px: 1,
        controls: Vec::new(),
    };
    Box::new(Scripted(next, info))
}

fn damaged_frame() -> Delivery {
    Delivery::Damaged {
        sequence: 0,
        timestamp: monotonic(),
    }
}

#[test]
fn a_driver_that_hangs_between_two_frames_holds_the_gate() {
    let (mut context, _inbox) = context(by_time(10, 10), true, Mode::Inspect);
    context.frames = Some(watch(&context, Watched::Frames, ms(300)));
    let hangs = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&hangs);
    let context = &context;
    std::thread::scope(|scope| {
        with_gate(context, |reject| {
            let heartbeat = watch(context, Watched::Capture, ms(300));
            scope.spawn(move || {
                let mut source = Some(scripted(move || {
                    while seen.load(Ordering::Relaxed) {
                        std::thread::sleep(ms(1));
                    }
                    std::thread::sleep(ms(5));
                    Ok(damaged_frame())
                }));
                let mut open = || source.take().ok_or(SourceError::Ended);
                capture(context, &mut open, &|| heartbeat.beat(monotonic())).unwrap();
            });
            wait_for("frames", || context.metrics.drops(Loss::Damaged) > 0);
            hangs.store(true, Ordering::Relaxed);
            wait_for("the hold", || reject.is_active());
            assert!(!context.readiness.capturing());
            hangs.store(false, Ordering::Relaxed);
            wait_for("inspection", || !reject.is_active());
            assert!(context.readiness.capturing());
        });
    });
}

#[test]
fn a_driver_that_panics_is_an_outage_like_any_other() {
    let (context, _inbox) = context(by_time(10, 10), true, Mode::Inspect);
    let (opened, seen_outage) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut open = || match opened.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("on purpose, while opening"),
        1 => {
            let mut frames = 0;
            Ok(scripted(move || {
                frames += 1;
                assert!(frames < 3, "on purpose, instead of a frame");
                Ok(damaged_frame())
            }))
        }
        _ => {
            let outage = !context.readiness.capturing();
            seen_outage.store(outage, Ordering::Relaxed);
            Err(SourceError::Ended)
        }
    };
    capture(&context, &mut open, &|| ()).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 3);
    assert_eq!(context.metrics.drops(Loss::Damaged), 2);
    assert!(seen_outage.load(Ordering::Relaxed));
}

#[test]
fn a_capture_thread_that_panics_captures_no_longer() {
    let (context, _inbox) = context(by_time(10, 10), true, Mode::Inspect);
    let beats = AtomicUsize::new(0);
    let beat = || {
        let before = beats.fetch_add(1, Ordering::Relaxed);
        assert!(!context.readiness.capturing() || before < 10, "on purpose");
    };
    let mut open = || Ok(scripted(|| Ok(damaged_frame())));
    let run = || capture(&context, &mut open, &beat);
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert!(context.metrics.drops(Loss::Damaged) > 0);
    assert!(!context.readiness.capturing());
}

#[test]
fn an_input_whose_thread_panics_holds_the_gate_and_is_opened_again() {
    let (context, _inbox) = context(by_time(0, 10), true, Mode::Inspect);
    let opened = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let open = || -> Listener {
        let first = opened.fetch_add(1, Ordering::Relaxed) == 0;
        Box::new(move || {
            std::thread::sleep(ms(1));
            assert!(!first, "on purpose");
            Ok(None)
        })
    };
    let beat = || {
        failed.fetch_or(
            context.readiness.is_failing(Condition::Encoder),
            Ordering::Relaxed,
        );
    };
    let ended = &context.stop;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = Some(open());
            let mut reopen = || Ok(open());
            supervise(&context, "encoder", &beat, &mut || {
                let need = Condition::Encoder;
                listen(
                    &context,
                    need,
                    &mut line,
                    &mut reopen,
                    &mut |_| (),
                    ended,
                    &beat,
                );
            });
        });
        wait_for("the second start", || opened.load(Ordering::Relaxed) == 2);
        wait_for("the end of the failure", || {
            !context.readiness.any_failing()
        });
        context.stop.store(true, Ordering::Relaxed);
    });
    assert!(failed.load(Ordering::Relaxed));
}

#[test]
fn a_silent_trigger_holds_the_gate_until_its_next_edge_and_what_passed_unseen_is_past() {
    let (context, _inbox) = context(by_time(40, 10), true, Mode::Inspect);
    let levels = with_gate(&context, |reject| {
        context.line.limit_silence(Limits {
            trigger: Some(ms(150)),
            ..Limits::default()
        });
        wait_for("the hold", || reject.is_active());
        assert!(context.readiness.is_failing(Condition::TriggerSilent));
        assert!(!context.readiness.is_ready() && context.readiness.is_fault());
        let edge = Instant::now();
        assert!(context.line.trigger(monotonic()));
        wait_for("inspection", || !reject.is_active());
        assert!(edge.elapsed() >= ms(50), "parts that nobody saw passed");
        context.line.limit_silence(Limits::default());
    });
    assert_eq!(levels[..4], [true, false, true, false]);
}

#[test]
fn an_encoder_that_stands_while_parts_come_holds_the_gate_until_it_counts() {
    let settings = Settings {
        frame_within: Duration::from_secs(60),
        ..by_encoder(10)
    };
    let (context, _inbox) = context(settings, true, Mode::Inspect);
    context.line.limit_silence(Limits {
        parts_without_count: Some(3),
        has_encoder: true,
        ..Limits::default()
    });
    with_gate(&context, |reject| {
        for _ in 0..3 {
            assert!(context.line.trigger(monotonic()));
        }
        std::thread::sleep(ms(20));
        assert!(!context.readiness.is_failing(Condition::EncoderStands));
        assert!(context.line.trigger(monotonic()));
        wait_for("the hold", || reject.is_active());
        assert!(context.readiness.is_failing(Condition::EncoderStands));
        context.line.advance_conveyor(1, monotonic());
        wait_for("the end", || {
            !context.readiness.is_failing(Condition::EncoderStands)
        });
        std::thread::sleep(ms(20));
        assert!(reject.is_active(), "parts are not where the encoder says");
        wait_for("inspection", || {
            context.line.advance_conveyor(5, monotonic());
            !reject.is_active()
        });
    });
}

#[test]
fn parts_in_a_row_without_a_verdict_clear_ready_also_where_such_parts_pass() {
    let settings = Settings {
        safe_action: GateAction::Pass,
        ..by_time(40, 10)
    };
    let (mut context, _inbox) = context(settings, true, Mode::Inspect);
    context.safe_action = GateAction::Pass;
    context.readiness.set_capturing(true);
    let [reject, ready, fault] = [(); 3].map(|()| Wire::default());
    let signals = [None, ready.pin(), fault.pin()];
    let mut outputs = Outputs::new(reject.pin(), signals, GateAction::Pass);
    std::thread::scope(|scope| {
        let _ends = EndsInPanic(&context);
        scope.spawn(|| gate(&context, &mut outputs, &|| ()));
        wait_for("ready", || ready.is_active() && !fault.is_active());
        for _ in 0..3 {
            assert!(context.line.trigger(monotonic()));
        }
        wait_for("fault", || !ready.is_active() && fault.is_active());
        assert!(context.readiness.is_failing(Condition::Verdicts));
        // The line may wait for *ready*, so that no part comes: a golden check ends it too.
        assert!(context.control.golden_check().passed);
        wait_for("ready", || ready.is_active() && !fault.is_active());
        context.abandon.store(true, Ordering::Relaxed);
    });
}

#[test]
fn while_observing_ready_is_off_and_that_is_no_fault() {
    let (context, _inbox) = context(by_time(0, 50), false, Mode::Observe);
    context.readiness.set_capturing(true);
    let [reject, ready, fault] = [(); 3].map(|()| Wire::default());
    let mut outputs = outputs(&reject, &ready, &fault);
    std::thread::scope(|scope| {
        let _ends = EndsInPanic(&context);
        scope.spawn(|| gate(&context, &mut outputs, &|| ()));
        wait_for("observing", || !reject.is_active() && !fault.is_active());
        assert!(!ready.is_active());
        context.readiness.set_failing(Condition::Golden, true);
        context.line.wake();
        wait_for("fault", || fault.is_active());
        assert!(!reject.is_active(), "every part passes");
        context.abandon.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_reject_that_is_not_confirmed_holds_the_gate_until_one_is() {
    let (context, _inbox) = context(by_time(0, 20), false, Mode::Inspect);
    context.readiness.set_capturing(true);
    let [reject, ready, fault] = [(); 3].map(|()| Wire::default());
    let mut outputs = outputs(&reject, &ready, &fault).with_confirm(ms(5_000));
    let reject_one = || {
        let now = context.line.now();
        context.line.with_parts(|parts| {
            let part = parts.begin(now, false).unwrap();
            parts.decide(part, GateAction::Reject, now).unwrap();
        });
    };
    std::thread::scope(|scope| {
        let _ends = EndsInPanic(&context);
        scope.spawn(|| gate(&context, &mut outputs, &|| ()));
        wait_for("inspection", || !reject.is_active() && ready.is_active());
        reject_one();
        wait_for("the pulse", || reject.levels().len() == 4);
        context.line.confirm_reject(monotonic());
        std::thread::sleep(ms(50));
        assert!(ready.is_active());
        reject_one();
        wait_for("the hold", || !ready.is_active() && fault.is_active());
        assert!(context.readiness.is_failing(Condition::Confirmed) && reject.is_active());
        context.line.confirm_reject(monotonic());
        wait_for("inspection", || !reject.is_active() && ready.is_active());
        context.abandon.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_frame_that_cannot_show_a_part_is_a_fault_and_not_ok() {
    let (mut context, _inbox) = context(by_time(0, 10), false, Mode::Inspect);
    context.slot = FrameSlot::new(WhenFull::Wait);
    let frame = |sequence, seed: usize, step: usize| {
        Delivery::Frame(Captured {
            raw: RawFrame {
                format: FourCc(*b"GREY"),
                width_px: 97,
                height_px: 80,
                stride_bytes: 97,
                data: (0..97 * 80)
                    .map(|n| ((n + seed) * step % 251) as u8)
                    .collect(),
            },
            sequence,
            timestamp: monotonic(),
        })
    };
    // Two good frames, a black one, and a sensor that freezes: its third frame is the first that
    // cannot be new.
    let frames = [(1, 37), (2, 37), (0, 0), (3, 37), (3, 37), (3, 37), (3, 37)];
    let deliveries = (0..)
        .zip(frames)
        .map(|(n, (seed, step))| frame(n, seed, step));
    let source = Script::new(deliveries.collect());
    let mut source = Some(Box::new(source) as Box<dyn Source>);
    let mut open = || source.take().ok_or(SourceError::Ended);
    std::thread::scope(|scope| {
        scope.spawn(|| score(&context, &|| ()));
        capture(&context, &mut open, &|| ()).unwrap();
        context.slot.close();
    });
    assert_eq!(context.metrics.health(Mode::Inspect).parts, [4, 0, 3]);
}

#[test]
fn a_failed_golden_check_holds_the_gate_until_one_passes() {
    let (mut context, _inbox) = context(by_time(0, 10), false, Mode::Inspect);
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("good-after-all.png");
    image::GrayImage::from_fn(97, 80, |x, y| image::Luma([(x * 7 + y * 3) as u8]))
        .save(&picture)
        .unwrap();
    let inspector = (*context.control.inspector().unwrap()).clone();
    let control = Control::new(
        Some(inspector),
        Mode::Inspect,
        // Expected to be NG, and it is not.
        GoldenFrames::new(None, Some(&picture)),
        Arc::clone(&context.line),
        context.reporter.clone(),
        Arc::clone(&context.metrics),
        Arc::clone(&context.readiness),
    );
    let healthy = std::mem::replace(&mut context.control, Arc::new(control));
    with_gate(&context, |reject| {
        assert!(!context.control.golden_check().passed);
        wait_for("the hold", || reject.is_active());
        assert!(!context.readiness.is_ready() && context.readiness.is_fault());
        assert!(healthy.golden_check().passed);
        wait_for("inspection", || !reject.is_active());
    });
}
