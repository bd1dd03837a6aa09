//! The noise bank: which algorithms corrupt the tiles.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::algorithm::{Algorithm, Family};
use super::corruption::Corruption;
use super::tile::Tile;

/// The algorithms in use, of which one is chosen uniformly at random for each tile (**ours**: the
/// paper says only "random").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoiseBank {
    algorithms: Vec<Algorithm>,
}

impl NoiseBank {
    /// The paper's bank of all twelve algorithms.
    pub fn paper() -> Self {
        Self::of_families(&Family::PAPER)
    }

    /// A bank of the algorithms of `families` and [`Algorithm::None`], which every ablation keeps
    /// (**ours**), because the network must also see tiles that need no repair.
    pub fn of_families(families: &[Family]) -> Self {
        let chosen = |algorithm: &Algorithm| {
            algorithm
                .family()
                .is_none_or(|family| families.contains(&family))
        };
        Self {
            algorithms: Algorithm::all().filter(chosen).collect(),
        }
    }

    /// The algorithms in use.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Describes the families in use. Runs record this text, and `train --resume` compares it.
    pub fn describe(&self) -> String {
        let used = |family: &Family| self.algorithms.iter().any(|a| a.family() == Some(*family));
        let from_paper: Vec<Family> = Family::PAPER.into_iter().filter(used).collect();
        let mut names = if from_paper.len() == Family::PAPER.len() {
            vec!["all twelve algorithms"]
        } else {
            from_paper.into_iter().map(Family::name).collect()
        };
        names.extend(used(&Family::Structured).then(|| Family::Structured.name()));
        names.join(", ")
    }

    /// Corrupts `tile` with one algorithm chosen at random, and returns what was done.
    pub fn corrupt(&self, tile: &mut Tile, rng: &mut ChaCha8Rng) -> Corruption {
        let algorithm = self.algorithms[rng.random_range(0..self.algorithms.len())];
        let corruption = Corruption::draw(algorithm, tile, rng);
        corruption.apply(tile);
        corruption
    }
}
