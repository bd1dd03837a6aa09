//! `host-trainer synth` and `noise-sheet`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use edge_runtime::io::atomic::write_atomic;
use host_trainer::dataset::{Colour, TrainingSet, cut_tile, training_files};
use host_trainer::noise::Algorithm;
use host_trainer::sheet;
use host_trainer::synth::{Defect, SynthOptions, Texture, write_dataset};
use proto::manifest::{InputSize, TILE_PX};

use super::progress;

/// Make a small synthetic data set with labelled defects, in MVTec AD's layout.
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
    /// Good images to train on.
    #[arg(long, default_value_t = 30)]
    train: usize,
    /// Good images to test on.
    #[arg(long, default_value_t = 10)]
    test_good: usize,
    /// Images of each kind of defect.
    #[arg(long, default_value_t = 5)]
    per_kind: usize,
    /// Seed.
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

/// Show what every algorithm of the noising filter bank does to your images: a contact sheet as PNG.
///
/// One row an algorithm; the first column is the good tile.
#[derive(Args)]
pub(crate) struct NoiseSheet {
    /// Folder of good images.
    #[arg(long)]
    data: PathBuf,
    /// PNG to write.
    #[arg(long)]
    out: PathBuf,
    /// Corruptions a row.
    #[arg(long, default_value_t = 12)]
    draws: u32,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl NoiseSheet {
    pub(crate) fn run(self) -> Result<()> {
        let files = training_files(&self.data)?;
        let size = InputSize::Fixed {
            width_px: 256,
            height_px: 256,
        };
        let few = &files[..files.len().min(self.draws.max(1) as usize)];
        let set = TrainingSet::load(few, size, Colour::Auto, &mut |_| {})?;
        let middle = (256 - TILE_PX) / 2;
        let tiles: Vec<_> = set
            .frames
            .iter()
            .map(|frame| cut_tile(frame, middle, middle))
            .collect();
        let picture = sheet::noise(&tiles, self.draws, self.seed);
        let png = sheet::png(&picture).context("encoding the sheet")?;
        write_atomic(&self.out, &png)?;
        println!("{}; rows from the top:", self.out.display());
        for algorithm in Algorithm::all() {
            println!("  {}", algorithm.name());
        }
        Ok(())
    }
}
