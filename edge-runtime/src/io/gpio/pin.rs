//! A GPIO line that this program holds: requesting it from the kernel, and its level.

use std::path::{Path, PathBuf};

use embedded_hal::digital::{self, InputPin, OutputPin};
use gpiocdev::line::Value;
use gpiocdev::request::{Builder, Request};
use gpiocdev::{Chip, chip};

use super::error::GpioError;

/// Name under which the kernel shows this program as the user of a line.
const CONSUMER: &str = "edge-runtime";

/// A line that is held until it is dropped. The level of an output after that depends on the chip's
/// driver.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) request: Request,
    chip: String,
    line: u32,
}

/// Requests a line from the kernel.
pub(super) fn request(
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

/// The reason for a failed request. The kernel's error is only "busy" or "invalid", but its line
/// information says why.
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

/// The only chip with this label or name. `chips` holds each chip's path and its label, or the
/// error if it could not be opened.
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
    pub(super) fn failed(&self, action: &'static str) -> impl Fn(gpiocdev::Error) -> GpioError {
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
}
