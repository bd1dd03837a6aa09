//! Lines of a GPIO chip (Linux character device): outputs and inputs with embedded-hal's traits,
//! and edges of an input.
//!
//! Levels are logical throughout: *high* in the traits means *active*, and the kernel translates it
//! to a voltage by the line's active-low flag. The existing embedded-hal adapters use voltages, so
//! that `set_high` on an active-low line would switch it off; hence the small pin type here.

mod edges;
mod error;
mod pin;

use std::path::Path;

use embedded_hal::digital::{InputPin, OutputPin};
pub use gpiocdev::line::Bias;
use gpiocdev::line::Value;

pub use edges::{Edge, EdgeEvent, Edges};
pub use error::GpioError;
use pin::request;

/// Requests a line as an output. It has its initial level from the start, without a glitch. Where
/// the chip can, its level can be read back.
pub fn output(
    chip: &Path,
    line: u32,
    active_low: bool,
    initial_active: bool,
) -> Result<impl OutputPin<Error = GpioError> + InputPin + Send + use<>, GpioError> {
    request(chip, line, active_low, |builder| {
        builder.as_output(Value::from(initial_active));
    })
}

/// Requests a line as an input. `bias` sets the pull resistor; `None` leaves it unchanged.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_chip_is_named_in_the_error() {
        let error = output(Path::new("/dev/no-such-chip"), 3, false, false).err();
        assert!(matches!(error, Some(GpioError::Chip { chip, .. }) if chip == "/dev/no-such-chip"));
    }
}
