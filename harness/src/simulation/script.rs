//! What a seed has the producers publish and the handlers do, and how each message has to end.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{GroupName, MessageId, Result};

use super::{
    chance::Chance,
    label::{follow_up_of, id_of},
};

/// An ordered topic with the hot key.
pub(super) const ORDERS: &str = "sim.orders";
/// Another ordered topic.
pub(super) const STOCK: &str = "sim.stock";
/// An unordered topic; handlers publish on it too.
pub(super) const NOTES: &str = "sim.notes";

/// How a message ends in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Processed, with an effect.
    Effect,
    /// Processed; its handler does nothing in a unit of work.
    Nothing,
    Dead,
    Discarded,
}

/// A message as the script means it.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) topic: &'static str,
    /// The key, where the topic keeps its order.
    pub(super) ordered_key: Option<String>,
    /// Its place among the messages of its key.
    pub(super) place: u64,
    pub(super) idempotency_key: Option<String>,
    /// By a producer, which does not end before it has succeeded; otherwise by a handler.
    pub(super) published: bool,
    pub(super) rolled_back: bool,
    /// In each group.
    pub(super) ends: [End; 2],
    /// What its handler publishes with its effect, in each group.
    pub(super) follow_ups: [Option<MessageId>; 2],
}

/// What a handler does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Commit,
    /// Takes longer than the lease.
    Slow(Duration),
    /// Returns an error once it has committed, which changes nothing.
    CommitThenFail,
    /// Fails so many calls in this way, then commits.
    Fails(u32, Fault),
    /// Succeeds without a unit of work.
    Nothing,
    Permanent,
    Discard,
}

/// How a call of a handler fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error,
    RetryAfter,
    Panic,
    Timeout,
    ForgetCommit,
}

/// What one producer publishes, one unit after another; nobody else publishes on its key.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) topic: &'static str,
    pub(super) key: String,
    pub(super) units: Vec<Unit>,
}

/// What is published together.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// How long the producer waits before it.
    pub(super) pause: Duration,
    pub(super) how: How,
    pub(super) messages: Vec<MessageId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Each by itself.
    Alone,
    /// In one unit of work.
    Work,
    /// In one unit of work that is rolled back.
    RolledBack,
}

/// What a seed has the producers publish and the handlers do.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) groups: [GroupName; 2],
    pub(super) expected: BTreeMap<MessageId, Expected>,
    pub(super) chains: Vec<Chain>,
    fates: BTreeMap<MessageId, [Fate; 2]>,
    /// How often each group's handler was called.
    calls: Mutex<BTreeMap<(usize, MessageId), u32>>,
}

impl Script {
    /// The script of a seed with about this many messages.
    pub(super) fn write(seed: u64, messages: u64) -> Result<Self> {
        let mut script = Self {
            groups: [GroupName::parse("billing")?, GroupName::parse("shipping")?],
            expected: BTreeMap::new(),
            chains: Vec::new(),
            fates: BTreeMap::new(),
            calls: Mutex::default(),
        };
        let chance = Chance::new(seed, "script");
        let shares = [
            (ORDERS, "hot", 8),
            (ORDERS, "a", 3),
            (ORDERS, "b", 3),
            (STOCK, "c", 3),
            (STOCK, "d", 2),
            (NOTES, "e", 3),
        ];
        let whole: u64 = shares.iter().map(|(_, _, share)| share).sum();
        for (topic, key, share) in shares {
            let chain = script.chain(&chance, topic, key, (messages * share / whole).max(2));
            script.chains.push(chain);
        }
        Ok(script)
    }

    /// What the group's handler does with this message.
    pub(super) fn fate(&self, group: usize, id: MessageId) -> Fate {
        self.fates.get(&id).map_or(Fate::Commit, |fates| fates[group])
    }

    /// What it publishes with its effect.
    pub(super) fn follow_up(&self, group: usize, id: MessageId) -> Option<MessageId> {
        self.expected.get(&id)?.follow_ups[group]
    }

    /// Counts a call of the group's handler and says which it is, from 1.
    pub(super) fn called(&self, group: usize, id: MessageId) -> u32 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.entry((group, id)).or_default();
        *count += 1;
        *count
    }

    fn chain(&mut self, chance: &Chance, topic: &'static str, key: &str, messages: u64) -> Chain {
        let mut units: Vec<Unit> = Vec::new();
        let mut published: Vec<MessageId> = Vec::new();
        while (published.len() as u64) < messages {
            let how = match chance.below(10) {
                0 => How::RolledBack,
                1..6 => How::Work,
                _ => How::Alone,
            };
            let mut unit = Unit {
                pause: chance.millis(0, 300),
                how,
                messages: Vec::new(),
            };
            for _ in 0..chance.between(1, 3) {
                if how != How::RolledBack && !published.is_empty() && chance.happens(800) {
                    let again = chance.below(published.len() as u64);
                    unit.messages.extend(published.get(again as usize));
                    continue;
                }
                let id = self.message(chance, topic, key, &published, how == How::RolledBack);
                unit.messages.push(id);
                if how != How::RolledBack {
                    published.push(id);
                }
            }
            units.push(unit);
        }
        Chain {
            topic,
            key: key.to_owned(),
            units,
        }
    }

    /// A new message of a chain; some stand for the operation of an earlier one.
    fn message(
        &mut self,
        chance: &Chance,
        topic: &'static str,
        key: &str,
        published: &[MessageId],
        rolled_back: bool,
    ) -> MessageId {
        let number = self.expected.len() as u64 + 1;
        let id = id_of(number);
        let earlier = published
            .iter()
            .filter_map(|id| self.expected[id].idempotency_key.clone())
            .next_back();
        let idempotency_key = match earlier {
            Some(key) if chance.happens(1_000) => Some(key),
            _ => chance.happens(3_000).then(|| format!("op{number}")),
        };
        let fates = [(); 2].map(|()| fate(chance, idempotency_key.is_some()));
        let ends = fates.map(Fate::end);
        let mut follow_ups = [None; 2];
        for (group, follow_up) in follow_ups.iter_mut().enumerate() {
            if topic == ORDERS && ends[group] == End::Effect && chance.happens(1_500) {
                *follow_up = Some(follow_up_of(id, group));
            }
        }
        for follow_up in follow_ups.into_iter().flatten() {
            self.expected.insert(follow_up, Expected::follow_up());
        }
        let expected = Expected {
            topic,
            ordered_key: (topic != NOTES).then(|| key.to_owned()),
            place: number,
            idempotency_key,
            published: true,
            rolled_back,
            ends,
            follow_ups,
        };
        self.expected.insert(id, expected);
        self.fates.insert(id, fates);
        id
    }
}

impl Expected {
    const fn follow_up() -> Self {
        Self {
            topic: NOTES,
            ordered_key: None,
            place: 0,
            idempotency_key: None,
            published: false,
            rolled_back: false,
            ends: [End::Effect; 2],
            follow_ups: [None; 2],
        }
    }
}

impl Fate {
    pub(super) const fn end(self) -> End {
        match self {
            Self::Commit | Self::Slow(_) | Self::CommitThenFail | Self::Fails(..) => End::Effect,
            Self::Nothing => End::Nothing,
            Self::Permanent => End::Dead,
            Self::Discard => End::Discarded,
        }
    }
}

fn fate(chance: &Chance, has_operation: bool) -> Fate {
    let fault = chance
        .weighted(&[
            (5, Fault::Error),
            (2, Fault::RetryAfter),
            (2, Fault::Panic),
            (1, Fault::Timeout),
            (2, Fault::ForgetCommit),
        ])
        .unwrap_or(Fault::Error);
    let times = u32::try_from(chance.between(1, 5)).unwrap_or(1);
    let slow = chance.millis(600, 2_200);
    // Success without an effect would keep the operation's other messages from acting at all.
    let nothing = if has_operation {
        Fate::Commit
    } else {
        Fate::Nothing
    };
    chance
        .weighted(&[
            (56, Fate::Commit),
            (8, Fate::Slow(slow)),
            (4, Fate::CommitThenFail),
            (22, Fate::Fails(times, fault)),
            (3, nothing),
            (4, Fate::Permanent),
            (3, Fate::Discard),
        ])
        .unwrap_or(Fate::Commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_write_the_same_script_for_a_seed() {
        let text = |seed| format!("{:?}", Script::write(seed, 40).unwrap());
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn should_have_everything_in_it_over_some_seeds() {
        let scripts: Vec<_> = (0..20).map(|seed| Script::write(seed, 40).unwrap()).collect();
        let any =
            |what: fn(&Expected) -> bool| scripts.iter().any(|script| script.expected.values().any(what));
        assert!(any(|message| message.rolled_back));
        assert!(any(|message| message.idempotency_key.is_some()));
        assert!(any(|message| message.follow_ups[1].is_some()));
        for end in [End::Effect, End::Nothing, End::Dead, End::Discarded] {
            let ends = |script: &Script| {
                script
                    .expected
                    .values()
                    .any(|message| message.ends.contains(&end))
            };
            assert!(scripts.iter().any(ends), "{end:?}");
        }
    }
}
