//! `host-trainer import-weights` and `fetch-weights`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::weights::{Imported, fetch_vgg11, import_weights};

use super::progress;

/// Convert torchvision's VGG-11 (vgg11-8a719046.pth) for --features, without executing its pickle code.
#[derive(Args)]
pub(crate) struct ImportWeights {
    /// The .pth file.
    pth: PathBuf,
    /// The .safetensors file to write.
    out: PathBuf,
}

impl ImportWeights {
    pub(crate) fn run(self) -> Result<()> {
        let imported = import_weights(&self.pth, &self.out)?;
        say(&self.out, &imported);
        Ok(())
    }
}

/// Download torchvision's VGG-11, check its SHA-256 and convert it for --features (507 MB).
#[derive(Args)]
pub(crate) struct FetchWeights {
    /// The .safetensors file to write.
    out: PathBuf,
}

impl FetchWeights {
    pub(crate) fn run(self) -> Result<()> {
        let bar = progress::bar(0, "downloading");
        let imported = fetch_vgg11(&self.out, &mut |received, total| {
            bar.set_length(total.unwrap_or(received));
            bar.set_position(received);
        })?;
        bar.finish_and_clear();
        say(&self.out, &imported);
        Ok(())
    }
}

fn say(out: &std::path::Path, imported: &Imported) {
    println!(
        "{}: {} tensors; use it with train --features",
        out.display(),
        imported.tensors.len()
    );
    if imported.left_out > 0 {
        println!("left out {} tensors that no loss needs", imported.left_out);
    }
}
