//! From frames and triggers to the reject gate.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::report::{Event, Fault, GateAction, Outcome};

use crate::vm::camera::{Camera, PATIENCE, vivid_capture};
use crate::vm::ledger::Ledger;
use crate::vm::rig::Rig;
use crate::vm::station::Station;

const LINES: u32 = 16;
const GATE: u32 = 2;
const TRIGGER: u32 = 3;
const READY: u32 = 4;
const FAULT: u32 = 5;
const ENCODER: u32 = 6;
/// Encoder counts from the trigger to the gate.
const DELAY_COUNTS: u64 = 6;
/// Length of the gate's pulse in encoder counts.
const PULSE_COUNTS: u64 = 2;
/// Length of the gate's pulse in time, long enough to be seen from outside an emulated guest.
const PULSE_MS: u64 = 700;

/// A camera whose gate is watched, and a station that receives its reports.
struct Line<'a> {
    camera: &'a mut Camera,
    station: Station,
    ledger: Ledger,
    parts: usize,
    rejects: usize,
}

impl<'a> Line<'a> {
    fn start(camera: &'a mut Camera) -> Result<Self> {
        camera
            .guest
            .background("watch", &format!("gpio watch {GATE}"), "/tmp/gate")?;
        camera.start()?;
        let ledger = Ledger::default();
        let station = camera.station("line", &ledger)?;
        // Until the first frame the camera cannot inspect, and after it what passed unseen must be
        // past; with `on_fault = "reject"` the gate is active then.
        wait_for_metric(camera, "awr_capturing", 1.0)?;
        std::thread::sleep(Duration::from_millis(PULSE_MS + 500));
        let mut line = Self {
            camera,
            station,
            ledger,
            parts: 0,
            rejects: 0,
        };
        line.rejects = match line.gate()? {
            (rises @ 1, false) => rises,
            found => bail!(
                "before the first part, expected the gate's rises and level to be (1, false), \
                 found {found:?}"
            ),
        };
        Ok(line)
    }

    /// Number of the gate's rising edges so far, and whether it is active.
    fn gate(&mut self) -> Result<(usize, bool)> {
        let seen = self.camera.guest.check("cat /tmp/gate")?.text();
        let rises = seen.lines().filter(|line| *line == "1").count();
        Ok((rises, seen.ends_with('1')))
    }

    /// Waits for the next part, whose report must have this outcome and action, and checks the
    /// gate.
    fn expect(&mut self, outcome: Outcome, action: GateAction) -> Result<()> {
        let number = self.parts + 1;
        self.station
            .receive_until(&mut self.ledger, "a part's report", PATIENCE, |ledger| {
                ledger.parts().len() >= number
            })?;
        self.parts = number;
        let part = self.ledger.parts()[number - 1];
        if (part.outcome, part.action) != (outcome, action) {
            bail!(
                "part {number}: expected {outcome:?} {action:?}, found {:?} {:?} (score {:?})",
                part.outcome,
                part.action,
                part.score
            );
        }
        if action == GateAction::Reject {
            self.rejects += 1;
        }
        // The pulse is over then, so that a missing or an additional one shows.
        std::thread::sleep(Duration::from_millis(PULSE_MS + 300));
        let found = self.gate()?;
        if found != (self.rejects, false) {
            bail!(
                "after part {number} ({outcome:?}), expected the gate's rises and level to be \
                 {:?}, found {found:?}",
                (self.rejects, false)
            );
        }
        Ok(())
    }
}

fn gate() -> String {
    format!(
        "[gate]\noutput = {{ chip = \"/dev/gpiochip0\", line = {GATE} }}\npulse_ms = {PULSE_MS}\n\
         on_fault = \"reject\"\n"
    )
}

fn trigger() -> String {
    format!(
        "[inspection]\ndeadline_ms = 10000\n\
         [trigger]\nkind = \"gpio\"\nchip = \"/dev/gpiochip0\"\nline = {TRIGGER}\n\
         frame_within_ms = 1500\ndrives_camera = false\n"
    )
}

fn loopback() -> &'static str {
    "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video10\"\nformat = \"GREY\"\n\
     timeout_ms = 20000\nexposure_to_stamp_us = 0\n"
}

/// Good frames never move the gate; each bad frame moves it once.
pub(crate) fn reject(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.load_loopback()?;
    let threshold = camera.pictures.threshold;
    camera.configure(threshold, &format!("{}{}", loopback(), gate()))?;
    camera.explain(|camera| {
        let mut line = Line::start(camera)?;
        // A new reader first gets the last frame that was written before it opened the device.
        line.expect(Outcome::Ok, GateAction::Pass)
            .context("the frame that was written before the start")?;
        for good in [true, false, true, true, false, false, true, false, true] {
            line.camera.feed(if good { "good" } else { "bad" })?;
            match good {
                true => line.expect(Outcome::Ok, GateAction::Pass)?,
                false => line.expect(Outcome::Ng, GateAction::Reject)?,
            }
        }
        let health = line.camera.http("/health")?;
        if !health.starts_with("HTTP/1.1 200") {
            bail!("the camera is not healthy: {health}");
        }
        gate_beside_snapshots(&mut line)
    })
}

/// Rejects whose times are taken, without and with snapshots.
const TIMED_REJECTS: u32 = 8;

/// Longest time, on average, by which snapshots may make the gate later, in an emulated guest.
const SNAPSHOTS_DELAY_GATE_BY: Duration = Duration::from_millis(20);

/// A station that takes one snapshot after another does not make the gate wait.
fn gate_beside_snapshots(line: &mut Line<'_>) -> Result<()> {
    let alone_s = gate_delay_s(line)?;
    let (stop, taken) = (AtomicBool::new(false), AtomicU32::new(0));
    let address = line.camera.tcp_address()?;
    let beside_s = std::thread::scope(|scope| {
        let taking = scope.spawn(|| -> Result<()> {
            let mut office = Station::tcp(address, "line", &Ledger::default())?;
            while !stop.load(Ordering::Relaxed) {
                office.snapshot(taken.fetch_add(1, Ordering::Relaxed) + 1)?;
            }
            Ok(())
        });
        let beside_s = gate_delay_s(line);
        stop.store(true, Ordering::Relaxed);
        match taking.join() {
            Ok(taking) => taking.and(beside_s),
            Err(_) => bail!("the station that takes snapshots panicked"),
        }
    })?;
    let taken = taken.load(Ordering::Relaxed);
    eprintln!(
        "    the gate moved {:.2} ms after the verdict on average, and {:.2} ms during {taken} \
         snapshots",
        alone_s * 1e3,
        beside_s * 1e3
    );
    if taken < TIMED_REJECTS || beside_s > alone_s + SNAPSHOTS_DELAY_GATE_BY.as_secs_f64() {
        bail!("snapshots make the gate wait, or only {taken} were taken");
    }
    Ok(())
}

/// The time from the verdict to the output, on average over some rejects.
fn gate_delay_s(line: &mut Line<'_>) -> Result<f64> {
    let read = |line: &Line<'_>| -> Result<(f64, f64)> {
        let of = |what: &str| {
            let series = format!("awr_stage_seconds_{what}{{stage=\"gate\"}}");
            line.camera.metric(&series)
        };
        Ok((of("sum")?, of("count")?))
    };
    let (sum_s, count) = read(line)?;
    for _ in 0..TIMED_REJECTS {
        line.camera.feed("bad")?;
        line.expect(Outcome::Ng, GateAction::Reject)?;
    }
    let (sum_after_s, count_after) = read(line)?;
    let moved = count_after - count;
    if moved != f64::from(TIMED_REJECTS) {
        bail!("expected {TIMED_REJECTS} pulses, found {moved}");
    }
    Ok((sum_after_s - sum_s) / moved)
}

/// A rising edge of the trigger starts a part, and the next frame shows it. A part without a frame
/// is a fault and is rejected.
pub(crate) fn triggered(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.load_loopback()?;
    let threshold = camera.pictures.threshold;
    camera.configure(threshold, &format!("{}{}{}", loopback(), gate(), trigger()))?;
    camera.explain(|camera| {
        let mut line = Line::start(camera)?;
        let unassigned = "awr_drops_total{place=\"unassigned\"}";
        for picture in ["good", "bad", "", "good", "", "bad"] {
            // A frame without a trigger is not a part, and a falling edge does not start one.
            let before = line.camera.metric(unassigned)?;
            line.camera.feed("bad")?;
            wait_for_metric(line.camera, unassigned, before + 1.0)?;
            line.camera.guest.gpio_pull(TRIGGER, true)?;
            line.camera.guest.gpio_pull(TRIGGER, false)?;
            // Edges and frames are received by different threads of the program, so the frame must
            // not come at once.
            std::thread::sleep(Duration::from_millis(200));
            if !picture.is_empty() {
                line.camera.feed(picture)?;
            }
            match picture {
                "good" => line.expect(Outcome::Ok, GateAction::Pass)?,
                "bad" => line.expect(Outcome::Ng, GateAction::Reject)?,
                _ => line.expect(Outcome::Fault(Fault::NoFrame), GateAction::Reject)?,
            }
        }
        Ok(())
    })
}

/// A belt with an encoder, and the parts on it.
struct Belt<'a> {
    camera: &'a mut Camera,
    station: Station,
    ledger: Ledger,
    counts: u64,
    /// Encoder counts at which bad parts were triggered.
    bad: Vec<u64>,
}

impl Belt<'_> {
    /// Lets a part pass the trigger, and checks its report.
    fn part(&mut self, picture: &str) -> Result<()> {
        let before = self.ledger.last();
        self.camera.guest.gpio_pull(TRIGGER, true)?;
        self.camera.guest.gpio_pull(TRIGGER, false)?;
        std::thread::sleep(Duration::from_millis(200));
        self.camera.feed(picture)?;
        let what = "a part's report";
        self.station
            .receive_until(&mut self.ledger, what, PATIENCE, |ledger| {
                !ledger.parts_after(before).is_empty()
            })?;
        let found = self.ledger.parts_after(before)[0].outcome;
        let (expected, is_rejected) = match picture {
            "bad" => (Outcome::Ng, true),
            _ => (Outcome::Ok, false),
        };
        if found != expected {
            bail!("a {picture} part: expected {expected:?}, found {found:?}");
        }
        if is_rejected {
            self.bad.push(self.counts);
        }
        Ok(())
    }

    /// Moves the belt by one encoder count, and checks the gate.
    fn step(&mut self) -> Result<()> {
        self.camera.guest.gpio_pull(ENCODER, true)?;
        self.camera.guest.gpio_pull(ENCODER, false)?;
        self.counts += 1;
        self.check()
    }

    /// Checks that the gate is active exactly while a bad part is at it, or one that nobody saw.
    fn check(&mut self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(200));
        let pulses = self.bad.iter().map(|start| start + DELAY_COUNTS);
        // What lay between trigger and gate at the start was never seen.
        let unseen = self.counts < DELAY_COUNTS + PULSE_COUNTS;
        let expected = unseen
            || pulses
                .map(|from| from..from + PULSE_COUNTS)
                .any(|pulse| pulse.contains(&self.counts));
        let found = self.camera.guest.gpio_level(GATE)?;
        if found != expected {
            bail!(
                "after {} counts, expected the gate's level to be {expected}, found {found}; bad \
                 parts were triggered at {:?}",
                self.counts,
                self.bad
            );
        }
        Ok(())
    }

    /// Moves the belt by several counts.
    fn steps(&mut self, counts: u64) -> Result<()> {
        (0..counts).try_for_each(|_| self.step())
    }
}

/// Bad parts are rejected by encoder counts, even if the belt stops, with several parts between
/// trigger and gate at once. Parts that are on their way when the program is asked to end are
/// rejected too.
pub(crate) fn encoder(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.load_loopback()?;
    let threshold = camera.pictures.threshold;
    let gate = format!(
        "[gate]\noutput = {{ chip = \"/dev/gpiochip0\", line = {GATE} }}\non_fault = \"reject\"\n\
         encoder = {{ input = {{ chip = \"/dev/gpiochip0\", line = {ENCODER} }}, \
         delay_counts = {DELAY_COUNTS}, pulse_counts = {PULSE_COUNTS} }}\n"
    );
    camera.configure(threshold, &format!("{}{gate}{}", loopback(), trigger()))?;
    camera.explain(|camera| {
        camera.start()?;
        let ledger = Ledger::default();
        let station = camera.station("line", &ledger)?;
        wait_for_metric(camera, "awr_capturing", 1.0)?;
        let mut belt = Belt {
            camera,
            station,
            ledger,
            counts: 0,
            bad: Vec::new(),
        };
        belt.part("bad")?;
        belt.steps(2)?;
        belt.part("good")?;
        belt.steps(2)?;
        belt.part("bad")?;
        belt.steps(3)?;
        // The belt stops in the middle of a pulse.
        std::thread::sleep(Duration::from_secs(3));
        belt.check()?;
        belt.steps(6)?;
        if belt
            .camera
            .metric("awr_stage_seconds_count{stage=\"gate\"}")?
            != 2.0
        {
            bail!("expected the times of two pulses among the metrics");
        }
        let late_s = belt
            .camera
            .metric("awr_stage_seconds_sum{stage=\"gate\"}")?
            / 2.0;
        eprintln!(
            "    the gate moved {:.1} ms after the encoder's edge, on average",
            late_s * 1e3
        );
        belt.part("bad")?;
        belt.step()?;
        belt.part("good")?;
        belt.camera
            .guest
            .check("kill -TERM $(cat /run/camera.pid)")?;
        // The good part needs no pulse, so the program ends with that of the bad one.
        belt.steps(DELAY_COUNTS)?;
        let last = "gpio pull 6 up; gpio pull 6 down";
        belt.camera.guest.check(last)?;
        let ended = "! kill -0 $(cat /run/camera.pid) 2>/dev/null";
        belt.camera.guest.wait_until(ended, PATIENCE)?;
        let log = belt.camera.guest.check("cat /tmp/camera.log")?.text();
        if log.contains("held safe") || log.contains("ERROR") {
            bail!("the program did not end cleanly");
        }
        Ok(())
    })
}

/// While no frames come, the gate rejects every part and ready, fault, health and reports show the
/// outage. When frames come again, it ends without help.
pub(crate) fn outage(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.guest.load_vivid()?;
    let signals = format!(
        "[signals]\nready = {{ chip = \"/dev/gpiochip0\", line = {READY} }}\n\
         fault = {{ chip = \"/dev/gpiochip0\", line = {FAULT} }}\n"
    );
    let capture = vivid_capture(5.0, "none");
    camera.configure(1e6, &format!("{capture}{}{}{signals}", gate(), trigger()))?;
    camera.explain(|camera| {
        camera.start()?;
        let mut ledger = Ledger::default();
        let mut station = camera.station("line", &ledger)?;
        for round in 1..=2 {
            wait_for_capturing(camera, true).with_context(|| format!("round {round}"))?;
            part(camera, &mut station, &mut ledger, Outcome::Ok)?;
            let before = ledger.last();
            camera
                .guest
                .vivid_fault("percentage_of_dropped_buffers", 100)?;
            wait_for_capturing(camera, false).with_context(|| format!("round {round}"))?;
            part(
                camera,
                &mut station,
                &mut ledger,
                Outcome::Fault(Fault::NoFrame),
            )?;
            camera
                .guest
                .vivid_fault("percentage_of_dropped_buffers", 0)?;
            station.receive_until(&mut ledger, "the end of the outage", PATIENCE, |ledger| {
                let events = ledger.events_after(before);
                let resumed = events.last();
                matches!(events.first(), Some(Event::CaptureLost { .. }))
                    && matches!(resumed, Some(Event::CaptureResumed { .. }))
            })?;
        }
        wait_for_capturing(camera, true)
    })
}

/// Waits until gate, ready, fault and /health agree that the camera is capturing, or that it is
/// not.
fn wait_for_capturing(camera: &mut Camera, capturing: bool) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let lines = [GATE, READY, FAULT].map(|line| camera.guest.gpio_level(line));
        let [gate, ready, fault] = lines;
        let found = (gate?, ready?, fault?);
        let healthy = camera.http("/health")?.starts_with("HTTP/1.1 200");
        if found == (!capturing, capturing, !capturing) && healthy == capturing {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            bail!(
                "expected the signals of capturing = {capturing}, found gate, ready and fault \
                 {found:?}, and healthy = {healthy}"
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Lets a part pass the trigger; its report must have this outcome.
fn part(
    camera: &mut Camera,
    station: &mut Station,
    ledger: &mut Ledger,
    outcome: Outcome,
) -> Result<()> {
    let before = ledger.last();
    camera.guest.gpio_pull(TRIGGER, true)?;
    camera.guest.gpio_pull(TRIGGER, false)?;
    station.receive_until(ledger, "a part's report", PATIENCE, |ledger| {
        !ledger.parts_after(before).is_empty()
    })?;
    let found: Vec<_> = ledger
        .parts_after(before)
        .iter()
        .map(|part| (part.outcome, part.action))
        .collect();
    let action = match outcome {
        Outcome::Ok => GateAction::Pass,
        _ => GateAction::Reject,
    };
    if found != [(outcome, action)] {
        bail!("expected one part, {outcome:?} {action:?}, found {found:?}");
    }
    Ok(())
}

/// Waits until a metric has reached a value.
pub(super) fn wait_for_metric(camera: &mut Camera, series: &str, value: f64) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let found = camera.metric(series)?;
        if found >= value {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            bail!("expected {series} to reach {value}, found {found}");
        }
        camera.alive()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}
