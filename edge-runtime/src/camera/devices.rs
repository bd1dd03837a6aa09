//! The source of frames and the output lines, from the configuration.

use std::time::Duration;

use anyhow::Result;
use edge_runtime::capture::v4l2::{Camera as Device, CameraOptions, ControlValue};
use edge_runtime::config::{Capture, Config, Control as Value, Line, NamedSpeed, Speed};
use edge_runtime::error_text::one_line;
use edge_runtime::io::gpio::{GpioError, output};
use edge_runtime::line::outputs::{Outputs, Pin, ReopeningPin};
use proto::report::GateAction;
use scoring::source::replay::{Pace, Replay};
use scoring::source::{FourCc, Source, SourceError};

/// Opens the configured source, each time it is called.
pub(crate) type Opener = Box<dyn FnMut() -> Result<Box<dyn Source>, SourceError> + Send>;

/// The function that opens the configured source.
pub(crate) fn opener(config: &Config) -> Result<Opener> {
    let timeout = config.frame_timeout();
    match config.capture.clone() {
        Capture::Replay {
            path,
            speed,
            repeat,
        } => {
            let pace = match speed {
                Speed::FramesPerSecond(rate) => Pace::Fixed(rate),
                Speed::Named(NamedSpeed::Maximum) => Pace::Maximum,
                Speed::Named(NamedSpeed::Recorded) => Pace::Recorded,
                // A folder of images has no time stamps.
                Speed::Default if path.is_dir() => Pace::Maximum,
                Speed::Default => Pace::Recorded,
            };
            Ok(Box::new(move || {
                Ok(Box::new(Replay::open(&path, pace, repeat)?) as Box<dyn Source>)
            }))
        }
        Capture::V4l2 {
            device,
            format,
            width_px,
            height_px,
            fps,
            timeout_ms: _,
            exposure_to_stamp_us,
            controls,
        } => {
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
                timeout,
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

/// Whether the source is a replay, of which no frame must be lost.
pub(super) fn is_replay(capture: &Capture) -> bool {
    matches!(capture, Capture::Replay { .. })
}

/// Opens the output lines.
pub(super) fn outputs(config: &Config, safe_action: GateAction) -> Result<Outputs> {
    let open = |line: &Line, active: bool| -> Result<Box<dyn Pin>, GpioError> {
        let pin = output(&line.chip, line.line, line.active_low, active)?;
        Ok(Box::new(pin))
    };
    let pin = |line: &Line, active: bool| -> Result<Box<dyn Pin>> {
        let pin = open(line, active)?;
        let line = line.clone();
        let open = move |active| open(&line, active).map_err(|error| one_line(&error));
        Ok(Box::new(ReopeningPin::new(open, pin)))
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
    let heartbeat = signal(&config.signals.heartbeat, false)?;
    let mut outputs = Outputs::new(reject.transpose()?, signals, safe_action);
    if let Some(pin) = heartbeat {
        let period = Duration::from_millis(config.signals.heartbeat_ms);
        outputs = outputs.with_heartbeat(pin, period);
    }
    if let Some(confirm) = config.gate.as_ref().and_then(|gate| gate.confirm.as_ref()) {
        outputs = outputs.with_confirm(Duration::from_millis(confirm.within_ms));
    }
    Ok(outputs)
}
