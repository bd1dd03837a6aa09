//! From frames and triggers to the reject gate.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::report::{Fault, GateAction, Outcome};

use crate::vm::camera::{Camera, PATIENCE};
use crate::vm::rig::Rig;
use crate::vm::station::{Ledger, Station};

const LINES: u32 = 16;
const GATE: u32 = 2;
const TRIGGER: u32 = 3;
/// Long enough to be seen from outside an emulated guest.
const PULSE_MS: u64 = 700;

/// A station, and what it is told of a camera whose gate is watched.
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
        // Until the first frame it cannot inspect, and with `on_fault = "reject"` nothing passes unseen.
        wait_for_metric(camera, "awr_capturing", 1.0)?;
        std::thread::sleep(Duration::from_millis(500));
        let mut line = Self {
            camera,
            station,
            ledger,
            parts: 0,
            rejects: 0,
        };
        line.rejects = match line.gate()? {
            (rises @ 1, false) => rises,
            found => bail!("before the first part the gate's rises and level are {found:?}"),
        };
        Ok(line)
    }

    /// How often the gate has moved so far, and whether it is active.
    fn gate(&mut self) -> Result<(usize, bool)> {
        let seen = self.camera.guest.check("cat /tmp/gate")?.text();
        let rises = seen.lines().filter(|line| *line == "1").count();
        Ok((rises, seen.ends_with('1')))
    }

    /// Waits for the next part's report, which must say so, and for the gate, which must do so.
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
                "part {number} is {:?} {:?} (score {:?}) instead of {outcome:?} {action:?}",
                part.outcome,
                part.action,
                part.score
            );
        }
        if action == GateAction::Reject {
            self.rejects += 1;
        }
        // Over the pulse: one more or one less would be seen.
        std::thread::sleep(Duration::from_millis(PULSE_MS + 300));
        let found = self.gate()?;
        if found != (self.rejects, false) {
            bail!(
                "after part {number} ({outcome:?}) the gate's rises and level are {found:?} instead of {:?}",
                (self.rejects, false)
            );
        }
        Ok(())
    }
}

fn gate() -> String {
    format!(
        "[gate]\noutput = {{ chip = \"/dev/gpiochip0\", line = {GATE} }}\npulse_ms = {PULSE_MS}\n\
         on_fault = \"reject\"\n[report]\nheat_map = \"none\"\nthumbnail = \"none\"\n"
    )
}

fn loopback() -> &'static str {
    "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video10\"\nformat = \"GREY\"\ntimeout_ms = 60000\n"
}

/// Good frames never move the gate, bad ones do, each once.
pub(crate) fn reject(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.load_loopback()?;
    let threshold = camera.pictures.threshold;
    camera.configure(threshold, &format!("{}{}", loopback(), gate()))?;
    camera.explain(|camera| {
        let mut line = Line::start(camera)?;
        // A new reader of a loopback gets the frame that was written last before it came.
        line.expect(Outcome::Ok, GateAction::Pass)
            .context("the frame from before")?;
        for good in [true, false, true, true, false, false, true, false, true] {
            line.camera.feed(if good { "good" } else { "bad" })?;
            match good {
                true => line.expect(Outcome::Ok, GateAction::Pass)?,
                false => line.expect(Outcome::Ng, GateAction::Reject)?,
            }
        }
        let ready = line.camera.http("/health")?;
        if !ready.starts_with("HTTP/1.1 200") {
            bail!("not healthy: {ready}");
        }
        Ok(())
    })
}

/// An edge begins a part, the frame behind it shows it, and a part without a frame is a fault that is pushed out.
pub(crate) fn triggered(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.make_gpio(LINES)?;
    camera.load_loopback()?;
    let threshold = camera.pictures.threshold;
    let trigger = format!(
        "[trigger]\nkind = \"gpio\"\nchip = \"/dev/gpiochip0\"\nline = {TRIGGER}\nframe_within_ms = 1500\n"
    );
    camera.configure(threshold, &format!("{}{}{trigger}", loopback(), gate()))?;
    camera.explain(|camera| {
        let mut line = Line::start(camera)?;
        let unassigned = "awr_drops_total{place=\"unassigned\"}";
        for picture in ["good", "bad", "", "good", "", "bad"] {
            // Only the rising edge counts, and a frame without a trigger is no part.
            let before = line.camera.metric(unassigned)?;
            line.camera.feed("bad")?;
            wait_for_metric(line.camera, unassigned, before + 1.0)?;
            line.camera.guest.gpio_pull(TRIGGER, true)?;
            line.camera.guest.gpio_pull(TRIGGER, false)?;
            // An edge is told by a thread of the program, a frame by another.
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

/// Waits until a counter has reached a value.
pub(super) fn wait_for_metric(camera: &mut Camera, series: &str, wanted: f64) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let found = camera.metric(series)?;
        if found >= wanted {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            bail!("{series} is {found} instead of {wanted}");
        }
        camera.alive()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}
