//! The reject output and the signals to a PLC, on `embedded-hal` pins. A pin's level is logical: high is active,
//! whatever the wiring (the line is asked for with its own polarity).

use embedded_hal::digital::OutputPin;
use proto::report::GateAction;

/// A pin that says in words what went wrong.
pub trait Pin: Send {
    /// Makes the line active or inactive.
    fn set(&mut self, active: bool) -> Result<(), String>;
}

impl<P: OutputPin + Send> Pin for P {
    fn set(&mut self, active: bool) -> Result<(), String> {
        self.set_state(active.into())
            .map_err(|error| format!("{error:?}"))
    }
}

/// What the outputs should show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States {
    /// A reject pulse runs.
    pub reject: bool,
    /// A part awaits its verdict.
    pub busy: bool,
    /// Parts can be inspected.
    pub ready: bool,
    /// They cannot, or reports cannot be kept.
    pub fault: bool,
    /// Whether the gate follows the parts; otherwise it is held in its safe state.
    pub can_inspect: bool,
}

/// One output and the level it was last set to.
struct Output {
    name: &'static str,
    pin: Box<dyn Pin>,
    level: Option<bool>,
    failing: bool,
}

impl Output {
    fn set(&mut self, active: bool) -> Option<String> {
        if self.level == Some(active) {
            return None;
        }
        match self.pin.set(active) {
            Ok(()) => {
                self.level = Some(active);
                self.failing = false;
                None
            }
            // Tried again in the next round; told once.
            Err(error) => {
                let first = !std::mem::replace(&mut self.failing, true);
                first.then(|| format!("{} output: {error}", self.name))
            }
        }
    }
}

/// All outputs. Dropping it, also in a panic, leaves the gate in its safe state and the signals at "not ready, fault".
#[derive(Default)]
pub struct Outputs {
    reject: Option<Output>,
    busy: Option<Output>,
    ready: Option<Output>,
    fault: Option<Output>,
    hold_active: bool,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outputs")
    }
}

impl Outputs {
    /// Takes the pins that there are. `safe_action` [`GateAction::Reject`] holds the reject output active whenever
    /// parts cannot be inspected.
    pub fn new(
        reject: Option<Box<dyn Pin>>,
        [busy, ready, fault]: [Option<Box<dyn Pin>>; 3],
        safe_action: GateAction,
    ) -> Self {
        let output = |name, pin: Option<Box<dyn Pin>>| {
            pin.map(|pin| Output {
                name,
                pin,
                level: None,
                failing: false,
            })
        };
        let mut outputs = Self {
            reject: output("reject", reject),
            busy: output("busy", busy),
            ready: output("ready", ready),
            fault: output("fault", fault),
            hold_active: safe_action == GateAction::Reject,
        };
        outputs.make_safe();
        // What failed now is tried again, and told, with the first state.
        for output in [
            &mut outputs.reject,
            &mut outputs.busy,
            &mut outputs.ready,
            &mut outputs.fault,
        ]
        .into_iter()
        .flatten()
        {
            output.failing = false;
        }
        outputs
    }

    /// Sets what has changed; what failed for the first time comes back in words.
    pub fn set(&mut self, states: States) -> Option<String> {
        let reject = states.reject || (!states.can_inspect && self.hold_active);
        let wanted = [
            (&mut self.reject, reject),
            (&mut self.busy, states.busy),
            (&mut self.ready, states.ready),
            (&mut self.fault, states.fault),
        ];
        let failures: Vec<String> = wanted
            .into_iter()
            .filter_map(|(output, active)| output.as_mut()?.set(active))
            .collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    fn make_safe(&mut self) {
        self.set(States {
            reject: false,
            busy: false,
            ready: false,
            fault: true,
            can_inspect: false,
        });
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.make_safe();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Wire(Arc<Mutex<Vec<bool>>>, bool);

    impl Pin for Wire {
        fn set(&mut self, active: bool) -> Result<(), String> {
            if self.1 {
                return Err("cut".to_owned());
            }
            self.0.lock().unwrap().push(active);
            Ok(())
        }
    }

    const INSPECTING: States = States {
        reject: false,
        busy: false,
        ready: true,
        fault: false,
        can_inspect: true,
    };

    #[test]
    fn the_gate_is_safe_at_start_while_blind_and_at_the_end() {
        for (action, safe) in [(GateAction::Reject, true), (GateAction::Pass, false)] {
            let wire = Arc::new(Mutex::new(Vec::new()));
            let pin = Box::new(Wire(Arc::clone(&wire), false));
            let mut outputs = Outputs::new(Some(pin), [None, None, None], action);
            outputs.set(INSPECTING);
            outputs.set(States {
                reject: true,
                ..INSPECTING
            });
            outputs.set(INSPECTING);
            outputs.set(States {
                can_inspect: false,
                ..INSPECTING
            });
            outputs.set(INSPECTING);
            drop(outputs);
            let levels = wire.lock().unwrap().clone();
            if safe {
                assert_eq!(levels, [true, false, true, false, true, false, true]);
            } else {
                assert_eq!(levels, [false, true, false]);
            }
        }
    }

    #[test]
    fn a_panic_leaves_the_gate_safe() {
        let wire = Arc::new(Mutex::new(Vec::new()));
        let pin = Box::new(Wire(Arc::clone(&wire), false));
        let mut outputs = Outputs::new(Some(pin), [None, None, None], GateAction::Reject);
        outputs.set(INSPECTING);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _outputs = outputs;
            panic!("on purpose");
        }))
        .unwrap_err();
        assert_eq!(wire.lock().unwrap().last(), Some(&true));
    }

    #[test]
    fn a_broken_line_is_told_once() {
        let pin = Box::new(Wire(Arc::default(), true));
        let mut outputs = Outputs::new(Some(pin), [None, None, None], GateAction::Pass);
        let told = outputs.set(INSPECTING).unwrap();
        assert!(told.contains("reject output: cut"), "{told}");
        assert_eq!(outputs.set(INSPECTING), None);
    }
}
