//! The model at the start: whatever is wrong with the configured package, a good one in a slot
//! inspects.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../../scoring/tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::{key, manifest, package};
use edge_runtime::model::error::UpdateError;
use edge_runtime::model::requirements::Requirements;
use edge_runtime::model::startup::StartupModel;
use edge_runtime::model::store::Store;
use edge_runtime::model::update::Updater;
use proto::manifest::Manifest;
use proto::report::Event;
use scoring::infer::Tuning;
use scoring::package::{Loaded, Trust, Verified};

fn verified(manifest: &Manifest) -> Verified {
    let trust = Trust::Only(vec![key().verifying_key()]);
    let loaded = Loaded::new(package(manifest)).unwrap();
    loaded.verify(&trust).unwrap()
}

fn start(folder: &Path, configured: Option<&Verified>) -> Result<StartupModel, UpdateError> {
    let (store, _) = Store::open(folder);
    let requirements = Requirements {
        trust: Trust::Only(vec![key().verifying_key()]),
        roi: None,
        threshold: None,
        min_version: None,
        any_input: false,
        tuning: Tuning::default(),
    };
    Updater::start(store, requirements, configured)
}

fn refusals(events: &[Event]) -> Vec<&str> {
    let events = events.iter();
    events
        .filter_map(|event| match event {
            Event::PackageRefused { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
        .collect()
}

/// Packages that cannot be used on this camera: one fails the parity gate, one has no threshold.
fn unusable() -> [Manifest; 2] {
    let (mut parity, mut threshold) = (manifest(), manifest());
    for manifest in [&mut parity, &mut threshold] {
        manifest.version = "2".to_owned();
    }
    parity.golden[0].peak += 1.0;
    threshold.threshold = None;
    [parity, threshold]
}

#[test]
fn the_package_in_a_slot_inspects_when_a_newly_configured_one_cannot_be_used() {
    for unusable in unusable() {
        let folder = tempfile::tempdir().unwrap();
        let good = verified(&manifest());
        start(folder.path(), Some(&good)).unwrap();
        // At every start, until the configuration is mended.
        for _ in 0..2 {
            let started = start(folder.path(), Some(&verified(&unusable))).unwrap();
            let found = started.inspector.as_ref().unwrap().manifest();
            assert_eq!(found.version, "1");
            assert_eq!(refusals(&started.events).len(), 1, "{:?}", started.events);
        }
        let started = start(folder.path(), Some(&good)).unwrap();
        assert_eq!(refusals(&started.events), [""; 0]);
    }
}

#[test]
fn without_a_package_in_a_slot_one_that_cannot_be_used_is_an_error() {
    for unusable in unusable() {
        let folder = tempfile::tempdir().unwrap();
        assert!(start(folder.path(), Some(&verified(&unusable))).is_err());
    }
}
