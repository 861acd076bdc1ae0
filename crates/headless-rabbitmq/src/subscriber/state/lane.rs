//! A queue as one member reads it.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{Error, Message, Partition, Redelivery, TopicName};

use crate::{channel::Chan, clock::Moment};

/// A queue, and what of it this member has. A lane has a channel of its own: closing it gives back in place, and the tags
/// of what is not read yet are higher than those of what is.
#[derive(Debug)]
pub(in crate::subscriber) struct Lane<C = Chan> {
    pub(in crate::subscriber) topic: TopicName,
    /// On an ordered topic.
    pub(in crate::subscriber) partition: Option<Partition>,
    /// The channel, while there is one.
    pub(in crate::subscriber) channel: Option<C>,
    /// Rises with each channel, so that what is left of an older one is known as such.
    pub(in crate::subscriber) serial: u64,
    /// What the server waits for, by its tag.
    pub(in crate::subscriber) items: BTreeMap<u64, Item>,
    /// Those that no receive has returned yet.
    pub(super) ready: BTreeSet<u64>,
    /// The last tag that came through this channel.
    pub(super) last: u64,
    /// Whether everything that the server waits for up to that tag is in `items`.
    pub(super) is_whole: bool,
}

/// A delivery of the server's.
#[derive(Debug)]
pub(in crate::subscriber) struct Item {
    /// Kept while it may have to be handed out, again too.
    pub(super) message: Option<Message>,
    pub(super) malformed: Option<Error>,
    pub(super) redelivery: Redelivery,
    /// How often it was handed out.
    pub(super) rounds: u32,
    /// In the hands of the application under this token, until then.
    pub(super) given: Option<(u64, Moment)>,
    /// When it came: the server's `consumer_timeout` counts from there.
    pub(in crate::subscriber) since: Moment,
}

impl Item {
    pub(in crate::subscriber) const fn new(
        message: Message,
        malformed: Option<Error>,
        redelivery: Redelivery,
        since: Moment,
    ) -> Self {
        Self {
            message: Some(message),
            malformed,
            redelivery,
            rounds: 0,
            given: None,
            since,
        }
    }

    /// Says when it is to be back, if it was handed out.
    pub(in crate::subscriber) fn until(&self) -> Option<Moment> {
        self.given.map(|(_, until)| until)
    }
}

impl<C> Lane<C> {
    pub(in crate::subscriber) const fn new(topic: TopicName, partition: Option<Partition>) -> Self {
        Self {
            topic,
            partition,
            channel: None,
            serial: 0,
            items: BTreeMap::new(),
            ready: BTreeSet::new(),
            last: 0,
            is_whole: true,
        }
    }

    pub(in crate::subscriber) const fn is_ordered(&self) -> bool {
        self.partition.is_some()
    }

    /// The tag before which nothing is unsettled, so that one acknowledgement may be of all that is; `None` where the server
    /// may wait for something that is not known here.
    pub(in crate::subscriber) fn settled_before(&self) -> Option<u64> {
        let first = self.items.first_key_value().map(|(tag, _)| *tag);
        self.is_whole.then(|| first.unwrap_or(self.last + 1))
    }
}
