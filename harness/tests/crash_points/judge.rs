//! What must hold of a trial when nothing waits any more.

use std::collections::{BTreeMap, BTreeSet};

use headless::{GroupName, Origin};

use crate::{
    place::Place,
    workload::{AUDIT, DEAD_LETTERS, Fate, MOST_CALLS, NOTES, Order, WORK, is_of, lines},
};

/// What was broken, in words; and how often handlers were called.
pub(crate) struct Judgement {
    pub(crate) broken: Vec<String>,
    pub(crate) calls: u64,
}

/// What earlier trials have left on the servers.
pub(crate) struct Before {
    dead: usize,
    strays: usize,
    scrap: u64,
    calls: u64,
}

impl Before {
    pub(crate) async fn look(place: &Place) -> Self {
        Self {
            dead: place.dead(&worker()).await,
            strays: place.dead(&Origin::Relay).await,
            scrap: place.lag(DEAD_LETTERS).await,
            calls: place.calls().await,
        }
    }
}

fn worker() -> Origin {
    Origin::Group(GroupName::parse(WORK).expect("a name"))
}

/// Compares what is on the servers with what was published in this trial.
pub(crate) async fn judge(place: &Place, trial: u32, before: &Before) -> Judgement {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let mut effects = place.effects().await;
    effects.retain(|effect| is_of(trial, effect.line));
    let lines_of = |group: &str| -> Vec<u32> {
        let of_group = effects.iter().filter(|effect| effect.group == group);
        of_group.map(|effect| effect.line).collect()
    };

    // Nothing lost, and each effect once.
    let done = lines_of(WORK);
    let wanted: Vec<u32> = Order::all(trial)
        .filter(|order| matches!(order.fate(), Fate::Handled | Fate::FailsOnce))
        .map(|order| order.line)
        .collect();
    must(
        !done.contains(&Order::rolled_back(trial).line),
        format!(
            "order {} was rolled back, and was done",
            Order::rolled_back(trial).line
        ),
    );
    let mut sorted = done.clone();
    sorted.sort_unstable();
    must(
        sorted == wanted,
        format!("of orders {wanted:?} these were done: {done:?}"),
    );

    // In the order of each key.
    let mut last = BTreeMap::new();
    for effect in effects.iter().filter(|effect| effect.group == WORK) {
        let before = last.insert(&effect.key, effect.line);
        must(
            before.is_none_or(|before| before < effect.line),
            format!("order {} of {} came after {before:?}", effect.line, effect.key),
        );
    }

    // At least once, where that is all that is promised.
    let noted: BTreeSet<u32> = lines_of(AUDIT).into_iter().collect();
    must(
        noted == lines(trial, NOTES).collect(),
        format!("of {NOTES} notes these were taken: {noted:?}"),
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
        (1..=3).contains(&strays),
        format!("{strays} dead letters of the relay"),
    );
    let scrap = after.scrap - before.scrap;
    must(
        (1..=4).contains(&scrap),
        format!("{scrap} messages on the dead topic"),
    );

    let calls = after.calls - before.calls;
    must(
        calls <= MOST_CALLS,
        format!("{calls} calls, the most are {MOST_CALLS}"),
    );
    Judgement { broken, calls }
}
