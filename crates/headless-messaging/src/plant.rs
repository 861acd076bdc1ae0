//! Bugs planted on purpose, to show that the simulation finds them. Compiled only under the feature `planted-bugs`,
//! which no release build has; without it every question answers no.

/// A bug that a test build can plant.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plant {
    /// Deliveries are acknowledged before their handler runs.
    AckBeforeHandler,
    /// The processed mark is made after the unit of work has committed instead of within it.
    MarkAfterCommit,
    /// The relay goes on with a key after one of its messages failed.
    RelayStepsPastKey,
    /// A consumer forgets that a key is parked when it was parked by another member.
    ParkedKeyForgotten,
    /// A consumer goes on with what it holds when its node's life is over.
    LifeIgnored,
}

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    plant: Option<Plant>,
}

impl Planted {
    /// This bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn bug(plant: Plant) -> Self {
        Self { plant: Some(plant) }
    }

    /// Whether this bug is planted.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn is(self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }
}

/// Whether a bug is planted: `planted!(config.planted, RelayStepsPastKey)`. A constant `false` without the feature.
macro_rules! planted {
    ($planted:expr, $bug:ident) => {{
        #[cfg(feature = "planted-bugs")]
        {
            $planted.is($crate::Plant::$bug)
        }
        #[cfg(not(feature = "planted-bugs"))]
        {
            let _ = &$planted;
            false
        }
    }};
}
pub(crate) use planted;
