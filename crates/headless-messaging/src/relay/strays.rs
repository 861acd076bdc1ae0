//! Telling the user of topics that no group takes: what is sent to them is kept for nobody.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use headless_abstractions::TopicName;

/// Of so many topics the user is told; beyond that the metric has to do.
const MOST: usize = 1_000;

/// The topics that the user was told of.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<BTreeSet<TopicName>>);

impl Strays {
    /// Warns of these topics, of each once.
    pub(super) fn warn<'a>(&self, topics: impl Iterator<Item = &'a TopicName>) {
        for topic in topics {
            if self.is_new(topic) {
                tracing::warn!(
                    %topic,
                    "no group takes this topic: its messages are dropped until one is declared, by starting a process \
                     that has its consumer; declare the topic as required to have them wait instead"
                );
            }
        }
    }

    fn is_new(&self, topic: &TopicName) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !told.contains(topic) && told.len() < MOST && told.insert(topic.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_tell_of_a_topic_once_and_not_of_ever_more() {
        let strays = Strays::default();
        let topic = |n: usize| TopicName::parse(&format!("topic-{n}")).unwrap();
        for n in 0..MOST {
            assert!(strays.is_new(&topic(n)));
            assert!(!strays.is_new(&topic(n)));
        }
        assert!(!strays.is_new(&topic(MOST)));
    }
}
