//! How the values between two layers are quantised.

/// Steps from the lowest to the highest of the 256 levels.
const LEVELS: f32 = 255.0;

/// Quantisation of the values between two layers: value = scale · (level - zero point), with levels
/// from -128 to 127.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantisation {
    /// Difference between the values of two adjacent levels.
    pub scale: f32,
    /// The level of value 0.
    pub zero_point: i8,
}

impl Quantisation {
    /// The finest quantisation that covers a range of values, extended to include 0.
    pub fn covering(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / LEVELS).max(f32::MIN_POSITIVE);
        Self {
            scale,
            zero_point: (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_its_range_and_zero_is_a_level() {
        for (low, high) in [(-0.1, 7.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)] {
            let Quantisation { scale, zero_point } = Quantisation::covering(low, high);
            for value in [low, high, 0.0] {
                let level = (value / scale).round() + f32::from(zero_point);
                assert!(
                    (-128.5..=127.5).contains(&level),
                    "{value} is level {level}"
                );
            }
        }
    }
}
