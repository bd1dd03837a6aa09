//! `host-trainer noise-sheet`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use host_trainer::dataset::{Colour, TrainingSet, cut_tile, training_files};
use host_trainer::noise::Algorithm;
use host_trainer::sheet;
use proto::manifest::{InputSize, Reading, TILE_PX};
use scoring::io::atomic::write_atomic;

/// Show what every noise algorithm does to your images: a contact sheet as PNG.
///
/// One row per algorithm: a good tile, then corruptions. The names of the rows are printed.
#[derive(Args)]
pub(crate) struct NoiseSheet {
    /// Folder of good images.
    #[arg(long)]
    data: PathBuf,
    /// PNG to write.
    #[arg(long)]
    out: PathBuf,
    /// Corruptions per row.
    #[arg(long, default_value_t = 12)]
    draws: u32,
    /// Seed of the corruptions.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl NoiseSheet {
    pub(crate) fn run(self) -> Result<()> {
        let files = training_files(&self.data)?.items;
        let size = InputSize::Fixed {
            width_px: 256,
            height_px: 256,
        };
        let few = &files[..files.len().min(self.draws.max(1) as usize)];
        let set = TrainingSet::load(few, size, Colour::Auto, Reading::default(), &mut |_| {})?;
        let middle = (256 - TILE_PX) / 2;
        let tiles: Vec<_> = set
            .frames
            .iter()
            .flatten()
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
