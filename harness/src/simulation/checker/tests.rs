//! Histories made by hand, each with one thing wrong.

use super::*;
use crate::simulation::label::{follow_up_of, id_of};

const NO_EPOCH: Option<Epoch> = None;

fn group() -> GroupName {
    GroupName::parse("billing").unwrap()
}

fn message(place: u64) -> Expected {
    Expected {
        topic: "orders",
        ordered_key: Some("hot".to_owned()),
        place,
        idempotency_key: None,
        published: true,
        rolled_back: false,
        ends: [End::Effect; 2],
        follow_ups: [None; 2],
    }
}

fn expecting(messages: impl IntoIterator<Item = (u64, Expected)>) -> BTreeMap<MessageId, Expected> {
    messages
        .into_iter()
        .map(|(number, message)| (id_of(number), message))
        .collect()
}

fn stored(number: u64) -> Fact {
    Fact::Stored(id_of(number))
}

fn granted(number: u64, epoch: u64) -> Fact {
    Fact::Granted(group(), id_of(number), Epoch::new(epoch))
}

fn renewed(number: u64, epoch: u64) -> Fact {
    Fact::Renewed(group(), id_of(number), Epoch::new(epoch))
}

fn effect(number: u64) -> Fact {
    Fact::Effect(group(), id_of(number))
}

fn reached(number: u64, state: InboxState, epoch: Option<Epoch>) -> Fact {
    Fact::Reached(group(), id_of(number), state, epoch)
}

fn processed(number: u64) -> Fact {
    reached(number, InboxState::Processed, NO_EPOCH)
}

/// The rules that a history breaks, each once.
fn broken(facts: &[Fact], expected: &BTreeMap<MessageId, Expected>) -> Vec<Rule> {
    let rules: BTreeSet<Rule> = check(facts, &[group()], [true; 2], expected)
        .into_iter()
        .map(|violation| violation.rule)
        .collect();
    rules.into_iter().collect()
}

fn one() -> BTreeMap<MessageId, Expected> {
    expecting([(1, message(1))])
}

#[test]
fn should_find_nothing_when_all_is_well() {
    let facts = [
        stored(1),
        Fact::Confirmed(id_of(1)),
        Fact::RelayGranted(id_of(1), Epoch::new(1)),
        Fact::RelayRenewed(id_of(1), Epoch::new(1)),
        Fact::Left(id_of(1)),
        granted(1, 1),
        renewed(1, 1),
        reached(1, InboxState::Parked, Some(Epoch::new(1))),
        granted(1, 2),
        reached(1, InboxState::Processed, Some(Epoch::new(2))),
        effect(1),
        stored(2),
        processed(2),
        effect(2),
    ];
    let expected = expecting([(1, message(1)), (2, message(2))]);
    assert_eq!(check(&facts, &[group()], [true; 2], &expected), []);
}

#[test]
fn should_find_a_message_that_was_confirmed_and_not_stored() {
    let facts = [Fact::Confirmed(id_of(1)), stored(1), processed(1), effect(1)];
    assert_eq!(broken(&facts, &one()), [Rule::NothingLost]);
}

#[test]
fn should_find_a_message_that_nobody_handled() {
    assert_eq!(broken(&[stored(1)], &one()), [Rule::NothingLost]);
}

#[test]
fn should_find_a_message_that_was_marked_without_its_effect() {
    assert_eq!(broken(&[stored(1), processed(1)], &one()), [Rule::NothingLost]);
}

#[test]
fn should_find_a_message_that_was_rolled_back_and_appears() {
    let mut expected = one();
    expected.get_mut(&id_of(1)).unwrap().rolled_back = true;
    assert_eq!(
        broken(&[stored(1), processed(1), effect(1)], &expected),
        [Rule::NothingInvented]
    );
}

#[test]
fn should_find_a_message_that_nobody_stored() {
    assert_eq!(
        broken(&[granted(1, 1)], &one()),
        [Rule::NothingInvented, Rule::Drains]
    );
}

#[test]
fn should_find_an_effect_that_was_rolled_back_and_appears() {
    let mut expected = one();
    expected.get_mut(&id_of(1)).unwrap().ends = [End::Dead; 2];
    let facts = [stored(1), effect(1), reached(1, InboxState::Dead, NO_EPOCH)];
    assert_eq!(broken(&facts, &expected), [Rule::NothingInvented]);
}

#[test]
fn should_find_an_effect_without_what_was_published_with_it() {
    let mut expected = one();
    expected.get_mut(&id_of(1)).unwrap().follow_ups = [Some(follow_up_of(id_of(1), 0)), None];
    assert_eq!(
        broken(&[stored(1), processed(1), effect(1)], &expected),
        [Rule::AllOrNothing]
    );
}

#[test]
fn should_find_a_second_effect_of_a_message() {
    let facts = [stored(1), processed(1), effect(1), effect(1)];
    assert_eq!(broken(&facts, &one()), [Rule::EffectsOnce]);
    let at_least_once = check(&facts, &[group()], [false; 2], &one());
    assert_eq!(at_least_once, []);
}

#[test]
fn should_find_a_second_effect_of_an_idempotency_key() {
    let keyed = |place| Expected {
        idempotency_key: Some("k".to_owned()),
        ..message(place)
    };
    let expected = expecting([(1, keyed(1)), (2, keyed(2))]);
    let once = [stored(1), processed(1), effect(1), stored(2)];
    assert_eq!(broken(&once, &expected), []);
    let twice = [stored(1), processed(1), effect(1), stored(2), effect(2)];
    assert_eq!(broken(&twice, &expected), [Rule::EffectsOnce]);
}

#[test]
fn should_find_a_message_that_overtook_another_of_its_key() {
    let expected = expecting([(1, message(1)), (2, message(2))]);
    let facts = [stored(1), stored(2), effect(2), effect(1)];
    assert_eq!(broken(&facts, &expected), [Rule::KeyOrder]);
    let other_key = Expected {
        ordered_key: Some("cold".to_owned()),
        ..message(2)
    };
    let expected = expecting([(1, message(1)), (2, other_key)]);
    assert_eq!(broken(&facts, &expected), []);
}

#[test]
fn should_find_a_finished_message_that_moves() {
    let again = [
        stored(1),
        effect(1),
        processed(1),
        reached(1, InboxState::Parked, NO_EPOCH),
    ];
    assert_eq!(broken(&again, &one()), [Rule::TerminalFinal]);
    let given_out = [stored(1), effect(1), processed(1), granted(1, 1)];
    assert_eq!(broken(&given_out, &one()), [Rule::TerminalFinal]);
}

#[test]
fn should_find_two_owners() {
    let renewed_late = [stored(1), granted(1, 1), granted(1, 2), renewed(1, 1), effect(1)];
    assert_eq!(broken(&renewed_late, &one()), [Rule::OneOwner]);
    let same_epoch = [stored(1), granted(1, 1), granted(1, 1), effect(1)];
    assert_eq!(broken(&same_epoch, &one()), [Rule::OneOwner]);
    let settled_late = [
        stored(1),
        granted(1, 1),
        granted(1, 2),
        reached(1, InboxState::Processed, Some(Epoch::new(1))),
        effect(1),
    ];
    assert_eq!(broken(&settled_late, &one()), [Rule::OneOwner]);
    let without_a_hold = [stored(1), granted(1, 1), processed(1), effect(1)];
    assert_eq!(broken(&without_a_hold, &one()), [Rule::OneOwner]);
    let renewed_after_the_end = [stored(1), granted(1, 1)]
        .into_iter()
        .chain([reached(1, InboxState::Processed, Some(Epoch::new(1))), effect(1)])
        .chain([renewed(1, 1)])
        .collect::<Vec<_>>();
    assert_eq!(broken(&renewed_after_the_end, &one()), [Rule::OneOwner]);
}

#[test]
fn should_find_two_relays_with_one_row() {
    let relay = |epoch| Fact::RelayGranted(id_of(1), Epoch::new(epoch));
    let renewed = Fact::RelayRenewed(id_of(1), Epoch::new(1));
    let facts = [stored(1), effect(1), relay(1), relay(2), renewed];
    assert_eq!(broken(&facts, &one()), [Rule::OneOwner]);
    let anew = [stored(1), effect(1), relay(1), Fact::Left(id_of(1)), relay(1)];
    assert_eq!(broken(&anew, &one()), [], "published again, it begins anew");
}

#[test]
fn should_find_a_wrong_end() {
    let died = [stored(1), reached(1, InboxState::Dead, NO_EPOCH)];
    assert_eq!(broken(&died, &one()), [Rule::NothingLost, Rule::RightEnd]);
    let in_the_relay = [stored(1), effect(1), Fact::RelayDead(id_of(1))];
    assert_eq!(broken(&in_the_relay, &one()), [Rule::RightEnd]);
}

#[test]
fn should_find_a_message_that_could_not_be_published() {
    assert_eq!(broken(&[], &one()), [Rule::Drains]);
}

/// Ann holds a message and acts on it; `then` happens; Bob is given it and commits his effect.
fn given_out_after(must_hold: bool, then: &[Fact]) -> Vec<Rule> {
    let held_by = |node: &str| Fact::HeldBy(group(), id_of(1), node.into());
    let began = Fact::Began("ann".into(), group(), vec![id_of(1)], must_hold, 1);
    let facts: Vec<Fact> = [stored(1), granted(1, 1), held_by("ann"), began]
        .into_iter()
        .chain(then.iter().cloned())
        .chain([granted(1, 2), held_by("bob"), effect(1), Fact::Ended(1)])
        .collect();
    broken(&facts, &one())
}

#[test]
fn should_find_a_message_that_is_given_out_while_another_acts_on_it() {
    assert_eq!(given_out_after(true, &[]), [Rule::OneOwner]);
    assert_eq!(given_out_after(true, &[Fact::Ended(1)]), []);
    assert_eq!(given_out_after(false, &[]), [], "nobody held it");
}

#[test]
fn should_find_a_call_that_begins_on_what_another_was_given() {
    let began = |node: &str, must_hold| Fact::Began(node.into(), group(), vec![id_of(1)], must_hold, 1);
    let history = |before: &[Fact], began: Fact| {
        let facts: Vec<Fact> = [
            stored(1),
            granted(1, 1),
            Fact::HeldBy(group(), id_of(1), "bob".into()),
        ]
        .into_iter()
        .chain(before.iter().cloned())
        .chain([began, Fact::Ended(1), effect(1)])
        .collect();
        broken(&facts, &one())
    };
    assert_eq!(history(&[], began("ann", true)), [Rule::OneOwner]);
    assert_eq!(history(&[], began("bob", true)), []);
    assert_eq!(history(&[], began("ann", false)), [], "it needs no hold");
    let stopped = Fact::Stopped("ann".into());
    assert_eq!(
        history(&[stopped], began("ann", true)),
        [],
        "only fences stop that"
    );
    // What it held when it stood still, it holds by its own clock until it asks; what it did not, it does not.
    let still = |held_before: &str| {
        let held = Fact::HeldBy(group(), id_of(1), held_before.into());
        let [stopped, resumed, heard] =
            [Fact::Stopped, Fact::Resumed, Fact::Heard].map(|fact| fact("ann".into()));
        let given = Fact::HeldBy(group(), id_of(1), "bob".into());
        history(&[held, stopped, given, resumed, heard], began("ann", true))
    };
    assert_eq!(still("ann"), []);
    assert_eq!(still("bob"), [Rule::OneOwner]);
}

#[test]
fn should_ask_nothing_of_a_node_that_stood_still_until_it_is_heard_again() {
    let (ann, bob): (std::sync::Arc<str>, std::sync::Arc<str>) = ("ann".into(), "bob".into());
    let [stopped, resumed, heard] = [
        Fact::Stopped(ann.clone()),
        Fact::Resumed(ann.clone()),
        Fact::Heard(ann.clone()),
    ];
    assert_eq!(given_out_after(true, std::slice::from_ref(&stopped)), []);
    assert_eq!(
        given_out_after(true, &[Fact::Stopped(bob)]),
        [Rule::OneOwner],
        "another stood still"
    );
    // What it is given and begins once it goes on says nothing before it is heard, and everything after that.
    let again = [
        Fact::Ended(1),
        granted(1, 2),
        Fact::HeldBy(group(), id_of(1), ann.clone()),
        Fact::Began(ann, group(), vec![id_of(1)], true, 2),
        granted(1, 3),
    ];
    let history = |before: &[&Fact]| -> Vec<Rule> {
        let facts: Vec<Fact> = [&stored(1), &granted(1, 1)]
            .into_iter()
            .chain(before.iter().copied())
            .chain(&again)
            .cloned()
            .chain([effect(1)])
            .collect();
        broken(&facts, &one())
    };
    assert_eq!(history(&[&stopped, &resumed]), []);
    assert_eq!(
        history(&[&stopped, &heard, &resumed]),
        [],
        "a heartbeat that was on its way"
    );
    assert_eq!(history(&[&stopped, &resumed, &heard]), [Rule::OneOwner]);
}
