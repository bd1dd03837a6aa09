//! Lines of a GPIO chip (Linux character device): outputs and inputs by embedded-hal's traits, and edges of an input.
//!
//! Levels are logical throughout: *high* in the traits means *active*, what the wiring means by "on", and the kernel
//! turns it into a voltage by the line's active-low flag. The ready-made embedded-hal adapters mean voltages, so that
//! `set_high` on an active-low line would switch it off; hence the small pin type here.

mod edges;

use std::path::{Path, PathBuf};

use embedded_hal::digital::{self, InputPin, OutputPin};
pub use gpiocdev::line::Bias;
use gpiocdev::line::Value;
use gpiocdev::request::{Builder, Request};
use gpiocdev::{Chip, chip};

pub use edges::{Edge, EdgeEvent, Edges};

/// What the kernel shows to others as the line's user.
const CONSUMER: &str = "edge-runtime";

/// What went wrong with a chip or a line.
#[derive(Debug, thiserror::Error)]
pub enum GpioError {
    /// The chip cannot be opened.
    #[error("GPIO chip {chip}")]
    Chip {
        /// Path or label as asked for.
        chip: String,
        /// Why not.
        source: gpiocdev::Error,
    },
    /// No chip has this label.
    #[error("expected a GPIO chip labelled `{label}`, found {found}")]
    NoSuchChip {
        /// Label asked for.
        label: String,
        /// The chips there are.
        found: String,
    },
    /// Several chips have this label.
    #[error("expected one GPIO chip labelled `{label}`, found {found}: name it by its path")]
    Ambiguous {
        /// Label asked for.
        label: String,
        /// The chips with it.
        found: String,
    },
    /// The chip is smaller.
    #[error("GPIO chip {chip}: expected a line below {lines}, found {line}")]
    NoSuchLine {
        /// The chip.
        chip: String,
        /// Line asked for.
        line: u32,
        /// Lines of the chip.
        lines: u32,
    },
    /// Somebody has the line.
    #[error("GPIO chip {chip}, line {line} is in use by `{consumer}`")]
    InUse {
        /// The chip.
        chip: String,
        /// The line.
        line: u32,
        /// Who, as it told the kernel.
        consumer: String,
    },
    /// The kernel refused.
    #[error("GPIO chip {chip}, line {line}: cannot {action}")]
    Line {
        /// The chip.
        chip: String,
        /// The line.
        line: u32,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: gpiocdev::Error,
    },
}

impl digital::Error for GpioError {
    fn kind(&self) -> digital::ErrorKind {
        digital::ErrorKind::Other
    }
}

/// A line that is ours until dropped. What level an output has after that is up to the chip's driver.
#[derive(Debug)]
struct Pin {
    request: Request,
    chip: String,
    line: u32,
}

/// Takes a line as output. It has its first level from the start, without a glitch.
pub fn output(
    chip: &Path,
    line: u32,
    active_low: bool,
    initial_active: bool,
) -> Result<impl OutputPin<Error = GpioError> + Send + use<>, GpioError> {
    request(chip, line, active_low, |builder| {
        builder.as_output(Value::from(initial_active));
    })
}

/// Takes a line as input whose level is read; `bias` is the pull resistor, `None` leaves it as it is.
pub fn input(
    chip: &Path,
    line: u32,
    active_low: bool,
    bias: Option<Bias>,
) -> Result<impl InputPin<Error = GpioError> + Send + use<>, GpioError> {
    request(chip, line, active_low, |builder| {
        builder.as_input().with_bias(bias);
    })
}

fn request(
    chip: &Path,
    line: u32,
    active_low: bool,
    configure: impl FnOnce(&mut Builder),
) -> Result<Pin, GpioError> {
    let name = chip.display().to_string();
    let opened = open_chip(chip)?;
    let mut builder = Request::builder();
    builder
        .on_chip(opened.path())
        .with_consumer(CONSUMER)
        .with_line(line);
    if active_low {
        builder.as_active_low();
    }
    configure(&mut builder);
    match builder.request() {
        Ok(request) => Ok(Pin {
            request,
            chip: name,
            line,
        }),
        Err(source) => Err(refusal(&opened, name, line, source)),
    }
}

/// The kernel says only "busy" or "invalid"; its line information says why.
fn refusal(opened: &Chip, chip: String, line: u32, source: gpiocdev::Error) -> GpioError {
    if let Ok(info) = opened.info()
        && line >= info.num_lines
    {
        let lines = info.num_lines;
        return GpioError::NoSuchLine { chip, line, lines };
    }
    match opened.line_info(line) {
        Ok(info) if info.used => GpioError::InUse {
            chip,
            line,
            consumer: info.consumer,
        },
        _ => GpioError::Line {
            chip,
            line,
            action: "take it",
            source,
        },
    }
}

fn open_chip(name: &Path) -> Result<Chip, GpioError> {
    let failed = |source| GpioError::Chip {
        chip: name.display().to_string(),
        source,
    };
    if name.components().count() > 1 {
        return Chip::from_path(name).map_err(failed);
    }
    let mut chips = Vec::new();
    for path in chip::chips().map_err(failed)? {
        let info = Chip::from_path(&path).and_then(|chip| chip.info());
        chips.push((
            path,
            info.map_or_else(|error| error.to_string(), |info| info.label),
        ));
    }
    Chip::from_path(choose(&name.to_string_lossy(), &chips)?).map_err(failed)
}

/// The one chip with this label or name, of all with theirs (or with why they could not be opened).
fn choose<'a>(label: &str, chips: &'a [(PathBuf, String)]) -> Result<&'a Path, GpioError> {
    let list = |chips: &[&(PathBuf, String)]| {
        let names = chips
            .iter()
            .map(|(path, label)| format!("{} ({label})", path.display()));
        names.collect::<Vec<_>>().join(", ")
    };
    let is_meant = |(path, found): &&(PathBuf, String)| found == label || path.ends_with(label);
    let matching: Vec<&(PathBuf, String)> = chips.iter().filter(is_meant).collect();
    let label = label.to_owned();
    match matching.as_slice() {
        [(path, _)] => Ok(path),
        [] if chips.is_empty() => Err(GpioError::NoSuchChip {
            label,
            found: "none at all".to_owned(),
        }),
        [] => Err(GpioError::NoSuchChip {
            label,
            found: list(&chips.iter().collect::<Vec<_>>()),
        }),
        several => Err(GpioError::Ambiguous {
            label,
            found: list(several),
        }),
    }
}

impl Pin {
    fn failed(&self, action: &'static str) -> impl Fn(gpiocdev::Error) -> GpioError {
        let (chip, line) = (self.chip.clone(), self.line);
        move |source| GpioError::Line {
            chip: chip.clone(),
            line,
            action,
            source,
        }
    }

    fn set(&self, value: Value) -> Result<(), GpioError> {
        let result = self.request.set_value(self.line, value);
        result.map_err(self.failed("set it"))
    }

    fn is_active(&self) -> Result<bool, GpioError> {
        let value = self.request.value(self.line);
        Ok(value.map_err(self.failed("read it"))? == Value::Active)
    }
}

impl digital::ErrorType for Pin {
    type Error = GpioError;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), GpioError> {
        self.set(Value::Inactive)
    }

    fn set_high(&mut self) -> Result<(), GpioError> {
        self.set(Value::Active)
    }
}

impl InputPin for Pin {
    fn is_high(&mut self) -> Result<bool, GpioError> {
        self.is_active()
    }

    fn is_low(&mut self) -> Result<bool, GpioError> {
        Ok(!self.is_active()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_finds_exactly_one_chip() {
        let chip = |path: &str, label: &str| (PathBuf::from(path), label.to_owned());
        let chips = [
            chip("/dev/gpiochip0", "pinctrl-bcm2711"),
            chip("/dev/gpiochip1", "twin"),
            chip("/dev/gpiochip2", "twin"),
        ];
        let message = |label, chips| choose(label, chips).unwrap_err().to_string();
        assert_eq!(
            choose("pinctrl-bcm2711", &chips).unwrap(),
            Path::new("/dev/gpiochip0")
        );
        assert_eq!(
            choose("gpiochip1", &chips).unwrap(),
            Path::new("/dev/gpiochip1")
        );
        assert_eq!(
            message("twin", &chips),
            "expected one GPIO chip labelled `twin`, found /dev/gpiochip1 (twin), /dev/gpiochip2 (twin): name it by its path"
        );
        assert_eq!(
            message("none", &chips[..1]),
            "expected a GPIO chip labelled `none`, found /dev/gpiochip0 (pinctrl-bcm2711)"
        );
        assert_eq!(
            message("none", &[]),
            "expected a GPIO chip labelled `none`, found none at all"
        );
    }

    #[test]
    fn a_chip_that_is_not_there_is_named() {
        let error = output(Path::new("/dev/no-such-chip"), 3, false, false).err();
        assert!(matches!(error, Some(GpioError::Chip { chip, .. }) if chip == "/dev/no-such-chip"));
    }
}
