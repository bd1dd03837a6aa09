//! Settings of the line between trigger and gate, from the configuration.

use std::time::Duration;

use edge_runtime::config::{Config, Gate, OnFault, Trigger};
use edge_runtime::line::conveyor::Travel;
use edge_runtime::line::parts::{GateSettings, Parts, Settings};
use proto::report::GateAction;

use super::devices::is_replay;

/// Longest time from the end of an edge's debounce to its report.
const EDGE_REPORTED_WITHIN: Duration = Duration::from_millis(10);

/// How long a frame without a part waits for an edge, beyond the debounce: longer than a report
/// takes on a loaded processor.
const EARLY_FRAME_WITHIN: Duration = Duration::from_millis(50);

pub(super) fn safe_action(gate: Option<&Gate>) -> GateAction {
    match gate.map(|gate| gate.on_fault) {
        None => GateAction::None,
        Some(OnFault::Reject) => GateAction::Reject,
        Some(OnFault::Pass) => GateAction::Pass,
    }
}

pub(super) fn parts(config: &Config) -> Parts {
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
    let (frame_within, debounce, camera_is_triggered) = match &config.trigger {
        Trigger::Free {} => (Duration::ZERO, Duration::ZERO, false),
        Trigger::Gpio {
            frame_within_ms,
            debounce_us,
            drives_camera,
            ..
        } => (
            Duration::from_millis(*frame_within_ms),
            Duration::from_micros(*debounce_us),
            *drives_camera,
        ),
    };
    // Frames of a replay have no times of their own to compare.
    let edges_reported_within = if is_replay(&config.capture) {
        Duration::ZERO
    } else {
        debounce + EDGE_REPORTED_WITHIN
    };
    Parts::new(Settings {
        deadline: config.deadline(),
        frame_within,
        edges_reported_within,
        early_frame_within: debounce + EARLY_FRAME_WITHIN,
        camera_is_triggered,
        gate,
        safe_action: safe_action(config.gate.as_ref()),
    })
}
