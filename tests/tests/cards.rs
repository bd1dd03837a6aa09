//! The card of leather-32 against a new measurement on the frames beside it: the test fails if the
//! package, the scoring or the card changes without the others.

use std::fs;
use std::path::Path;

use integration_tests::ok;

#[test]
fn a_card_has_the_figures_that_evaluate_finds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/leather-32");
    let printed = ok(
        "host-trainer",
        &folder,
        &[
            "evaluate",
            "--package",
            "leather-32.awr",
            "--data",
            "frames",
            "--trust",
            "../samples-only.key.pub",
            "--json",
        ],
    );
    let found: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found["images"], 24);
    assert_eq!(found["with_ground_truth"], 11);
    let row = |label: &str, key: &str| {
        let value = found[key].as_f64().unwrap();
        format!("| {label} | {value:.3} |")
    };
    let expected = [
        "| figure | value |".to_owned(),
        "|---|---|".to_owned(),
        row("pixel AUROC", "pixel_auroc"),
        row("AUPRO (30 %)", "aupro"),
        row("pixel AUPR", "pixel_aupr"),
        row("image AUROC", "image_auroc"),
        row("image AUPR", "image_aupr"),
    ];

    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    let heading = "\n## Quality on the frames in this folder\n";
    let (_, section) = card.split_once(heading).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let table: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    assert_eq!(
        table, expected,
        "the card (left) and the measurement (right) differ: if the change is meant, package again \
         and run `cargo xtask cards`"
    );
}
