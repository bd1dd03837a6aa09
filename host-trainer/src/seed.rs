//! Random generators by purpose: what is drawn for one purpose never shifts what is drawn for
//! another, and the numbers of any step can be drawn without those of the steps before it. This
//! makes resuming exact. The name of a purpose is part of the seed, so renaming one changes
//! results.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The generator of `purpose` at position `index` of the run with this seed.
pub fn generator(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(index.to_le_bytes())
        .chain_update(purpose)
        .finalize();
    ChaCha8Rng::from_seed(digest.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn purposes_and_positions_do_not_share_numbers() {
        let draw = |seed, purpose, index| generator(seed, purpose, index).random::<u64>();
        assert_eq!(draw(1, "a", 2), draw(1, "a", 2));
        let others = [draw(2, "a", 2), draw(1, "b", 2), draw(1, "a", 3)];
        assert!(others.iter().all(|&other| other != draw(1, "a", 2)));
    }
}
