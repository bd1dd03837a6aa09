//! Settings of the line between trigger and gate, from the configuration.

use std::time::Duration;

use edge_runtime::config::{Config, Gate, OnFault, Trigger};
use edge_runtime::line::conveyor::Travel;
use edge_runtime::line::parts::{GateSettings, Parts, Settings};
use proto::report::GateAction;

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
