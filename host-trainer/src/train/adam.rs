//! Adam (Kingma and Ba 2015) with the paper's settings (IV-F) and PyTorch's arithmetic.
//!
//! Own code, because tch's optimiser cannot save its moments, and without them a resumed run would not end where an
//! uninterrupted one does.

use tch::{TchError, Tensor};

/// Learning rate (IV-F).
pub const LEARNING_RATE: f64 = 2e-4;
/// Decay of the first moment (IV-F).
pub const BETA1: f64 = 0.5;
/// Decay of the second moment (IV-F).
pub const BETA2: f64 = 0.999;
/// Added to the denominator: PyTorch's default, the paper gives none.
const EPSILON: f64 = 1e-8;

/// The optimiser: parameters with their moments.
#[derive(Debug)]
pub struct Adam {
    slots: Vec<Slot>,
    steps: i64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Adam {
    /// Moments at zero.
    pub fn new(parameters: Vec<(String, Tensor)>) -> Result<Self, TchError> {
        let slot = |(name, parameter): (String, Tensor)| {
            Ok(Slot {
                name,
                first: parameter.f_zeros_like()?.set_requires_grad(false),
                second: parameter.f_zeros_like()?.set_requires_grad(false),
                parameter,
            })
        };
        let slots = parameters
            .into_iter()
            .map(slot)
            .collect::<Result<_, TchError>>()?;
        Ok(Self { slots, steps: 0 })
    }

    /// One step along the gradients, which are cleared, at a fraction of the paper's rate.
    pub fn step(&mut self, fraction: f64) -> Result<(), TchError> {
        self.steps += 1;
        let correction1 = 1.0 - BETA1.powf(self.steps as f64);
        let correction2 = 1.0 - BETA2.powf(self.steps as f64);
        tch::no_grad(|| {
            for slot in &mut self.slots {
                let mut gradient = slot.parameter.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let _ = slot.first.f_lerp_(&gradient, 1.0 - BETA1)?;
                let squared = gradient.f_square()?.f_mul_scalar(1.0 - BETA2)?;
                let _ = slot.second.f_mul_scalar_(BETA2)?.f_add_(&squared)?;
                let denominator = slot
                    .second
                    .f_sqrt()?
                    .f_div_scalar_(correction2.sqrt())?
                    .f_add_scalar_(EPSILON)?;
                let step = slot
                    .first
                    .f_div(&denominator)?
                    .f_mul_scalar_(fraction * LEARNING_RATE / correction1)?;
                let _ = slot.parameter.f_sub_(&step)?;
                let _ = gradient.f_zero_()?;
            }
            Ok(())
        })
    }

    /// Steps done.
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// Parameters and moments by name: `NAME`, `NAME.first`, `NAME.second`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots
            .iter()
            .flat_map(|slot| {
                [
                    (slot.name.clone(), slot.parameter.shallow_clone()),
                    (format!("{}.first", slot.name), slot.first.shallow_clone()),
                    (format!("{}.second", slot.name), slot.second.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Puts a state back that [`Self::state`] gave; `find` returns the values of a tensor of the given size.
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

    /// Golden values: `torch.optim.Adam([p], lr=2e-4, betas=(0.5, 0.999))` of PyTorch 2.13 from p = 0, on gradients
    /// that change size and sign, so that each of the settings shows; see tests/fixtures/train/make.py.
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
                    "{found} for {expected}"
                );
            }
        }
    }
}
