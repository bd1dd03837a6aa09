//! A camera that fails, and what the program makes of it; recordings of one that works.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::report::{Event, Fault, Outcome};

use super::inspect::wait_for_metric;
use crate::vm::camera::{Camera, PATIENCE, vivid_capture};
use crate::vm::ledger::Ledger;
use crate::vm::rig::{Rig, same};
use crate::vm::station::Station;

/// What vivid can be asked to do wrong, and what must be told of it.
const FAULTS: [(&str, Told); 4] = [
    ("disconnect", Told::Outage),
    ("inject_fatal_streaming_error", Told::Outage),
    ("inject_vidioc_qbuf_error", Told::Outage),
    ("inject_v4l2_buf_flag_error", Told::Damaged),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Capture lost, capture resumed.
    Outage,
    /// A part that is a fault.
    Damaged,
}

/// Each fault of the camera is told, and frames come again without anybody's help. Twice, in case of what the first
/// time leaves behind.
pub(crate) fn faults(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.load_vivid()?;
    camera.configure(1e6, &vivid_capture(5.0, "none"))?;
    camera.explain(|camera| {
        camera.start()?;
        let mut ledger = Ledger::default();
        let mut station = camera.station("line", &ledger)?;
        let mut reopened = 0.0;
        a_part_comes(&mut station, &mut ledger)?;
        for (control, told) in FAULTS.iter().chain(&FAULTS) {
            let before = ledger.last();
            camera.guest.vivid_fault(control, 1)?;
            station
                .receive_until(&mut ledger, "word of the fault", PATIENCE, |ledger| {
                    is_told(ledger, before, *told)
                })
                .with_context(|| (*control).to_owned())?;
            a_part_comes(&mut station, &mut ledger).with_context(|| format!("after {control}"))?;
            camera.alive()?;
            if *told == Told::Outage {
                reopened += 1.0;
                wait_for_metric(camera, "awr_capture_reopened_total", reopened)?;
            }
        }
        if camera.metric("awr_drops_total{place=\"damaged\"}")? < 2.0 {
            bail!("damaged frames were not counted");
        }
        ledger.check_complete()
    })
}

fn is_told(ledger: &Ledger, before: u64, told: Told) -> bool {
    match told {
        Told::Outage => {
            let events = ledger.events_after(before);
            let lost = events
                .iter()
                .position(|event| matches!(event, Event::CaptureLost { .. }));
            let resumed = |event: &&Event| matches!(event, Event::CaptureResumed { .. });
            lost.is_some_and(|at| events[at..].iter().any(resumed))
        }
        Told::Damaged => ledger
            .parts_after(before)
            .iter()
            .any(|part| part.outcome == Outcome::Fault(Fault::DamagedFrame)),
    }
}

/// Another part that was inspected.
fn a_part_comes(station: &mut Station, ledger: &mut Ledger) -> Result<()> {
    let before = ledger.last();
    station.receive_until(ledger, "an inspected part", PATIENCE, |ledger| {
        let parts = ledger.parts_after(before);
        parts.iter().any(|part| part.outcome == Outcome::Ok)
    })
}

/// A recording holds every frame that was fed, byte for byte and in order.
pub(crate) fn recording(rig: &mut Rig) -> Result<()> {
    const FRAMES: usize = 20;
    let mut camera = Camera::boot(rig)?;
    camera.load_loopback()?;
    camera.configure(
        1e6,
        "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video10\"\nformat = \"GREY\"\ntimeout_ms = 30000\n",
    )?;
    let size = camera.pictures.format.bytes();
    let fed: Vec<u8> = (0..FRAMES * size)
        .map(|at| (at / size * 37 + at % 251) as u8)
        .collect();
    camera.guest.write("/tmp/fed.raw", &fed)?;
    // A new reader of a loopback gets the frame that was written last before it came.
    let wanted = FRAMES + 1;
    camera.guest.background(
        "record",
        &format!(
            "edge-runtime record --config /etc/camera/camera.toml --out /tmp/recording --frames {wanted}"
        ),
        "/tmp/record.log",
    )?;
    camera.guest.wait_until(
        &format!("[ -f /tmp/recording ] && [ $(stat -c %s /tmp/recording) -gt {size} ]"),
        PATIENCE,
    )?;
    let feed = format!("vm-feed /dev/video10 {size} 10 /tmp/fed.raw");
    camera.guest.check(&feed)?;
    camera
        .guest
        .wait_until("! kill -0 $(cat /run/record.pid)", Duration::from_secs(20))
        .context("the recording did not end")?;
    let recorded = camera.guest.read("/tmp/recording")?;
    // Behind each frame's facts its bytes stand as they are: what lies between them is short.
    let mut rest = &recorded[..];
    for (number, frame) in fed.chunks(size).enumerate() {
        let at = rest.windows(size).position(|part| part == frame);
        let at =
            at.with_context(|| format!("frame {number} of {FRAMES} is not in the recording"))?;
        let skipped = if number == 0 { size + 1_000 } else { 200 };
        if at > skipped {
            bail!("{at} bytes lie before frame {number}");
        }
        same("a recorded frame", &rest[at..at + size], frame)?;
        rest = &rest[at + size..];
    }
    if rest.len() > 200 {
        bail!("{} bytes lie behind the last frame", rest.len());
    }
    Ok(())
}
