//! What a seed decides.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::Random;

/// A stream of a seed's decisions. Streams with different names are independent, so that a decision more in one
/// does not shift the others.
///
/// Source of the generator: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64), 2014.
#[derive(Debug)]
pub(crate) struct Chance(Mutex<u64>);

impl Chance {
    /// The stream of this name.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        let named = stream
            .bytes()
            .fold(mix(seed), |state, byte| mix(state ^ u64::from(byte)));
        Self(Mutex::new(named))
    }

    pub(crate) fn next(&self) -> u64 {
        // A counter: valid after any panic.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }

    /// A number of `0..bound`; 0 for a bound of 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number of `from..=to`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Whether an event of this many in ten thousand happens.
    pub(crate) fn happens(&self, in_ten_thousand: u64) -> bool {
        self.below(10_000) < in_ten_thousand
    }

    /// One of these, by its weight.
    pub(crate) fn weighted<T: Copy>(&self, choices: &[(u64, T)]) -> Option<T> {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(total);
        for (weight, choice) in choices {
            if at < *weight {
                return Some(*choice);
            }
            at -= weight;
        }
        None
    }

    pub(crate) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }
}

impl Random for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_repeat_a_stream_and_not_another() {
        let draw = |seed, stream| {
            let chance = Chance::new(seed, stream);
            [chance.next(), chance.next(), chance.next()]
        };
        assert_eq!(draw(1, "calls"), draw(1, "calls"));
        assert_ne!(draw(1, "calls"), draw(1, "nodes"));
        assert_ne!(draw(1, "calls"), draw(2, "calls"));
    }

    #[test]
    fn should_draw_by_weight() {
        let chance = Chance::new(7, "weights");
        let drawn: Vec<_> = (0..1_000)
            .filter_map(|_| chance.weighted(&[(9, 'a'), (1, 'b'), (0, 'c')]))
            .collect();
        let count = |what| drawn.iter().filter(|drawn| **drawn == what).count();
        assert_eq!((drawn.len(), count('c')), (1_000, 0));
        assert!((50..200).contains(&count('b')), "{}", count('b'));
    }
}
