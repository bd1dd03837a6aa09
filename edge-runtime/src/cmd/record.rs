//! `edge-runtime record`: writes raw frames to a file, for replay.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use edge_runtime::config::Config;
use scoring::source::recording::RecordingWriter;
use scoring::source::{Delivery, SourceError};

use crate::camera::opener;

/// Record raw frames with their time stamps, format and controls.
///
/// The file can be replayed (`capture.kind = "replay"`) whatever ended the recording: Ctrl-C, a
/// full disk or a power cut.
#[derive(Args)]
pub(crate) struct Record {
    /// The camera's configuration file; only [capture] is used.
    #[arg(long)]
    config: PathBuf,

    /// File to write; it must not exist.
    #[arg(long)]
    out: PathBuf,

    /// Stop after this many frames. Without it and `--seconds`, recording goes on until Ctrl-C.
    #[arg(long)]
    frames: Option<u64>,

    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<f64>,
}

impl Record {
    pub(crate) fn run(&self) -> Result<()> {
        let _logging = super::run::start_logging(false);
        let config = Config::read(&self.config)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed))
            .context("cannot listen to signals")?;
        let mut source = opener(&config)?()?;
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
                // The frames recorded so far are kept.
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
