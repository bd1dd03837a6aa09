//! `host-trainer fetch-weights`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::weights::fetch_vgg11;

use super::progress;
use super::text::imported_weights;

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
        println!("{}", imported_weights(&self.out, &imported));
        Ok(())
    }
}
