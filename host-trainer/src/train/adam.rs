//! Adam (Kingma and Ba 2015) with the paper's settings (IV-F) and PyTorch's arithmetic.
//!
//! Our own code, because tch's optimiser cannot save its moments, and a resumed run needs them to
//! end where an uninterrupted one does.

use tch::{TchError, Tensor};

/// Learning rate (IV-F).
pub const LEARNING_RATE: f64 = 2e-4;
/// Decay of the first moment (IV-F).
pub const BETA1: f64 = 0.5;
/// Decay of the second moment (IV-F).
pub const BETA2: f64 = 0.999;
/// Added to the denominator. PyTorch's default, because the paper does not say.
const EPSILON: f64 = 1e-8;

/// The optimiser with the parameters that it updates.
#[derive(Debug)]
pub struct Adam {
    parameters: Vec<ParameterMoments>,
    steps: i64,
}

/// A parameter and its moments.
#[derive(Debug)]
struct ParameterMoments {
    name: String,
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Adam {
    /// An optimiser of named parameters, with moments of zero.
    pub fn new(parameters: Vec<(String, Tensor)>) -> Result<Self, TchError> {
        let with_moments = |(name, parameter): (String, Tensor)| {
            Ok(ParameterMoments {
                name,
                first: parameter.f_zeros_like()?.set_requires_grad(false),
                second: parameter.f_zeros_like()?.set_requires_grad(false),
                parameter,
            })
        };
        let parameters = parameters
            .into_iter()
            .map(with_moments)
            .collect::<Result<_, TchError>>()?;
        Ok(Self {
            parameters,
            steps: 0,
        })
    }

    /// Takes one step at `fraction` of [`LEARNING_RATE`] and clears the gradients.
    pub fn step(&mut self, fraction: f64) -> Result<(), TchError> {
        self.steps += 1;
        let correction1 = 1.0 - BETA1.powf(self.steps as f64);
        let correction2 = 1.0 - BETA2.powf(self.steps as f64);
        tch::no_grad(|| {
            for entry in &mut self.parameters {
                let mut gradient = entry.parameter.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let _ = entry.first.f_lerp_(&gradient, 1.0 - BETA1)?;
                let squared = gradient.f_square()?.f_mul_scalar(1.0 - BETA2)?;
                let _ = entry.second.f_mul_scalar_(BETA2)?.f_add_(&squared)?;
                let denominator = entry
                    .second
                    .f_sqrt()?
                    .f_div_scalar_(correction2.sqrt())?
                    .f_add_scalar_(EPSILON)?;
                let step = entry
                    .first
                    .f_div(&denominator)?
                    .f_mul_scalar_(fraction * LEARNING_RATE / correction1)?;
                let _ = entry.parameter.f_sub_(&step)?;
                let _ = gradient.f_zero_()?;
            }
            Ok(())
        })
    }

    /// Number of steps taken.
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// The parameters and their moments, named `NAME`, `NAME.first` and `NAME.second`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.parameters
            .iter()
            .flat_map(|entry| {
                let ParameterMoments {
                    name,
                    parameter,
                    first,
                    second,
                } = entry;
                [
                    (name.clone(), parameter.shallow_clone()),
                    (format!("{name}.first"), first.shallow_clone()),
                    (format!("{name}.second"), second.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Restores a state that [`Self::state`] returned; `find` returns the values of the tensor with
    /// a given name and size.
    pub fn restore<E: From<TchError>>(
        &mut self,
        steps: i64,
        mut find: impl FnMut(&str, &[i64]) -> Result<Tensor, E>,
    ) -> Result<(), E> {
        let targets = self.state();
        tch::no_grad(|| {
            for (name, mut tensor) in targets {
                let values = find(&name, &tensor.size())?;
                tensor.f_copy_(&values)?;
            }
            Ok::<(), E>(())
        })?;
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with `torch.optim.Adam([p], lr=2e-4, betas=(0.5, 0.999))` of PyTorch 2.13, from
    /// p = 0. The gradients change size and sign so that every setting has an effect. See
    /// tests/fixtures/train/make.py.
    #[test]
    fn takes_pytorchs_steps() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/train/adam.json")).unwrap();
        let values = |value: &serde_json::Value| -> Vec<f64> {
            serde_json::from_value(value.clone()).unwrap()
        };
        let parameter = Tensor::from_slice(&[0.0f32; 3]).set_requires_grad(true);
        let mut adam = Adam::new(vec![("p".into(), parameter.shallow_clone())]).unwrap();
        for step in golden["steps"].as_array().unwrap() {
            let gradient: Vec<f32> = values(&step["gradient"])
                .into_iter()
                .map(|v| v as f32)
                .collect();
            (&parameter * Tensor::from_slice(&gradient))
                .sum(tch::Kind::Float)
                .backward();
            adam.step(1.0).unwrap();
            let found = Vec::<f32>::try_from(&parameter).unwrap();
            for (found, expected) in found.iter().zip(values(&step["parameter"])) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-9,
                    "{found}, expected {expected}"
                );
            }
        }
    }
}
