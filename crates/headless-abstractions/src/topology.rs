//! What a process tells a transport about: its topics and groups.

use std::fmt;

use crate::{GroupName, Partitions, TopicName};

/// Whether a topic keeps the order of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "drivers match it whole")]
pub enum TopicOrder {
    /// Its messages are shared among members as they come.
    Unordered,
    /// Its messages are spread over this many partitions by key, each read by one member at a time.
    Partitioned(Partitions),
}

impl TopicOrder {
    /// How many partitions, if it is ordered.
    #[must_use]
    pub const fn partitions(self) -> Option<Partitions> {
        match self {
            Self::Unordered => None,
            Self::Partitioned(partitions) => Some(partitions),
        }
    }

    /// Whether it is ordered.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Partitioned(_))
    }
}

impl fmt::Display for TopicOrder {
    /// As in a sentence about a topic: `unordered`, `ordered with 16 partitions`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unordered => f.write_str("unordered"),
            Self::Partitioned(partitions) if partitions.get() == 1 => f.write_str("ordered with 1 partition"),
            Self::Partitioned(partitions) => write!(f, "ordered with {} partitions", partitions.get()),
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSpec {
    /// Its name.
    pub name: TopicName,
    /// Whether it keeps the order of its keys.
    pub order: TopicOrder,
    /// Whether a message that no group takes is an error ([`ErrorKind::NotFound`](crate::ErrorKind::NotFound))
    /// instead of [`Sent::Unrouted`](crate::Sent::Unrouted). Once any declaration has asked for it, it stays.
    pub required: bool,
}

impl TopicSpec {
    /// A topic that is not required.
    #[must_use]
    pub const fn new(name: TopicName, order: TopicOrder) -> Self {
        Self {
            name,
            order,
            required: false,
        }
    }

    /// Makes a message that no group takes an error.
    #[must_use]
    pub const fn with_required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// Where a group that is declared for the first time begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "drivers match it whole")]
pub enum StartFrom {
    /// With the first message that is published after the declaration.
    #[default]
    Now,
    /// With the oldest message that the transport still has. Needs `replay_from_start`.
    Oldest,
}

/// A group on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSpec {
    /// Its name.
    pub group: GroupName,
    /// The topic that it reads.
    pub topic: TopicName,
    /// Where it begins when it does not exist yet; a group that exists goes on where it is. Asking for the oldest needs
    /// `replay_from_start` in any case.
    pub start: StartFrom,
    /// Whether the group belongs to one process and ends with it. Needs `per_instance_groups`.
    pub per_instance: bool,
}

impl GroupSpec {
    /// A lasting group that begins now.
    #[must_use]
    pub const fn new(group: GroupName, topic: TopicName) -> Self {
        Self {
            group,
            topic,
            start: StartFrom::Now,
            per_instance: false,
        }
    }

    /// Begins with the oldest message that the transport still has.
    #[must_use]
    pub const fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Ends with the process that declares it.
    #[must_use]
    pub const fn with_per_instance(mut self) -> Self {
        self.per_instance = true;
        self
    }
}

/// The topics and groups that a process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// Topics, each named once.
    pub topics: Vec<TopicSpec>,
    /// Groups; the topic of each is among [`Self::topics`] or was declared before.
    pub groups: Vec<GroupSpec>,
}

impl Topology {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            topics: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// With this topic too.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicSpec) -> Self {
        self.topics.push(topic);
        self
    }

    /// With this group too.
    #[must_use]
    pub fn with_group(mut self, group: GroupSpec) -> Self {
        self.groups.push(group);
        self
    }
}
