//! Links tests so that they find libtorch without LD_LIBRARY_PATH. `cargo xtask setup` writes the
//! folder of the real libraries to `$LIBTORCH/rpath`; an ordinary libtorch has them in
//! `$LIBTORCH/lib`.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(root) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        return;
    };
    let note = root.join("rpath");
    println!("cargo:rerun-if-changed={}", note.display());
    let folder = std::fs::read_to_string(&note)
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|_| root.join("lib").display().to_string());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}
