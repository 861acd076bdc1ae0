//! The broker's side: topics, groups, and the copies of messages that wait in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headless_abstractions::{DeliveryToken, Error, ErrorKind, GroupName, Message, Result, Sent, TopicName};

use crate::{error::NAME, server::Sequence};

#[derive(Debug, Default)]
pub(crate) struct Broker {
    /// Whether a message of the topic needs a group.
    pub(crate) topics: BTreeMap<TopicName, bool>,
    pub(crate) groups: BTreeMap<GroupName, Group>,
    pub(crate) sessions: BTreeMap<u64, Session>,
}

#[derive(Debug)]
pub(crate) struct Group {
    /// Tells a group from an earlier one of its name.
    pub(crate) incarnation: u64,
    pub(crate) topics: BTreeSet<TopicName>,
    /// In the order in which they were accepted.
    pub(crate) copies: BTreeMap<u64, Copy>,
}

/// A group's own copy of a message, until it is settled.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) message: Message,
    pub(crate) held: Option<Held>,
}

/// A delivery: whose it is, and until when.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: u64,
    pub(crate) token: DeliveryToken,
    pub(crate) until: Duration,
}

/// A member.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: u64,
    pub(crate) group: GroupName,
    pub(crate) incarnation: u64,
    pub(crate) topics: BTreeSet<TopicName>,
    pub(crate) prefetch: usize,
    pub(crate) visibility: Duration,
    pub(crate) paused: bool,
    /// The copies that it was given and has not settled.
    pub(crate) given: BTreeMap<DeliveryToken, u64>,
}

impl Broker {
    /// Gives every group of the topic its copy.
    pub(crate) fn accept(&mut self, message: &Message, sequence: &mut Sequence) -> Result<Sent> {
        let Some(required) = self.topics.get(&message.topic) else {
            return Err(not_found("the topic was never declared"));
        };
        let mut taken = false;
        for group in self.groups.values_mut() {
            if group.topics.contains(&message.topic) {
                let copy = Copy {
                    message: message.clone(),
                    held: None,
                };
                group.copies.insert(sequence.next(), copy);
                taken = true;
            }
        }
        match (taken, required) {
            (true, _) => Ok(Sent::Accepted),
            (false, false) => Ok(Sent::Unrouted),
            (false, true) => Err(not_found("the topic is required and no group takes it")),
        }
    }

    /// The member and its group.
    pub(crate) fn member(&mut self, session: u64) -> Result<(&mut Session, &mut Group)> {
        let Some(session) = self.sessions.get_mut(&session) else {
            return Err(Error::new(ErrorKind::Closed, "this subscriber was closed").with_provider(NAME));
        };
        match self.groups.get_mut(&session.group) {
            Some(group) if group.incarnation == session.incarnation => Ok((session, group)),
            _ => Err(not_found("the group was removed")),
        }
    }

    /// Ends a member: what it had not settled comes back at once, in place.
    pub(crate) fn leave(&mut self, session: u64) {
        if let Ok((_, group)) = self.member(session) {
            for copy in group.copies.values_mut() {
                copy.held.take_if(|held| held.session == session);
            }
        }
        self.sessions.remove(&session);
    }
}

pub(crate) fn not_found(what: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, what).with_provider(NAME)
}
