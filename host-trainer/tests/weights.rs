//! Importing weights that real PyTorch saved; tests/fixtures/weights/make.py made them.

use std::fs;
use std::path::{Path, PathBuf};

use host_trainer::weights::import_weights;
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/weights")
        .join(name)
}

#[test]
fn both_containers_give_pytorchs_values() {
    let expected = fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["zip.pth", "legacy.pth"] {
        let out = folder.path().join(name);
        let imported = import_weights(&fixture(name), &out).unwrap();
        assert_eq!(
            (imported.tensors.len(), imported.left_out),
            (7, 1),
            "{name}"
        );
        let bytes = fs::read(&out).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (tensor, wanted) in expected.as_object().unwrap() {
            let view = tensors.tensor(tensor).unwrap();
            let size: Vec<u64> = view.shape().iter().map(|&side| side as u64).collect();
            assert_eq!(serde_json::json!(size), wanted["size"], "{name} {tensor}");
            let found = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let wanted = wanted["values"].as_array().unwrap();
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.zip(wanted) {
                assert_eq!(found, wanted.as_f64().unwrap() as f32, "{name} {tensor}");
            }
        }
    }
}

#[test]
fn code_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let error = import_weights(&fixture("evil.pth"), &out)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("refused to execute") && error.contains("system"),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn cut_off_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.pth");
    for name in ["zip.pth", "legacy.pth"] {
        let bytes = fs::read(fixture(name)).unwrap();
        for length in (0..bytes.len()).step_by(7) {
            fs::write(&cut, &bytes[..length]).unwrap();
            let out = folder.path().join("out");
            assert!(
                import_weights(&cut, &out).is_err(),
                "{name} cut at {length}"
            );
            assert!(!out.exists());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_files_never_panic(at in 0usize..4000, value: u8, zip: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = fs::read(fixture(if zip { "zip.pth" } else { "legacy.pth" })).unwrap();
        let index = at % bytes.len();
        bytes[index] = value;
        let damaged = folder.path().join("damaged.pth");
        fs::write(&damaged, bytes).unwrap();
        let _ = import_weights(&damaged, &folder.path().join("out"));
    }
}
