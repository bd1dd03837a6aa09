//! Reports are delivered, whatever happens to links, program and power.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::vm::boot::Boot;
use crate::vm::camera::{Camera, PATIENCE, boot_with, check_boot, vivid_capture};
use crate::vm::disk::Random;
use crate::vm::ledger::Ledger;
use crate::vm::pictures::Pictures;
use crate::vm::rig::Rig;
use crate::vm::station::Station;

/// Power cuts in a full run, each at a random moment.
const POWER_CUTS: usize = 6;
/// Kills of the program before each power cut.
const KILLS: usize = 3;

/// A station on TCP and one on the serial port receive the same reports, complete and in order,
/// pictures included, although links end in between.
pub(crate) fn links(rig: &mut Rig) -> Result<()> {
    const SESSIONS: usize = 4;
    const RECORDS: u64 = 40;
    let mut camera = Camera::boot(rig)?;
    camera.guest.load_vivid()?;
    // Every part that is scored is NG, and its report has pictures.
    camera.configure(0.0, &vivid_capture(10.0, "ng"))?;
    camera.explain(|camera| {
        camera.start()?;
        let (mut cable, mut line) = (Ledger::default(), Ledger::default());
        for session in 1..=SESSIONS as u64 {
            let mut one = camera.station("cable", &cable)?;
            let mut other = camera
                .serial_station("line", &line)
                .context("the serial station")?;
            let enough = session * RECORDS;
            let deadline = Instant::now() + PATIENCE;
            while cable.last() < enough || line.last() < enough {
                one.receive(&mut cable).context("over TCP")?;
                other.receive(&mut line).context("over the serial port")?;
                if Instant::now() > deadline {
                    bail!(
                        "expected {enough} records, found {} over TCP and {} over the serial port",
                        cable.last(),
                        line.last()
                    );
                }
            }
            // The next session delivers the rest again.
            one.acknowledge(&mut cable, enough - RECORDS / 2)?;
            other.acknowledge(&mut line, enough - RECORDS / 4)?;
            if session % 2 == 0 {
                camera.guest.cable(false)?;
                std::thread::sleep(Duration::from_secs(1));
                camera.guest.cable(true)?;
            }
        }
        for ledger in [&cable, &line] {
            ledger.check_complete()?;
            if ledger.repeated == 0 {
                bail!("no record was delivered again, although some were not acknowledged");
            }
            if !ledger
                .parts()
                .iter()
                .any(|part| part.thumbnail_jpeg.is_some())
            {
                bail!("no report has a picture");
            }
        }
        let differs = cable.records().iter().find(|(number, record)| {
            line.records()
                .get(number)
                .is_some_and(|other| other != *record)
        });
        match differs {
            Some((number, _)) => bail!("record {number} differs between the links"),
            None => Ok(()),
        }
    })
}

/// The program is killed and the power is cut at random moments. After every start, the records
/// that a station has received are unchanged or acknowledged, sequence numbers continue without a
/// gap, and none is used twice.
pub(crate) fn cuts(rig: &mut Rig) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let disk = rig.disk()?;
    run_cuts(rig, disk, &mut Random(seed))
}

fn run_cuts(rig: &mut Rig, disk: PathBuf, random: &mut Random) -> Result<()> {
    let (boot, pictures) = boot_with(rig, Some(disk))?;
    let mut camera = power_up(rig, &boot, &pictures)?;
    let mut ledger = Ledger::default();
    let mut boot_counter = 0;
    let power_cuts = rig.power_cuts(POWER_CUTS);
    let rounds = power_cuts * (KILLS + 1);
    let (mut kept, mut lost) = (0, 0);
    for round in 1..=rounds {
        let cut = round % (KILLS + 1) == 0;
        let lived = camera.explain(|camera| live(camera, &mut ledger, &mut boot_counter, random));
        lived.with_context(|| format!("round {round} of {rounds}"))?;
        if cut {
            let cut = camera.guest.kill()?;
            (kept, lost) = (kept + cut.kept, lost + cut.lost);
            camera = power_up(rig, &boot, &pictures)?;
        } else {
            camera.kill()?;
        }
    }
    camera.explain(|camera| {
        camera.start()?;
        let mut station = camera.station("line", &ledger)?;
        check_boot(&station.hello, boot_counter)?;
        let all = station.hello.next;
        station.receive_until(&mut ledger, "the last records", PATIENCE, |ledger| {
            ledger.last() >= all
        })?;
        ledger.check_complete()
    })?;
    eprintln!(
        "    {power_cuts} power cuts, which lost {lost} unflushed pages and kept {kept}; {} kills; \
         {} records, {} delivered again",
        power_cuts * KILLS,
        ledger.records().len(),
        ledger.repeated
    );
    Ok(())
}

/// Boots the guest and configures the camera.
pub(super) fn power_up(rig: &mut Rig, boot: &Boot, pictures: &Pictures) -> Result<Camera> {
    let guest = rig.boot(boot)?;
    let mut camera = Camera {
        guest,
        pictures: pictures.clone(),
    };
    camera.guest.check("grep -q ' /state ext4 ' /proc/mounts")?;
    camera.guest.load_vivid()?;
    camera.configure(0.0, &vivid_capture(25.0, "ng"))?;
    Ok(camera)
}

/// One run of the program, up to the moment at which it is killed: it starts, delivers records, and
/// receives an acknowledgement of some of them.
fn live(
    camera: &mut Camera,
    ledger: &mut Ledger,
    boot_counter: &mut u32,
    random: &mut Random,
) -> Result<()> {
    camera.start()?;
    // Sometimes it is killed before a station connects.
    if random.below(6) == 0 {
        std::thread::sleep(Duration::from_millis(random.below(600)));
        return Ok(());
    }
    let mut station = camera.station("line", ledger)?;
    *boot_counter = check_boot(&station.hello, *boot_counter)?;
    // The station checks that delivery starts after the acknowledged records, and has no gaps.
    let known = ledger.last() + random.below(40);
    station.receive_until(ledger, "records of this run", PATIENCE, |ledger| {
        ledger.last() > known
    })?;
    receive_for(&mut station, ledger, random.below(1500))?;
    if random.below(4) > 0 {
        let last = ledger.last();
        let number = last.saturating_sub(random.below(20)).max(1);
        station.acknowledge(ledger, number)?;
        // The program may be killed before it has received this.
        receive_for(&mut station, ledger, random.below(200))?;
    }
    Ok(())
}

/// Receives for a time.
fn receive_for(station: &mut Station, ledger: &mut Ledger, milliseconds: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < deadline {
        station.receive(ledger)?;
    }
    Ok(())
}
