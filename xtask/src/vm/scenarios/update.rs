//! Flashing a package survives power cuts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use proto::recovery::{Request, Response, SlotState};
use sha2::{Digest, Sha256};

use super::delivery::power_up;
use crate::vm::camera::{Camera, PATIENCE, boot_with};
use crate::vm::disk::Random;
use crate::vm::ledger::Ledger;
use crate::vm::rig::Rig;
use crate::vm::station::Station;

/// Power cuts in a full run, each at a random moment.
const POWER_CUTS: usize = 20;
/// Approximate duration of a flash here, from the first byte to the confirmation.
const FLASH_MS: u64 = 2_500;
/// Size of a chunk: small, so that a flash has many.
const CHUNK_BYTES: usize = 4 << 10;

struct Package {
    bytes: Vec<u8>,
    sha256: [u8; 32],
}

impl Package {
    fn new(bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self { bytes, sha256 }
    }
}

/// How a flash ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flashed {
    /// The camera has said that the package is confirmed: it stays active.
    Confirmed,
    /// The deadline came before the package could be confirmed.
    Interrupted,
    /// The deadline came before the answer to the confirmation.
    Unknown,
}

/// The power is cut at random moments of a flash. After every start one of the two packages is
/// active and complete, and inspects: the last one that was confirmed.
pub(crate) fn cuts(rig: &mut Rig) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut random = Random(seed);
    let disk = rig.disk()?;
    let material = rig.material()?;
    let first = std::fs::read(material.package()).context("the first package")?;
    let packages = [
        Package::new(first),
        Package::new(material.second_package()?),
    ];
    let (boot, pictures) = boot_with(rig, Some(disk))?;
    let mut camera = power_up(rig, &boot, &pictures)?;
    let (mut confirmed, mut kept, mut lost) = (0, 0, 0);
    // The package that must be active; `None` while that may be either.
    let mut must = Some(0);
    let power_cuts = rig.power_cuts(POWER_CUTS);
    for round in 1..=power_cuts {
        let count = camera.explain(|camera| live(camera, &packages, &mut must, &mut random));
        confirmed += count.with_context(|| format!("round {round} of {power_cuts}"))?;
        let cut = camera.guest.kill()?;
        (kept, lost) = (kept + cut.kept, lost + cut.lost);
        camera = power_up(rig, &boot, &pictures)?;
    }
    camera.explain(|camera| {
        camera.start()?;
        let mut ledger = Ledger::default();
        let mut station = camera.station("line", &ledger)?;
        active(&mut station, &mut ledger, &packages, must).map(drop)
    })?;
    eprintln!(
        "    {power_cuts} power cuts, which lost {lost} unflushed pages and kept {kept}; \
         {confirmed} packages confirmed between them"
    );
    Ok(())
}

/// One run up to the power cut: the active package inspects, then the other one is flashed, in
/// turns. Returns how many flashes were confirmed.
fn live(
    camera: &mut Camera,
    packages: &[Package; 2],
    must: &mut Option<usize>,
    random: &mut Random,
) -> Result<usize> {
    camera.start()?;
    let mut ledger = Ledger::default();
    let mut station = camera.station("line", &ledger)?;
    let mut current = active(&mut station, &mut ledger, packages, *must)?;
    *must = Some(current);
    let last = station.hello.next;
    station.receive_until(&mut ledger, "a part's report", PATIENCE, |ledger| {
        !ledger.parts_after(last.saturating_sub(1)).is_empty()
    })?;
    let part = ledger.parts_after(last - 1)[0].model_id;
    if part[..] != packages[current].sha256[..8] {
        bail!("the package that inspects is not the active one of the slots");
    }
    let deadline = Instant::now() + Duration::from_millis(random.below(2 * FLASH_MS));
    let mut confirmed = 0;
    loop {
        match flash(&mut station, &mut ledger, &packages[1 - current], deadline)? {
            Flashed::Confirmed => {
                current = 1 - current;
                *must = Some(current);
                confirmed += 1;
            }
            Flashed::Interrupted => break,
            Flashed::Unknown => {
                *must = None;
                break;
            }
        }
    }
    Ok(confirmed)
}

/// Index of the active package. Exactly one must be active, and none on trial; if `must` says
/// which, that one.
fn active(
    station: &mut Station,
    ledger: &mut Ledger,
    packages: &[Package; 2],
    must: Option<usize>,
) -> Result<usize> {
    station.request(&Request::Slots)?;
    let deadline = Instant::now() + PATIENCE;
    let Some(Response::Slots(slots)) = station.response(ledger, deadline)? else {
        bail!("the camera does not answer the request for its slots");
    };
    let is_active = |state| matches!(state, SlotState::Active | SlotState::Trial);
    let mut active = slots.iter().filter(|slot| is_active(slot.state));
    let (Some(slot), None) = (active.next(), active.next()) else {
        bail!("expected one active slot, found {slots:?}");
    };
    if slot.state == SlotState::Trial {
        bail!("a package is on trial after a start");
    }
    let known = packages
        .iter()
        .position(|package| package.sha256 == slot.sha256);
    let known = known.context("the active package is not one of the two")?;
    if must.is_some_and(|must| must != known) {
        bail!("the package that was confirmed last is not active");
    }
    Ok(known)
}

/// Flashes and confirms a package.
fn flash(
    station: &mut Station,
    ledger: &mut Ledger,
    package: &Package,
    deadline: Instant,
) -> Result<Flashed> {
    let mut exchange = |request: &Request| -> Result<Option<Response>> {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        station.request(request)?;
        match station.response(ledger, deadline)? {
            Some(Response::Refused { reason }) => bail!("the camera refuses: {reason}"),
            response => Ok(response),
        }
    };
    let begin = Request::FlashBegin {
        total_bytes: package.bytes.len() as u64,
        sha256: package.sha256,
    };
    let mut next = exchange(&begin)?;
    loop {
        let Some(Response::Continue { offset_bytes }) = next else {
            return Ok(Flashed::Interrupted);
        };
        let start = usize::try_from(offset_bytes)?;
        if start == package.bytes.len() {
            break;
        }
        let end = package.bytes.len().min(start + CHUNK_BYTES);
        let bytes = package.bytes[start..end].to_vec();
        next = exchange(&Request::FlashChunk {
            offset_bytes,
            bytes,
        })?;
    }
    if exchange(&Request::FlashEnd)?.is_none() {
        return Ok(Flashed::Interrupted);
    }
    Ok(match exchange(&Request::Confirm)? {
        Some(_) => Flashed::Confirmed,
        None => Flashed::Unknown,
    })
}
