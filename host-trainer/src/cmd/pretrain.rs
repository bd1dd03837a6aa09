//! `host-trainer pretrain`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_runtime::io::atomic::write_atomic;
use host_trainer::device::DeviceChoice;
use host_trainer::memory;
use host_trainer::pretrain::{Pattern, PretrainOptions, pretrain};
use host_trainer::seed::generator;
use host_trainer::sheet;
use proto::manifest::TILE_PX;

use super::progress;

/// Learn perceptual features from procedural surfaces, without any photograph.
///
/// The result of the defaults is built in (`train --features builtin`); this command is for who wants to repeat or change it.
/// Ctrl-C ends it early and keeps what was learned.
#[derive(Args)]
pub(crate) struct Pretrain {
    /// The .safetensors file to write, for `train --features`.
    #[arg(long)]
    out: PathBuf,
    /// Steps.
    #[arg(long, default_value_t = 1_000, value_parser = super::positive)]
    iterations: usize,
    /// Surfaces a step.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(2..=1024))]
    batch: u16,
    /// Seed of weights and surfaces.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads for libtorch (default: all cores).
    #[arg(long)]
    threads: Option<u16>,
    /// Threads that paint surfaces.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Also show some of the surfaces: a picture to write before learning begins.
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
        let stop = super::stopped_by_ctrl_c("step")?;
        let bar = progress::bar(self.iterations, "learning");
        let mut done = 0;
        let bytes = pretrain(&options, &stop, &mut |step| {
            done = step.iteration;
            bar.set_position(done as u64);
            let told = format!(
                "loss {:.3}, surfaces told apart {:.0} %, corruptions recognised {:.0} %, brightness off by {:.2}",
                step.loss,
                100.0 * step.surfaces_told,
                100.0 * step.corruptions_told,
                step.brightness_error.sqrt()
            );
            if bar.is_hidden() && (done.is_multiple_of(50) || done == 1) {
                eprintln!("step {done}: {told}");
            }
            bar.set_message(told);
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
