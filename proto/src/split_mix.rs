//! SplitMix64: numbers that look random, from a seed, the same everywhere.

/// A sequence of them (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): one addition and three
/// mixes for eight bytes. For load, test data and digests; nothing secret depends on it.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Passes over so many numbers.
    pub fn skip(&mut self, numbers: u64) {
        self.0 = self.0.wrapping_add(STEP.wrapping_mul(numbers));
    }

    /// The next number; there is always one.
    #[expect(clippy::should_implement_trait, reason = "an iterator's would be an option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_paper() {
        let mut random = SplitMix::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        let mut further = SplitMix::new(1_234_567);
        further.skip(1);
        assert_eq!(further.next(), 3_203_168_211_198_807_973);
    }
}
