//! The reject output and the signals to a PLC.
//!
//! In: the states that the gate thread wants. Out: levels of `embedded-hal` pins. Levels are
//! logical: high is active, because each line is requested with its own polarity.

use std::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};
use proto::report::GateAction;

use super::confirm::ConfirmWatch;
use super::square_wave::SquareWave;
use crate::error_text::one_line;

/// Interval at which every output is read back and set again.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Time after a change within which a level is not read back: the line may still settle.
const SETTLES_WITHIN: Duration = Duration::from_millis(5);

/// An output pin whose errors are text.
pub trait Pin: Send {
    /// Makes the output active or inactive.
    fn set(&mut self, active: bool) -> Result<(), String>;

    /// Reads the level back; `None` if the line does not allow it.
    fn read_back(&mut self) -> Option<bool> {
        None
    }

    /// Prepares to request the line anew when it is next set, because its chip has lost its state.
    fn reopen(&mut self) {}
}

impl<P> Pin for P
where
    P: OutputPin + InputPin + Send,
    P::Error: std::error::Error,
{
    fn set(&mut self, active: bool) -> Result<(), String> {
        self.set_state(active.into())
            .map_err(|error| one_line(&error))
    }

    fn read_back(&mut self) -> Option<bool> {
        // Some chips cannot read an output. One that fails altogether fails when it is set.
        self.is_high().ok()
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

    fn read_back(&mut self) -> Option<bool> {
        self.pin.as_mut()?.read_back()
    }

    fn reopen(&mut self) {
        self.pin = None;
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
    /// It did not read back as it was set, and has not since.
    differs: bool,
    /// When its level was last set.
    set_at: Duration,
    /// When it was last read back.
    checked_at: Duration,
}

impl Output {
    fn new(name: &'static str, pin: Box<dyn Pin>) -> Self {
        Self {
            name,
            pin,
            level: None,
            failing: false,
            differs: false,
            set_at: Duration::ZERO,
            checked_at: Duration::ZERO,
        }
    }

    fn is_failing(&self) -> bool {
        self.failing || self.differs
    }

    /// Reads the level back and sets it again if that is due: an expander forgets its outputs in a
    /// brown-out.
    fn refresh(&mut self, now: Duration) -> Option<String> {
        let level = self.level?;
        let due = self.differs || now.saturating_sub(self.checked_at) >= REFRESH_EVERY;
        if !due || now.saturating_sub(self.set_at) < SETTLES_WITHIN {
            return None;
        }
        self.checked_at = now;
        let differs = self.pin.read_back().is_some_and(|found| found != level);
        if differs {
            self.pin.reopen();
        }
        let name = |level| if level { "active" } else { "inactive" };
        let first = differs && !std::mem::replace(&mut self.differs, differs);
        self.differs = differs;
        let mismatch = first.then(|| {
            format!(
                "{} output: expected it to be {}, found it {}: a short circuit, or its chip lost \
                 power; it is set again",
                self.name,
                name(level),
                name(!level)
            )
        });
        self.level = None;
        let failed = self.set(level, now);
        mismatch.or(failed)
    }

    fn set(&mut self, active: bool, now: Duration) -> Option<String> {
        if self.level == Some(active) {
            return None;
        }
        match self.pin.set(active) {
            Ok(()) => {
                self.level = Some(active);
                self.set_at = now;
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
    heartbeat: Option<(Output, SquareWave)>,
    confirm: Option<ConfirmWatch>,
    hold_active: bool,
    /// The time of the last [`Outputs::refresh`].
    now: Duration,
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
        let output = |name, pin: Option<Box<dyn Pin>>| pin.map(|pin| Output::new(name, pin));
        let mut outputs = Self {
            reject: output("reject", reject),
            busy: output("busy", busy),
            ready: output("ready", ready),
            fault: output("fault", fault),
            heartbeat: None,
            confirm: None,
            hold_active: safe_action == GateAction::Reject,
            now: Duration::ZERO,
        };
        outputs.make_safe();
        // Nobody hears of a failure here: the first `set` tries again and reports it.
        for output in outputs.all() {
            output.failing = false;
        }
        outputs
    }

    /// Adds a heartbeat of this period: a square wave while parts are being inspected.
    #[must_use]
    pub fn with_heartbeat(mut self, pin: Box<dyn Pin>, period: Duration) -> Self {
        let output = Output::new("heartbeat", pin);
        self.heartbeat = Some((output, SquareWave::new(period)));
        self
    }

    /// Expects each reject pulse to be confirmed within this time ([`Self::is_unconfirmed`]).
    #[must_use]
    pub fn with_confirm(mut self, within: Duration) -> Self {
        self.confirm = Some(ConfirmWatch::new(within));
        self
    }

    /// Takes the edges of the input that confirms rejects, and tells whether a confirmation is
    /// missing. To be called after [`Self::set`].
    pub fn is_unconfirmed(&mut self, edges: &[Duration]) -> bool {
        let confirm = self.confirm.as_mut();
        confirm.is_some_and(|confirm| confirm.check(edges, self.now))
    }

    /// When the heartbeat changes next.
    pub fn next_change(&self) -> Option<Duration> {
        self.heartbeat.as_ref()?.1.next_change()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Output> {
        let outputs = [
            &mut self.reject,
            &mut self.busy,
            &mut self.ready,
            &mut self.fault,
        ];
        let heartbeat = self.heartbeat.as_mut().map(|(output, _)| output);
        outputs.into_iter().flatten().chain(heartbeat)
    }

    /// About once a second, reads every output back and sets it again. To be called before each
    /// [`Self::set`], with the time. Returns the text of failures that are new.
    pub fn refresh(&mut self, now: Duration) -> Option<String> {
        self.now = now;
        let failures: Vec<String> = self
            .all()
            .filter_map(|output| output.refresh(now))
            .collect();
        (!failures.is_empty()).then(|| failures.join("; "))
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
        let now = self.now;
        let mut failures: Vec<String> = wanted
            .into_iter()
            .filter_map(|(output, active)| output.as_mut()?.set(active, now))
            .collect();
        if let Some((output, wave)) = &mut self.heartbeat {
            failures.extend(output.set(wave.level(states.ready, now), now));
        }
        if let Some(confirm) = &mut self.confirm {
            let is_pulse = states.reject && (states.follows_parts || !self.hold_active);
            confirm.output(reject, is_pulse, now);
        }
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    /// Whether the reject output could not be set, or did not read back as set.
    pub fn is_gate_failing(&self) -> bool {
        self.reject.as_ref().is_some_and(Output::is_failing)
    }

    /// Whether any other output could not be set, or did not read back as set.
    pub fn is_signal_failing(&self) -> bool {
        let signals = [&self.busy, &self.ready, &self.fault].into_iter().flatten();
        let heartbeat = self.heartbeat.iter().map(|(output, _)| output);
        signals.chain(heartbeat).any(Output::is_failing)
    }

    /// Whether any output could not be set, or did not read back as set.
    pub fn is_failing(&self) -> bool {
        self.is_gate_failing() || self.is_signal_failing()
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
    /// A line of an expander: its level, and the level that the program asked for last.
    #[derive(Clone, Default)]
    struct Expander(Arc<Mutex<(bool, usize)>>);

    impl Pin for Expander {
        fn set(&mut self, active: bool) -> Result<(), String> {
            let mut state = self.0.lock().unwrap();
            *state = (active, state.1 + 1);
            Ok(())
        }

        fn read_back(&mut self) -> Option<bool> {
            Some(self.0.lock().unwrap().0)
        }
    }

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn an_output_that_reads_back_otherwise_is_a_fault_and_is_set_again() {
        let expander = Expander::default();
        let pin = Box::new(expander.clone());
        let mut outputs = Outputs::new(None, [None, Some(pin), None], GateAction::Reject);
        assert_eq!(outputs.refresh(ms(10_000)), None);
        outputs.set(INSPECTING);
        assert_eq!(outputs.refresh(ms(10_500)), None);
        let sets = expander.0.lock().unwrap().1;
        // A brown-out.
        expander.0.lock().unwrap().0 = false;
        let found = outputs.refresh(ms(11_000)).unwrap();
        assert!(
            found.contains("ready output: expected it to be active"),
            "{found}"
        );
        assert!(outputs.is_signal_failing() && !outputs.is_gate_failing());
        outputs.set(INSPECTING);
        assert_eq!(*expander.0.lock().unwrap(), (true, sets + 1));
        assert!(outputs.is_failing(), "until it was read back");
        assert_eq!(outputs.refresh(ms(11_100)), None);
        assert!(!outputs.is_failing());
        // A short circuit.
        for second in 13..20 {
            expander.0.lock().unwrap().0 = false;
            let found = outputs.refresh(ms(1_000 * second));
            assert_eq!(found.is_some(), second == 13, "reported once");
            assert!(outputs.is_failing());
        }
    }

    #[test]
    fn outputs_are_set_again_once_a_second_also_if_they_cannot_be_read() {
        let wire = Arc::new(Mutex::new(Vec::new()));
        let pin = Box::new(Wire(Arc::clone(&wire), false));
        let mut outputs = Outputs::new(Some(pin), [None, None, None], GateAction::Reject);
        for step in 0..50 {
            outputs.refresh(ms(10_000 + 100 * step));
            outputs.set(INSPECTING);
        }
        // At the start, the change, and once a second.
        assert_eq!(
            *wire.lock().unwrap(),
            [true, true, false, false, false, false, false]
        );
    }
    #[test]
    fn the_heartbeat_stops_with_inspection() {
        let wire = Arc::new(Mutex::new(Vec::new()));
        let pin = Box::new(Wire(Arc::clone(&wire), false));
        let outputs = Outputs::new(None, [None, None, None], GateAction::Reject);
        let mut outputs = outputs.with_heartbeat(pin, ms(200));
        let mut run = |ready, from: u64| {
            for step in 0..5 {
                outputs.refresh(ms(10_000 + from + 100 * step));
                outputs.set(OutputStates {
                    ready,
                    ..INSPECTING
                });
            }
            wire.lock().unwrap().split_off(0)
        };
        let mut levels = run(true, 0);
        levels.dedup();
        assert_eq!(levels, [true, false, true, false, true]);
        let mut levels = run(false, 500);
        levels.dedup();
        assert_eq!(levels, [false]);
        drop(outputs);
        assert!(!wire.lock().unwrap().contains(&true));
    }
}
