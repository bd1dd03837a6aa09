//! The threads that listen to the trigger, the encoder and the input that confirms rejects.
//!
//! In: edges of GPIO lines. Out: parts that begin, moves of the conveyor, confirmed rejects.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use edge_runtime::clock::monotonic;
use edge_runtime::config::{Config, EdgeKind, Line, Trigger};
use edge_runtime::error_text::one_line;
use edge_runtime::io::gpio::{Edge, Edges, GpioError};
use edge_runtime::line::liveness::Watched;
use edge_runtime::line::readiness::Condition;
use edge_runtime::realtime::RealTime;
use edge_runtime::stage::context::StageContext;
use edge_runtime::stage::input::{InputEdge, Listener, listen};
use edge_runtime::stage::supervise::supervise;

use super::running::Camera;
use super::threads::spawn;

/// Longest wait for an edge before the thread checks whether to end.
const INPUT_ROUND: Duration = Duration::from_millis(200);

/// Longest time between two signs of life of an input's thread, which may pause to open its line
/// again.
const INPUT_LIMIT: Duration = Duration::from_secs(1);

/// An input line, and what depends on it.
struct Input {
    name: &'static str,
    line: Line,
    edge: Edge,
    debounce: Duration,
    watched: Watched,
    need: Condition,
}

fn open(input: &Input) -> Result<Listener, GpioError> {
    let (line, debounce) = (&input.line, input.debounce);
    let mut edges = Edges::open(
        &line.chip,
        line.line,
        input.edge,
        debounce,
        line.active_low,
        None,
    )?;
    Ok(Box::new(move || {
        let event = edges.wait(INPUT_ROUND).map_err(|error| one_line(&error))?;
        Ok(event.map(|event| InputEdge {
            // The kernel stamps an edge at the end of the debounce time after it.
            timestamp: event.timestamp.saturating_sub(debounce),
            lost_edges: event.lost,
        }))
    }))
}

/// How long an input is listened to.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// No more parts begin.
    Stop,
    /// The last part is past the gate: until then the encoder counts and rejects are confirmed.
    LastPart,
}

/// Starts the thread of an input. A line that cannot be opened now is an
/// error; later it is opened again.
fn start(
    input: Input,
    camera: &Camera,
    real_time: Option<&Arc<RealTime>>,
    until: Until,
    on_edge: fn(&StageContext, InputEdge),
) -> Result<JoinHandle<()>> {
    let first = open(&input)?;
    let context = Arc::clone(&camera.context);
    let link_stop = Arc::clone(&camera.link_stop);
    let heartbeat = camera.watch(input.watched, INPUT_LIMIT);
    let real_time = real_time.cloned();
    spawn(input.name, move || {
        if let Some(real_time) = real_time {
            real_time.raise(input.name);
        }
        let mut line = Some(first);
        let mut reopen = || open(&input).map_err(|error| one_line(&error));
        let beat = || heartbeat.beat(monotonic());
        let ended = match until {
            Until::Stop => &context.stop,
            Until::LastPart => &*link_stop,
        };
        supervise(&context, input.name, &beat, &mut || {
            listen(
                &context,
                input.need,
                &mut line,
                &mut reopen,
                &mut |edge| on_edge(&context, edge),
                ended,
                &beat,
            );
        });
    })
}

/// Starts the threads of the inputs that are configured.
pub(super) fn listen_to_inputs(
    config: &Config,
    camera: &mut Camera,
    real_time: &Arc<RealTime>,
) -> Result<()> {
    if let Some(input) = trigger(config) {
        let thread = start(
            input,
            camera,
            Some(real_time),
            Until::Stop,
            |context, edge| {
                if edge.lost_edges > 0 {
                    context.lose_track(u64::from(edge.lost_edges), edge.timestamp);
                }
                context.trigger(edge.timestamp);
            },
        )?;
        camera.trigger = Some(thread);
    }
    let rising = |name, line: &Line, watched, need| Input {
        name,
        line: line.clone(),
        edge: Edge::Rising,
        debounce: Duration::ZERO,
        watched,
        need,
    };
    let gate = config.gate.as_ref();
    if let Some(encoder) = gate.and_then(|gate| gate.encoder.as_ref()) {
        let input = rising(
            "encoder",
            &encoder.input,
            Watched::Encoder,
            Condition::Encoder,
        );
        let thread = start(
            input,
            camera,
            Some(real_time),
            Until::LastPart,
            |context, edge| {
                let counts = 1 + u64::from(edge.lost_edges);
                context.line.advance_conveyor(counts, edge.timestamp);
            },
        )?;
        camera.links.push(thread);
    }
    if let Some(confirm) = gate.and_then(|gate| gate.confirm.as_ref()) {
        let need = Condition::ConfirmInput;
        let input = rising("confirm", &confirm.input, Watched::Confirm, need);
        let thread = start(input, camera, None, Until::LastPart, |context, edge| {
            context.line.confirm_reject(edge.timestamp);
        })?;
        camera.links.push(thread);
    }
    Ok(())
}

/// The configured trigger.
fn trigger(config: &Config) -> Option<Input> {
    let Trigger::Gpio {
        chip,
        line,
        active_low,
        edge,
        debounce_us,
        ..
    } = &config.trigger
    else {
        return None;
    };
    Some(Input {
        name: "trigger",
        line: Line {
            chip: chip.clone(),
            line: *line,
            active_low: *active_low,
        },
        edge: match edge {
            EdgeKind::Rising => Edge::Rising,
            EdgeKind::Falling => Edge::Falling,
        },
        debounce: Duration::from_micros(*debounce_us),
        watched: Watched::Trigger,
        need: Condition::Trigger,
    })
}
