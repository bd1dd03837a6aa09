//! The failures of a line, one after another on one camera: each is shown by the outputs and by
//! `/health` as documented in "What the gate does when something fails", within the promised time;
//! no part passes meanwhile that was not judged OK; and when the failure ends, so does the fault.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::message::{Answer, Command};
use proto::report::{Event, Fault, GateAction, Outcome};

use crate::vm::camera::{Camera, HTTP, PATIENCE, boot_with, vivid_capture};
use crate::vm::ledger::Ledger;
use crate::vm::rig::Rig;
use crate::vm::station::Station;

/// Lines of the chip for the signals and the sensor behind the gate.
const CONFIRM: u32 = 2;
const READY: u32 = 4;
const FAULT: u32 = 5;
const HEARTBEAT: u32 = 7;
/// Time for the commands of this test and for an emulated processor, added to what is promised.
const GRACE: Duration = Duration::from_secs(4);
/// Longest time from the end of a failure to *ready*: the camera is opened again after 5 s at most.
const READY_AGAIN: Duration = Duration::from_secs(15);
/// How long an input may be silent.
const ENCODER_SILENT_MS: u64 = 10_000;
const TRIGGER_SILENT_MS: u64 = 20_000;
/// Parts that may come without a count of the encoder.
const PARTS_WITHOUT_COUNT: u32 = 2;
/// Within this time the sensor behind the gate must confirm a reject.
const CONFIRM_WITHIN_MS: u64 = 500;
/// A threshold that no frame of the camera reaches, and one that every frame exceeds.
const ALL_OK: f32 = 1e6;
const ALL_NG: f32 = 0.0;
/// Seconds by which the clock is set back.
const CLOCK_BACK_S: u64 = 3_600;

/// What outputs and `/health` show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    /// Whether the reject output is active; `None` if there is no such output.
    reject: Option<bool>,
    ready: bool,
    fault: bool,
    /// The status of `/health` is 200.
    healthy: bool,
    /// The conditions that fail.
    failing: Vec<String>,
}

impl Shown {
    /// All is well.
    fn ready() -> Self {
        Self {
            reject: Some(false),
            ready: true,
            fault: false,
            healthy: true,
            failing: Vec::new(),
        }
    }

    /// The gate is held because of one condition.
    fn held(condition: &str) -> Self {
        Self {
            reject: Some(true),
            ready: false,
            fault: true,
            healthy: false,
            failing: vec![condition.to_owned()],
        }
    }

    /// Parts are inspected, but their reports are not on the disk.
    fn without_journal() -> Self {
        Self {
            fault: true,
            healthy: false,
            failing: vec!["journal".to_owned()],
            ..Self::ready()
        }
    }
}

/// A line with a camera, a trigger, a gate and a station.
struct Line<'a> {
    camera: &'a mut Camera,
    station: Station,
    ledger: Ledger,
    /// Commands sent.
    commands: u32,
}

/// A step of a failure.
type Step<'s> = &'s dyn Fn(&mut Line<'_>) -> Result<()>;

/// A failure of the line.
struct Failure<'s> {
    name: &'s str,
    /// What takes time and fails nothing yet.
    prepare: Step<'s>,
    begin: Step<'s>,
    /// What it must show.
    shows: Shown,
    /// Longest time until then, as documented.
    within: Duration,
    /// What happens while it lasts.
    meanwhile: Step<'s>,
    end: Step<'s>,
}

impl<'a> Line<'a> {
    /// Starts the program, waits until it is ready, and lets a part pass.
    fn start(camera: &'a mut Camera, ledger: Ledger) -> Result<Self> {
        camera.start_with("NOTIFY_SOCKET=/run/notify WATCHDOG_USEC=900000")?;
        let station = camera.station("line", &ledger)?;
        let mut line = Self {
            camera,
            station,
            ledger,
            commands: 0,
        };
        line.shows(&Shown::ready(), Instant::now(), PATIENCE)?;
        line.part(Outcome::Ok)?;
        Ok(line)
    }

    fn run(&mut self, command: &str) -> Result<String> {
        Ok(self.camera.guest.check(command)?.text())
    }

    /// Goes through a failure from *ready* to *ready*.
    fn goes_through(&mut self, failure: &Failure<'_>) -> Result<()> {
        let times = self.try_failure(failure);
        let (shown, ready) = times.with_context(|| failure.name.to_owned())?;
        eprintln!(
            "    {}: shown after {:.1} s, ready {:.1} s after its end",
            failure.name,
            shown.as_secs_f64(),
            ready.as_secs_f64()
        );
        Ok(())
    }

    fn try_failure(&mut self, failure: &Failure<'_>) -> Result<(Duration, Duration)> {
        (failure.prepare)(self)?;
        let begun = Instant::now();
        (failure.begin)(self)?;
        let shown = self.shows(&failure.shows, begun, failure.within + GRACE)?;
        self.heartbeat_beats(failure.shows.ready)?;
        let opened = self.openings()?;
        (failure.meanwhile)(self).context("while it lasts")?;
        self.shows(&failure.shows, Instant::now(), Duration::ZERO)
            .context("at its end")?;
        if failure.shows.reject == Some(true) && self.openings()? != opened {
            bail!("the gate let parts pass");
        }
        let ended = Instant::now();
        (failure.end)(self)?;
        let ready = self.shows(&Shown::ready(), ended, READY_AGAIN + GRACE)?;
        self.part(Outcome::Ok).context("after its end")?;
        Ok((shown, ready))
    }

    /// Waits until `expected` is shown, for at most `limit` from `since` on; zero stands for now.
    /// Returns the time that it took.
    fn shows(&mut self, expected: &Shown, since: Instant, limit: Duration) -> Result<Duration> {
        loop {
            let found = self.look()?;
            let took = since.elapsed();
            let is_late = took > limit && !limit.is_zero();
            if found == *expected && !is_late {
                return Ok(took);
            }
            if is_late || limit.is_zero() {
                self.camera.alive()?;
                bail!(
                    "after {:.1} s expected {expected:?}, found {found:?}",
                    took.as_secs_f64()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is shown now. `/health` is asked for in the guest, because the cable may be unplugged.
    fn look(&mut self) -> Result<Shown> {
        let text = self.run(&format!(
            "CHIP=gate gpio level 0 2>/dev/null || echo -
             gpio level {READY}
             gpio level {FAULT}
             printf 'GET /health HTTP/1.1\\r\\n\\r\\n' | timeout 5 nc 127.0.0.1 {HTTP}"
        ))?;
        let mut lines = text.lines();
        let mut level = || match lines.next() {
            Some("1") => Some(true),
            Some("0") => Some(false),
            _ => None,
        };
        let [reject, ready, fault] = [level(), level(), level()];
        let health = lines.next().unwrap_or_default();
        let body = lines.next_back().unwrap_or_default();
        let body: serde_json::Value =
            serde_json::from_str(body).with_context(|| format!("/health: {text}"))?;
        let conditions = body["conditions"].as_object().context("no conditions")?;
        let failing = conditions.iter().filter(|(_, holds)| **holds == false);
        Ok(Shown {
            reject,
            ready: ready.context("the level of ready")?,
            fault: fault.context("the level of fault")?,
            healthy: health.starts_with("HTTP/1.1 200"),
            failing: failing.map(|(name, _)| name.clone()).collect(),
        })
    }

    /// Fails unless the heartbeat is a square wave, or stands.
    fn heartbeat_beats(&mut self, beats: bool) -> Result<()> {
        let changes: u32 = self
            .run(
                "usleep 100000; before=$(wc -l </tmp/heartbeat); usleep 1000000
                 echo $(($(wc -l </tmp/heartbeat) - before))",
            )?
            .parse()?;
        match (beats, changes) {
            (true, 2..) | (false, 0) => Ok(()),
            _ => bail!("expected a heartbeat: {beats}; it changed {changes} times in 1 s"),
        }
    }

    /// How often the reject output has become inactive.
    fn openings(&mut self) -> Result<u32> {
        Ok(self.run("grep -c 0 /tmp/gate || true")?.parse()?)
    }

    /// Starts to watch the reject output.
    fn watch_gate(&mut self) -> Result<()> {
        let watch = "env CHIP=gate gpio watch 0";
        self.camera.guest.background("gate", watch, "/tmp/gate")
    }

    /// Lets a part reach the trigger.
    fn pull(&mut self) -> Result<()> {
        self.run("export CHIP=trigger; gpio pull 0 up; gpio pull 0 down")?;
        Ok(())
    }

    /// Lets a part pass; its report must have this outcome.
    fn part(&mut self, outcome: Outcome) -> Result<()> {
        let before = self.ledger.last();
        self.pull()?;
        self.reports(before, 1, outcome)
    }

    /// Waits for `count` reports of parts after the record `before`, which must have this outcome.
    fn reports(&mut self, before: u64, count: usize, outcome: Outcome) -> Result<()> {
        self.station
            .receive_until(&mut self.ledger, "a part's report", PATIENCE, |ledger| {
                ledger.parts_after(before).len() >= count
            })?;
        let parts = self.ledger.parts_after(before);
        let found: Vec<_> = parts
            .iter()
            .map(|part| (part.outcome, part.action))
            .collect();
        let action = match outcome {
            Outcome::Ok => GateAction::Pass,
            _ => GateAction::Reject,
        };
        if found != vec![(outcome, action); count] {
            bail!("expected {count} × {outcome:?} {action:?}, found {found:?}");
        }
        Ok(())
    }

    /// Lets a part pass whose report cannot arrive now: the camera counts it.
    fn part_unreported(&mut self) -> Result<()> {
        let count = format!(
            "printf 'GET /metrics HTTP/1.1\\r\\n\\r\\n' | timeout 5 nc 127.0.0.1 {HTTP} | \
             sed -n 's/^awr_parts_total{{result=\"ok\"}} //p'"
        );
        let before = self.run(&count)?;
        self.pull()?;
        let counted = format!("[ \"$({count})\" != '{before}' ]");
        let guest = &mut self.camera.guest;
        guest.wait_until(&counted, PATIENCE).context("an OK part")
    }

    /// A station asks for something.
    fn command(&mut self, command: Command) -> Result<Answer> {
        self.commands += 1;
        self.station
            .command(&mut self.ledger, self.commands, command)
    }

    /// A station sets the threshold.
    fn threshold(&mut self, value: f32) -> Result<()> {
        let reason = "this part of the test".to_owned();
        match self.command(Command::SetThreshold { value, reason })? {
            Answer::Refused { reason } => bail!("the threshold was refused: {reason}"),
            _ => Ok(()),
        }
    }

    /// A station runs the golden-sample check.
    fn golden(&mut self, passes: bool) -> Result<()> {
        match self.command(Command::GoldenCheck)? {
            Answer::Golden(result) if result.passed == passes => Ok(()),
            other => bail!("expected a golden-sample check that passes: {passes}; found {other:?}"),
        }
    }

    /// The belt stops, or goes on.
    fn belt(&mut self, moves: bool) -> Result<()> {
        match moves {
            true => {
                let guest = &mut self.camera.guest;
                guest.background("belt", "sh /tmp/belt", "/tmp/belt.log")
            }
            false => self.run("kill $(cat /run/belt.pid)").map(drop),
        }
    }

    /// Sets controls of the camera.
    fn control(&mut self, controls: &str) -> Result<()> {
        self.run(&format!("v4l2-ctl -d /dev/video0 -c {controls}"))?;
        // The frames after the next one are made with them.
        std::thread::sleep(Duration::from_millis(600));
        Ok(())
    }

    /// The program is stopped, as if it hung as a whole: the heartbeat stands, and systemd gets no
    /// sign of life and would start it again.
    fn stop_program(&mut self) -> Result<()> {
        let found = self.run(
            "count() { wc -l </tmp/heartbeat; grep -c WATCHDOG=1 /tmp/notify; }
             kill -STOP $(cat /run/camera.pid); usleep 200000; count; usleep 1500000; count
             kill -CONT $(cat /run/camera.pid); usleep 2000000; count",
        )?;
        let counts: Vec<u32> = found.lines().flat_map(str::parse).collect();
        let [
            beats,
            signs,
            beats_stopped,
            signs_stopped,
            beats_later,
            signs_later,
        ] = counts[..]
        else {
            bail!("expected six counts, found {found}");
        };
        if (beats_stopped, signs_stopped) != (beats, signs) {
            bail!("a stopped program gave a heartbeat or a sign of life: {counts:?}");
        }
        if beats_later == beats || signs_later == signs {
            bail!("a program that goes on gives no heartbeat or no sign of life: {counts:?}");
        }
        Ok(())
    }

    /// Whether capture was reported as lost, and as resumed, after a record.
    fn outage_is_reported(&mut self, before: u64) -> Result<()> {
        let what = "the reports of the outage";
        self.station
            .receive_until(&mut self.ledger, what, PATIENCE, |ledger| {
                let events = ledger.events_after(before);
                let lost = |event: &&Event| matches!(event, Event::CaptureLost { .. });
                let resumed = |event: &&Event| matches!(event, Event::CaptureResumed { .. });
                events.iter().any(lost) && events.iter().any(resumed)
            })
    }
}

const S: fn(u64) -> Duration = Duration::from_secs;
const NOTHING: Step<'static> = &|_| Ok(());

/// Goes through the failures of a line.
pub(crate) fn all(rig: &mut Rig) -> Result<()> {
    let disk = rig.disk()?;
    let (mut boot, pictures) = boot_with(rig, Some(disk))?;
    boot.files.push(rig.notifier()?);
    let guest = rig.boot(&boot)?;
    let mut camera = Camera { guest, pictures };
    camera.guest.check(
        "gpio make 8; CHIP=gate gpio make 1; CHIP=trigger gpio make 1; CHIP=encoder gpio make 1",
    )?;
    camera.guest.load_vivid()?;
    let notify = "vm-notify /run/notify";
    camera.guest.background("notify", notify, "/tmp/notify")?;
    let watch = format!("gpio watch {HEARTBEAT}");
    camera
        .guest
        .background("heartbeat", &watch, "/tmp/heartbeat")?;
    camera.explain(|camera| {
        let never = "silent_off = \"this part of the test\"\n";
        camera.configure(ALL_OK, &configuration(never, ""))?;
        let mut line = Line::start(camera, Ledger::default())?;
        line.watch_gate()?;
        frames(&mut line)?;
        wires(&mut line)?;
        computer(&mut line)?;
        read_only(&mut line).context("a read-only disk")?;
        line.camera.kill()?;
        line.heartbeat_beats(false).context("after kill -9")?;
        line.run("umount /state && mount -t ext4 /dev/vda /state")?;
        let Line { camera, ledger, .. } = line;
        let silent = format!("silent_after_ms = {TRIGGER_SILENT_MS}\n");
        let encoder = format!(
            "encoder = {{ input = {{ chip = \"/dev/gpio-encoder\", line = 0 }}, delay_counts = 40, \
             pulse_counts = 2, silent_after_ms = {ENCODER_SILENT_MS}, \
             parts_without_count = {PARTS_WITHOUT_COUNT} }}\n"
        );
        camera.configure(ALL_OK, &configuration(&silent, &encoder))?;
        // Ten counts a second, also on a busy host.
        let belt = "file=$(CHIP=encoder gpio file 0)/pull
                    while :; do echo pull-up >$file; echo pull-down >$file; usleep 100000; done";
        camera.guest.write("/tmp/belt", belt.as_bytes())?;
        camera
            .guest
            .background("belt", "sh /tmp/belt", "/tmp/belt.log")?;
        let mut line = Line::start(camera, ledger).context("after kill -9")?;
        silence(&mut line)?;
        line.belt(false)?;
        line.camera.kill()?;
        let Line { camera, ledger, .. } = line;
        let confirm = format!(
            "confirm = {{ input = {{ chip = \"/dev/gpio-rig\", line = {CONFIRM} }}, \
             within_ms = {CONFIRM_WITHIN_MS} }}\n"
        );
        let golden = "[golden]\nbad = \"frames/bad.png\"\n";
        let text = configuration(never, &confirm) + golden;
        camera.configure(ALL_OK, &text)?;
        let mut line = Line::start(camera, ledger).context("with a sensor behind the gate")?;
        verdicts(&mut line)?;
        line.ledger.check_complete()
    })
}

/// The configuration; `trigger` and `gate` are more keys of these sections.
fn configuration(trigger: &str, gate: &str) -> String {
    format!(
        "{}[plausibility]\nidentical_frames = 3\n[inspection]\ndeadline_ms = 10000\n\
         [trigger]\nkind = \"gpio\"\nchip = \"/dev/gpio-trigger\"\nline = 0\n\
         frame_within_ms = 1500\ndrives_camera = false\n{trigger}\
         [gate]\noutput = {{ chip = \"/dev/gpio-gate\", line = 0 }}\non_fault = \"reject\"\n{gate}\
         [signals]\nheartbeat_ms = 400\n\
         ready = {{ chip = \"/dev/gpio-rig\", line = {READY} }}\n\
         fault = {{ chip = \"/dev/gpio-rig\", line = {FAULT} }}\n\
         heartbeat = {{ chip = \"/dev/gpio-rig\", line = {HEARTBEAT} }}\n",
        // With pictures a report takes more room than what is left of a block on a full disk.
        vivid_capture(5.0, "all")
    )
}

/// No frames, and frames that cannot show a part.
fn frames(line: &mut Line<'_>) -> Result<()> {
    let no_frame = Outcome::Fault(Fault::NoFrame);
    let implausible = Outcome::Fault(Fault::Implausible);
    let before = line.ledger.last();
    line.goes_through(&Failure {
        name: "the camera delivers nothing",
        prepare: NOTHING,
        begin: &|line| line.control("percentage_of_dropped_buffers=100"),
        shows: Shown::held("frames"),
        within: S(3),
        meanwhile: &|line| line.part(no_frame),
        end: &|line| line.control("percentage_of_dropped_buffers=0"),
    })?;
    line.outage_is_reported(before)?;
    let before = line.ledger.last();
    let driver = "/sys/bus/platform/drivers/vivid";
    line.goes_through(&Failure {
        name: "the camera is unplugged",
        prepare: NOTHING,
        begin: &|line| {
            line.run(&format!("echo vivid.0 >{driver}/unbind"))
                .map(drop)
        },
        shows: Shown::held("frames"),
        within: S(3),
        meanwhile: &|line| line.part(no_frame),
        end: &|line| line.run(&format!("echo vivid.0 >{driver}/bind")).map(drop),
    })?;
    line.outage_is_reported(before)?;
    line.goes_through(&Failure {
        name: "black frames",
        prepare: NOTHING,
        begin: &|line| {
            line.control("test_pattern=5,osd_text_mode=2")?;
            (0..3).try_for_each(|_| line.part(implausible))
        },
        shows: Shown::held("verdicts"),
        within: S(3),
        meanwhile: &|line| line.part(implausible),
        end: &|line| {
            line.control("test_pattern=0,osd_text_mode=0")?;
            line.part(Outcome::Ok)
        },
    })?;
    line.goes_through(&Failure {
        name: "a frozen sensor",
        prepare: NOTHING,
        begin: &|line| {
            line.control("osd_text_mode=2")?;
            (0..2).try_for_each(|_| line.part(Outcome::Ok))?;
            (0..3).try_for_each(|_| line.part(implausible))
        },
        shows: Shown::held("verdicts"),
        within: S(3),
        meanwhile: &|line| line.part(implausible),
        end: &|line| {
            line.control("osd_text_mode=0")?;
            line.part(Outcome::Ok)
        },
    })
}

/// Lines that are gone.
fn wires(line: &mut Line<'_>) -> Result<()> {
    line.goes_through(&Failure {
        name: "the trigger's chip is gone",
        prepare: NOTHING,
        begin: &|line| line.run("CHIP=trigger gpio unplug").map(drop),
        shows: Shown::held("trigger"),
        within: S(1),
        meanwhile: NOTHING,
        end: &|line| line.run("CHIP=trigger gpio plug").map(drop),
    })?;
    line.goes_through(&Failure {
        name: "the reject output's chip is gone",
        prepare: NOTHING,
        begin: &|line| line.run("CHIP=gate gpio unplug").map(drop),
        shows: Shown {
            reject: None,
            ..Shown::held("reject_output")
        },
        within: S(1),
        meanwhile: NOTHING,
        end: &|line| {
            line.run("CHIP=gate gpio plug")?;
            line.watch_gate()
        },
    })
}

/// Disk, network, clock, memory, and the program itself.
fn computer(line: &mut Line<'_>) -> Result<()> {
    let before = line.ledger.last();
    line.goes_through(&Failure {
        name: "a full disk",
        prepare: &|line| {
            line.run(
                "dd if=/dev/zero of=/state/fill bs=64k 2>/dev/null
                 dd if=/dev/zero bs=1k 2>/dev/null >>/state/fill; true",
            )
            .map(drop)
        },
        begin: &|line| line.part_unreported(),
        shows: Shown::without_journal(),
        within: S(2),
        meanwhile: &|line| line.part_unreported(),
        end: &|line| {
            line.run("rm /state/fill")?;
            // Both reports waited in memory.
            line.reports(before, 2, Outcome::Ok)
        },
    })?;
    let before = line.ledger.last();
    line.goes_through(&Failure {
        name: "the network cable is unplugged",
        prepare: NOTHING,
        begin: &|line| line.camera.guest.cable(false),
        shows: Shown::ready(),
        within: S(0),
        meanwhile: &|line| line.part_unreported(),
        end: &|line| {
            line.camera.guest.cable(true)?;
            line.station = line.camera.station("line", &line.ledger)?;
            line.reports(before, 1, Outcome::Ok)
        },
    })?;
    line.goes_through(&Failure {
        name: "a station's session is killed",
        prepare: NOTHING,
        // The old session ends without a word.
        begin: &|line| {
            line.station = line.camera.station("line", &line.ledger)?;
            Ok(())
        },
        shows: Shown::ready(),
        within: S(0),
        meanwhile: &|line| line.part(Outcome::Ok),
        end: NOTHING,
    })?;
    line.goes_through(&Failure {
        name: "the program is stopped for a moment",
        prepare: NOTHING,
        begin: &|line| line.stop_program(),
        shows: Shown::ready(),
        within: S(3),
        meanwhile: &|line| line.part(Outcome::Ok),
        end: NOTHING,
    })?;
    line.goes_through(&Failure {
        name: "the clock is set back by an hour",
        prepare: NOTHING,
        begin: &|line| {
            let back = format!("date -s @$(($(date +%s) - {CLOCK_BACK_S}))");
            line.run(&back).map(drop)
        },
        shows: Shown::ready(),
        within: S(0),
        meanwhile: &|line| line.part(Outcome::Ok),
        end: &|line| {
            let forward = format!("date -s @$(($(date +%s) + {CLOCK_BACK_S}))");
            line.run(&forward).map(drop)
        },
    })?;
    line.goes_through(&Failure {
        name: "the memory is nearly full",
        prepare: &|line| {
            line.run(
                "mount -o remount,size=95% /tmp
                 free=$(sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
                 dd if=/dev/zero of=/tmp/fill bs=1M count=$((free / 1024 - 100)) 2>/dev/null",
            )
            .map(drop)
        },
        begin: NOTHING,
        shows: Shown::ready(),
        within: S(1),
        meanwhile: &|line| line.part(Outcome::Ok),
        end: &|line| line.run("rm /tmp/fill").map(drop),
    })
}

/// A disk that the kernel makes read-only after an error. That lasts until the next boot.
fn read_only(line: &mut Line<'_>) -> Result<()> {
    let begun = Instant::now();
    // `echo u >/proc/sysrq-trigger` would not do: fsync then returns without an error (Linux 6.1).
    line.run(
        "mount -o remount,errors=remount-ro /state && echo test >/sys/fs/ext4/vda/trigger_fs_error",
    )?;
    line.part_unreported()?;
    line.shows(&Shown::without_journal(), begun, S(2) + GRACE)?;
    line.heartbeat_beats(true)?;
    line.part_unreported()?;
    line.shows(&Shown::without_journal(), Instant::now(), Duration::ZERO)?;
    Ok(())
}

/// Inputs that are silent, with a running belt.
fn silence(line: &mut Line<'_>) -> Result<()> {
    line.watch_gate()?;
    line.goes_through(&Failure {
        name: "the encoder is silent",
        prepare: NOTHING,
        begin: &|line| line.belt(false),
        shows: Shown::held("encoder_counts"),
        within: Duration::from_millis(ENCODER_SILENT_MS),
        meanwhile: NOTHING,
        end: &|line| line.belt(true),
    })?;
    line.goes_through(&Failure {
        name: "the encoder stands while parts come",
        prepare: NOTHING,
        begin: &|line| {
            line.belt(false)?;
            (0..=PARTS_WITHOUT_COUNT).try_for_each(|_| line.part(Outcome::Ok))
        },
        shows: Shown::held("encoder_with_parts"),
        within: S(1),
        meanwhile: NOTHING,
        end: &|line| line.belt(true),
    })?;
    line.goes_through(&Failure {
        name: "the encoder's chip is gone",
        prepare: NOTHING,
        begin: &|line| {
            line.belt(false)?;
            line.run("CHIP=encoder gpio unplug").map(drop)
        },
        shows: Shown::held("encoder"),
        within: S(1),
        meanwhile: NOTHING,
        end: &|line| {
            line.run("CHIP=encoder gpio plug")?;
            line.belt(true)
        },
    })?;
    line.goes_through(&Failure {
        name: "the trigger is silent",
        prepare: NOTHING,
        begin: NOTHING,
        shows: Shown::held("trigger_edges"),
        within: Duration::from_millis(TRIGGER_SILENT_MS),
        meanwhile: NOTHING,
        end: &|line| line.part(Outcome::Ok),
    })
}

/// Rejects that reject nothing, and verdicts that are wrong.
fn verdicts(line: &mut Line<'_>) -> Result<()> {
    line.watch_gate()?;
    line.goes_through(&Failure {
        name: "a reject is not confirmed",
        prepare: &|line| line.threshold(ALL_NG),
        begin: &|line| line.part(Outcome::Ng),
        shows: Shown::held("reject_confirmed"),
        within: Duration::from_millis(CONFIRM_WITHIN_MS + 100),
        meanwhile: &|line| line.threshold(ALL_OK),
        // The gate is held, which pushes the next part out.
        end: &|line| {
            line.run(&format!("gpio pull {CONFIRM} up; gpio pull {CONFIRM} down"))
                .map(drop)
        },
    })?;
    line.goes_through(&Failure {
        name: "a golden-sample check fails",
        prepare: NOTHING,
        // Nothing is NG at this threshold, nor is the picture that must be.
        begin: &|line| line.golden(false),
        shows: Shown::held("golden"),
        within: S(1),
        meanwhile: NOTHING,
        end: &|line| {
            line.threshold(ALL_NG)?;
            line.golden(true)?;
            line.threshold(ALL_OK)
        },
    })
}
