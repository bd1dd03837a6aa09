//! The threads that listen to the trigger and the encoder.
//!
//! In: edges of GPIO lines. Out: parts that begin, and moves of the conveyor.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use edge_runtime::clock::monotonic;
use edge_runtime::config::{Config, EdgeKind, Line, Trigger};
use edge_runtime::error_text::one_line;
use edge_runtime::io::gpio::{Edge, Edges, GpioError};
use edge_runtime::line::liveness::Watched;
use edge_runtime::line::readiness::Condition;
use edge_runtime::realtime::RealTime;
use edge_runtime::stage::input::{InputEdge, Listener, listen};
use edge_runtime::stage::supervise::supervise;

use super::running::Camera;
use super::threads::spawn;

/// Longest wait for an edge before the thread checks whether to end.
const INPUT_ROUND: Duration = Duration::from_millis(200);

/// Longest time between two signs of life of an input's thread, which may pause to open its line
/// again.
const INPUT_LIMIT: Duration = Duration::from_secs(1);

fn open(line: &Line, edge: Edge, debounce: Duration) -> Result<Listener, GpioError> {
    let mut edges = Edges::open(&line.chip, line.line, edge, debounce, line.active_low, None)?;
    Ok(Box::new(move || {
        let event = edges.wait(INPUT_ROUND).map_err(|error| one_line(&error))?;
        Ok(event.map(|event| InputEdge {
            // The kernel stamps an edge at the end of the debounce time after it.
            timestamp: event.timestamp.saturating_sub(debounce),
            lost_edges: event.lost,
        }))
    }))
}

/// Starts the threads of the inputs that are configured.
pub(super) fn listen_to_inputs(
    config: &Config,
    camera: &mut Camera,
    real_time: &Arc<RealTime>,
) -> Result<()> {
    listen_to_trigger(config, camera, real_time)?;
    listen_to_encoder(config, camera, real_time)?;
    listen_to_confirm(config, camera)
}

/// The input that confirms rejects. Until the last part is past the gate, like the encoder.
fn listen_to_confirm(config: &Config, camera: &mut Camera) -> Result<()> {
    if let Some(confirm) = config.gate.as_ref().and_then(|gate| gate.confirm.as_ref()) {
        let line = confirm.input.clone();
        let first = open(&line, Edge::Rising, Duration::ZERO)?;
        let mut reopen =
            move || open(&line, Edge::Rising, Duration::ZERO).map_err(|error| one_line(&error));
        let context = Arc::clone(&camera.context);
        let ended = Arc::clone(&camera.link_stop);
        let heartbeat = camera.watch(Watched::Confirm, INPUT_LIMIT);
        camera.links.push(spawn("confirm", move || {
            let mut line = Some(first);
            let beat = || heartbeat.beat(monotonic());
            let mut on_edge = |edge: InputEdge| context.line.confirm_reject(edge.timestamp);
            supervise(&context, "confirm", &beat, &mut || {
                listen(
                    &context,
                    Condition::ConfirmInput,
                    &mut line,
                    &mut reopen,
                    &mut on_edge,
                    &ended,
                    &beat,
                );
            });
        })?);
    }
    Ok(())
}

fn listen_to_trigger(
    config: &Config,
    camera: &mut Camera,
    real_time: &Arc<RealTime>,
) -> Result<()> {
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
        let context = Arc::clone(&camera.context);
        let heartbeat = camera.watch(Watched::Trigger, INPUT_LIMIT);
        let real_time = Arc::clone(real_time);
        camera.trigger = Some(spawn("trigger", move || {
            real_time.raise("trigger");
            let mut line = Some(first);
            let beat = || heartbeat.beat(monotonic());
            let mut on_edge = |edge: InputEdge| {
                if edge.lost_edges > 0 {
                    context.lose_track(u64::from(edge.lost_edges), edge.timestamp);
                }
                context.trigger(edge.timestamp);
            };
            supervise(&context, "trigger", &beat, &mut || {
                listen(
                    &context,
                    Condition::Trigger,
                    &mut line,
                    &mut reopen,
                    &mut on_edge,
                    &context.stop,
                    &beat,
                );
            });
        })?);
    }
    Ok(())
}

fn listen_to_encoder(
    config: &Config,
    camera: &mut Camera,
    real_time: &Arc<RealTime>,
) -> Result<()> {
    if let Some(encoder) = config.gate.as_ref().and_then(|gate| gate.encoder.as_ref()) {
        let line = encoder.input.clone();
        let first = open(&line, Edge::Rising, Duration::ZERO)?;
        let mut reopen =
            move || open(&line, Edge::Rising, Duration::ZERO).map_err(|error| one_line(&error));
        let context = Arc::clone(&camera.context);
        // The encoder counts until the last part is past the gate. `link_stop` is set after that;
        // `stop` and `drained` are set before.
        let ended = Arc::clone(&camera.link_stop);
        let heartbeat = camera.watch(Watched::Encoder, INPUT_LIMIT);
        let real_time = Arc::clone(real_time);
        camera.links.push(spawn("encoder", move || {
            real_time.raise("encoder");
            let mut line = Some(first);
            let beat = || heartbeat.beat(monotonic());
            let mut on_edge = |edge: InputEdge| {
                context
                    .line
                    .advance_conveyor(1 + u64::from(edge.lost_edges), edge.timestamp);
            };
            supervise(&context, "encoder", &beat, &mut || {
                listen(
                    &context,
                    Condition::Encoder,
                    &mut line,
                    &mut reopen,
                    &mut on_edge,
                    &ended,
                    &beat,
                );
            });
        })?);
    }
    Ok(())
}
