//! The transport: what it offers, and what it refuses.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use headless_abstractions::{
    Error, GroupName, Message, Priority, Result, Sent, StartFrom, Subscriber, Subscription, Topology,
    Transport, TransportCapabilities, TransportInfo,
};

use crate::{
    broker::{Group, Session, not_found},
    error::{Fault, NAME},
    server::{Link, ToyServer},
    subscriber::ToySubscriber,
};

/// The largest payload in bytes.
const MAX_PAYLOAD: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

// page: capabilities
/// Every flag is off until its case passes.
const CAPABILITIES: TransportCapabilities = TransportCapabilities::none().with_max_payload(MAX_PAYLOAD);
// page: end

/// A connection to the broker of a [`ToyServer`].
#[derive(Clone, Debug)]
pub struct ToyTransport {
    link: Arc<Link>,
}

impl ToyTransport {
    /// A handle with a connection of its own.
    #[must_use]
    pub fn from_client(server: &ToyServer) -> Self {
        Self {
            link: Link::connect(server),
        }
    }

    /// Cuts the connection without a good-bye, as the death of the process would.
    pub fn cut(&self) {
        self.link.fail(Fault::Cut, |_| {});
    }
}

fn unsupported(capability: &'static str) -> Error {
    Error::unsupported(format!("`{capability}` is not offered")).with_provider(NAME)
}

/// What this transport cannot do is refused before anything is done.
fn check(message: &Message) -> Result<()> {
    if message.payload.len() > MAX_PAYLOAD.get() {
        let error = Error::too_large("payload", message.payload.len(), MAX_PAYLOAD.get());
        return Err(error.with_operation("send").with_provider(NAME));
    }
    if message.deliver_after.is_some() {
        return Err(unsupported("delayed_send"));
    }
    if message.priority != Priority::default() {
        return Err(unsupported("priority"));
    }
    Ok(())
}

#[async_trait]
impl Transport for ToyTransport {
    fn info(&self) -> TransportInfo {
        TransportInfo::new(NAME, CAPABILITIES, "toy:")
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        let mut server = self.link.change("declare")?;
        let state = &mut *server;
        if topology.topics.iter().any(|topic| topic.order.is_ordered()) {
            return Err(unsupported("ordering"));
        }
        for group in &topology.groups {
            if group.start == StartFrom::Oldest {
                return Err(unsupported("replay_from_start"));
            }
            if group.per_instance {
                return Err(unsupported("per_instance_groups"));
            }
            let named = topology.topics.iter().any(|topic| topic.name == group.topic);
            if !named && !state.broker.topics.contains_key(&group.topic) {
                return Err(not_found("the group's topic was never declared")
                    .with_operation("declare")
                    .with_resource(format!("topic {}", group.topic)));
            }
        }
        for topic in &topology.topics {
            *state.broker.topics.entry(topic.name.clone()).or_default() |= topic.required;
        }
        for group in &topology.groups {
            let exists = state.broker.groups.entry(group.group.clone());
            let incarnation = state.sequence.next();
            exists
                .or_insert_with(|| Group {
                    incarnation,
                    topics: [].into(),
                    copies: BTreeMap::new(),
                })
                .topics
                .insert(group.topic.clone());
        }
        Ok(())
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        let send_one = |message: &Message| {
            check(message)?;
            let mut server = self.link.change("send")?;
            let state = &mut *server;
            state.broker.accept(message, &mut state.sequence)
        };
        batch
            .iter()
            .map(|message| send_one(message).map_err(|e| e.with_resource(format!("topic {}", message.topic))))
            .collect()
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        if to.topics.is_empty() || to.visibility.is_zero() {
            return Err(
                Error::invalid("a subscription needs a topic and a visibility time").with_provider(NAME),
            );
        }
        let mut server = self.link.change("subscribe")?;
        let state = &mut *server;
        let group = state.broker.groups.get(&to.group);
        let Some(group) = group.filter(|group| to.topics.iter().all(|topic| group.topics.contains(topic)))
        else {
            return Err(not_found("the group was not declared on each of these topics")
                .with_resource(format!("group {}", to.group)));
        };
        let member = Session {
            link: self.link.id,
            group: to.group.clone(),
            incarnation: group.incarnation,
            topics: to.topics.iter().cloned().collect(),
            prefetch: to.prefetch.get(),
            visibility: to.visibility,
            paused: false,
            given: BTreeMap::new(),
        };
        let session = state.sequence.next();
        state.broker.sessions.insert(session, member);
        Ok(Box::new(ToySubscriber::new(self.link.clone(), session)))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.link.change("remove_group")?.broker.groups.remove(group);
        Ok(())
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        let server = self.link.look("lag")?;
        match server.broker.groups.get(group) {
            Some(group) => Ok(group.copies.len() as u64),
            None => Err(not_found("there is no such group").with_resource(format!("group {group}"))),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.link.look("ping").map(|_| ())
    }

    async fn close(&self) -> Result<()> {
        self.link.fail(Fault::Closed, |state| {
            let sessions = state.broker.sessions.iter();
            let ours = sessions.filter(|(_, session)| session.link == self.link.id);
            for session in ours.map(|(id, _)| *id).collect::<Vec<_>>() {
                state.broker.leave(session);
            }
        });
        Ok(())
    }
}
