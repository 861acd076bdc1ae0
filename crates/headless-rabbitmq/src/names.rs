//! What things are called on the server. `:` and `!` are in no name of a topic or a group, so that no two of these are
//! the same, and every name of ours begins with the namespace.

use std::{fmt, sync::Arc};

use headless_abstractions::{Error, GroupName, Partition, Result, TopicName};
use lapin::types::ShortString;

use crate::delay::Wait;

/// The longest namespace in bytes: with the longest group, topic and partition the server's limit of 255 is kept.
const LONGEST: usize = 40;

/// What all names of a handle on the server begin with: `[a-z0-9][a-z0-9_-]*`, at most 40 bytes.
///
/// ```
/// use headless_rabbitmq::Namespace;
///
/// assert_eq!(Namespace::default().as_str(), "headless");
/// assert!(Namespace::parse("shop").is_ok());
/// assert!(Namespace::parse("shop:eu").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Parses a namespace.
    ///
    /// # Errors
    /// `Invalid`, naming the rule that is broken.
    pub fn parse(name: &str) -> Result<Self> {
        let is_good = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if name.is_empty() || name.len() > LONGEST {
            return Err(Error::invalid(format!(
                "a namespace has 1 to {LONGEST} bytes, this one has {}",
                name.len()
            )));
        }
        if !name.bytes().all(is_good) || name.starts_with(['_', '-']) {
            return Err(Error::invalid(
                "a namespace is of a-z, 0-9, '_' and '-', and begins with a letter or a digit",
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The stream whose last record says which topics and groups there are.
    pub(crate) fn registry(&self) -> ShortString {
        format!("{self}!registry").into()
    }

    /// The exclusive queue that whoever changes the registry holds.
    pub(crate) fn lock(&self) -> ShortString {
        format!("{self}!lock").into()
    }

    /// The exchange over which the members of a group talk to each other.
    pub(crate) fn talk(&self) -> ShortString {
        format!("{self}!talk").into()
    }

    /// The exchange, and its queue, that refuse what a group's own exchange has no queue for.
    pub(crate) fn refusal(&self) -> ShortString {
        format!("{self}!refuse").into()
    }

    /// The exchange of a topic.
    pub(crate) fn exchange(&self, topic: &TopicName) -> ShortString {
        format!("{self}:{topic}").into()
    }

    /// The exchange of a group on a topic.
    pub(crate) fn share(&self, group: &GroupName, topic: &TopicName) -> ShortString {
        format!("{self}:{group}:{topic}").into()
    }

    /// The queue of a group on a topic, or on one of its partitions.
    pub(crate) fn queue(
        &self,
        group: &GroupName,
        topic: &TopicName,
        partition: Option<Partition>,
    ) -> ShortString {
        match partition {
            None => format!("{self}:{group}:{topic}").into(),
            Some(partition) => format!("{self}:{group}:{topic}:{partition}").into(),
        }
    }

    /// The exchange of what is sent to a topic with such a delay.
    pub(crate) fn delayed(&self, topic: &TopicName, wait: Wait) -> ShortString {
        format!("{self}:{topic}!wait:{wait}").into()
    }

    /// The exchange, and its queue, of what waits so long for a group.
    pub(crate) fn waiting(&self, group: &GroupName, topic: &TopicName, wait: Wait) -> ShortString {
        format!("{self}:{group}:{topic}!wait:{wait}").into()
    }

    /// The queue without messages whose consumers are the members of a group.
    pub(crate) fn members(&self, group: &GroupName) -> ShortString {
        format!("{self}:{group}!members").into()
    }

    /// The queue of what was delivered too often to a group.
    pub(crate) fn dead(&self, group: &GroupName) -> ShortString {
        format!("{self}:{group}!dead").into()
    }
}

impl Default for Namespace {
    /// `headless`.
    fn default() -> Self {
        Self("headless".into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_fit_the_server_when_every_part_is_longest() {
        let namespace = Namespace::parse(&"n".repeat(40)).unwrap();
        let group = GroupName::parse(&"g".repeat(100)).unwrap();
        let topic = TopicName::parse_stored(&"t".repeat(100)).unwrap();
        let name = namespace.queue(&group, &topic, Some(Partition::new(1023)));
        assert_eq!(name.as_str().len(), 40 + 1 + 100 + 1 + 100 + 1 + 4);
        let name = namespace.waiting(&group, &topic, Wait::longest());
        assert_eq!(name.as_str().len(), 255);
        assert!(Namespace::parse(&"n".repeat(41)).is_err());
    }

    #[test]
    fn should_refuse_a_namespace_when_it_breaks_the_rule() {
        for name in ["", "A", "a.b", "a:b", "a!b", "-a", "_a", "a b", "ä", "a\0"] {
            assert!(Namespace::parse(name).is_err(), "{name:?}");
        }
    }
}
