//! Decides which frames are stored.

use std::hash::{BuildHasher, Hasher, RandomState};

use scoring::inspect::verdict::Verdict;

/// Selects every NG frame and a random sample of OK frames. The sample is a hash of a random seed
/// and a count: taking every Nth frame could, by the rhythm of the line, always show the same mould
/// or lane.
#[derive(Debug)]
pub struct Sampler {
    ok_one_in: u32,
    seed: u64,
    /// OK frames seen so far.
    ok_frames: u64,
}

impl Sampler {
    /// Selects one in `ok_one_in` OK frames on average; 0 selects none.
    pub fn new(ok_one_in: u32) -> Self {
        // The standard library seeds its hasher from the system.
        Self::seeded(ok_one_in, RandomState::new().build_hasher().finish())
    }

    fn seeded(ok_one_in: u32, seed: u64) -> Self {
        Self {
            ok_one_in,
            seed,
            ok_frames: 0,
        }
    }

    /// Whether the next frame, which has this verdict, is to be stored.
    pub fn wants(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Ng => true,
            Verdict::Ok => {
                self.ok_frames = self.ok_frames.wrapping_add(1);
                let drawn = split_mix(self.seed.wrapping_add(self.ok_frames));
                self.ok_one_in > 0 && drawn.is_multiple_of(u64::from(self.ok_one_in))
            }
        }
    }
}

/// SplitMix64: every bit of the result depends on every bit of the input (Steele et al., OOPSLA
/// 2014).
fn split_mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ng_frame_and_about_one_in_n_ok_frames_is_selected() {
        let mut sampler = Sampler::seeded(10, 1);
        let wanted: Vec<bool> = (0..10_000).map(|_| sampler.wants(Verdict::Ok)).collect();
        let count = |offset: usize, step: usize| {
            let every = wanted.iter().skip(offset).step_by(step);
            every.filter(|&&wanted| wanted).count()
        };
        assert!((900..1_100).contains(&count(0, 1)));
        for lane in 0..10 {
            assert!((65..135).contains(&count(lane, 10)), "lane {lane}");
        }
        assert!((0..100).all(|_| sampler.wants(Verdict::Ng)));
        let mut sampler = Sampler::new(0);
        assert!(!(0..100).any(|_| sampler.wants(Verdict::Ok)));
    }
}
