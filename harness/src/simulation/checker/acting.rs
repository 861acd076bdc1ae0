//! Who acts on what, under which hold.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{GroupName, MessageId};

type Place<'a> = (&'a GroupName, MessageId);

/// Who acts on what, under which hold, after some of a run's facts.
#[derive(Default)]
pub(super) struct Acting<'a> {
    /// Who was given each message last, and has it still.
    holders: BTreeMap<Place<'a>, &'a str>,
    /// The calls that run under holds of their nodes.
    calls: BTreeMap<u64, (&'a str, Vec<Place<'a>>)>,
    standing: BTreeSet<&'a str>,
    /// Nodes that stood still, and of which the store has not heard since.
    unheard: BTreeSet<&'a str>,
    /// What nodes held when they stood still. By their clocks, which stood still too, they hold it until they ask: until then
    /// only fences stop them.
    stale: BTreeSet<(&'a str, Place<'a>)>,
}

impl<'a> Acting<'a> {
    pub(super) fn held_by(&mut self, group: &'a GroupName, id: MessageId, node: &'a str) {
        self.stale.remove(&(node, (group, id)));
        if self.unheard.contains(node) {
            self.holders.remove(&(group, id));
        } else {
            self.holders.insert((group, id), node);
        }
    }

    pub(super) fn let_go(&mut self, group: &'a GroupName, id: MessageId) {
        self.holders.remove(&(group, id));
    }

    /// Answers the messages that another was given last, and has still, though the call may act on its own alone.
    pub(super) fn began(
        &mut self,
        node: &'a str,
        group: &'a GroupName,
        ids: &[MessageId],
        must_hold: bool,
        call: u64,
    ) -> Vec<(MessageId, &'a str)> {
        let (mut held, mut of_others) = (Vec::new(), Vec::new());
        for id in ids.iter().filter(|_| must_hold) {
            match self.holders.get(&(group, *id)) {
                Some(holder) if *holder == node => held.push((group, *id)),
                Some(_) if self.stale.contains(&(node, (group, *id))) => {}
                Some(holder) if !self.unheard.contains(node) => of_others.push((*id, *holder)),
                _ => {}
            }
        }
        self.calls.insert(call, (node, held));
        of_others
    }

    pub(super) fn ended(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    /// What it holds and does says nothing any more: it cannot know what becomes of it.
    pub(super) fn stopped(&mut self, node: &'a str) {
        self.standing.insert(node);
        self.unheard.insert(node);
        let held = self.holders.iter().filter(|(_, holder)| **holder == node);
        self.stale.extend(held.map(|(place, _)| (node, *place)));
        self.holders.retain(|_, holder| *holder != node);
        self.calls.retain(|_, (caller, _)| *caller != node);
    }

    pub(super) fn resumed(&mut self, node: &str) {
        self.standing.remove(node);
    }

    pub(super) fn heard(&mut self, node: &str) {
        if !self.standing.contains(node) {
            self.unheard.remove(node);
        }
    }

    /// Who acts on this message under a hold of its own.
    pub(super) fn on(&self, group: &GroupName, id: MessageId) -> Option<&'a str> {
        let mut calls = self.calls.values();
        let (node, _) = calls.find(|(_, places)| places.contains(&(group, id)))?;
        Some(node)
    }
}
