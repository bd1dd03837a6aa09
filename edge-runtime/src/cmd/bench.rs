//! `edge-runtime bench`: measures the whole camera on a replay at full speed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_runtime::config::Config;
use edge_runtime::metrics::{Stage, memory_bytes};
use proto::message::Mode;
use scoring::infer::half_is_native;
use serde::Serialize;

use crate::camera::Camera;

/// Measure the latency of each stage, frames per second and memory.
///
/// Replays images at full speed through the same stages as `run` (conversion, scoring, decision,
/// journal) and prints a table. Without --images, frames of random pixels are used, because the
/// time for scoring does not depend on the content.
#[derive(Args)]
pub(crate) struct Bench {
    /// The model package.
    #[arg(long)]
    package: PathBuf,

    /// The signer's public key.
    #[arg(long)]
    trust: PathBuf,

    /// Folder of images, or a recording, to replay instead of random frames.
    #[arg(long)]
    images: Option<PathBuf>,

    /// Size of the random frames, WIDTHxHEIGHT in pixels.
    #[arg(long, default_value = "256x256")]
    size: String,

    /// Duration of the measurement in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,

    /// Number of frames scored at the same time.
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Number of threads that share the work on one frame.
    #[arg(long, default_value_t = 1)]
    threads_per_frame: usize,

    /// Score in half precision. Refused unless the processor has 16-bit arithmetic (ARMv8.2 with
    /// FP16).
    #[arg(long)]
    half: bool,

    /// Use this threshold instead of the package's; needed if the package has none.
    #[arg(long)]
    threshold: Option<f32>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    stage: &'static str,
    p50_ms: f64,
    p99_ms: f64,
}

/// Growth of resources during the measurement. A camera that runs for months must show none.
#[derive(Serialize)]
struct Growth {
    memory_mb: f64,
    threads: i64,
    open_files: i64,
}

/// Resident bytes, threads and open files of this process.
fn resources() -> [i64; 3] {
    let entries = |path: &str| std::fs::read_dir(path).map_or(0, |entries| entries.count() as i64);
    [
        memory_bytes() as i64,
        entries("/proc/self/task"),
        entries("/proc/self/fd"),
    ]
}

#[derive(Serialize)]
struct Table {
    schema: u32,
    threads: usize,
    half_precision: bool,
    frames: u64,
    seconds: f64,
    frames_per_second: f64,
    first_verdict_ms: f64,
    memory_mb: f64,
    growth: Growth,
    stages: Vec<Row>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        if self.half && !half_is_native() {
            bail!(
                "--half: expected a processor with 16-bit arithmetic (ARMv8.2 with FP16), found none; \
                 leave --half out, or see how scores change with `host-trainer evaluate --half`"
            );
        }
        let started = Instant::now();
        let folder = TemporaryFolder::new()?;
        let images = match &self.images {
            Some(images) => std::path::absolute(images)?,
            None => {
                let images = folder.0.join("images");
                random_images(&images, &self.size)?;
                images
            }
        };
        // A JSON string is also a valid TOML string.
        let path = |path: &std::path::Path| -> Result<String> {
            let path = std::path::absolute(path)?;
            let text = path.to_str().context("the path is not UTF-8")?;
            Ok(serde_json::to_string(text)?)
        };
        let threshold = self
            .threshold
            .map_or_else(String::new, |value| format!("threshold = {value:?}\n"));
        let text = format!(
            "name = \"bench\"\nstate = {}\n[model]\npackage = {}\ntrust = [{}]\n{threshold}\
             [capture]\nkind = \"replay\"\npath = {}\nspeed = \"maximum\"\nrepeat = true\n\
             [inspection]\nthreads = {}\nthreads_per_frame = {}\nhalf_precision = {}\n\
             [images]\nmax_mb = 0\n[plausibility]\nexposure = false\n",
            path(&folder.0.join("state"))?,
            path(&self.package)?,
            path(&self.trust)?,
            path(&images)?,
            self.threads,
            self.threads_per_frame,
            self.half
        );
        let config = Config::parse(&text).map_err(anyhow::Error::msg)?;
        let started = if self.images.is_some() {
            started
        } else {
            Instant::now()
        };
        let camera = Camera::start(&config)?;
        let parts = |camera: &Camera| camera.metrics().health(Mode::Inspect).parts;
        let total = |camera: &Camera| parts(camera).iter().sum::<u64>();
        while total(&camera) == 0 {
            if camera.capture_ended() || started.elapsed() > Duration::from_secs(60) {
                camera.stop()?;
                bail!("no frame was scored");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let first = started.elapsed();
        // Lets caches and branch predictors warm up.
        std::thread::sleep(Duration::from_millis(500));
        camera.metrics().reset_latencies();
        let resources_before = resources();
        let (frames_before, began) = (total(&camera), Instant::now());
        let bar = super::progress(self.json, self.seconds);
        while began.elapsed().as_secs_f64() < self.seconds {
            std::thread::sleep(Duration::from_millis(50));
            bar(began.elapsed().as_secs_f64());
        }
        let seconds = began.elapsed().as_secs_f64();
        let frames = total(&camera) - frames_before;
        let resources_after = resources();
        let grown = |index: usize| resources_after[index] - resources_before[index];
        // A benchmark has no gate.
        let stages = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Gate);
        let rows = stages.map(|stage| {
            let [p50, p99] = camera.metrics().percentiles_us(stage, [50.0, 99.0]);
            Row {
                stage: stage.name(),
                p50_ms: f64::from(p50) / 1e3,
                p99_ms: f64::from(p99) / 1e3,
            }
        });
        let table = Table {
            schema: 1,
            threads: self.threads,
            half_precision: self.half,
            frames,
            seconds,
            frames_per_second: frames as f64 / seconds,
            first_verdict_ms: first.as_secs_f64() * 1e3,
            memory_mb: resources_after[0] as f64 / 1e6,
            growth: Growth {
                memory_mb: grown(0) as f64 / 1e6,
                threads: grown(1),
                open_files: grown(2),
            },
            stages: rows.collect(),
        };
        let faults = parts(&camera)[2];
        camera.stop()?;
        if faults > 0 {
            bail!("{faults} frames could not be scored");
        }
        table.print(self.json)
    }
}

impl Table {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!("{:<8} {:>9} {:>9}", "STAGE", "P50 MS", "P99 MS");
        for row in &self.stages {
            println!("{:<8} {:>9.3} {:>9.3}", row.stage, row.p50_ms, row.p99_ms);
        }
        println!(
            "\n{:.1} frames/s over {} frames, {} scoring thread{}; \
             first verdict after {:.0} ms; {:.0} MB",
            self.frames_per_second,
            self.frames,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.first_verdict_ms,
            self.memory_mb
        );
        println!(
            "growth over {:.0} s: {:+.1} MB, {:+} threads, {:+} open files",
            self.seconds, self.growth.memory_mb, self.growth.threads, self.growth.open_files
        );
        println!(
            "queue: waiting for scoring; around: conversion, decision and gate; \
             report: journal, after the verdict"
        );
        Ok(())
    }
}

/// A folder that is deleted when this is dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("edge-runtime-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Writes images of random pixels into a folder.
fn random_images(folder: &std::path::Path, size: &str) -> Result<()> {
    let sides = size
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let Some((width, height)) = sides.filter(|&(w, h): &(u32, u32)| w > 0 && h > 0) else {
        bail!("--size: expected WIDTHxHEIGHT like 640x480, found `{size}`");
    };
    std::fs::create_dir_all(folder)?;
    let mut state = 1u32;
    for index in 0..8 {
        let picture = image::RgbImage::from_fn(width, height, |_, _| {
            // Marsaglia's xorshift; any noise will do.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            image::Rgb(state.to_le_bytes()[..3].try_into().unwrap_or_default())
        });
        picture.save(folder.join(format!("{index}.bmp")))?;
    }
    Ok(())
}
