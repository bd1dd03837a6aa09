//! Builds a camera from its configuration: devices, queues, threads and links.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use edge_runtime::config::{Config, ModeName, Trigger};
use edge_runtime::error_text::one_line;
use edge_runtime::http;
use edge_runtime::image_store::{self, ImageStore, Sampler};
use edge_runtime::journal::boot_counter::BootCounter;
use edge_runtime::journal::positions::Positions;
use edge_runtime::journal::{Journal, Limits};
use edge_runtime::line::readiness::Readiness;
use edge_runtime::line::shared::LineShared;
use edge_runtime::link::announce::{Announcement, is_public};
use edge_runtime::link::files::IMAGES;
use edge_runtime::link::{LinkContext, server};
use edge_runtime::metrics::Metrics;
use edge_runtime::model::active::{Control, GoldenFrames, model_name};
use edge_runtime::model::startup::StartupModel;
use edge_runtime::report::drift::DriftMonitor;
use edge_runtime::report::durable::DurableSignal;
use edge_runtime::report::pictures::{ImageSink, PICTURE_QUEUE, store_images};
use edge_runtime::report::queue;
use edge_runtime::report::thread::ReportThread;
use edge_runtime::stage::context::StageContext;
use edge_runtime::stage::plausibility::Plausibility;
use edge_runtime::stage::slot::{FrameSlot, WhenFull};
use edge_runtime::stage::{capture, gate, score, supervise};
use proto::message::Mode;
use proto::report::Event;
use scoring::inspector::Inspector;

use super::devices::{is_replay, opener, outputs};

use super::inputs::listen_to_inputs;
use super::line::{parts, safe_action};
use super::link::access_control;
use super::model::startup_model;
use super::running::Camera;
use super::threads::spawn;

/// Longest time until a station's position is written to disk.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);

impl Camera {
    /// Starts all threads. After an error none runs, and the gate is in its safe state.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        // First of all, because the gate must be safe while the model loads.
        let safe_action = safe_action(config.gate.as_ref());
        let outputs = outputs(config, safe_action)?;
        let mut open = opener(&config.capture)?;
        let golden =
            GoldenFrames::read(config.golden.good.as_deref(), config.golden.bad.as_deref())?;
        std::fs::create_dir_all(&config.state)
            .with_context(|| format!("cannot make folder {}", config.state.display()))?;
        let StartupModel {
            updater,
            inspector,
            events,
        } = startup_model(config)?;
        let updater = Arc::new(updater);
        // A full or read-only disk must not stop the inspection.
        let (mut journal, opened) = Journal::open_or_wait(
            &config.state.join("journal"),
            Limits::new(config.journal.max_mb << 20),
        )?;
        let mut journal_ok = opened.is_ok();
        match opened {
            Ok(recovery) => tracing::info!(?recovery, "journal opened"),
            Err(error) => tracing::error!(
                error = one_line(&error),
                "journal cannot be opened; inspection goes on, and opening is tried again"
            ),
        }
        let (positions, warning) =
            Positions::open(&config.state.join("positions"), POSITIONS_EVERY);
        if let Some(warning) = warning {
            tracing::warn!(%warning, "cannot read the positions of stations");
        }
        if let Some(highest) = positions.highest()
            && let Err(error) = journal.skip_to(highest + 1)
        {
            journal_ok = false;
            tracing::error!(
                error = one_line(&error),
                "cannot continue the journal's numbers behind those that stations have"
            );
        }
        let tcp = config.link.tcp.map(server::listen).transpose()?;
        let web = config.metrics.http.map(http::listen).transpose()?;
        let mut boot_counter = BootCounter::open(&config.state.join("boot"));
        if let Err(error) = boot_counter.keep() {
            journal_ok = false;
            tracing::error!(error = one_line(&error), "cannot write the boot counter");
        }
        let boot = boot_counter.number();

        let model_id = inspector.as_ref().map_or([0; 8], Inspector::model_id);
        let model = inspector.as_ref().map_or_else(String::new, model_name);
        let readiness = Arc::new(Readiness::with_policy(&config.readiness_policy()));
        readiness.set_journal_ok(journal_ok);
        let metrics = Arc::new(Metrics::new(&config.name, Arc::clone(&readiness)));
        let replay = is_replay(&config.capture);
        let triggered = matches!(config.trigger, Trigger::Gpio { .. });
        let line = Arc::new(LineShared::new(parts(config), triggered));
        line.limit_silence(config.silence_limits());
        let (reporter, inbox) = queue::channel(replay, Arc::clone(&metrics));
        let mode = match config.inspection.mode {
            ModeName::Inspect => Mode::Inspect,
            ModeName::Observe => Mode::Observe,
        };
        let control = Arc::new(Control::new(
            inspector,
            mode,
            golden,
            Arc::clone(&line),
            reporter.clone(),
            Arc::clone(&metrics),
            Arc::clone(&readiness),
        ));
        let context = Arc::new(StageContext {
            line,
            slot: FrameSlot::new(if replay {
                WhenFull::Wait
            } else {
                WhenFull::Evict
            }),
            control: Arc::clone(&control),
            reporter: reporter.clone(),
            metrics: Arc::clone(&metrics),
            stop: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            readiness: Arc::clone(&readiness),
            safe_action,
            live: !replay,
            plausibility: Plausibility::new(
                config.plausibility.exposure,
                if replay {
                    0
                } else {
                    config.plausibility.identical_frames
                },
            ),
        });
        let positions = Arc::new(Mutex::new(positions));
        let signal = Arc::new(DurableSignal::default());
        let link_stop = Arc::new(AtomicBool::new(false));
        let link_context = Arc::new(LinkContext {
            journal: journal.reader(),
            positions: Arc::clone(&positions),
            signal: Arc::clone(&signal),
            control: Arc::clone(&control),
            metrics: Arc::clone(&metrics),
            stop: Arc::clone(&link_stop),
            camera: config.name.clone(),
            boot,
            access_control: Arc::new(access_control(config, &reporter)?),
            updater: Arc::clone(&updater),
            reporter: reporter.clone(),
            state: config.state.clone(),
            max_stations: config.link.max_stations,
        });

        let mut camera = Self {
            context: Arc::clone(&context),
            link_stop,
            heartbeats: Vec::new(),
            longest_wait: config.longest_wait(),
            capture: None,
            trigger: None,
            scoring: Vec::new(),
            gate: None,
            report: None,
            images: None,
            links: Vec::new(),
            tcp: tcp.as_ref().and_then(|socket| socket.local_addr().ok()),
            http: web.as_ref().and_then(|socket| socket.local_addr().ok()),
            announcement: None,
            updater,
        };
        report_start(&camera, model_id, &model);
        for event in events {
            camera.context.reporter.event(event);
        }
        let mut images = None;
        if config.images.max_mb > 0 {
            let (sender, receiver) = crossbeam_channel::bounded(PICTURE_QUEUE);
            let metrics = Arc::clone(&metrics);
            let folder = config.state.join(IMAGES);
            let limits = image_store::Limits {
                max_bytes: config.images.max_mb << 20,
            };
            camera.images = Some(spawn("images", move || {
                let open = || ImageStore::open(&folder, limits);
                store_images(open, &receiver, &metrics);
            })?);
            images = Some(ImageSink {
                sampler: Sampler::new(config.images.ok_one_in),
                sender,
            });
        }
        let report_thread = ReportThread {
            inbox,
            journal,
            positions,
            signal,
            sync_every: Duration::from_millis(config.journal.sync_ms),
            images,
            drift: DriftMonitor::new(config.drift.window),
            report: config.report.clone(),
            boot_counter,
            control,
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
        };
        let heartbeat = camera.add_heartbeat("report");
        camera.report = Some(spawn("report", move || {
            report_thread.run(&|| heartbeat.beat());
        })?);
        let heartbeat = camera.add_heartbeat("gate");
        let gate_context = Arc::clone(&context);
        camera.gate = Some(spawn("gate", move || {
            let mut outputs = outputs;
            let beat = || heartbeat.beat();
            supervise::supervise(&gate_context, "gate", &beat, &mut || {
                gate::gate(&gate_context, &mut outputs, &beat);
            });
        })?);
        for _ in 0..config.inspection.threads {
            let heartbeat = camera.add_heartbeat("score");
            let context = Arc::clone(&context);
            camera.scoring.push(spawn("score", move || {
                score::score(&context, &|| heartbeat.beat());
            })?);
        }
        listen_to_inputs(config, &mut camera)?;
        camera.announce(config, &link_context);
        if let Some(listener) = tcp {
            let link_context = Arc::clone(&link_context);
            camera.links.push(spawn("tcp", move || {
                server::serve_tcp(&link_context, &listener);
            })?);
        }
        serial(config, &link_context, &mut camera.links)?;
        if let Some(listener) = web {
            let stop = Arc::clone(&camera.link_stop);
            let metrics = Arc::clone(&metrics);
            camera.links.push(spawn("metrics", move || {
                http::serve(&listener, &metrics, &readiness, &stop);
            })?);
        }
        let heartbeat = camera.add_heartbeat("capture");
        camera.capture = Some(spawn("capture", move || {
            let mut result = Ok(());
            let beat = || heartbeat.beat();
            supervise::supervise(&context, "capture", &beat, &mut || {
                result = capture::capture(&context, &mut *open, &beat);
            });
            context.slot.close();
            result
        })?);
        Ok(camera)
    }

    /// Announces the camera on the local network, if it listens there.
    fn announce(&mut self, config: &Config, link_context: &LinkContext) {
        let Some(address) = self.tcp.filter(|address| is_public(*address)) else {
            return;
        };
        if !config.link.announce {
            return;
        }
        let key_id = secure::key_id(link_context.access_control.key());
        match Announcement::start(&config.name, address, &key_id) {
            Ok(announcement) => self.announcement = Some(announcement),
            Err(error) => tracing::warn!(%error, "cannot announce the camera on the network"),
        }
    }
}

fn report_start(camera: &Camera, model_id: [u8; 8], model: &str) {
    camera.context.reporter.event(Event::Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id,
        model: model.to_owned(),
    });
}

fn serial(
    config: &Config,
    link_context: &Arc<LinkContext>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<()> {
    if let Some(line) = config.link.serial.clone() {
        let link_context = Arc::clone(link_context);
        threads.push(spawn("serial", move || {
            server::serve_serial(&link_context, &line);
        })?);
    }
    Ok(())
}
