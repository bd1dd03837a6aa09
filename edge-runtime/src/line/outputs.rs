//! The reject output and the signals to a PLC.
//!
//! In: the states that the gate thread wants. Out: levels of `embedded-hal` pins. Levels are
//! logical: high is active, because each line is requested with its own polarity.

use embedded_hal::digital::OutputPin;
use proto::report::GateAction;

use crate::error_text::one_line;

/// An output pin whose errors are text.
pub trait Pin: Send {
    /// Makes the output active or inactive.
    fn set(&mut self, active: bool) -> Result<(), String>;
}

impl<P> Pin for P
where
    P: OutputPin + Send,
    P::Error: std::error::Error,
{
    fn set(&mut self, active: bool) -> Result<(), String> {
        self.set_state(active.into())
            .map_err(|error| one_line(&error))
    }
}

/// A pin that is reopened after a failure: a GPIO chip that was unplugged comes back as another
/// device.
pub struct ReopeningPin<F> {
    open: F,
    pin: Option<Box<dyn Pin>>,
}

impl<F> ReopeningPin<F>
where
    F: FnMut(bool) -> Result<Box<dyn Pin>, String> + Send,
{
    /// Wraps `pin`. `open` requests the same pin again with the given level.
    pub fn new(open: F, pin: Box<dyn Pin>) -> Self {
        let pin = Some(pin);
        Self { open, pin }
    }
}

impl<F> Pin for ReopeningPin<F>
where
    F: FnMut(bool) -> Result<Box<dyn Pin>, String> + Send,
{
    fn set(&mut self, active: bool) -> Result<(), String> {
        let Some(pin) = &mut self.pin else {
            self.pin = Some((self.open)(active)?);
            return Ok(());
        };
        let set = pin.set(active);
        if set.is_err() {
            // Released now, because a line that is still held cannot be requested again.
            self.pin = None;
        }
        set
    }
}

/// Wanted states of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputStates {
    /// A reject pulse runs.
    pub reject: bool,
    /// A part awaits its verdict.
    pub busy: bool,
    /// Parts can be inspected.
    pub ready: bool,
    /// Parts cannot be inspected, reports are not journalled, or an output fails.
    pub fault: bool,
    /// Whether the gate follows the parts; otherwise it is held in its safe state.
    pub follows_parts: bool,
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
            // Without a known level the next call tries again. An outage is reported once.
            Err(error) => {
                self.level = None;
                let first = !std::mem::replace(&mut self.failing, true);
                first.then(|| format!("{} output: {error}", self.name))
            }
        }
    }
}

/// All outputs. Dropping them, also in a panic, leaves the gate in its safe state, *ready* off and
/// *fault* on.
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
    /// Takes the pins that the configuration names and makes them safe. With a `safe_action` of
    /// [`GateAction::Reject`], the reject output is active whenever parts cannot be inspected.
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
        // Nobody hears of a failure here: the first `set` tries again and reports it.
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

    /// Sets the outputs that have changed. Returns the text of failures that are new.
    pub fn set(&mut self, states: OutputStates) -> Option<String> {
        let reject = states.reject || (!states.follows_parts && self.hold_active);
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

    /// Whether the reject output could not be set.
    pub fn is_gate_failing(&self) -> bool {
        self.reject.as_ref().is_some_and(|output| output.failing)
    }

    /// Whether any output could not be set.
    pub fn is_failing(&self) -> bool {
        let outputs = [&self.reject, &self.busy, &self.ready, &self.fault];
        outputs.into_iter().flatten().any(|output| output.failing)
    }

    /// Holds the gate in its safe state, with *ready* off and *fault* on.
    pub fn make_safe(&mut self) {
        self.set(OutputStates {
            reject: false,
            busy: false,
            ready: false,
            fault: true,
            follows_parts: false,
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

    const INSPECTING: OutputStates = OutputStates {
        reject: false,
        busy: false,
        ready: true,
        fault: false,
        follows_parts: true,
    };

    #[test]
    fn the_gate_is_safe_at_the_start_while_held_and_at_the_end() {
        for (action, safe) in [(GateAction::Reject, true), (GateAction::Pass, false)] {
            let wire = Arc::new(Mutex::new(Vec::new()));
            let pin = Box::new(Wire(Arc::clone(&wire), false));
            let mut outputs = Outputs::new(Some(pin), [None, None, None], action);
            outputs.set(INSPECTING);
            outputs.set(OutputStates {
                reject: true,
                ..INSPECTING
            });
            outputs.set(INSPECTING);
            outputs.set(OutputStates {
                follows_parts: false,
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
    fn a_pin_that_fails_is_reopened_with_the_wanted_level() {
        let wire = Arc::new(Mutex::new(Vec::new()));
        let reopened = Arc::clone(&wire);
        let mut chip_present = [false, true].into_iter();
        let open = move |active| match chip_present.next() {
            Some(true) => {
                reopened.lock().unwrap().push(active);
                Ok(Box::new(Wire(Arc::clone(&reopened), false)) as Box<dyn Pin>)
            }
            _ => Err("no chip".to_owned()),
        };
        let mut pin = ReopeningPin::new(open, Box::new(Wire(Arc::default(), true)));
        assert_eq!(pin.set(true), Err("cut".to_owned()));
        assert_eq!(pin.set(true), Err("no chip".to_owned()));
        assert_eq!(pin.set(true), Ok(()));
        assert_eq!(pin.set(false), Ok(()));
        assert_eq!(*wire.lock().unwrap(), [true, false]);
    }

    #[test]
    fn a_broken_output_is_reported_once() {
        let pin = Box::new(Wire(Arc::default(), true));
        let mut outputs = Outputs::new(Some(pin), [None, None, None], GateAction::Pass);
        let failures = outputs.set(INSPECTING).unwrap();
        assert!(failures.contains("reject output: cut"), "{failures}");
        assert_eq!(outputs.set(INSPECTING), None);
        assert!(outputs.is_failing() && outputs.is_gate_failing());
    }
}
