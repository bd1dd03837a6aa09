//! Puts the camera together from its configuration: devices, threads, links. `run` and `bench` share it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use edge_runtime::capture::Source;
use edge_runtime::capture::SourceError;
use edge_runtime::capture::replay::{Pace, Replay};
use edge_runtime::clock::{monotonic, unix_ms};
use edge_runtime::config::{Capture, Config, Gate, ModeName, NamedSpeed, OnFault, Speed, Trigger};
use edge_runtime::control::{Control, GoldenFrames};
use edge_runtime::http;
use edge_runtime::image_store::{self, ImageStore, Sampler};
use edge_runtime::infer::{Half, Tuning};
use edge_runtime::inspect::roi::check;
use edge_runtime::inspector::Inspector;
use edge_runtime::io::atomic::write_atomic;
use edge_runtime::io::image_file::read_roi_mask;
use edge_runtime::journal::boots::Boots;
use edge_runtime::journal::positions::Positions;
use edge_runtime::journal::{Journal, Limits};
use edge_runtime::link::announce::{Announcement, is_public};
use edge_runtime::link::door::{Door, KEY_FILE};
use edge_runtime::link::files::IMAGES;
use edge_runtime::link::{LinkContext, server};
use edge_runtime::metrics::Metrics;
use edge_runtime::outputs::{Outputs, Pin};
use edge_runtime::package::store::Store;
use edge_runtime::package::{self, Trust, read_public_key};
use edge_runtime::parts::{GateSettings, Parts, Settings, Travel};
use edge_runtime::pipeline::{self, Failing, LineShared, Shared, panic_text};
use edge_runtime::reporting::{self, Drifts, Images, PICTURE_QUEUE, Reporter, Reporting, Signal};
use edge_runtime::slot::{Slot, WhenFull};
use edge_runtime::update::{Begun, Demands, Updater, model_name};
use proto::message::Mode;
use proto::report::{Event, GateAction};
use secure::identity::{Identity, IdentityError};

/// A thread that shows no sign of life for so long hangs; where it waits for a source, for so long beyond that.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// At a stop, a source that keeps silent is waited for so long.
const CAPTURE_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// The gate thread ends within so long: what it waits for at most, and a little.
const GATE_ENDS_WITHIN: Duration = Duration::from_secs(12);
/// When something hangs, the gate thread has so long to make the gate safe.
const ABANDONED_WITHIN: Duration = Duration::from_secs(1);
/// Positions of stations reach the disk within so long.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);

/// When each thread was last alive, in milliseconds of the monotonic clock.
#[derive(Debug, Clone, Default)]
struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn beat(&self) {
        let now = monotonic().as_millis() as u64;
        self.0.store(now, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let now = monotonic().as_millis() as u64;
        Duration::from_millis(now.saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// A running camera.
pub(crate) struct Camera {
    shared: Arc<Shared>,
    link_stop: Arc<AtomicBool>,
    pulses: Vec<(&'static str, Pulse)>,
    longest_wait: Duration,
    capture: Option<JoinHandle<Result<(), SourceError>>>,
    trigger: Option<JoinHandle<()>>,
    scoring: Vec<JoinHandle<()>>,
    gate: Option<JoinHandle<()>>,
    report: Option<JoinHandle<()>>,
    images: Option<JoinHandle<()>>,
    links: Vec<JoinHandle<()>>,
    /// Where stations connect.
    pub(crate) tcp: Option<SocketAddr>,
    /// Where metrics are.
    pub(crate) http: Option<SocketAddr>,
    announcement: Option<Announcement>,
    updater: Arc<Updater>,
}

/// The threads of the configuration, and a file for what was measured once.
fn tuning(config: &Config) -> Tuning {
    let inspection = &config.inspection;
    // One of the threads that share the work is the scoring thread itself; the others serve all scoring threads.
    let wanted = inspection.threads + inspection.threads_per_frame - 1;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if wanted > cores {
        tracing::warn!(
            wanted,
            cores,
            "more scoring threads than cores: they will wait for each other (inspection.threads, threads_per_frame)"
        );
    }
    Tuning {
        threads: inspection.threads_per_frame,
        kernel_file: Some(config.state.join("kernels.json")),
        half: if inspection.half_precision {
            Half::WhereNative
        } else {
            Half::Off
        },
        ..Tuning::default()
    }
}

/// What the configuration demands of packages.
fn demands(config: &Config) -> Result<Demands> {
    let keys: Result<Vec<_>, _> = config
        .model
        .trust
        .iter()
        .map(|path| read_public_key(path))
        .collect();
    let roi = match &config.model.roi_mask {
        None => None,
        Some(path) => {
            let roi = read_roi_mask(path)?;
            check(&roi).with_context(|| format!("model.roi_mask {}", path.display()))?;
            Some(roi)
        }
    };
    Ok(Demands {
        trust: Trust::Only(keys?),
        roi,
        threshold: config.model.threshold,
        any_input: config.model.any_input,
        tuning: tuning(config),
    })
}

/// The model to begin with: what stations brought, or the configured package.
fn begin(config: &Config) -> Result<Begun> {
    let demands = demands(config)?;
    let (store, warning) = Store::open(&config.state.join("slots"));
    if let Some(warning) = warning {
        tracing::error!(error = reporting::one_line(&warning), "slots");
    }
    let configured = match &config.model.package {
        None => None,
        Some(path) => match package::read(path, &demands.trust) {
            Ok(package) => Some(package),
            // A package that a station brought is no reason to look at the file.
            Err(error) if store.slots().active().is_some() => {
                tracing::error!(error = reporting::one_line(&error), "configured package");
                None
            }
            Err(error) => return Err(error.into()),
        },
    };
    Updater::begin(store, demands, configured.as_ref()).with_context(|| {
        let path = config.model.package.as_ref();
        path.map_or_else(
            || "slots".to_owned(),
            |path| format!("package {}", path.display()),
        )
    })
}

/// The camera's key and lists. Where the disk refuses to keep a key, paired stations will not know the camera.
fn door(config: &Config, reporter: &Reporter) -> Result<Door> {
    let identity = match Identity::load_or_create(&config.state.join(KEY_FILE)) {
        Err(error @ IdentityError::Io { .. }) => {
            tracing::error!(
                error = reporting::one_line(&error),
                "stations will not know this camera until its key can be read"
            );
            Identity::generate()?
        }
        identity => identity?,
    };
    Ok(Door::new(&config.state, identity, reporter.clone()))
}

/// How the configured source is opened.
pub(crate) type Opener = Box<dyn FnMut() -> Result<Box<dyn Source>, SourceError> + Send>;

/// Opens the configured source, again and again if need be.
pub(crate) fn opener(capture: &Capture) -> Result<Opener> {
    match capture.clone() {
        Capture::Replay {
            path,
            speed,
            repeat,
        } => {
            let pace = match speed {
                Speed::FramesPerSecond(rate) => Pace::Fixed(rate),
                Speed::Named(NamedSpeed::Maximum) => Pace::Maximum,
                Speed::Named(NamedSpeed::Recorded) => Pace::Recorded,
                // A folder of images has no times.
                Speed::Default if path.is_dir() => Pace::Maximum,
                Speed::Default => Pace::Recorded,
            };
            Ok(Box::new(move || {
                Ok(Box::new(Replay::open(&path, pace, repeat)?) as Box<dyn Source>)
            }))
        }
        #[cfg(not(feature = "v4l2"))]
        Capture::V4l2 { .. } => bail!(
            "capture.kind = \"v4l2\": this build has no camera support; build with `--features camera`"
        ),
        #[cfg(feature = "v4l2")]
        Capture::V4l2 {
            device,
            format,
            width_px,
            height_px,
            fps,
            timeout_ms,
            exposure_to_stamp_us,
            controls,
        } => {
            use edge_runtime::capture::FourCc;
            use edge_runtime::capture::v4l2::{Camera as Device, CameraOptions, ControlValue};
            use edge_runtime::config::Control as Value;

            let code = |text: String| {
                let mut code = [b' '; 4];
                code.iter_mut()
                    .zip(text.bytes())
                    .for_each(|(to, from)| *to = from);
                FourCc(code)
            };
            let options = CameraOptions {
                format: format.map(code),
                width_px,
                height_px,
                frame_interval: fps.map(|fps| Duration::from_secs_f64(1.0 / fps)),
                timeout: Duration::from_millis(timeout_ms),
                exposure_to_stamp: exposure_to_stamp_us.map(Duration::from_micros),
                controls: controls
                    .into_iter()
                    .map(|(name, value)| {
                        let value = match value {
                            Value::Integer(value) => ControlValue::Integer(value),
                            Value::Boolean(value) => ControlValue::Boolean(value),
                            Value::Item(value) => ControlValue::Item(value),
                        };
                        (name, value)
                    })
                    .collect(),
                ..CameraOptions::new(device)
            };
            Ok(Box::new(move || {
                Ok(Box::new(Device::open(&options)?) as Box<dyn Source>)
            }))
        }
    }
}

/// Whether the source is a replay, which must lose nothing.
fn is_replay(capture: &Capture) -> bool {
    matches!(capture, Capture::Replay { .. })
}

fn safe_action(gate: Option<&Gate>) -> GateAction {
    match gate.map(|gate| gate.on_fault) {
        None => GateAction::None,
        Some(OnFault::Reject) => GateAction::Reject,
        Some(OnFault::Pass) => GateAction::Pass,
    }
}

fn parts(config: &Config) -> Parts {
    let gate = config.gate.as_ref().map(|gate| match &gate.encoder {
        Some(encoder) => GateSettings {
            delay: Travel::Counts(encoder.delay_counts),
            pulse: Travel::Counts(encoder.pulse_counts),
        },
        None => GateSettings {
            delay: Travel::Time(Duration::from_millis(gate.delay_ms)),
            pulse: Travel::Time(Duration::from_millis(gate.pulse_ms)),
        },
    });
    let frame_within_ms = match &config.trigger {
        Trigger::Free {} => 0,
        Trigger::Gpio {
            frame_within_ms, ..
        } => *frame_within_ms,
    };
    Parts::new(Settings {
        deadline: config.deadline(),
        frame_within: Duration::from_millis(frame_within_ms),
        gate,
        safe_action: safe_action(config.gate.as_ref()),
    })
}

impl Camera {
    /// Starts everything. An error leaves nothing running and the gate in its safe state.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        // Before anything that takes time: the gate must be safe while the model loads.
        let safe_action = safe_action(config.gate.as_ref());
        let outputs = outputs(config, safe_action)?;
        let mut open = opener(&config.capture)?;
        let golden =
            GoldenFrames::read(config.golden.good.as_deref(), config.golden.bad.as_deref())?;
        std::fs::create_dir_all(&config.state)
            .with_context(|| format!("cannot make folder {}", config.state.display()))?;
        let Begun {
            updater,
            inspector,
            events,
        } = begin(config)?;
        let updater = Arc::new(updater);
        // A full or read-only disk must not keep the line from being inspected.
        let (mut journal, opened) = Journal::open_or_wait(
            &config.state.join("journal"),
            Limits::new(config.journal.max_mb << 20),
        )?;
        let mut journal_ok = opened.is_ok();
        match opened {
            Ok(recovery) => tracing::info!(?recovery, "journal"),
            Err(error) => tracing::error!(
                error = reporting::one_line(&error),
                "journal cannot be opened; inspection goes on, and it is tried again"
            ),
        }
        let (positions, warning) =
            Positions::open(&config.state.join("positions"), POSITIONS_EVERY);
        if let Some(warning) = warning {
            tracing::warn!(%warning, "positions of stations");
        }
        if let Some(highest) = positions.highest()
            && let Err(error) = journal.skip_to(highest + 1)
        {
            journal_ok = false;
            tracing::error!(error = reporting::one_line(&error), "journal");
        }
        let tcp = config.link.tcp.map(server::listen).transpose()?;
        let web = config.metrics.http.map(http::listen).transpose()?;
        let mut boots = Boots::open(&config.state.join("boot"));
        if let Err(error) = boots.keep() {
            journal_ok = false;
            tracing::error!(error = reporting::one_line(&error), "number of starts");
        }
        let boot = boots.number();

        let model_id = inspector.as_ref().map_or([0; 8], Inspector::model_id);
        let model = inspector.as_ref().map_or_else(String::new, model_name);
        let metrics = Arc::new(Metrics::new(&config.name));
        metrics.set_journal_ok(journal_ok);
        let replay = is_replay(&config.capture);
        let triggered = matches!(config.trigger, Trigger::Gpio { .. });
        let line = Arc::new(LineShared::new(parts(config), triggered));
        let (reporter, inbox) = reporting::channel(replay, Arc::clone(&metrics));
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
        ));
        let shared = Arc::new(Shared {
            line,
            slot: Slot::new(if replay {
                WhenFull::Wait
            } else {
                WhenFull::Displace
            }),
            control: Arc::clone(&control),
            reporter: reporter.clone(),
            metrics: Arc::clone(&metrics),
            stop: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            failing: Failing::default(),
            safe_action,
            live: !replay,
        });
        let positions = Arc::new(Mutex::new(positions));
        let signal = Arc::new(Signal::default());
        let link_stop = Arc::new(AtomicBool::new(false));
        let context = Arc::new(LinkContext {
            journal: journal.reader(),
            positions: Arc::clone(&positions),
            signal: Arc::clone(&signal),
            control: Arc::clone(&control),
            metrics: Arc::clone(&metrics),
            stop: Arc::clone(&link_stop),
            camera: config.name.clone(),
            boot,
            door: Arc::new(door(config, &reporter)?),
            updater: Arc::clone(&updater),
            reporter: reporter.clone(),
            state: config.state.clone(),
            max_stations: config.link.max_stations,
        });

        let mut camera = Self {
            shared: Arc::clone(&shared),
            link_stop,
            pulses: Vec::new(),
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
        reporter_event(&camera, model_id, &model);
        for event in events {
            camera.shared.reporter.event(event);
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
                reporting::store_images(open, &receiver, &metrics);
            })?);
            images = Some(Images {
                sampler: Sampler::new(config.images.ok_one_in),
                sender,
            });
        }
        let reporting = Reporting {
            inbox,
            journal,
            positions,
            signal,
            sync_every: Duration::from_millis(config.journal.sync_ms),
            images,
            drift: Drifts::new(config.drift.window),
            report: config.report.clone(),
            boots,
            control,
            metrics: Arc::clone(&metrics),
        };
        let pulse = camera.pulse("report");
        camera.report = Some(spawn("report", move || {
            reporting.run(&|| pulse.beat());
        })?);
        let pulse = camera.pulse("gate");
        let gate_shared = Arc::clone(&shared);
        camera.gate = Some(spawn("gate", move || {
            let mut outputs = outputs;
            let beat = || pulse.beat();
            pipeline::supervise(&gate_shared, "gate", &beat, &mut || {
                pipeline::gate(&gate_shared, &mut outputs, &beat);
            });
        })?);
        for _ in 0..config.inspection.threads {
            let pulse = camera.pulse("score");
            let shared = Arc::clone(&shared);
            camera.scoring.push(spawn("score", move || {
                pipeline::score(&shared, &|| pulse.beat());
            })?);
        }
        inputs(config, &mut camera)?;
        camera.announce(config, &context);
        if let Some(listener) = tcp {
            let context = Arc::clone(&context);
            camera.links.push(spawn("tcp", move || {
                server::serve_tcp(&context, &listener);
            })?);
        }
        serial(config, &context, &mut camera.links)?;
        if let Some(listener) = web {
            let stop = Arc::clone(&camera.link_stop);
            let metrics = Arc::clone(&metrics);
            camera.links.push(spawn("metrics", move || {
                http::serve(&listener, &metrics, &stop);
            })?);
        }
        let pulse = camera.pulse("capture");
        camera.capture = Some(spawn("capture", move || {
            let mut result = Ok(());
            let beat = || pulse.beat();
            pipeline::supervise(&shared, "capture", &beat, &mut || {
                result = pipeline::capture(&shared, &mut *open, &beat);
            });
            shared.slot.close();
            result
        })?);
        Ok(camera)
    }

    /// Tells the local network, where there is one.
    fn announce(&mut self, config: &Config, context: &LinkContext) {
        let Some(address) = self.tcp.filter(|address| is_public(*address)) else {
            return;
        };
        if !config.link.announce {
            return;
        }
        let key_id = secure::key_id(context.door.key());
        match Announcement::start(&config.name, address, &key_id) {
            Ok(announcement) => self.announcement = Some(announcement),
            Err(error) => tracing::warn!(%error, "the camera cannot be announced on the network"),
        }
    }

    /// Rolls a package on trial back under which frames cannot be scored.
    pub(crate) fn watch_trial(&self) {
        let control = &self.shared.control;
        self.updater.watch_trial(control, &self.shared.reporter);
    }

    fn pulse(&mut self, name: &'static str) -> Pulse {
        let pulse = Pulse::default();
        pulse.beat();
        self.pulses.push((name, pulse.clone()));
        pulse
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Settings and commands.
    pub(crate) fn control(&self) -> &Control {
        &self.shared.control
    }

    /// A thread that parts cannot do without and that hangs or has ended too early, if any.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.report.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("the report thread ended".to_owned());
        }
        let ended = self.capture_ended();
        let hangs = |(name, pulse): &(&'static str, Pulse)| {
            let limit = match *name {
                // A slow disk: parts are inspected all the same.
                "report" => return None,
                "capture" | "score" if ended => return None,
                "capture" => HANGS_AFTER + self.longest_wait,
                _ => HANGS_AFTER,
            };
            (pulse.age() > limit).then(|| format!("the {name} thread hangs"))
        };
        self.pulses.iter().find_map(hangs)
    }

    /// Raises the fault signal while reports do not reach the disk; the report thread lowers it when they do.
    pub(crate) fn watch_reports(&self) {
        let hangs =
            |(name, pulse): &(&'static str, Pulse)| *name == "report" && pulse.age() > HANGS_AFTER;
        if self.metrics().journal_ok() && self.pulses.iter().any(hangs) {
            tracing::error!("reports do not reach the disk; inspection goes on");
            self.metrics().set_journal_ok(false);
        }
    }

    /// Whether the source has ended for good.
    pub(crate) fn capture_ended(&self) -> bool {
        self.capture.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Once the source has ended: whether it could be used at all.
    pub(crate) fn check_source(&mut self) -> Result<()> {
        match self.capture.take() {
            Some(capture) => Ok(join("capture", capture)??),
            None => Ok(()),
        }
    }

    /// Waits for everything that was captured to be scored.
    fn finish_scoring(&mut self) -> Result<()> {
        let captured = match self.capture.take() {
            Some(capture) if ends_within(&capture, CAPTURE_ENDS_WITHIN) => {
                join("capture", capture)?.map_err(anyhow::Error::from)
            }
            // It waits for a frame, which is not worth waiting for. It ends with the program, and takes no more parts.
            Some(_) | None => Ok(()),
        };
        self.shared.slot.close();
        for thread in self.scoring.drain(..) {
            join_within("score", thread, HANGS_AFTER)?;
        }
        captured
    }

    /// Stops in order, so that nothing is lost: capture, scoring, gate, journal, links. Whatever goes wrong, the gate
    /// is safe afterwards (see `drop`).
    pub(crate) fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let scored = self.finish_scoring();
        if let Some(trigger) = self.trigger.take() {
            join_within("trigger", trigger, HANGS_AFTER)?;
        }
        self.shared.drained.store(true, Ordering::Relaxed);
        self.shared.line.wake();
        if self
            .gate
            .as_ref()
            .is_some_and(|gate| !ends_within(gate, GATE_ENDS_WITHIN))
        {
            bail!("the gate thread hangs");
        }
        if let Some(gate) = self.gate.take() {
            join("gate", gate)?;
        }
        self.shared.reporter.event(Event::Stopping);
        self.link_stop.store(true, Ordering::Relaxed);
        for thread in self.links.drain(..) {
            join("link", thread)?;
        }
        self.shared.reporter.close();
        if let Some(report) = self.report.take() {
            join("report", report)?;
        }
        if let Some(images) = self.images.take() {
            join("images", images)?;
        }
        scored
    }
}

/// However a camera ends, also with an error or a panic: the gate is made safe, and nothing is waited for that may hang.
/// After [`Camera::stop`] there is nothing left to do. The journal is consistent at every moment.
impl Drop for Camera {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.abandon.store(true, Ordering::Relaxed);
        self.link_stop.store(true, Ordering::Relaxed);
        self.shared.slot.close();
        self.shared.line.wake();
        if let Some(gate) = &self.gate
            && !ends_within(gate, ABANDONED_WITHIN)
        {
            tracing::error!("the gate thread hangs: the gate may not be safe");
        }
    }
}

fn reporter_event(camera: &Camera, model_id: [u8; 8], model: &str) {
    camera.shared.reporter.event(Event::Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id,
        model: model.to_owned(),
    });
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the {name} thread"))
}

fn join<T>(name: &str, thread: JoinHandle<T>) -> Result<T> {
    thread
        .join()
        .map_err(|panic| anyhow::anyhow!("the {name} thread failed: {}", panic_text(&*panic)))
}

/// Whether a thread ends within so long.
fn ends_within<T>(thread: &JoinHandle<T>, limit: Duration) -> bool {
    let started = Instant::now();
    while !thread.is_finished() && started.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

fn join_within<T>(name: &str, thread: JoinHandle<T>, limit: Duration) -> Result<T> {
    if !ends_within(&thread, limit) {
        bail!("the {name} thread hangs");
    }
    join(name, thread)
}

/// The lines that are driven.
#[cfg(feature = "gpio")]
fn outputs(config: &Config, safe_action: GateAction) -> Result<Outputs> {
    use edge_runtime::config::Line;
    use edge_runtime::io::gpio::{GpioError, output};
    use edge_runtime::outputs::Reopening;
    use edge_runtime::reporting::one_line;

    let open = |line: &Line, active: bool| -> Result<Box<dyn Pin>, GpioError> {
        let pin = output(&line.chip, line.line, line.active_low, active)?;
        Ok(Box::new(pin))
    };
    let pin = |line: &Line, active: bool| -> Result<Box<dyn Pin>> {
        let pin = open(line, active)?;
        let line = line.clone();
        let open = move |active| open(&line, active).map_err(|error| one_line(&error));
        Ok(Box::new(Reopening::new(open, pin)))
    };
    let signal =
        |line: &Option<Line>, active: bool| line.as_ref().map(|line| pin(line, active)).transpose();
    let held = safe_action == GateAction::Reject;
    let reject = config.gate.as_ref().map(|gate| pin(&gate.output, held));
    let signals = [
        signal(&config.signals.busy, false)?,
        signal(&config.signals.ready, false)?,
        signal(&config.signals.fault, true)?,
    ];
    Ok(Outputs::new(reject.transpose()?, signals, safe_action))
}

#[cfg(not(feature = "gpio"))]
fn outputs(config: &Config, safe_action: GateAction) -> Result<Outputs> {
    let signals = &config.signals;
    if config.gate.is_some()
        || signals.busy.is_some()
        || signals.ready.is_some()
        || signals.fault.is_some()
    {
        bail!("[gate] and [signals]: this build has no GPIO; build with `--features camera`");
    }
    let none: Option<Box<dyn Pin>> = None;
    Ok(Outputs::new(none, [None, None, None], safe_action))
}

/// Threads that listen to the trigger and the encoder.
#[cfg(feature = "gpio")]
fn inputs(config: &Config, camera: &mut Camera) -> Result<()> {
    use edge_runtime::config::{EdgeKind, Line};
    use edge_runtime::io::gpio::{Edge, Edges, GpioError};
    use edge_runtime::pipeline::{Listener, Need};
    use edge_runtime::reporting::one_line;

    const ROUND: Duration = Duration::from_millis(200);
    let open = |line: &Line, edge: Edge, debounce: Duration| -> Result<Listener, GpioError> {
        let mut edges = Edges::open(&line.chip, line.line, edge, debounce, line.active_low, None)?;
        Ok(Box::new(move || {
            let event = edges.wait(ROUND).map_err(|error| one_line(&error))?;
            Ok(event.map(|event| pipeline::Edge {
                // The kernel stamps an edge when the line has been still for so long after it.
                timestamp: event.timestamp.saturating_sub(debounce),
                lost: event.lost,
            }))
        }))
    };
    if let Trigger::Gpio {
        chip,
        line,
        active_low,
        edge,
        debounce_us,
        ..
    } = &config.trigger
    {
        let edge = match edge {
            EdgeKind::Rising => Edge::Rising,
            EdgeKind::Falling => Edge::Falling,
        };
        let line = Line {
            chip: chip.clone(),
            line: *line,
            active_low: *active_low,
        };
        let debounce = Duration::from_micros(*debounce_us);
        let first = open(&line, edge, debounce)?;
        let mut reopen = move || open(&line, edge, debounce).map_err(|error| one_line(&error));
        let shared = Arc::clone(&camera.shared);
        let pulse = camera.pulse("trigger");
        camera.trigger = Some(spawn("trigger", move || {
            let mut on_edge = |edge: pipeline::Edge| {
                if edge.lost > 0 {
                    shared.lost_parts(u64::from(edge.lost), edge.timestamp);
                }
                if !shared.line.trigger(edge.timestamp) {
                    shared.lost_parts(1, edge.timestamp);
                }
            };
            pipeline::listen(
                &shared,
                Need::Trigger,
                first,
                &mut reopen,
                &mut on_edge,
                &shared.stop,
                &|| pulse.beat(),
            );
        })?);
    }
    if let Some(encoder) = config.gate.as_ref().and_then(|gate| gate.encoder.as_ref()) {
        let line = encoder.input.clone();
        let first = open(&line, Edge::Rising, Duration::ZERO)?;
        let mut reopen =
            move || open(&line, Edge::Rising, Duration::ZERO).map_err(|error| one_line(&error));
        let shared = Arc::clone(&camera.shared);
        // Until the last part is at the gate, which is after `stop` and `drained`.
        let ended = Arc::clone(&camera.link_stop);
        let pulse = camera.pulse("encoder");
        camera.links.push(spawn("encoder", move || {
            let mut on_edge = |edge: pipeline::Edge| {
                shared.line.count(1 + u64::from(edge.lost), edge.timestamp);
            };
            pipeline::listen(
                &shared,
                Need::Encoder,
                first,
                &mut reopen,
                &mut on_edge,
                &ended,
                &|| pulse.beat(),
            );
        })?);
    }
    Ok(())
}

#[cfg(not(feature = "gpio"))]
fn inputs(config: &Config, _camera: &mut Camera) -> Result<()> {
    if matches!(config.trigger, Trigger::Gpio { .. }) {
        bail!("trigger.kind = \"gpio\": this build has no GPIO; build with `--features camera`");
    }
    Ok(())
}

#[cfg(feature = "serial")]
fn serial(
    config: &Config,
    context: &Arc<LinkContext>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<()> {
    if let Some(line) = config.link.serial.clone() {
        let context = Arc::clone(context);
        threads.push(spawn("serial", move || {
            server::serve_serial(&context, &line);
        })?);
    }
    Ok(())
}

#[cfg(not(feature = "serial"))]
fn serial(
    config: &Config,
    _context: &Arc<LinkContext>,
    _threads: &mut Vec<JoinHandle<()>>,
) -> Result<()> {
    if config.link.serial.is_some() {
        bail!("[link.serial]: this build has no serial port; build with `--features camera`");
    }
    Ok(())
}

/// Writes where stations and metrics are found, for scripts that start the program with port 0. A disk that refuses it
/// does not end the program.
pub(crate) fn write_endpoints(camera: &Camera, state: &Path) {
    let text = serde_json::json!({
        "pid": std::process::id(),
        "started_unix_ms": unix_ms(),
        "tcp": camera.tcp,
        "http": camera.http,
    });
    if let Err(error) = write_atomic(&state.join("endpoints.json"), text.to_string().as_bytes()) {
        tracing::error!(error = reporting::one_line(&error), "endpoints");
    }
}
