//! `host-trainer import-weights`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::weights::import_weights;

use super::text::imported_weights;

/// Convert torchvision's SqueezeNet 1.1 or VGG-11 (squeezenet1_1-b8a52dc0.pth, vgg11-8a719046.pth) for
/// --features.
///
/// The file's pickle code is not executed.
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
        println!("{}", imported_weights(&self.out, &imported));
        Ok(())
    }
}
