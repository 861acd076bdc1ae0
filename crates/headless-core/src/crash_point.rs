//! The durable transitions of messaging, by name, so that a test build can end, fail or delay a process at each.

#[cfg(feature = "crash-points")]
use std::sync::atomic::{AtomicU64, Ordering};

use headless_abstractions::Result;
#[cfg(feature = "crash-points")]
use headless_abstractions::{Error, ErrorKind};

/// Writes the points down once: as variants with their documentation, as [`CrashPoint::ALL`], and as names.
macro_rules! points {
    ($($point:ident, $side:ident, $name:literal, $says:literal;)*) => {
        /// A durable transition of messaging, at which a build with the feature `crash-points` can end, fail or delay its
        /// process, by the `fail` crate and under the point's [`name`](Self::name). Without the feature reaching a point does
        /// nothing and costs nothing, and no release build has the feature.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum CrashPoint {
            $(#[doc = $says] $point,)*
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// Its name: `relay.sent`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }

            /// Where it stands, in words.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$point => $says,)*
                }
            }

            /// Whether what the point is about has happened when it is reached. What fails there has an outcome that its
            /// caller does not know.
            #[must_use]
            pub const fn is_after(self) -> bool {
                match self {
                    $(Self::$point => points!(@ $side),)*
                }
            }
        }
    };
    (@ before) => { false };
    (@ after) => { true };
}

points! {
    OutboxAppending, before, "outbox.appending", "A publisher is about to store messages, outside of any unit of work.";
    OutboxAppended, after, "outbox.appended", "A publisher has stored messages, and nobody was woken.";
    DirectSending, before, "direct.sending", "A publisher is about to send messages straight to the broker.";
    DirectSent, after, "direct.sent", "The broker has answered a publisher, which has not seen it.";
    WorkCommitting, before, "work.committing", "An application's unit of work is about to commit.";
    WorkCommitted, after, "work.committed", "An application's unit of work has committed, and nobody was woken.";
    RelayClaimed, after, "relay.claimed", "A relay has claimed rows of the outbox, and has not looked at them.";
    RelaySending, before, "relay.sending", "A relay is about to send what it has claimed.";
    RelaySent, after, "relay.sent", "The broker has answered a relay, and nothing is marked as sent.";
    RelayMarked, after, "relay.marked", "What a relay has sent is marked as sent.";
    RelayRenewing, before, "relay.renewing", "A relay is about to renew the leases of what it sends.";
    RelayRenewed, after, "relay.renewed", "A relay has renewed the leases of what it sends.";
    RelayReturning, before, "relay.returning", "A relay is about to give back what it has claimed and not sent.";
    RelayReturned, after, "relay.returned", "A relay has given back what it had claimed and not sent.";
    RelayRecording, before, "relay.recording", "A relay is about to record that the broker refused a message.";
    RelayRecorded, after, "relay.recorded", "A relay has recorded that the broker refused a message.";
    RelayBurying, before, "relay.burying", "A relay is about to make a dead letter of a refused message.";
    RelayBuried, after, "relay.buried", "A relay has made a dead letter of a refused message.";
    ConsumerReceived, after, "consumer.received", "A consumer has received deliveries, and started none of them.";
    HandlerBeginning, before, "handler.beginning", "A handler is about to begin its unit of work.";
    HandlerMarked, after, "handler.marked", "A handler's unit of work carries the processed marks.";
    HandlerCommitting, before, "handler.committing", "A handler's unit of work is about to commit.";
    HandlerCommitted, after, "handler.committed", "A handler's unit of work has committed, and its delivery is not settled.";
    ConsumerExtending, before, "consumer.extending", "A consumer is about to keep its deliveries for longer.";
    ConsumerExtended, after, "consumer.extended", "A consumer has kept its deliveries for longer.";
    ConsumerSettling, before, "consumer.settling", "A consumer is about to settle deliveries.";
    ConsumerSettled, after, "consumer.settled", "A consumer has settled deliveries, and has not seen the answer.";
    InboxAdmitting, before, "inbox.admitting", "A consumer is about to ask the inbox whether a message may run.";
    InboxAdmitted, after, "inbox.admitted", "The inbox has admitted a message, and its handler was not called.";
    InboxRenewing, before, "inbox.renewing", "A consumer is about to renew its holds on messages.";
    InboxRenewed, after, "inbox.renewed", "A consumer has renewed its holds on messages.";
    InboxReleasing, before, "inbox.releasing", "A consumer is about to end its hold on a message that it gives up undone.";
    InboxReleased, after, "inbox.released", "A consumer has ended its hold on a message that it gave up undone.";
    InboxMarking, before, "inbox.marking", "A handler without a unit of work has succeeded, and its message is not marked.";
    InboxMarked, after, "inbox.marked", "The message of a handler without a unit of work is marked, and not settled.";
    InboxParking, before, "inbox.parking", "A consumer is about to park a message with its failures.";
    InboxParked, after, "inbox.parked", "A message is parked, and its delivery is not settled.";
    InboxBurying, before, "inbox.burying", "A consumer is about to make a dead letter of a message.";
    InboxBuried, after, "inbox.buried", "A message is a dead letter, and its delivery is not settled.";
    InboxDiscarding, before, "inbox.discarding", "A consumer is about to discard a message.";
    InboxDiscarded, after, "inbox.discarded", "A message is discarded, and its delivery is not settled.";
    ParkClaiming, before, "park.claiming", "A consumer is about to claim what is due in the park.";
    ParkClaimed, after, "park.claimed", "A consumer has claimed what is due in the park, and started none of it.";
    ParkReturning, before, "park.returning", "A consumer is about to give back what it has claimed in the park and not tried.";
    ParkReturned, after, "park.returned", "A consumer has given back what it had claimed in the park and not tried.";
    DeadTopicSending, before, "dead_topic.sending", "A consumer without a store is about to send a message to its dead topic.";
    DeadTopicSent, after, "dead_topic.sent", "A message of a consumer without a store is on its dead topic, and not settled.";
    LetterEditing, before, "letter.editing", "An operator is about to give a dead letter another payload.";
    LetterEdited, after, "letter.edited", "An operator has given a dead letter another payload.";
    LetterRedriving, before, "letter.redriving", "An operator is about to redrive dead letters.";
    LetterRedriven, after, "letter.redriven", "An operator has redriven dead letters, and nobody was woken.";
    LetterDiscarding, before, "letter.discarding", "An operator is about to discard dead letters.";
    LetterDiscarded, after, "letter.discarded", "An operator has discarded dead letters.";
    OutboxPurging, before, "outbox.purging", "The history of the outbox is about to be purged.";
    OutboxPurged, after, "outbox.purged", "The history of the outbox is purged.";
    InboxPurging, before, "inbox.purging", "Old marks of the inbox are about to be purged.";
    InboxPurged, after, "inbox.purged", "Old marks of the inbox are purged.";
    LetterPurging, before, "letter.purging", "Old dead letters are about to be purged.";
    LetterPurged, after, "letter.purged", "Old dead letters are purged.";
    StopReleasingOutbox, before, "stop.releasing_outbox", "A node that stops is about to give back what it holds of the outbox.";
    StopReleasedOutbox, after, "stop.released_outbox", "A node that stops has given back what it held of the outbox.";
    StopReleasingInbox, before, "stop.releasing_inbox", "A node that stops is about to give back what it holds of the inbox.";
    StopReleasedInbox, after, "stop.released_inbox", "A node that stops has given back what it held of the inbox.";
    StopLeaving, before, "stop.leaving", "A node that stops is about to say good-bye to its store.";
    StopLeft, after, "stop.left", "A node that stops has said good-bye to its store.";
}

impl CrashPoint {
    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(feature = "crash-points"))]
    #[inline(always)]
    pub const fn reach(self) -> Result<()> {
        Ok(())
    }

    /// Counts that the point was reached, and does what the `fail` crate was told to do there: a callback may end the
    /// process, and it blocks the thread for as long as it takes.
    ///
    /// # Errors
    /// When it was told to `return`: `Unavailable` before the transition, `Timeout` with an unknown outcome after it.
    #[cfg(feature = "crash-points")]
    pub fn reach(self) -> Result<()> {
        HITS[self as usize].fetch_add(1, Ordering::Relaxed);
        fail::fail_point!(self.name(), |_| Err(self.told_to_fail()));
        Ok(())
    }

    /// How often this process has reached the point.
    #[cfg(feature = "crash-points")]
    #[must_use]
    pub fn hits(self) -> u64 {
        HITS[self as usize].load(Ordering::Relaxed)
    }

    #[cfg(feature = "crash-points")]
    fn told_to_fail(self) -> Error {
        let error = if self.is_after() {
            Error::new(ErrorKind::Timeout, "this point was told to lose the answer").with_outcome_unknown()
        } else {
            Error::new(ErrorKind::Unavailable, "this point was told to fail")
        };
        error.with_operation(self.name())
    }
}

#[cfg(feature = "crash-points")]
static HITS: [AtomicU64; CrashPoint::ALL.len()] = [const { AtomicU64::new(0) }; CrashPoint::ALL.len()];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn should_have_a_name_of_its_own_when_it_is_a_point() {
        let names: BTreeSet<_> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
        for (at, point) in CrashPoint::ALL.iter().enumerate() {
            assert_eq!(*point as usize, at, "{}", point.describe());
            assert!(point.reach().is_ok());
        }
    }
}
