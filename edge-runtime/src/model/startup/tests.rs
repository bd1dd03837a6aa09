use std::fs;
use std::path::Path;

use scoring::infer::Tuning;
use scoring::package::{Loaded, Trust};

use super::*;
use crate::model::slots::{Sha256, SlotId};
use crate::model::version::Version;

#[path = "../../../../scoring/tests/common/mod.rs"]
mod common;

use common::{key, manifest};

fn package(version: &str) -> Verified {
    let mut manifest = manifest();
    manifest.version = version.to_owned();
    let bytes = common::package(&manifest);
    let trust = Trust::Only(vec![key().verifying_key()]);
    Loaded::new(bytes).unwrap().verify(&trust).unwrap()
}

fn requirements() -> Requirements {
    Requirements {
        trust: Trust::Only(vec![key().verifying_key()]),
        roi: None,
        threshold: None,
        min_version: None,
        any_input: false,
        tuning: Tuning::default(),
    }
}

fn start(folder: &Path, configured: Option<&Verified>) -> StartupModel {
    let (store, _) = Store::open(folder);
    Updater::start(store, requirements(), configured).unwrap()
}

/// A confirmed, B on trial: a flash without a confirmation. Returns both digests.
fn flashed(folder: &Path) -> [Sha256; 2] {
    let packages = [package("1"), package("2")];
    let [a, b] = [0, 1].map(|index: usize| *packages[index].sha256());
    let (mut store, _) = Store::open(folder);
    for package in &packages {
        store.put(package.sha256(), package.bytes()).unwrap();
    }
    let slots = Slots::default().configured_as(SlotId::A, a);
    store.commit(slots.activated(SlotId::B, b)).unwrap();
    [a, b]
}

fn rolled_back(model: &StartupModel) -> usize {
    let events = model.events.iter();
    events
        .filter(|event| matches!(event, Event::RolledBack { .. }))
        .count()
}

fn active_on_disk(folder: &Path) -> Option<Sha256> {
    let (store, warning) = Store::open(folder);
    assert!(warning.is_none(), "{warning:?}");
    let slots = store.slots();
    slots.active().and_then(|slot| slots.package(slot))
}

#[test]
fn a_roll_back_at_a_restart_is_durable_and_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let [a, _] = flashed(folder.path());
    let first = start(folder.path(), None);
    assert_eq!(rolled_back(&first), 1);
    assert_eq!(first.inspector.unwrap().sha256(), &a);
    assert_eq!(active_on_disk(folder.path()), Some(a));
    assert!(!Store::open(folder.path()).0.slots().on_trial());
    let second = start(folder.path(), None);
    assert_eq!(rolled_back(&second), 0, "it happened once");
}

#[test]
fn an_error_that_passes_costs_no_package() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = flashed(folder.path());
    let (mut store, _) = Store::open(folder.path());
    let confirmed = store.slots().clone().confirmed().unwrap();
    store.commit(confirmed).unwrap();
    // B cannot be read this time: the path is a folder.
    let (path, aside) = (store.path(&b), folder.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let without = start(folder.path(), None);
    assert_eq!(without.inspector.unwrap().sha256(), &a);
    assert!(matches!(
        &without.events[..],
        [Event::PackageRefused { .. }]
    ));
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(active_on_disk(folder.path()), Some(b), "the disk keeps it");
    assert_eq!(start(folder.path(), None).inspector.unwrap().sha256(), &b);
    // A damaged one is given up for good.
    fs::write(&path, b"damaged").unwrap();
    assert_eq!(start(folder.path(), None).inspector.unwrap().sha256(), &a);
    assert_eq!(active_on_disk(folder.path()), Some(a));
    assert!(!path.exists());
}

#[test]
fn with_slots_unknown_nothing_is_active_unless_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = flashed(folder.path());
    for name in ["slots.json", "slots.copy.json"] {
        fs::write(folder.path().join(name), b"damaged").unwrap();
    }
    let held = start(folder.path(), None);
    assert!(held.inspector.is_none(), "nobody knows what was confirmed");
    for sha256 in [a, b] {
        let (store, _) = Store::open(folder.path());
        assert!(store.path(&sha256).exists());
    }
    let configured = package("1");
    let model = start(folder.path(), Some(&configured));
    assert_eq!(model.inspector.unwrap().sha256(), &a);
}

#[test]
fn an_older_package_than_the_lowest_version_is_refused() {
    let requirements = Requirements {
        min_version: Version::parse("2"),
        ..requirements()
    };
    assert!(requirements.inspector(&package("2"), false).is_ok());
    assert!(requirements.inspector(&package("10"), false).is_ok());
    for version in ["1", "1.99", "2-rc1", ""] {
        let refused = requirements.inspector(&package(version), false);
        let reason = refused.unwrap_err().to_string();
        assert!(reason.contains("version 2 or newer"), "{version}: {reason}");
    }
}
