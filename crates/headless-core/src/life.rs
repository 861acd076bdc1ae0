//! Until when this process may act on what it has claimed, where a store watches over its nodes.

use std::time::Duration;

use tokio::sync::watch;

/// Until when this process may act on what it has claimed.
///
/// A store that watches over its nodes frees the claims of those that are silent for too long. So a claim is worth nothing
/// here from when that may have happened: later than the last accepted heartbeat allows, or when the claim was asked for
/// in a former life. All times are of the environment's monotonic clock. Without such a store it lasts for ever.
#[derive(Clone, Debug)]
pub struct Life(watch::Sender<Span>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    began: Duration,
    until: Duration,
}

impl Life {
    /// A life without an end.
    #[must_use]
    pub fn endless() -> Self {
        Self(watch::Sender::new(Span {
            began: Duration::ZERO,
            until: Duration::MAX,
        }))
    }

    /// Whether a claim that was asked for at `asked_at` may be acted upon at `now`.
    #[must_use]
    pub fn allows(&self, asked_at: Duration, now: Duration) -> bool {
        let span = *self.0.borrow();
        asked_at >= span.began && now < span.until
    }

    /// Whether it is over: nothing is to be claimed until another begins.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until()
    }

    /// When it ends, unless it is prolonged.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.0.borrow().until
    }

    /// Whoever waits for it to be prolonged, to end, or to begin anew.
    #[must_use]
    pub fn listen(&self) -> LifeListener {
        LifeListener(self.0.subscribe())
    }

    /// Begins anew: what was asked for before `began` is lost.
    pub(crate) fn begin(&self, began: Duration, until: Duration) {
        self.0.send_replace(Span { began, until });
    }

    /// Lasts until then, or longer.
    pub(crate) fn prolong(&self, until: Duration) {
        self.0.send_if_modified(|span| {
            let longer = until > span.until;
            span.until = span.until.max(until);
            longer
        });
    }

    /// Ends now: nothing that was claimed so far may be acted upon.
    pub(crate) fn end(&self) {
        self.0.send_modify(|span| span.until = Duration::ZERO);
    }
}

/// Waits for changes of a [`Life`].
#[derive(Debug)]
pub struct LifeListener(watch::Receiver<Span>);

impl LifeListener {
    /// Returns after the next change, or at once after one that nobody has waited for.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left to change it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn should_allow_what_was_asked_for_in_this_life_until_it_ends() {
        let life = Life::endless();
        assert!(life.allows(Duration::ZERO, secs(1_000_000)));
        life.begin(secs(10), secs(20));
        assert!(life.allows(secs(10), secs(19)));
        assert!(!life.allows(secs(9), secs(19)), "asked for in a former life");
        assert!(!life.allows(secs(10), secs(20)), "over");
        life.prolong(secs(30));
        life.prolong(secs(25));
        assert!(life.allows(secs(10), secs(29)) && life.is_over(secs(30)));
        life.end();
        assert!(life.is_over(Duration::ZERO));
        life.begin(secs(40), secs(50));
        assert!(!life.allows(secs(10), secs(41)) && life.allows(secs(40), secs(41)));
    }
}
