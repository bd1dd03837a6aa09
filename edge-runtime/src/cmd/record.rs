//! `edge-runtime record`: raw frames to a file, for replay.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use edge_runtime::capture::recording::RecordingWriter;
use edge_runtime::capture::{Delivery, SourceError};
use edge_runtime::config::Config;

use super::camera::opener;

/// Record raw frames with their time stamps, format and controls, for `capture.kind = "replay"`.
///
/// The recording can be replayed whatever ends it: Ctrl-C, a full disk, a power cut.
#[derive(Args)]
pub(crate) struct Record {
    /// The camera's configuration; only [capture] is used.
    #[arg(long)]
    config: PathBuf,

    /// File to write; it must be new.
    #[arg(long)]
    out: PathBuf,

    /// Stop after so many frames.
    #[arg(long)]
    frames: Option<u64>,

    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
}

impl Record {
    pub(crate) fn run(&self) -> Result<()> {
        super::run::start_logging(false);
        let config = Config::read(&self.config)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed))
            .context("cannot listen to signals")?;
        let mut source = opener(&config.capture)?()?;
        let mut writer = RecordingWriter::create(&self.out, source.info())?;
        let started = Instant::now();
        let (mut frames, mut damaged, mut synced) = (0u64, 0u64, Instant::now());
        let ended = loop {
            let enough = self.frames.is_some_and(|wanted| frames >= wanted)
                || (self.seconds).is_some_and(|wanted| started.elapsed().as_secs_f64() >= wanted);
            if enough || stop.load(Ordering::Relaxed) {
                break None;
            }
            match source.next() {
                Ok(delivery) => {
                    match delivery {
                        Delivery::Frame(_) => frames += 1,
                        Delivery::Damaged { .. } => damaged += 1,
                    }
                    writer.write(&delivery)?;
                }
                Err(SourceError::Ended) => break None,
                Err(error @ SourceError::Unreadable { .. }) => tracing::warn!(%error, "skipped"),
                // What was recorded is kept.
                Err(error) => break Some(error),
            }
            if synced.elapsed() > Duration::from_secs(1) {
                synced = Instant::now();
                writer.sync()?;
            }
        };
        let bytes = writer.bytes();
        writer.finish()?;
        eprintln!(
            "{frames} frames ({damaged} damaged) in {:.1} s, {:.1} MB: {}",
            started.elapsed().as_secs_f64(),
            bytes as f64 / 1e6,
            self.out.display()
        );
        ended.map_or(Ok(()), |error| Err(error.into()))
    }
}
