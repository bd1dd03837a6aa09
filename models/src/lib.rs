//! Released models. Each folder beside `src` that holds a package, `NAME/NAME.awr`, has a card,
//! `NAME/README.md`, with the data, the licence, the settings and the figures. The packages are
//! signed with `samples-only.key`, which is public: trust it for these samples only. The tests check
//! every package and its card.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proto::manifest::GoldenFrame;
    use scoring::infer::{Half, Tuning};
    use scoring::inspector::{Inspector, golden_cells};
    use scoring::package::{Trust, Verified, read, read_public_key};

    /// A released model.
    struct Released {
        name: String,
        card: String,
        package: Verified,
    }

    /// Reads all released models and verifies their packages.
    fn released() -> Vec<Released> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let key = read_public_key(&root.join("samples-only.key.pub")).unwrap();
        let trust = Trust::Only(vec![key]);
        let folders = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let holds_package = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            folder.join(format!("{name}.awr")).is_file()
        };
        folders
            .filter(holds_package)
            .map(|folder| {
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                let package = folder.join(format!("{name}.awr"));
                Released {
                    card: fs::read_to_string(folder.join("README.md")).unwrap(),
                    package: read(&package, &trust).unwrap(),
                    name,
                }
            })
            .collect()
    }

    #[test]
    fn leather_and_magnetic_tile_are_released_at_two_widths_each() {
        let mut names: Vec<String> = released().into_iter().map(|model| model.name).collect();
        names.sort();
        assert_eq!(
            names,
            ["leather", "leather-32", "magnetic-tile", "magnetic-tile-16"]
        );
    }

    #[test]
    fn every_released_package_passes_its_parity_gate_and_has_a_threshold() {
        for Released { name, package, .. } in released() {
            assert_eq!(package.manifest().name, name);
            let inspector = Inspector::new(&package).unwrap();
            assert!(inspector.threshold().is_some(), "{name}");
        }
    }

    #[test]
    fn the_narrowest_released_package_passes_its_parity_gate_in_half_precision() {
        // Only the narrowest: a processor without half-precision kernels takes minutes for a wide
        // network.
        let released = released();
        let narrow = released
            .iter()
            .find(|model| model.name == "magnetic-tile-16");
        let tuning = Tuning {
            half: Half::Always,
            ..Tuning::default()
        };
        Inspector::tuned(&narrow.unwrap().package, &tuning).unwrap();
    }

    /// A variation model and a segmentation network amplify what scores are off. By other kernels,
    /// which sum in another order, a golden frame's map must stay well within the tolerance that
    /// `package` writes (1 % of the peak), and in half precision within the gate's own (5 %).
    #[test]
    fn a_golden_frame_of_all_stages_passes_by_other_kernels_and_in_half_precision() {
        let released = released();
        let narrow = released
            .iter()
            .find(|model| model.name == "magnetic-tile-16");
        let package = &narrow.unwrap().package;
        // A golden tile, repeated and every other time mirrored.
        let tile = &package.manifest().golden[1].pixels;
        let mirrored = |at: usize| {
            if (at / 65).is_multiple_of(2) {
                at % 65
            } else {
                64 - at % 65
            }
        };
        let (width_px, height_px) = (131usize, 203usize);
        let value = |at: usize| tile[(mirrored(at / width_px) * 65 + mirrored(at % width_px)) * 3];
        let golden = GoldenFrame {
            width_px: width_px as u16,
            height_px: height_px as u16,
            pixels: (0..width_px * height_px).map(value).collect(),
            scored_width_px: 189,
            scored_height_px: 141,
            cell_means: Vec::new(),
            peak: 0.0,
            tolerance: 0.0,
        };
        let map = |tuning: Tuning| {
            let inspector = Inspector::tuned(package, &tuning).unwrap();
            inspector.golden_frame_map(&golden).unwrap()
        };
        let expected = map(Tuning::default());
        let off = |tuning: Tuning| {
            let found = map(tuning);
            let pairs = golden_cells(&found)
                .into_iter()
                .zip(golden_cells(&expected));
            let pairs = pairs.chain([(found.peak(), expected.peak())]);
            pairs.fold(0.0f32, |off, (a, b)| off.max((a - b).abs())) / expected.peak()
        };
        let stock = off(Tuning {
            stock: true,
            ..Tuning::default()
        });
        let half = off(Tuning {
            half: Half::Always,
            ..Tuning::default()
        });
        assert!(stock < 2e-3 && half < 4e-2, "{stock} {half}");
    }

    #[test]
    fn a_card_agrees_with_its_package() {
        for Released {
            name,
            card,
            package,
        } in released()
        {
            let manifest = package.manifest();
            let found = manifest
                .evaluation
                .as_ref()
                .expect("an evaluation is recorded");
            let figure = |value: Option<f64>| format!("{:.3}", value.unwrap());
            // Not those of another data set, which has a section of its own.
            let (_, quality) = card.split_once("\n## Quality\n").unwrap();
            let (quality, _) = quality.split_once("\n## ").unwrap();
            for expected in [
                format!("| pixel AUROC | {} |", figure(found.pixel_auroc)),
                format!("| AUPRO (30 %) | {} |", figure(found.aupro)),
                format!("| image AUROC | {} |", figure(found.image_auroc)),
                format!("on {} test images", found.images),
            ] {
                assert!(
                    quality.contains(&expected),
                    "the quality section of {name}'s card lacks `{expected}`"
                );
            }
            for expected in [
                format!("| iterations | {} |", manifest.training.iterations),
                format!("| width | {} |", manifest.network.width),
                format!("| seed | {} |", manifest.training.seed),
                format!("**{:.4}**", manifest.threshold.as_ref().unwrap().value),
                "Licence".to_owned(),
            ] {
                assert!(card.contains(&expected), "{name}'s card lacks `{expected}`");
            }
        }
    }
}
