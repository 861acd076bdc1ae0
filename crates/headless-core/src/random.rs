//! Randomness: the system's, and one that a seed replays.

use std::sync::{Mutex, PoisonError};

use headless_abstractions::Random;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The randomness of a real process, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit struct has nothing to add")]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// Randomness that a seed replays.
#[derive(Debug)]
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // A generator is valid after any panic of another caller.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(bytes);
    }
}

/// A number from `0..bound`, evenly but for a bias below 2⁻³². `bound` 0 gives 0.
pub(crate) fn below(random: &dyn Random, bound: u64) -> u64 {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let wide = u128::from_le_bytes(bytes) % u128::from(bound.max(1));
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a u64")]
    {
        wide as u64
    }
}
