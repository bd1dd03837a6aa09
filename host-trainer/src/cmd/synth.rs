//! `host-trainer synth`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use host_trainer::synth::{Defect, SynthOptions, Texture, write_dataset};

use super::progress;

/// Make a small synthetic data set with labelled defects, in MVTec AD's layout.
///
/// For trying the commands without images of your own.
#[derive(Args)]
pub(crate) struct Synth {
    /// Folder to make.
    out: PathBuf,
    /// Material.
    #[arg(long, default_value = "woven")]
    texture: Texture,
    /// Side of an image in pixels.
    #[arg(long, default_value_t = 256)]
    size: u32,
    /// Number of good images to train on.
    #[arg(long, default_value_t = 30)]
    train: usize,
    /// Number of good images to test on.
    #[arg(long, default_value_t = 10)]
    test_good: usize,
    /// Number of test images of each kind of defect.
    #[arg(long, default_value_t = 5)]
    per_kind: usize,
    /// Seed: the same one makes the same images.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Synth {
    pub(crate) fn run(self) -> Result<()> {
        let options = SynthOptions {
            texture: self.texture,
            size_px: self.size,
            train: self.train,
            test_good: self.test_good,
            per_kind: self.per_kind,
            seed: self.seed,
        };
        let total = self.train + self.test_good + self.per_kind * Defect::ALL.len();
        let bar = progress::bar(total, "painting");
        write_dataset(&self.out, &options, &mut |done| {
            bar.set_position(done as u64)
        })?;
        bar.finish_and_clear();
        println!("{}: {total} images", self.out.display());
        Ok(())
    }
}
