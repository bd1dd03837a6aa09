//! `edge-runtime run`: runs the camera until it is asked to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_runtime::clock::monotonic;
use edge_runtime::config::Config;
use edge_runtime::line::liveness::Watched;
use sd_notify::NotifyState;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::camera::Camera;

/// Longest interval between two looks at the camera.
const ROUND: Duration = Duration::from_millis(50);

/// Pause before a thread that seems to hang is looked at again.
const ONCE_MORE: Duration = Duration::from_millis(200);

/// Longest time between two rounds of the main thread, which may roll back to another package.
const MAIN_LIMIT: Duration = Duration::from_secs(60);

/// Inspect, drive the gate and report until SIGTERM or Ctrl-C.
///
/// Frames come from the configured camera or replay. Verdicts drive the reject gate, are journalled
/// and go to stations over TCP and serial lines. Logs go to standard error; the environment
/// variable `RUST_LOG=debug` logs more. Under systemd, use `Type=notify`.
#[derive(Args)]
pub(crate) struct Run {
    /// The camera's configuration file.
    #[arg(long)]
    config: PathBuf,

    /// Stop when the replay has ended and every report is journalled.
    #[arg(long)]
    exit_at_end: bool,

    /// Log JSON lines instead of text.
    #[arg(long)]
    json_logs: bool,
}

impl Run {
    pub(crate) fn run(&self) -> Result<()> {
        // Reports and images show the customer's parts: they are nobody else's business.
        secure::file::keep_private();
        let _logging = start_logging(self.json_logs);
        let config = Config::read(&self.config)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed))
            .context("cannot listen to signals")?;
        let mut camera = Camera::start(&config)?;
        camera.start_watchdog(sd_notify::watchdog_enabled())?;
        while !camera.has_begun() && !stop.load(Ordering::Relaxed) && camera.trouble().is_none() {
            std::thread::sleep(ROUND);
        }
        camera.publish_addresses(&config);
        tracing::info!(
            camera = config.name,
            tcp = camera.tcp().map(tracing::field::display),
            http = camera.http().map(tracing::field::display),
            "inspecting"
        );
        // Fails without systemd, which does not matter.
        sd_notify::notify(&[NotifyState::Ready]).ok();
        let watched = self.watch(&mut camera, &config, &stop);
        sd_notify::notify(&[NotifyState::Stopping]).ok();
        if let Some(trouble) = camera.trouble() {
            // Waiting for a hung thread would hang too. Dropping the camera makes the gate safe
            // without waiting.
            bail!("{trouble}");
        }
        tracing::info!("stopping");
        camera.stop().and(watched)
    }

    /// Watches over the camera until it has to stop.
    fn watch(&self, camera: &mut Camera, config: &Config, stop: &AtomicBool) -> Result<()> {
        let heartbeat = camera.watch(Watched::Main, MAIN_LIMIT);
        let every = match config.golden.every_min {
            0 => None,
            minutes => Some(Duration::from_secs(60 * minutes)),
        };
        // Due at once: a check that failed before a restart must not be forgotten.
        let mut checked: Option<Instant> = None;
        let mut golden: Option<JoinHandle<()>> = None;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(ROUND);
            heartbeat.beat(monotonic());
            if camera.capture_ended() {
                camera.check_source()?;
                if self.exit_at_end {
                    return Ok(());
                }
            }
            if camera.trouble().is_some() {
                // Not if the whole program was stopped for a while, this thread too.
                std::thread::sleep(ONCE_MORE);
                if camera.trouble().is_some() {
                    return Ok(());
                }
            }
            camera.watch_reports();
            camera.watch_trial();
            if camera.publish_addresses(config) {
                tracing::info!("addresses have changed: see endpoints.json");
            }
            let due = every.is_some_and(|every| checked.is_none_or(|at| at.elapsed() >= every));
            // On a thread of its own, because this one looks for threads that hang.
            if due && golden.as_ref().is_none_or(JoinHandle::is_finished) {
                checked = Some(Instant::now());
                let control = camera.control();
                let check = move || {
                    control.golden_check();
                };
                match Builder::new().name("golden".to_owned()).spawn(check) {
                    Ok(thread) => golden = Some(thread),
                    Err(error) => tracing::error!(%error, "cannot start the golden-sample check"),
                }
            }
        }
        Ok(())
    }
}

/// Most log lines that wait to be written; more are lost.
const MAX_LOG_LINES: usize = 10_000;

/// Logs to standard error, at the level of RUST_LOG or, without it, `info`. A thread of its own
/// writes, because a log service that stalls must not make the gate wait. Lines that wait are
/// written when the returned guard is dropped.
pub(super) fn start_logging(json: bool) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LOG_LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,tract=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    if json {
        builder.json().init();
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(colours).init();
    }
    guard
}
