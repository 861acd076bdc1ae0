//! The judge of a run: what its history says about the promises.

mod acting;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use headless_abstractions::{Epoch, GroupName, InboxState, MessageId};

use self::acting::Acting;
use super::{
    history::Fact,
    label::Label,
    script::{End, Expected},
};

/// A promise that a run can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// What was published is handled or dead.
    NothingLost,
    /// What was never committed never appears: rolled back messages, rolled back effects.
    NothingInvented,
    /// What is written in one unit of work is there together.
    AllOrNothing,
    /// A group acts once on a message, and once on an idempotency key.
    EffectsOnce,
    /// The first effects of a key happen in the order in which it was published.
    KeyOrder,
    /// Nothing moves a message that is processed, dead or discarded.
    TerminalFinal,
    /// Nobody acts on, or is confirmed in, a hold that another was given since. Whoever stood still with its clock may act
    /// on outside of the store, until the store has heard of it again: nothing but fences stops that.
    OneOwner,
    /// Messages end as their handlers meant it.
    RightEnd,
    /// Once nothing fails any more, everything is handled and nothing waits.
    Drains,
}

/// A promise that a run has broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What happened.
    pub what: String,
}

impl Violation {
    pub(super) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self {
            rule,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Judges a history against what the script expects of each message, in groups whose order is that of
/// [`Expected::ends`]; effects are counted in those where they are to happen `once`.
pub(super) fn check(
    facts: &[Fact],
    groups: &[GroupName],
    once: [bool; 2],
    expected: &BTreeMap<MessageId, Expected>,
) -> Vec<Violation> {
    let mut checker = Checker {
        groups,
        once,
        expected,
        stored: BTreeSet::new(),
        confirmed: BTreeSet::new(),
        relay: BTreeMap::new(),
        rows: BTreeMap::new(),
        places: BTreeMap::new(),
        operations: BTreeMap::new(),
        acting: Acting::default(),
        violations: Vec::new(),
    };
    for fact in facts {
        checker.fact(fact);
    }
    checker.end();
    checker.violations
}

/// Where the history stands after some of its facts.
struct Checker<'a> {
    groups: &'a [GroupName],
    once: [bool; 2],
    expected: &'a BTreeMap<MessageId, Expected>,
    stored: BTreeSet<MessageId>,
    confirmed: BTreeSet<MessageId>,
    /// The latest claim on each row of the outbox.
    relay: BTreeMap<MessageId, Epoch>,
    rows: BTreeMap<(&'a GroupName, MessageId), Row>,
    /// The message of each group's key with the last effect.
    places: BTreeMap<(&'a GroupName, &'a str, &'a str), (u64, MessageId)>,
    /// Which message had the effect of a group's idempotency key.
    operations: BTreeMap<(&'a GroupName, &'a str), MessageId>,
    acting: Acting<'a>,
    violations: Vec<Violation>,
}

#[derive(Default)]
struct Row {
    granted: Epoch,
    terminal: Option<InboxState>,
    effects: u32,
}

impl<'a> Checker<'a> {
    fn fact(&mut self, fact: &'a Fact) {
        match fact {
            Fact::Stored(id) => self.was_stored(*id),
            Fact::Confirmed(id) => {
                self.confirmed.insert(*id);
                if !self.stored.contains(id) {
                    let what = format!("{} was confirmed to its producer and is not stored", Label(*id));
                    self.violated(Rule::NothingLost, what);
                }
            }
            Fact::RelayGranted(id, epoch) => {
                let before = self.relay.insert(*id, *epoch).unwrap_or_default();
                if *epoch <= before {
                    self.stale("the outbox", *id, "claimed", *epoch, before);
                }
            }
            Fact::RelayRenewed(id, epoch) => {
                let latest = self.relay.get(id).copied().unwrap_or_default();
                if *epoch < latest {
                    self.stale("the outbox", *id, "renewed", *epoch, latest);
                }
            }
            Fact::Left(id) => drop(self.relay.remove(id)),
            Fact::RelayDead(id) => {
                let what = format!("{} died in the relay, which nothing asked for", Label(*id));
                self.violated(Rule::RightEnd, what);
            }
            Fact::Granted(group, id, epoch) => {
                self.granted(group, *id, *epoch);
                if let Some(node) = self.acting.on(group, *id) {
                    let what = format!(
                        "{group}: {} was given out with epoch {epoch} while {node} acts on it",
                        Label(*id)
                    );
                    self.violated(Rule::OneOwner, what);
                }
            }
            Fact::HeldBy(group, id, node) => self.acting.held_by(group, *id, node),
            Fact::Began(node, group, ids, must_hold, call) => {
                for (id, holder) in self.acting.began(node, group, ids, *must_hold, *call) {
                    let what = format!("{group}: {node} acts on {}, which {holder} was given", Label(id));
                    self.violated(Rule::OneOwner, what);
                }
            }
            Fact::Ended(call) => self.acting.ended(*call),
            Fact::Stopped(node) => self.acting.stopped(node),
            Fact::Resumed(node) => self.acting.resumed(node),
            Fact::Heard(node) => self.acting.heard(node),
            Fact::Renewed(group, id, epoch) => {
                let Row {
                    granted, terminal, ..
                } = *self.row(group, *id);
                if *epoch < granted {
                    self.stale(group, *id, "renewed", *epoch, granted);
                }
                if let Some(state) = terminal {
                    let what = format!("{group}: {} is {state:?} and was renewed", Label(*id));
                    self.violated(Rule::OneOwner, what);
                }
            }
            Fact::Effect(group, id) => self.effect(group, *id),
            Fact::Reached(group, id, state, epoch) => {
                self.acting.let_go(group, *id);
                self.reached(group, *id, *state, epoch.unwrap_or_default());
            }
        }
    }

    fn was_stored(&mut self, id: MessageId) {
        self.stored.insert(id);
        let known = self.expected.get(&id);
        if known.is_none_or(|expected| expected.rolled_back) {
            let what = format!("{} was stored, and its unit of work was rolled back", Label(id));
            self.violated(Rule::NothingInvented, what);
        }
    }

    fn granted(&mut self, group: &'a GroupName, id: MessageId, epoch: Epoch) {
        let row = self.row(group, id);
        let (before, terminal) = (row.granted, row.terminal);
        row.granted = epoch.max(before);
        if epoch <= before {
            self.stale(group, id, "granted", epoch, before);
        }
        if let Some(state) = terminal {
            let what = format!("{group}: {} is {state:?} and was given out again", Label(id));
            self.violated(Rule::TerminalFinal, what);
        }
        self.must_be_stored(group, id);
    }

    fn effect(&mut self, group: &'a GroupName, id: MessageId) {
        self.must_be_stored(group, id);
        let row = self.row(group, id);
        row.effects += 1;
        let effects = row.effects;
        if effects > 1 {
            if self.number(group).is_some_and(|number| self.once[number]) {
                let what = format!("{group}: {} has {effects} effects", Label(id));
                self.violated(Rule::EffectsOnce, what);
            }
            return;
        }
        let Some(expected) = self.expected.get(&id) else {
            return;
        };
        if self.end_of(group, expected) != Some(End::Effect) {
            let what = format!(
                "{group}: {} has an effect, and its handler never committed one",
                Label(id)
            );
            self.violated(Rule::NothingInvented, what);
        }
        if let Some(key) = &expected.idempotency_key
            && let Some(other) = self.operations.insert((group, key), id)
        {
            let what = format!("{group}: {} and {} both acted for {key}", Label(other), Label(id));
            self.violated(Rule::EffectsOnce, what);
        }
        if let Some(key) = &expected.ordered_key {
            let place = (expected.place, id);
            let before = self.places.insert((group, expected.topic, key), place);
            if let Some((_, later)) = before.filter(|before| before.0 > expected.place) {
                let what = format!("{group}: {} of {key} came after {}", Label(id), Label(later));
                self.violated(Rule::KeyOrder, what);
            }
        }
    }

    fn reached(&mut self, group: &'a GroupName, id: MessageId, state: InboxState, epoch: Epoch) {
        let row = self.row(group, id);
        let (granted, before) = (row.granted, row.terminal);
        if state.is_terminal() {
            row.terminal = Some(state);
        }
        if epoch < granted {
            self.stale(group, id, "settled", epoch, granted);
        }
        if let Some(before) = before {
            let what = format!("{group}: {} was {before:?} and became {state:?}", Label(id));
            self.violated(Rule::TerminalFinal, what);
        }
        let end = self
            .expected
            .get(&id)
            .and_then(|expected| self.end_of(group, expected));
        let is_right = match state {
            InboxState::Dead => end == Some(End::Dead),
            InboxState::Discarded => end == Some(End::Discarded),
            _ => true,
        };
        if !is_right {
            let what = format!(
                "{group}: {} became {state:?}, and was to end in {end:?}",
                Label(id)
            );
            self.violated(Rule::RightEnd, what);
        }
    }

    /// What must be so when nothing happens any more.
    fn end(&mut self) {
        let expected = self.expected;
        for (id, message) in expected {
            if !self.stored.contains(id) {
                if message.published && !message.rolled_back {
                    let what = format!("{} could not be published until the end", Label(*id));
                    self.violated(Rule::Drains, what);
                }
                continue;
            }
            for (group, end) in self.groups.iter().zip(message.ends) {
                self.ended(group, *id, message, end);
            }
        }
    }

    fn ended(&mut self, group: &'a GroupName, id: MessageId, message: &'a Expected, end: End) {
        let row = self.row(group, id);
        let (terminal, effects) = (row.terminal, row.effects);
        let covered = message
            .idempotency_key
            .as_ref()
            .is_some_and(|key| self.operations.contains_key(&(group, key)));
        let is_done = match end {
            End::Effect => effects > 0,
            End::Dead => terminal == Some(InboxState::Dead),
            End::Discarded => terminal == Some(InboxState::Discarded),
            End::Nothing => terminal == Some(InboxState::Processed),
        };
        if !is_done && !covered {
            let what = format!(
                "{group}: {} was to end in {end:?}, has {effects} effects and is {terminal:?}",
                Label(id)
            );
            self.violated(Rule::NothingLost, what);
        }
        let follow_up = self.number(group).and_then(|number| message.follow_ups[number]);
        if let Some(follow_up) = follow_up.filter(|follow_up| effects > 0 && !self.stored.contains(follow_up))
        {
            let what = format!(
                "{group}: the effect of {} is there without {}",
                Label(id),
                Label(follow_up)
            );
            self.violated(Rule::AllOrNothing, what);
        }
    }

    fn must_be_stored(&mut self, group: &GroupName, id: MessageId) {
        if !self.stored.contains(&id) {
            let what = format!("{group}: {} was never stored", Label(id));
            self.violated(Rule::NothingInvented, what);
        }
    }

    fn stale(&mut self, place: impl fmt::Display, id: MessageId, did: &str, epoch: Epoch, latest: Epoch) {
        let what = format!(
            "{place}: {} was {did} with epoch {epoch} after epoch {latest}",
            Label(id)
        );
        self.violated(Rule::OneOwner, what);
    }

    fn end_of(&self, group: &GroupName, expected: &Expected) -> Option<End> {
        Some(expected.ends[self.number(group)?])
    }

    fn number(&self, group: &GroupName) -> Option<usize> {
        self.groups.iter().position(|each| each == group)
    }

    fn row(&mut self, group: &'a GroupName, id: MessageId) -> &mut Row {
        self.rows.entry((group, id)).or_default()
    }

    fn violated(&mut self, rule: Rule, what: String) {
        self.violations.push(Violation { rule, what });
    }
}
