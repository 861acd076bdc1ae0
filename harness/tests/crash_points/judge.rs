//! What must hold of a trial when nothing waits any more.

use std::collections::{BTreeMap, BTreeSet};

use headless::{GroupName, Origin};

use crate::{
    action::Style,
    leaving::{self, CARRY},
    operator::{self, MEND},
    part::{called_too_often, is_of, lines},
    place::{Effect, Place},
    purging::{self, SHRED},
    workload::{AUDIT, DEAD_LETTERS, Fate, NOTES, Order, WORK},
};

/// What was broken, in words; how often handlers were called, and with one message at most.
pub(crate) struct Judgement {
    pub(crate) broken: Vec<String>,
    pub(crate) calls: u64,
    pub(crate) most: u64,
}

/// What earlier trials have left on the servers.
pub(crate) struct Before {
    dead: usize,
    strays: usize,
    scrap: u64,
}

impl Before {
    pub(crate) async fn look(place: &Place) -> Self {
        Self {
            dead: place.dead(&worker()).await,
            strays: place.dead(&Origin::Relay).await,
            scrap: place.lag(DEAD_LETTERS).await,
        }
    }
}

fn worker() -> Origin {
    Origin::Group(GroupName::parse(WORK).expect("a name"))
}

/// Compares what is on the servers with what was published in this trial, in which what was held has [lapsed](lapses) so
/// often at most without a fault.
pub(crate) async fn judge(
    place: &Place,
    trial: u32,
    style: Style,
    before: &Before,
    lapses: u64,
) -> Judgement {
    let mut effects = place.effects().await;
    effects.retain(|effect| is_of(trial, effect.line));
    let mut broken = match style {
        Style::Single | Style::Batch => of_workload(place, trial, &effects, before, lapses).await,
        Style::Leaving => {
            let mut broken = each_once(&effects, CARRY, lines(trial, leaving::PARCELS));
            broken.extend(in_order(&effects, CARRY));
            broken.extend(at_least_once(&effects, lines(trial, leaving::NOTES)));
            broken
        }
        Style::Operator => each_once(&effects, MEND, operator::handled(trial)),
        Style::Purging => each_once(&effects, SHRED, purging::handled(trial)),
    };
    let mut calls = place.calls().await;
    calls.retain(|(_, line), _| is_of(trial, *line));
    broken.extend(called_too_often(style, &calls, lapses));
    Judgement {
        broken,
        calls: calls.values().sum(),
        most: calls.values().copied().max().unwrap_or_default(),
    }
}

fn lines_of(effects: &[Effect], group: &str) -> Vec<u32> {
    let of_group = effects.iter().filter(|effect| effect.group == group);
    of_group.map(|effect| effect.line).collect()
}

/// Nothing lost, and each effect once.
fn each_once(effects: &[Effect], group: &str, wanted: impl Iterator<Item = u32>) -> Vec<String> {
    let wanted: Vec<u32> = wanted.collect();
    let done = lines_of(effects, group);
    let mut sorted = done.clone();
    sorted.sort_unstable();
    let is_broken = sorted != wanted;
    let says = || format!("of {wanted:?} of {group} these were done: {done:?}");
    is_broken.then(says).into_iter().collect()
}

/// In the order of each key.
fn in_order(effects: &[Effect], group: &str) -> Vec<String> {
    let (mut last, mut broken) = (BTreeMap::new(), Vec::new());
    for Effect { line, key, .. } in effects.iter().filter(|effect| effect.group == group) {
        if let Some(before) = last.insert(key, line).filter(|before| *before >= line) {
            broken.push(format!("{line} of {key} came after {before}"));
        }
    }
    broken
}

/// At least once, where that is all that is promised.
fn at_least_once(effects: &[Effect], wanted: impl Iterator<Item = u32>) -> Vec<String> {
    let wanted: BTreeSet<u32> = wanted.collect();
    let noted: BTreeSet<u32> = lines_of(effects, AUDIT).into_iter().collect();
    let is_broken = noted != wanted;
    let says = || format!("of notes {wanted:?} these were taken: {noted:?}");
    is_broken.then(says).into_iter().collect()
}

async fn of_workload(
    place: &Place,
    trial: u32,
    effects: &[Effect],
    before: &Before,
    lapses: u64,
) -> Vec<String> {
    let orders = Order::all(trial)
        .filter(|order| matches!(order.fate(), Fate::Handled | Fate::FailsOnce))
        .map(|order| order.line);
    let mut broken = each_once(effects, WORK, orders);
    broken.extend(in_order(effects, WORK));
    broken.extend(at_least_once(effects, lines(trial, NOTES)));
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let given_up = Order::rolled_back(trial).line;
    must(
        !lines_of(effects, WORK).contains(&given_up),
        format!("order {given_up} was rolled back, and was done"),
    );

    // What cannot be handled waits for an operator, once where an inbox counts it.
    let after = Before::look(place).await;
    let dead = after.dead - before.dead;
    must(
        dead == 1,
        format!("{dead} dead letters of 1 order that cannot be handled"),
    );
    let strays = after.strays - before.strays;
    must(
        (1..=3 + lapses).contains(&(strays as u64)),
        format!("{strays} dead letters of the relay"),
    );
    let scrap = after.scrap - before.scrap;
    must(
        (1..=4 + lapses).contains(&scrap),
        format!("{scrap} messages on the dead topic"),
    );
    broken
}
