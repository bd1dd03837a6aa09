//! Reports arrive, whatever happens to links, program and power.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::vm::boot::Boot;
use crate::vm::camera::{Camera, PATIENCE, Pictures, boot_with, check_boot, vivid_capture};
use crate::vm::ledger::Ledger;
use crate::vm::rig::Rig;
use crate::vm::station::Station;

/// Power cuts, each at a moment of its own.
const POWER_CUTS: usize = 6;
/// Kills of the program before each.
const KILLS: usize = 3;

/// A station on TCP and one on the serial line get the same reports, all of them and in order, pictures included; also
/// when links end in the middle.
pub(crate) fn links(rig: &mut Rig) -> Result<()> {
    const SESSIONS: usize = 4;
    const RECORDS: u64 = 40;
    let mut camera = Camera::boot(rig)?;
    camera.guest.load_vivid()?;
    // Everything that is scored is NG, and carries pictures.
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
                other.receive(&mut line).context("over the serial line")?;
                if Instant::now() > deadline {
                    bail!(
                        "{} records came over TCP and {} over the serial line instead of {enough}",
                        cable.last(),
                        line.last()
                    );
                }
            }
            // The rest comes again with the next session.
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
                bail!("nothing came again, although not all was acknowledged");
            }
            if !ledger
                .parts()
                .iter()
                .any(|part| part.thumbnail_jpeg.is_some())
            {
                bail!("no report had a picture");
            }
        }
        let differs = cable.records().iter().find(|(number, record)| {
            line.records()
                .get(number)
                .is_some_and(|other| other != *record)
        });
        match differs {
            Some((number, _)) => bail!("record {number} is not the same over both links"),
            None => Ok(()),
        }
    })
}

/// The program is killed and the power is cut at random moments. What a station had received is after every start still
/// what it was, or acknowledged; numbers go on without a hole, and none is used twice.
pub(crate) fn cuts(rig: &mut Rig) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let disk = rig.disk()?;
    run_cuts(rig, disk, &mut Random(seed))
}

fn run_cuts(rig: &mut Rig, disk: PathBuf, random: &mut Random) -> Result<()> {
    let (boot, pictures) = boot_with(rig, Some(disk))?;
    let mut camera = power_up(rig, &boot, &pictures)?;
    let mut ledger = Ledger::default();
    let mut starts = 0;
    let power_cuts = rig.power_cuts(POWER_CUTS);
    let rounds = power_cuts * (KILLS + 1);
    for round in 1..=rounds {
        let cut = round % (KILLS + 1) == 0;
        let lived = camera.explain(|camera| live(camera, &mut ledger, &mut starts, random));
        lived.with_context(|| format!("round {round} of {rounds}"))?;
        if cut {
            camera.guest.kill();
            camera = power_up(rig, &boot, &pictures)?;
        } else {
            camera.kill()?;
        }
    }
    camera.explain(|camera| {
        camera.start()?;
        let mut station = camera.station("line", &ledger)?;
        check_boot(&station.hello, starts)?;
        let all = station.hello.next;
        station.receive_until(&mut ledger, "the last records", PATIENCE, |ledger| {
            ledger.last() >= all
        })?;
        ledger.check_complete()
    })?;
    eprintln!(
        "    {power_cuts} power cuts, {} kills; {} records, {} came again",
        power_cuts * KILLS,
        ledger.records().len(),
        ledger.repeated
    );
    Ok(())
}

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

/// One life of the program, up to the moment of its death: it starts, delivers, and hears acknowledgements of a part of
/// what it delivered.
fn live(
    camera: &mut Camera,
    ledger: &mut Ledger,
    starts: &mut u32,
    random: &mut Random,
) -> Result<()> {
    camera.start()?;
    // Sometimes it dies before anybody has called.
    if random.below(6) == 0 {
        std::thread::sleep(Duration::from_millis(random.below(600)));
        return Ok(());
    }
    let mut station = camera.station("line", ledger)?;
    *starts = check_boot(&station.hello, *starts)?;
    // All that was received before comes again or was acknowledged: delivery begins there and has no holes.
    let known = ledger.last() + random.below(40);
    station.receive_until(ledger, "records of this life", PATIENCE, |ledger| {
        ledger.last() > known
    })?;
    receive_for(&mut station, ledger, random.below(1500))?;
    if random.below(4) > 0 {
        let last = ledger.last();
        let number = last.saturating_sub(random.below(20)).max(1);
        station.acknowledge(ledger, number)?;
        // Some acknowledgements are heard, some die with the program.
        receive_for(&mut station, ledger, random.below(200))?;
    }
    Ok(())
}

fn receive_for(station: &mut Station, ledger: &mut Ledger, milliseconds: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < deadline {
        station.receive(ledger)?;
    }
    Ok(())
}

/// Knuth's linear congruential generator: enough to pick moments.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
