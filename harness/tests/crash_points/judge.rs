//! What must hold of a trial when nothing waits any more.

use std::collections::{BTreeMap, BTreeSet};

use headless::{GroupName, Origin};

use crate::{
    place::Place,
    workload::{AUDIT, DEAD_LETTERS, Fate, MOST_CALLS, NOTES, Order, WORK},
};

/// What was broken, in words; and how often handlers were called.
pub(crate) struct Judgement {
    pub(crate) broken: Vec<String>,
    pub(crate) calls: u64,
}

/// Compares what is on the servers with what was published.
pub(crate) async fn judge(place: &Place) -> Judgement {
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let effects = place.effects().await;
    let lines_of = |group: &str| -> Vec<u32> {
        let of_group = effects.iter().filter(|effect| effect.group == group);
        of_group.map(|effect| effect.line).collect()
    };

    // Nothing lost, and each effect once.
    let done = lines_of(WORK);
    let wanted: Vec<u32> = Order::all()
        .filter(|order| matches!(order.fate(), Fate::Handled | Fate::FailsOnce))
        .map(|order| order.line)
        .collect();
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
        noted == (0..NOTES).collect(),
        format!("of {NOTES} notes these were taken: {noted:?}"),
    );

    // What cannot be handled waits for an operator, once where an inbox counts it.
    let group = Origin::Group(GroupName::parse(WORK).expect("a name"));
    let dead = place.dead(&group).await;
    must(
        dead == 1,
        format!("{dead} dead letters of 1 order that cannot be handled"),
    );
    let strays = place.dead(&Origin::Relay).await;
    must(
        (1..=3).contains(&strays),
        format!("{strays} dead letters of the relay"),
    );
    let scrap = place.lag(DEAD_LETTERS).await;
    must(
        (1..=4).contains(&scrap),
        format!("{scrap} messages on the dead topic"),
    );

    let calls = place.calls().await;
    must(
        calls <= MOST_CALLS,
        format!("{calls} calls, the most are {MOST_CALLS}"),
    );
    Judgement { broken, calls }
}
