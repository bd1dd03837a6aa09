//! How the program reports faults of its camera and recovers; and recordings.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::report::{Event, Fault, Outcome};

use super::inspect::wait_for_metric;
use crate::vm::camera::{Camera, PATIENCE, vivid_capture};
use crate::vm::ledger::Ledger;
use crate::vm::rig::{Rig, ensure_equal};
use crate::vm::station::Station;

/// Faults of vivid, by the control that causes them, and how each must be reported.
const FAULTS: [(&str, Report); 4] = [
    ("disconnect", Report::Outage),
    ("inject_fatal_streaming_error", Report::Outage),
    ("inject_vidioc_qbuf_error", Report::Outage),
    ("inject_v4l2_buf_flag_error", Report::Damaged),
];

/// How a fault is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// The events that capture was lost and has resumed.
    Outage,
    /// A part with the outcome of a fault.
    Damaged,
}

/// Each fault of the camera is reported, and frames come again without help. Every fault occurs
/// twice, because the first one might leave something behind.
pub(crate) fn faults(rig: &mut Rig) -> Result<()> {
    let mut camera = Camera::boot(rig)?;
    camera.guest.load_vivid()?;
    camera.configure(1e6, &vivid_capture(5.0, "none"))?;
    camera.explain(|camera| {
        camera.start()?;
        let mut ledger = Ledger::default();
        let mut station = camera.station("line", &ledger)?;
        let mut reopened = 0.0;
        wait_for_part(&mut station, &mut ledger)?;
        for (control, report) in FAULTS.iter().chain(&FAULTS) {
            let before = ledger.last();
            camera.guest.vivid_fault(control, 1)?;
            station
                .receive_until(&mut ledger, "the report of the fault", PATIENCE, |ledger| {
                    is_reported(ledger, before, *report)
                })
                .with_context(|| (*control).to_owned())?;
            wait_for_part(&mut station, &mut ledger).with_context(|| format!("after {control}"))?;
            camera.alive()?;
            if *report == Report::Outage {
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

/// Whether the records after `before` report a fault.
fn is_reported(ledger: &Ledger, before: u64, report: Report) -> bool {
    match report {
        Report::Outage => {
            let events = ledger.events_after(before);
            let lost = events
                .iter()
                .position(|event| matches!(event, Event::CaptureLost { .. }));
            let resumed = |event: &&Event| matches!(event, Event::CaptureResumed { .. });
            lost.is_some_and(|at| events[at..].iter().any(resumed))
        }
        Report::Damaged => ledger
            .parts_after(before)
            .iter()
            .any(|part| part.outcome == Outcome::Fault(Fault::DamagedFrame)),
    }
}

/// Waits for another part that was inspected.
fn wait_for_part(station: &mut Station, ledger: &mut Ledger) -> Result<()> {
    let before = ledger.last();
    station.receive_until(ledger, "an inspected part", PATIENCE, |ledger| {
        let parts = ledger.parts_after(before);
        parts.iter().any(|part| part.outcome == Outcome::Ok)
    })
}

/// A recording has every frame that was fed, byte for byte and in order.
pub(crate) fn recording(rig: &mut Rig) -> Result<()> {
    const FRAMES: usize = 20;
    let mut camera = Camera::boot(rig)?;
    camera.load_loopback()?;
    camera.configure(
        1e6,
        "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video10\"\nformat = \"GREY\"\n\
         timeout_ms = 30000\n",
    )?;
    let size = camera.pictures.format.bytes();
    let fed: Vec<u8> = (0..FRAMES * size)
        .map(|at| (at / size * 37 + at % 251) as u8)
        .collect();
    camera.guest.write("/tmp/fed.raw", &fed)?;
    // A new reader first gets the last frame that was written before it opened the device.
    let wanted = FRAMES + 1;
    camera.guest.background(
        "record",
        &format!(
            "edge-runtime record --config /etc/camera/camera.toml --out /tmp/recording \
             --frames {wanted}"
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
    // A frame's bytes follow its header unchanged, so the bytes between two frames are few.
    let mut rest = &recorded[..];
    for (number, frame) in fed.chunks(size).enumerate() {
        let at = rest.windows(size).position(|part| part == frame);
        let at =
            at.with_context(|| format!("frame {number} of {FRAMES} is not in the recording"))?;
        let skipped = if number == 0 { size + 1_000 } else { 200 };
        if at > skipped {
            bail!("expected at most {skipped} bytes before frame {number}, found {at}");
        }
        ensure_equal("a recorded frame", &rest[at..at + size], frame)?;
        rest = &rest[at + size..];
    }
    if rest.len() > 200 {
        bail!(
            "expected at most 200 bytes after the last frame, found {}",
            rest.len()
        );
    }
    Ok(())
}
