//! What a batch may not have, and where the rest of it goes.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{
    Error, ErrorKind, Message, PartitionKey, Priority, Result, Sent, TopicName, TopicOrder,
};
use lapin::types::ShortString;

use super::Answers;
use crate::{
    delay::Delay,
    rabbitmq::Shared,
    registry::{Known, TopicWait},
    transport::{same, unknown_topic},
};

/// A message on its way: its place in the batch and where it goes.
pub(super) struct Going {
    pub(super) at: usize,
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) delay: Option<Delay>,
}

/// Refuses what may not be sent, and says where the rest goes. With `undelayed`, it is the reason why nothing can be
/// delayed.
pub(super) fn plan(
    shared: &Shared,
    known: &Known,
    batch: &[Message],
    undelayed: Option<&Error>,
    answers: &mut Answers,
) -> Vec<Going> {
    let mut stopped: BTreeSet<(&TopicName, &PartitionKey)> = BTreeSet::new();
    let mut going = Vec::with_capacity(batch.len());
    for (at, (message, answer)) in batch.iter().zip(answers).enumerate() {
        let key = message.key.as_ref().map(|key| (&message.topic, key));
        let routed = route(shared, known, message).and_then(|routed| match (routed, undelayed) {
            (Some(Route { delay: Some(_), .. }), Some(why)) => Err(same(why)),
            (routed, _) => Ok(routed),
        });
        match routed {
            Ok(_) if key.is_some_and(|key| stopped.contains(&key)) => {
                *answer = Some(Err(Error::new(
                    ErrorKind::Conflict,
                    "an earlier message of this key was not accepted",
                )));
            }
            Ok(Some(Route { exchange, key, delay })) => going.push(Going {
                at,
                exchange,
                key,
                delay,
            }),
            Ok(None) => *answer = Some(Ok(Sent::Unrouted)),
            Err(error) => {
                stopped.extend(key);
                *answer = Some(Err(error));
            }
        }
    }
    going
}

/// The delays that these messages need.
pub(super) fn waits<'a>(
    batch: &[Message],
    going: impl IntoIterator<Item = &'a Going>,
) -> BTreeSet<TopicWait> {
    let waiting = going.into_iter().filter_map(|Going { at, delay, .. }| {
        let topic = &batch.get(*at)?.topic;
        Some(((topic, (*delay)?.wait), ()))
    });
    // Once each before they are cloned.
    let distinct: BTreeMap<_, ()> = waiting.collect();
    distinct
        .into_keys()
        .map(|(topic, wait)| (topic.clone(), wait))
        .collect()
}

/// Where a message goes.
struct Route {
    exchange: ShortString,
    key: ShortString,
    delay: Option<Delay>,
}

/// `None` when there is nobody to take it.
fn route(shared: &Shared, known: &Known, message: &Message) -> Result<Option<Route>> {
    let limit = shared.config.max_payload.get();
    if message.payload.len() > limit {
        return Err(Error::too_large("payload", message.payload.len(), limit));
    }
    let delay = Delay::of(message.deliver_after)?;
    if message.priority != Priority::default() {
        return Err(Error::unsupported(
            "priority is off: quorum queues know none; send urgent messages to a topic of their own",
        ));
    }
    let name = &message.topic;
    let topic = known.topic(name).ok_or_else(|| unknown_topic(name))?;
    let key = match (topic.order()?, &message.key) {
        (TopicOrder::Unordered, _) => ShortString::from(""),
        (TopicOrder::Partitioned(partitions), Some(key)) => partitions.of(key).to_string().into(),
        (TopicOrder::Partitioned(_), None) => {
            return Err(Error::invalid("a message of an ordered topic needs a key"));
        }
    };
    if !known.is_attended(name) {
        return if topic.required {
            Err(unattended())
        } else {
            Ok(None)
        };
    }
    let namespace = &shared.config.namespace;
    let exchange = delay.map_or_else(
        || namespace.exchange(name),
        |delay| namespace.delayed(name, delay.wait),
    );
    Ok(Some(Route { exchange, key, delay }))
}

pub(super) fn unattended() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the topic is required and no group takes it; declare one first",
    )
}
