//! How the consumers of a run are set: a seed decides that too, so that every form and bound is met.

use std::{num::NonZeroUsize, time::Duration};

use headless_abstractions::ParkLimits;
use headless_core::{Backoff, MembershipConfig};
use headless_messaging::{CircuitBreaker, Consumer, Inbox};

use super::{chance::Chance, handler::LEASE};

/// How the consumers of a run are set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regime {
    /// The form of each group's inbox.
    pub(super) forms: [Inbox; 2],
    /// Whether each group takes stock in batches.
    pub(super) batches: [bool; 2],
    concurrency: usize,
    prefetch: Option<NonZeroUsize>,
    limits: ParkLimits,
    breaker: CircuitBreaker,
    /// How nodes keep their membership, where they have one.
    pub(super) membership: Option<MembershipConfig>,
    /// How long messages are held in the store without renewal, and outbox rows too.
    pub(super) lease: Duration,
}

impl Regime {
    /// The settings of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let chance = Chance::new(seed, "regime");
        let count = |from, to| {
            usize::try_from(chance.between(from, to))
                .ok()
                .and_then(NonZeroUsize::new)
        };
        let second = if chance.happens(3_000) {
            Inbox::Around
        } else {
            Inbox::Transactional
        };
        let limits = match (count(1, 3), count(4, 8)) {
            (Some(per_key), Some(per_group)) if chance.happens(2_000) => ParkLimits::new(per_key, per_group),
            _ => ParkLimits::default(),
        };
        let open = Backoff::exponential(Duration::from_millis(200), Duration::from_millis(800));
        let breaker = if chance.happens(5_000) {
            CircuitBreaker::after(4).open_for(open)
        } else {
            CircuitBreaker::default()
        };
        let registers = chance.happens(7_500);
        let silence = chance.millis(1_000, 2_500);
        let membership = MembershipConfig::default()
            .with_heartbeat(Duration::from_millis(200))
            .with_silence(silence / 2, silence);
        // Where a death frees what was held, it need not be short: then nothing else does it in time.
        let is_long = chance.happens(5_000);
        Self {
            membership: registers.then_some(membership),
            lease: if registers && is_long { 20 * LEASE } else { LEASE },
            forms: [Inbox::Transactional, second],
            batches: [(); 2].map(|()| chance.happens(4_000)),
            concurrency: count(1, 6).map_or(4, NonZeroUsize::get),
            prefetch: count(1, 20).filter(|_| chance.happens(3_000)),
            limits,
            breaker,
        }
    }

    /// Whether the effects of each group are to happen once; otherwise at least once.
    pub(super) fn once(&self) -> [bool; 2] {
        self.forms.map(|form| form == Inbox::Transactional)
    }

    /// A consumer with these settings.
    pub(super) fn applied_to(&self, consumer: Consumer, group: usize) -> Consumer {
        let consumer = consumer
            .inbox(self.forms[group])
            .concurrency(self.concurrency)
            .park_limits(self.limits)
            .circuit_breaker(self.breaker);
        match self.prefetch {
            Some(prefetch) => consumer.prefetch(prefetch),
            None => consumer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_meet_every_form_and_bound_over_some_seeds() {
        let regimes: Vec<_> = (0..60).map(Regime::of).collect();
        let any = |what: fn(&Regime) -> bool| regimes.iter().any(what);
        assert!(any(|regime| regime.forms[1] == Inbox::Around));
        assert!(any(|regime| regime.forms[1] == Inbox::Transactional));
        assert!(any(|regime| regime.batches == [true, false]));
        assert!(any(|regime| regime.limits != ParkLimits::default()));
        assert!(any(|regime| regime.prefetch.is_some_and(|most| most.get() < 3)));
        assert!(any(|regime| regime.concurrency == 1));
        assert!(any(|regime| regime.membership.is_none()));
        assert!(any(|regime| regime.membership.is_some() && regime.lease == LEASE));
        assert!(any(|regime| regime.membership.is_some() && regime.lease > LEASE));
        for regime in &regimes {
            regime.membership.unwrap_or_default().check().unwrap();
        }
    }
}
