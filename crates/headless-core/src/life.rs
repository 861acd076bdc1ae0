//! Until when this process may act on what it has claimed, where a store watches over its nodes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{Listener, Signal};

/// Until when this process may act on what it has claimed.
///
/// A store that watches over its nodes frees the claims of those that are silent for too long. So a claim is worth nothing
/// here from when that may have happened: later than the last accepted heartbeat allows, or when the claim was asked for
/// in a former life. All times are of the environment's monotonic clock. Without such a store it lasts for ever.
///
/// Clones are handles on one life.
#[derive(Clone, Debug)]
pub struct Life(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    span: Mutex<Span>,
    /// Its listeners are woken in the order of their waits, so that a simulation can replay it.
    changed: Signal,
    /// How many questions are under way whose answers may bring a hold.
    asking: Mutex<usize>,
    /// Woken when none of them is any more.
    answered: Signal,
}

/// A question that is under way, by which this process may come to hold something, until this is dropped: when the answer
/// is known, and what it brought too late is given back.
#[derive(Debug)]
#[must_use = "it is under way until this is dropped"]
pub struct Asking(Arc<Shared>);

impl Shared {
    fn asking(&self) -> std::sync::MutexGuard<'_, usize> {
        // A plain number: valid after any panic.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let left = {
            let mut asking = self.0.asking();
            *asking = asking.saturating_sub(1);
            *asking
        };
        if left == 0 {
            self.0.answered.wake();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Which life of this process it is.
    number: u64,
    until: Duration,
}

/// When something was asked of the store, and in which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    at: Duration,
    life: u64,
}

impl Asked {
    /// When, by the monotonic clock.
    #[must_use]
    pub const fn at(self) -> Duration {
        self.at
    }
}

impl Life {
    /// A life without an end.
    #[must_use]
    pub fn endless() -> Self {
        Self(Arc::new(Shared {
            span: Mutex::new(Span {
                number: 0,
                until: Duration::MAX,
            }),
            changed: Signal::default(),
            asking: Mutex::default(),
            answered: Signal::default(),
        }))
    }

    /// A question is about to be asked that may bring a hold, and a round with it: make this before the look at whether
    /// the life is over, and keep it until what came too late is given back. Whoever begins another life waits for it, as
    /// that frees what is held, and counts its rounds.
    pub fn asking(&self) -> Asking {
        *self.0.asking() += 1;
        Asking(self.0.clone())
    }

    /// Returns when no question is under way: at once, as a rule.
    pub(crate) async fn answered(&self) {
        let mut answered = self.0.answered.listen();
        while *self.0.asking() > 0 {
            answered.woken().await;
        }
    }

    /// Something is asked for now; call it before it is sent.
    #[must_use]
    pub fn ask(&self, now: Duration) -> Asked {
        Asked {
            at: now,
            life: self.span().number,
        }
    }

    /// Whether a claim that was asked for then may be acted upon at `now`.
    #[must_use]
    pub fn allows(&self, asked: Asked, now: Duration) -> bool {
        now < self.until_of(asked)
    }

    /// Until when a claim that was asked for then may be acted upon, unless the life is prolonged: zero when it was asked
    /// for in a former one.
    #[must_use]
    pub fn until_of(&self, asked: Asked) -> Duration {
        let span = self.span();
        if asked.life == span.number {
            span.until
        } else {
            Duration::ZERO
        }
    }

    /// Whether it is over: nothing is to be claimed until another begins.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until()
    }

    /// When it ends, unless it is prolonged.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.span().until
    }

    /// Is woken when it is prolonged, ends, or begins anew.
    #[must_use]
    pub fn listen(&self) -> Listener {
        self.0.changed.listen()
    }

    /// Begins anew: what was asked for until now is lost. Whoever begins it knows that the store has ended the former
    /// one: a claim that was asked for meanwhile may have been freed with it.
    pub(crate) fn begin(&self, until: Duration) {
        self.change(|span| {
            *span = Span {
                number: span.number + 1,
                until,
            };
        });
    }

    /// Lasts until then, or longer, unless it is over `now`: what was held in it has been dropped, and stays so. Says
    /// whether it goes on.
    pub(crate) fn prolong(&self, until: Duration, now: Duration) -> bool {
        self.change(|span| {
            let goes_on = now < span.until;
            if goes_on {
                span.until = span.until.max(until);
            }
            goes_on
        })
    }

    /// Ends now: nothing that was claimed so far may be acted upon. Says whether this is news: that nobody has ended it
    /// before.
    pub(crate) fn end(&self) -> bool {
        self.change(|span| !std::mem::replace(&mut span.until, Duration::ZERO).is_zero())
    }

    fn span(&self) -> Span {
        *self.0.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, f: impl FnOnce(&mut Span) -> T) -> T {
        // Plain values: valid after any panic.
        let answer = f(&mut self.0.span.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.wake();
        answer
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn should_allow_what_was_asked_for_in_this_life_until_it_ends() {
        let life = Life::endless();
        let before = life.ask(Duration::ZERO);
        assert!(life.allows(before, secs(1_000_000)));
        life.begin(secs(20));
        let asked = life.ask(secs(10));
        assert!(life.allows(asked, secs(19)));
        assert!(!life.allows(before, secs(19)), "asked for in a former life");
        assert!(!life.allows(asked, secs(20)), "over");
        assert!(life.prolong(secs(30), secs(19)) && life.prolong(secs(25), secs(19)));
        assert!(life.allows(asked, secs(29)) && life.is_over(secs(30)));
        assert!(!life.prolong(secs(60), secs(30)), "it was over, and stays so");
        assert!(life.is_over(secs(30)));
        assert!(life.end(), "news");
        assert!(life.is_over(Duration::ZERO) && !life.end());
    }

    #[tokio::test]
    async fn should_be_answered_when_the_last_question_is() {
        let life = Life::endless();
        life.answered().await;
        let (one, other) = (life.asking(), life.asking());
        let mut answered = std::pin::pin!(life.answered());
        assert!(answered.as_mut().now_or_never().is_none());
        drop(one);
        assert!(answered.as_mut().now_or_never().is_none());
        drop(other);
        answered.await;
    }

    #[test]
    fn should_not_allow_what_was_asked_for_while_it_began_anew() {
        let life = Life::endless();
        life.begin(secs(20));
        life.end();
        // While the registration was on its way, and at the very moment of its answer.
        let meanwhile = life.ask(secs(40));
        life.begin(secs(60));
        assert!(!life.allows(meanwhile, secs(40)));
        assert!(life.allows(life.ask(secs(40)), secs(40)));
    }
}
