//! Builds a camera from its configuration: devices, queues, threads and links.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use edge_runtime::clock::monotonic;
use edge_runtime::config::{Config, ModeName, Trigger};
use edge_runtime::disk_space::{DiskSpace, limits_warning};
use edge_runtime::error_text::one_line;
use edge_runtime::http;
use edge_runtime::image_store::{self, ImageStore, Measure, Sampler, folder_bytes};
use edge_runtime::journal::boot_counter::BootCounter;
use edge_runtime::journal::events::EventLog;
use edge_runtime::journal::positions::Positions;
use edge_runtime::journal::{Journal, Limits};
use edge_runtime::line::liveness::Watched;
use edge_runtime::line::readiness::{Condition, Readiness};
use edge_runtime::line::shared::LineShared;
use edge_runtime::link::files::IMAGES;
use edge_runtime::link::{LinkContext, server};
use edge_runtime::metrics::Metrics;
use edge_runtime::model::active::{ConfiguredSettings, Control, GoldenFrames, model_name};
use edge_runtime::model::settings::{Settings, SettingsError};
use edge_runtime::model::startup::StartupModel;
use edge_runtime::realtime::{self, RealTime};
use edge_runtime::report::drift::DriftMonitor;
use edge_runtime::report::durable::DurableSignal;
use edge_runtime::report::pictures::{ImageSink, PICTURE_QUEUE, store_images};
use edge_runtime::report::queue::{self, Reporter};
use edge_runtime::report::thread::{ReportThread, last_boot};
use edge_runtime::stage::context::StageContext;
use edge_runtime::stage::plausibility::Plausibility;
use edge_runtime::stage::slot::{FrameSlot, WhenFull};
use edge_runtime::stage::{capture, gate, score, supervise};
use proto::message::{Mode, cut_text};
use proto::report::{Event, GoldenResult};
use scoring::inspector::Inspector;

use super::devices::{is_replay, opener, outputs};

use super::inputs::listen_to_inputs;
use super::line::{parts, safe_action};
use super::link::access_control;
use super::listening::Listening;
use super::model::startup_model;
use super::running::Camera;
use super::threads::spawn;
use super::watchdog::HANGS_AFTER;

/// Name of the file with the settings that stations have made, in the camera's folder.
const SETTINGS: &str = "settings.json";

/// Longest time until a station's position is written to disk.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);

/// Longest time between two rounds of the gate thread, ten times the usual one.
const GATE_LIMIT: Duration = Duration::from_secs(1);

/// Time that capture may take beyond the longest wait of its source, and scoring beyond its
/// deadline.
const SLACK: Duration = Duration::from_secs(1);

/// Longest time for scoring one frame, unless the deadline is longer.
const SCORE_LIMIT: Duration = Duration::from_secs(5);

impl Camera {
    /// Starts all threads. After an error none runs, and the gate is in its safe state.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        // First of all, because the gate must be safe while the model loads.
        let safe_action = safe_action(config.gate.as_ref());
        let outputs = outputs(config, safe_action)?;
        let mut open = opener(config)?;
        let golden = GoldenFrames::new(config.golden.good.as_deref(), config.golden.bad.as_deref());
        let made = std::fs::create_dir_all(&config.state);
        if let Err(error) = &made {
            let folder = config.state.display();
            tracing::error!(%error, "cannot make folder {folder}; inspection goes on");
        }
        let StartupModel {
            updater,
            inspector,
            events,
        } = startup_model(config)?;
        let reading = inspector.as_ref().map(|inspector| *inspector.reading());
        let golden_problem = golden.problem(&reading.unwrap_or_default());
        let updater = Arc::new(updater);
        // A full or read-only disk must not stop the inspection.
        let (mut journal, opened) = Journal::open_or_wait(
            &config.state.join("journal"),
            Limits::new(config.journal.max_mb << 20),
        )?;
        let mut journal_ok = made.is_ok() && opened.is_ok();
        match opened {
            Ok(recovery) => tracing::info!(?recovery, "journal opened"),
            Err(error) => tracing::error!(
                error = one_line(&error),
                "journal cannot be opened; inspection goes on, and opening is tried again"
            ),
        }
        let (event_log, error) = EventLog::open_or_wait(&config.state.join("events"))?;
        if let Some(error) = error {
            tracing::error!(
                error = one_line(&error),
                "the copies of events cannot be opened"
            );
        }
        let (positions, warning) =
            Positions::open(&config.state.join("positions"), POSITIONS_EVERY);
        if let Some(warning) = warning {
            tracing::warn!(%warning, "cannot read the positions of stations");
        }
        // Stations and the copies of events may have numbers that the journal's disk has lost.
        let given = positions.highest().max(event_log.highest());
        if let Some(highest) = given
            && let Err(error) = journal.skip_to(highest + 1)
        {
            journal_ok = false;
            tracing::error!(
                error = one_line(&error),
                "cannot continue the journal's numbers behind those that have been given"
            );
        }
        let listening = |name, address: Option<_>, listen| {
            address.map(|address| Listening::new(name, address, listen))
        };
        let tcp = listening("tcp", config.link.tcp, server::listen);
        let web = listening("metrics", config.metrics.http, http::listen);
        let in_use =
            last_boot(&journal.reader()).max(image_store::highest_boot(&config.state.join(IMAGES)));
        let mut boot_counter = BootCounter::open(&config.state.join("boot"), in_use);
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
        let control = Control::new(
            inspector,
            mode,
            golden,
            Arc::clone(&line),
            reporter.clone(),
            Arc::clone(&metrics),
            Arc::clone(&readiness),
        );
        let (settings, unusable) = Settings::open(&config.state.join(SETTINGS));
        if let Some(error) = unusable {
            let lost = !matches!(error, SettingsError::CopyUsed(_));
            readiness.set_failing(Condition::Settings, lost);
            report_unusable_settings(&error, lost, &reporter);
        }
        let configured = ConfiguredSettings {
            threshold: config.model.threshold,
            mask: config.model.roi_mask.is_some(),
            mode,
        };
        let control = Arc::new(control.with_settings(settings, configured));
        let capture_limit = config.longest_wait() + SLACK;
        let score_limit = config
            .deadline()
            .map_or(SCORE_LIMIT, |deadline| SCORE_LIMIT.max(deadline + SLACK));
        let identical_frames = match replay {
            true => 0,
            false => config.plausibility.identical_frames,
        };
        let mut context = StageContext::new(
            line,
            Arc::clone(&control),
            reporter.clone(),
            Arc::clone(&metrics),
            Arc::clone(&readiness),
            Plausibility::new(config.plausibility.exposure, identical_frames),
        );
        context.safe_action = safe_action;
        context.live = !replay;
        if replay {
            context.slot = FrameSlot::new(WhenFull::Wait);
        } else {
            let liveness = &context.liveness;
            let heartbeat = liveness.watch(Watched::Frames, capture_limit, monotonic());
            context.frames = Some(heartbeat);
        }
        let context = Arc::new(context);
        let positions = Arc::new(Mutex::new(positions));
        let signal = Arc::new(DurableSignal::default());
        let link_stop = Arc::new(AtomicBool::new(false));
        let access_control = Arc::new(access_control(config, &reporter)?);
        let key_id = secure::key_id(access_control.key());
        let link_context = Arc::new(LinkContext {
            journal: journal.reader(),
            events: event_log.reader(),
            positions: Arc::clone(&positions),
            signal: Arc::clone(&signal),
            control: Arc::clone(&control),
            metrics: Arc::clone(&metrics),
            stop: Arc::clone(&link_stop),
            camera: config.name.clone(),
            boot,
            access_control,
            updater: Arc::clone(&updater),
            reporter: reporter.clone(),
            state: config.state.clone(),
            max_stations: config.link.max_stations,
        });

        let mut camera = Self {
            context: Arc::clone(&context),
            link_stop,
            longest_wait: config.longest_wait(),
            score_limit,
            capture: None,
            trigger: None,
            scoring: Vec::new(),
            gate: None,
            report: None,
            images: None,
            links: Vec::new(),
            tcp: tcp.as_ref().map(Listening::bound),
            http: web.as_ref().map(Listening::bound),
            published: None,
            key_id,
            announcement: None,
            updater,
        };
        report_start(&camera, model_id, &model);
        for event in events {
            camera.context.reporter.event(event);
        }
        if let Some(detail) = golden_problem {
            readiness.set_failing(Condition::GoldenFrames, true);
            let passed = false;
            let result = GoldenResult { passed, detail };
            camera.context.reporter.event(Event::GoldenCheck(result));
        }
        let real_time = Arc::new(RealTime::new(config.realtime.priority));
        let disk = Arc::new(DiskSpace::new(
            &config.state,
            journal.reader(),
            config.journal.max_mb << 20,
        ));
        let used_bytes = journal.bytes() + folder_bytes(&config.state.join(IMAGES));
        if let Some(warning) = limits_warning(config, used_bytes) {
            tracing::warn!("{warning}");
        }
        let mut images = None;
        if config.images.max_mb > 0 {
            let (sender, receiver) = crossbeam_channel::bounded(PICTURE_QUEUE);
            let metrics = Arc::clone(&metrics);
            let folder = config.state.join(IMAGES);
            let limits = image_store::Limits {
                max_bytes: config.images.max_mb << 20,
            };
            let disk = Arc::clone(&disk);
            camera.images = Some(spawn("images", move || {
                let measure: Measure = Arc::new(move || disk.measure());
                let open =
                    || ImageStore::open(&folder, limits)?.leaving_space(Arc::clone(&measure));
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
            events: event_log,
            positions,
            signal,
            sync_every: Duration::from_millis(config.journal.sync_ms),
            images,
            disk,
            drift: DriftMonitor::new(config.drift.window),
            report: config.report.clone(),
            boot_counter,
            control,
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
        };
        let heartbeat = camera.watch(Watched::Report, HANGS_AFTER);
        camera.report = Some(spawn("report", move || {
            report_thread.run(&|| heartbeat.beat(monotonic()));
        })?);
        let heartbeat = camera.watch(Watched::Gate, GATE_LIMIT);
        let gate_context = Arc::clone(&context);
        let gate_priority = Arc::clone(&real_time);
        camera.gate = Some(spawn("gate", move || {
            gate_priority.raise("gate");
            let mut outputs = outputs;
            let beat = || heartbeat.beat(monotonic());
            supervise::supervise(&gate_context, "gate", &beat, &mut || {
                gate::gate(&gate_context, &mut outputs, &beat);
            });
        })?);
        for _ in 0..config.inspection.threads {
            let heartbeat = camera.watch(Watched::Score, score_limit);
            let context = Arc::clone(&context);
            camera.scoring.push(spawn("score", move || {
                let beat = || heartbeat.beat(monotonic());
                supervise::supervise(&context, "score", &beat, &mut || {
                    score::score(&context, &beat);
                });
            })?);
        }
        listen_to_inputs(config, &mut camera, &real_time)?;
        if !replay {
            // Whatever passed the camera before the inputs were open is on its way to the gate
            // unseen. The gate is held until now, because no frame has come.
            let now = context.line.now();
            context.line.with_parts(|parts| parts.hold_unseen(now));
        }
        if let Some(mut tcp) = tcp {
            let context = Arc::clone(&context);
            let link_context = Arc::clone(&link_context);
            camera.links.push(spawn("tcp", move || {
                realtime::lower();
                supervise::supervise(&context, "tcp", &|| (), &mut || {
                    if let Some(listener) = tcp.wait(&link_context.stop, &context.reporter) {
                        server::serve_tcp(&link_context, listener);
                    }
                });
            })?);
        }
        serial(config, &link_context, &mut camera)?;
        if let Some(mut web) = web {
            let context = Arc::clone(&context);
            let stop = Arc::clone(&camera.link_stop);
            let metrics = Arc::clone(&metrics);
            camera.links.push(spawn("metrics", move || {
                realtime::lower();
                supervise::supervise(&context, "metrics", &|| (), &mut || {
                    if let Some(listener) = web.wait(&stop, &context.reporter) {
                        http::serve(listener, &metrics, &readiness, &stop);
                    }
                });
            })?);
        }
        let heartbeat = camera.watch(Watched::Capture, capture_limit);
        camera.capture = Some(spawn("capture", move || {
            let mut result = Ok(());
            let beat = || heartbeat.beat(monotonic());
            supervise::supervise(&context, "capture", &beat, &mut || {
                result = capture::capture(&context, &mut *open, &beat);
            });
            context.slot.close();
            result
        })?);
        if config.realtime.lock_memory {
            realtime::lock_memory();
        }
        Ok(camera)
    }
}

/// What stations have set may no longer be in force, and nobody may read the log.
fn report_unusable_settings(error: &SettingsError, lost: bool, reporter: &Reporter) {
    let reason = one_line(error);
    tracing::error!(reason, "cannot use the settings of stations");
    reporter.event(Event::SettingChanged {
        setting: SETTINGS.to_owned(),
        before: "unusable".to_owned(),
        after: if lost {
            "those of package and configuration".to_owned()
        } else {
            "those of the copy".to_owned()
        },
        reason: cut_text(&reason),
        station: String::new(),
    });
}

fn report_start(camera: &Camera, model_id: [u8; 8], model: &str) {
    camera.context.reporter.event(Event::Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id,
        model: model.to_owned(),
    });
}

fn serial(config: &Config, link_context: &Arc<LinkContext>, camera: &mut Camera) -> Result<()> {
    if let Some(line) = config.link.serial.clone() {
        let context = Arc::clone(&camera.context);
        let link_context = Arc::clone(link_context);
        camera.links.push(spawn("serial", move || {
            realtime::lower();
            supervise::supervise(&context, "serial", &|| (), &mut || {
                server::serve_serial(&link_context, &line);
            });
        })?);
    }
    Ok(())
}
