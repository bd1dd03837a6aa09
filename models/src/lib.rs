//! Released models. Each folder beside `src` holds `NAME.awr` (the package), `signer.pub` (whose signature it must
//! bear) and `README.md` (its card: data, licence, settings, figures). The tests check every one of them.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use edge_runtime::inspector::Inspector;
    use edge_runtime::package::{Trust, read, read_public_key};

    fn released() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        folders
            .filter(|folder| folder.join("README.md").is_file())
            .collect()
    }

    #[test]
    fn every_released_package_is_signed_and_passes_its_parity_gate() {
        for folder in released() {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let key = read_public_key(&folder.join("signer.pub")).unwrap();
            let package =
                read(&folder.join(format!("{name}.awr")), &Trust::Only(vec![key])).unwrap();
            assert_eq!(package.manifest().name, name);
            let inspector = Inspector::new(&package).unwrap();
            assert!(inspector.parity_off() >= 0.0);
            let card = fs::read_to_string(folder.join("README.md")).unwrap();
            for word in ["Licence", "Seed", "pixel AUROC"] {
                assert!(
                    card.contains(word),
                    "{name}: the card does not say its {word}"
                );
            }
        }
    }
}
