//! `host-trainer train`: arguments ([`arguments`]), what follows from them ([`setup`]), whether a run
//! may be resumed ([`resume`]), and the session ([`session`]).

mod arguments;
mod resume;
mod session;
mod setup;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use host_trainer::dataset::{Account, Coordinates, TileStore, TrainingSet};
use host_trainer::memory;
use host_trainer::run_folder::{self, Run};
use host_trainer::train::{BatchSource, Recipe};
use proto::manifest::TrainingMode;
use scoring::io::text::path_text;

pub(crate) use arguments::{Caller, Train};
use session::run_session;

use crate::cmd::progress;

/// What training gives.
pub(crate) struct Trained {
    /// What was used of the data set.
    pub(crate) account: Account,
    /// Number of optimiser steps.
    pub(crate) iterations: usize,
    /// Minutes of training, in all sessions.
    pub(crate) minutes: f64,
}

impl Train {
    pub(crate) fn run(self) -> Result<()> {
        let Trained {
            account,
            iterations,
            minutes,
        } = self.train()?;
        if self.json {
            let output = serde_json::json!({
                "schema": 1,
                "account": account,
                "run": path_text(&self.run),
                "iterations": iterations,
                "minutes": minutes,
            });
            println!("{}", serde_json::to_string_pretty(&output)?);
        } else {
            println!(
                "trained {iterations} iterations in {minutes:.1} min; next: host-trainer package --run {} --key SIGNING.key --name PRODUCT --out PRODUCT.awr",
                self.run.display()
            );
        }
        Ok(())
    }

    /// Trains, or goes on training, to the last iteration.
    pub(crate) fn train(&self) -> Result<Trained> {
        memory::keep_freed_memory();
        let device = self.device.open()?;
        if let Some(threads) = self.threads {
            tch::set_num_threads(i32::from(threads));
        }
        let checkpoint = run_folder::checkpoint(&self.run);
        match (self.resume, checkpoint.exists()) {
            (true, false) => bail!(
                "nothing to resume: no checkpoint in {}; leave --resume out to start",
                self.run.display()
            ),
            (false, true) => bail!(
                "{} already holds a run; add --resume to go on with it, or choose another --run",
                self.run.display()
            ),
            _ => {}
        }
        if !(0.0..1.0).contains(&self.hold_out) {
            bail!(
                "--hold-out expects a fraction from 0 to below 1, found {}",
                self.hold_out
            );
        }
        let teacher = self.load_teacher(device)?;
        let before = self.resume.then(|| Run::read(&self.run)).transpose()?;
        let images = self.load_images(device, before.as_ref())?;
        let run = self.describe(&images, teacher.as_ref())?;
        if let Some(before) = &before {
            resume::check_same(before, &run)?;
            resume::recover_checkpoint(&checkpoint)?;
        }
        std::fs::create_dir_all(&self.run)
            .with_context(|| format!("making {}", self.run.display()))?;
        run.write(&self.run)?;
        let recipe = Recipe {
            mode: run.mode,
            activation: run.activation,
            quiet: self.quiet,
            average: self.average,
            schedule: self.schedule,
            loss: self.make_loss(device)?,
            teacher: teacher.map(|teacher| teacher.network),
            architecture: run.architecture(),
            iterations: run.iterations,
            seed: run.seed,
            device,
            workers: self.workers.unwrap_or_else(|| default_workers(device)),
            checkpoint_every: self.checkpoint_every,
        };
        let account = images.account;
        let (coordinates, tiles) = self.tiles(images.set, &run)?;
        memory::give_back_freed_memory();
        let source = Arc::new(BatchSource {
            coordinates,
            tiles,
            noise: match run.mode {
                TrainingMode::Reconstruction => None,
                TrainingMode::Direct | TrainingMode::Denoising => Some(self.noise_bank()?),
            },
            lighting: self.lighting,
            seed: run.seed,
        });
        let minutes = run_session(&self.run, &recipe, &source, &checkpoint, self.caller)?;
        Ok(Trained {
            account,
            iterations: recipe.iterations,
            minutes,
        })
    }

    /// Draws the tiles, and cuts them if the images do not fit into memory.
    fn tiles(&self, set: TrainingSet, run: &Run) -> Result<(Coordinates, TileStore)> {
        let (sizes, seed) = (set.sizes(), run.seed);
        let coordinates = match run.rare {
            share if share > 0.0 => {
                let appearance = set.appearance();
                Coordinates::draw_rare(&sizes, &appearance, share, run.tiles, run.batch, seed)
            }
            _ => Coordinates::draw(&sizes, run.tiles, run.batch, seed),
        };
        let bar = progress::bar(set.images.len(), "cutting tiles");
        let store = TileStore::new(set, &coordinates, &self.run, &mut |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok((coordinates, store))
    }
}

/// One thread makes tiles faster than a few cores learn from them; a GPU needs several.
fn default_workers(device: tch::Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if device.is_cuda() {
        (cores / 2).clamp(1, 8)
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::arguments::{Mode, TrainingSize};
    use super::*;
    use clap::Parser;
    use host_trainer::network::OutputActivation;
    use host_trainer::perceptual::Depth;
    use host_trainer::train::{LossKind, Schedule};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: Train,
    }

    fn train(extra: &[&str]) -> Train {
        let line = [&["x", "--data", "d", "--run", "r"], extra].concat();
        Line::parse_from(line).train
    }

    #[test]
    fn the_defaults_are_the_papers() {
        let train = train(&[]);
        assert_eq!(train.size, TrainingSize::Square(256)); // IV-A
        assert_eq!(train.width, 128); // IV-C
        assert_eq!(train.activation, OutputActivation::RefRelu); // IV-D
        assert_eq!(train.loss, LossKind::Perceptual); // IV-E
        assert_eq!(train.feature_depth, Depth::Last);
        assert_eq!(
            (train.tiles, train.batch, train.iterations),
            (80_000, 64, 3_500)
        ); // IV-F
        assert!(matches!(train.mode, Mode::Direct));
        assert_eq!((train.quiet, train.lighting), (0.0, 0.0));
        assert_eq!((train.average, train.schedule), (0.0, Schedule::Constant));
        assert_eq!(train.noise_bank().unwrap().algorithms().len(), 12); // IV-B
    }

    #[test]
    fn leaving_out_every_family_is_refused() {
        let nothing = train(&["--noise", "opaque", "--without", "opaque"]);
        assert!(nothing.noise_bank().is_err());
    }
}
