//! The activation that follows the network's output (paper, IV-D; alternatives VI-E).

use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use super::architecture::LEAK;

/// Activation applied to the repaired image I_n + A (IV-D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputActivation {
    /// The paper's: x on [-1, 1], 0.01x - 0.99 below, 0.01x + 0.99 above.
    #[value(name = "refrelu")]
    RefRelu,
    /// Hyperbolic tangent, for the ablation.
    Tanh,
    /// No activation, for the ablation.
    None,
}

impl OutputActivation {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefRelu => "refrelu",
            Self::Tanh => "tanh",
            Self::None => "none",
        }
    }

    /// Applies it to every element.
    pub fn apply(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::RefRelu => {
                let inside = x.f_clamp(-1.0, 1.0)?;
                inside.f_add(&x.f_sub(&inside)?.f_mul_scalar(LEAK)?)
            }
            Self::Tanh => x.f_tanh(),
            Self::None => Ok(x.shallow_clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refrelu_follows_the_papers_formula() {
        let x = Tensor::from_slice(&[-3.0f32, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5]);
        let y = OutputActivation::RefRelu.apply(&x).unwrap();
        let expected = [
            0.01 * -3.0 - 0.99,
            -1.0,
            -0.4,
            0.0,
            0.7,
            1.0,
            0.01 * 2.5 + 0.99,
        ];
        for (found, expected) in Vec::<f32>::try_from(y).unwrap().into_iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-6,
                "{found}, expected {expected}"
            );
        }
    }
}
