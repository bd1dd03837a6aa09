//! A running average of the weights (Polyak and Juditsky 1992, in its exponential form): what one batch did to them last is
//! not what a package should be made of. **Ours**; the paper takes the last weights.

use tch::{TchError, Tensor};

/// Averages of parameters, beside them.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    average: Tensor,
}

impl Average {
    /// From what the parameters are now. `decay`, in 0..1, is the share of the average that a step leaves.
    pub fn new(parameters: Vec<(String, Tensor)>, decay: f64) -> Result<Self, TchError> {
        let slot = |(name, parameter): (String, Tensor)| {
            let mut average = parameter.f_zeros_like()?.set_requires_grad(false);
            tch::no_grad(|| average.f_copy_(&parameter))?;
            Ok(Slot {
                name,
                parameter,
                average,
            })
        };
        let slots = parameters.into_iter().map(slot);
        Ok(Self {
            decay,
            slots: slots.collect::<Result<_, TchError>>()?,
        })
    }

    /// Takes in the parameters after step number `step`, from 1. Early ones are forgotten faster: the first steps change
    /// most.
    pub fn update(&mut self, step: usize) -> Result<(), TchError> {
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        tch::no_grad(|| {
            for slot in &mut self.slots {
                let _ = slot.average.f_lerp_(&slot.parameter, 1.0 - decay)?;
            }
            Ok(())
        })
    }

    /// The averages by name, `NAME.average`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let slots = self.slots.iter();
        slots
            .map(|slot| (averaged(&slot.name), slot.average.shallow_clone()))
            .collect()
    }
}

/// The name of a parameter's average.
pub(super) fn averaged(name: &str) -> String {
    format!("{name}.average")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_parameters_at_its_decay() {
        let mut parameter = Tensor::from_slice(&[0.0f32]);
        let named = vec![("p".to_owned(), parameter.shallow_clone())];
        let mut average = Average::new(named, 0.9).unwrap();
        let mut expected = 0.0f64;
        for step in 1..=200 {
            let _ = parameter.fill_(step as f64);
            average.update(step).unwrap();
            let decay = 0.9f64.min((1 + step) as f64 / (10 + step) as f64);
            expected = expected * decay + step as f64 * (1.0 - decay);
        }
        let found = average.state()[0].1.double_value(&[0]);
        assert!((found / expected - 1.0).abs() < 1e-4, "{found}");
        // A ramp is followed at a distance of decay / (1 - decay) steps.
        assert!((found - 191.0).abs() < 0.01, "{found}");
    }
}
