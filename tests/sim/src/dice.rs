//! Randomness, all of it from the seed.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A stream of random numbers. Each part of the world has its own, so that a draw more in one does
/// not shift all the others.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Pcg64Mcg);

impl Dice {
    /// The stream of the part that `name` names, in the world of `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let salt = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        Self(Pcg64Mcg::seed_from_u64(seed ^ salt))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Evenly from `0..end`; 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// Evenly from `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True in `per_mille` of 1000 cases.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `choices`, evenly.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len() as u64) as usize)
    }

    /// Mostly near `typical`, now and then many times that, as delays of real machines are.
    pub(crate) fn delay(&mut self, typical: u64) -> u64 {
        let spread = self.between(typical / 2, typical + typical / 2);
        match self.below(1000) {
            0..950 => spread,
            950..995 => spread * self.between(2, 8),
            _ => spread * self.between(10, 60),
        }
    }

    /// Puts `items` in random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// The place of one of `weights`, drawn in their proportion.
    pub(crate) fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            if rest < *weight {
                return place;
            }
            rest -= weight;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_parts_differ() {
        let draw = |name| {
            let mut dice = Dice::new(7, name);
            [dice.bits(), dice.below(10), dice.between(3, 4)]
        };
        assert_eq!(draw("network"), draw("network"));
        assert_ne!(draw("network"), draw("clients"));
    }

    #[test]
    fn draws_stay_in_range() {
        let mut dice = Dice::new(1, "range");
        for _ in 0..1000 {
            assert!(dice.below(3) < 3);
            assert!((5..=7).contains(&dice.between(5, 7)));
            assert!(dice.weighted(&[0, 2, 0]) == 1);
        }
        assert_eq!(dice.below(0), 0);
    }
}
