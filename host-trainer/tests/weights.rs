//! Imports weights that PyTorch saved, see tests/fixtures/weights/make.py.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a failure in them fails the test"
)]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use host_trainer::weights::import_weights;
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/weights")
        .join(name)
}

#[test]
fn both_formats_give_pytorchs_values() {
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

/// zip.pth with its entries changed by `change` and compressed as given.
fn rezipped(
    change: impl Fn(&str, Vec<u8>) -> Vec<u8>,
    compression: zip::CompressionMethod,
) -> Vec<u8> {
    let mut source = zip::ZipArchive::new(fs::File::open(fixture("zip.pth")).unwrap()).unwrap();
    let mut target = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(compression);
    for index in 0..source.len() {
        let mut entry = source.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        target.start_file(&*name, options).unwrap();
        target.write_all(&change(&name, content)).unwrap();
    }
    target.finish().unwrap().into_inner()
}

fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (pth, out) = (folder.path().join("in.pth"), folder.path().join("out"));
    fs::write(&pth, bytes).unwrap();
    let error = import_weights(&pth, &out).unwrap_err().to_string();
    assert!(!out.exists());
    error
}

#[test]
fn compressed_storages_are_refused() {
    // The same archive rewritten without compression is accepted, so compression is the reason.
    let folder = tempfile::tempdir().unwrap();
    let stored = folder.path().join("stored.pth");
    let same = |_: &str, content| content;
    fs::write(&stored, rezipped(same, zip::CompressionMethod::Stored)).unwrap();
    import_weights(&stored, &folder.path().join("out")).unwrap();
    let error = refusal(&rezipped(same, zip::CompressionMethod::Deflated));
    assert!(error.contains("uncompressed"), "{error}");
}

#[test]
fn big_endian_files_are_refused() {
    let big = |name: &str, content| {
        if name.ends_with("/byteorder") {
            b"big".to_vec()
        } else {
            content
        }
    };
    let error = refusal(&rezipped(big, zip::CompressionMethod::Stored));
    assert!(error.contains("little-endian"), "{error}");

    let mut legacy = fs::read(fixture("legacy.pth")).unwrap();
    let key = b"little_endian";
    let at = legacy
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    let flag = at + legacy[at..].iter().position(|&byte| byte == 0x88).unwrap();
    legacy[flag] = 0x89; // NEWFALSE instead of NEWTRUE
    let error = refusal(&legacy);
    assert!(error.contains("little-endian"), "{error}");
}

/// PyTorch reads 2, 3, 4, 5 from this file (see make.py); without the view it would be 0, 1, 2, 3.
#[test]
fn views_of_old_files_are_refused_rather_than_misread() {
    let error = refusal(&fs::read(fixture("view.pth")).unwrap());
    assert!(error.contains("view"), "{error}");
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
