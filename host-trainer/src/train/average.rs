//! Exponential moving average of the weights (after Polyak and Juditsky 1992), so that a package
//! does not depend on what the last few batches did to them. **Ours**: the paper takes the last
//! weights.

use tch::{TchError, Tensor};

/// The averages of parameters, kept beside them.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    parameters: Vec<AveragedParameter>,
}

/// A parameter and its average.
#[derive(Debug)]
struct AveragedParameter {
    name: String,
    parameter: Tensor,
    average: Tensor,
}

impl Average {
    /// Averages that begin with the parameters' current values. `decay`, in 0..1, is the weight
    /// that the old average keeps in a step.
    pub fn new(parameters: Vec<(String, Tensor)>, decay: f64) -> Result<Self, TchError> {
        let with_average = |(name, parameter): (String, Tensor)| {
            let mut average = parameter.f_zeros_like()?.set_requires_grad(false);
            tch::no_grad(|| average.f_copy_(&parameter))?;
            Ok(AveragedParameter {
                name,
                parameter,
                average,
            })
        };
        let parameters = parameters.into_iter().map(with_average);
        Ok(Self {
            decay,
            parameters: parameters.collect::<Result<_, TchError>>()?,
        })
    }

    /// Includes the parameters after step number `step`, from 1. The decay is smaller at first,
    /// because the first steps change the weights most.
    pub fn update(&mut self, step: usize) -> Result<(), TchError> {
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        tch::no_grad(|| {
            for entry in &mut self.parameters {
                let _ = entry.average.f_lerp_(&entry.parameter, 1.0 - decay)?;
            }
            Ok(())
        })
    }

    /// The averages, named `NAME.average`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.parameters
            .iter()
            .map(|entry| (average_name(&entry.name), entry.average.shallow_clone()))
            .collect()
    }
}

/// Name of a parameter's average in a checkpoint.
pub(super) fn average_name(name: &str) -> String {
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
        // The average lags behind a ramp by decay / (1 - decay) steps.
        assert!((found - 191.0).abs() < 0.01, "{found}");
    }
}
