//! `host-trainer fetch-weights`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use host_trainer::weights::{WeightSet, fetch};

use super::progress;
use super::text::imported_weights;

/// Download features of a network that was trained on ImageNet: they often find more.
///
/// The file is checked by its SHA-256, converted, and kept in the user's data folder, where `fit`
/// finds it by itself.
#[derive(Args)]
pub(crate) struct FetchWeights {
    /// What to download.
    #[arg(value_enum, default_value_t = WeightSet::Squeezenet)]
    set: WeightSet,
    /// Write this .safetensors file instead, for --features.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl FetchWeights {
    pub(crate) fn run(self) -> Result<()> {
        let out = match self.out {
            Some(out) => out,
            None => self
                .set
                .kept_at()
                .context("there is no home folder to keep the file in: choose one by --out FILE")?,
        };
        let bar = progress::bar(0, "downloading");
        let imported = fetch(self.set, &out, &mut |received, total| {
            bar.set_length(total.unwrap_or(received));
            bar.set_position(received);
        })?;
        bar.finish_and_clear();
        println!("{}", imported_weights(&out, &imported));
        Ok(())
    }
}
