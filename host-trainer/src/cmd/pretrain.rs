//! `host-trainer pretrain`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use host_trainer::device::DeviceChoice;
use host_trainer::memory;
use host_trainer::pretrain::{Pattern, PretrainOptions, pretrain};
use host_trainer::seed::generator;
use host_trainer::sheet;
use proto::manifest::TILE_PX;
use scoring::io::atomic::write_atomic;

use super::arguments::positive;
use super::interrupt::stop_on_ctrl_c;
use super::progress;

/// Learn perceptual features from procedural surfaces, without any photograph.
///
/// What the defaults give is built in (`train --features builtin`); this command is for repeating
/// or changing that. Ctrl-C ends it early and keeps the result so far.
#[derive(Args)]
pub(crate) struct Pretrain {
    /// The .safetensors file to write, for `train --features`.
    #[arg(long)]
    out: PathBuf,
    /// Number of steps.
    #[arg(long, default_value_t = 1_000, value_parser = positive)]
    iterations: usize,
    /// Surfaces per step.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(2..=1024))]
    batch: u16,
    /// Seed of weights and surfaces.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to train on: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads for libtorch (default: all cores).
    #[arg(long)]
    threads: Option<u16>,
    /// Threads that paint surfaces.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Also write a picture of some of the surfaces, before training begins.
    #[arg(long, value_name = "PNG")]
    sheet: Option<PathBuf>,
}

impl Pretrain {
    pub(crate) fn run(self) -> Result<()> {
        memory::keep_freed_memory();
        if self.out.exists() {
            bail!(
                "{} exists already; choose another --out",
                self.out.display()
            );
        }
        if let Some(threads) = self.threads {
            tch::set_num_threads(i32::from(threads));
        }
        let options = PretrainOptions {
            iterations: self.iterations,
            batch: usize::from(self.batch),
            seed: self.seed,
            device: self.device.open()?,
            workers: self.workers,
        };
        if let Some(path) = &self.sheet {
            let mut rng = generator(self.seed, "sheet", 0);
            let tiles: Vec<_> = (0..12 * 6)
                .map(|_| Pattern::draw(&mut rng).window(TILE_PX as usize, &mut rng))
                .collect();
            let png = sheet::png(&sheet::tiles(&tiles, 12)).context("encoding the sheet")?;
            write_atomic(path, &png)?;
        }
        let stop = stop_on_ctrl_c("step")?;
        let bar = progress::bar(self.iterations, "training");
        let mut done = 0;
        let bytes = pretrain(&options, &stop, &mut |step| {
            done = step.iteration;
            bar.set_position(done as u64);
            let figures = format!(
                "loss {:.3}, surfaces distinguished {:.0} %, corruptions recognised {:.0} %, brightness off by {:.2}",
                step.loss,
                100.0 * step.surface_accuracy,
                100.0 * step.corruption_accuracy,
                step.brightness_error.sqrt()
            );
            if bar.is_hidden() && (done.is_multiple_of(50) || done == 1) {
                eprintln!("step {done}: {figures}");
            }
            bar.set_message(figures);
        })?;
        bar.finish_and_clear();
        write_atomic(&self.out, &bytes)?;
        println!(
            "{}: {done} steps, {:.2} MB; use it with train --features",
            self.out.display(),
            bytes.len() as f64 / 1e6
        );
        Ok(())
    }
}
