//! Registering, heartbeats, good-byes, and the list.

use std::time::Duration;

use headless_abstractions::{Beat, Cursor, ErrorKind, Incarnation, NodeFacts, NodeState, Registration};

use super::node::Member;
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        BeatEveryone, FactsForgotten, ForgetLive, ForgetNobody, HeartbeatForgotten, IncarnationStands,
        LeaveForgotten, LivingHideSuspected, LivingWithEnded, NodesUnchecked, OneNodePage, RegisterUnseen,
        SuspicionHidden,
    },
    outbox::{
        node::outlast_lease,
        samples::{LONG, owner},
    },
    wait::elapse,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_be_seen_when_registered,
            "registration makes a node visible, alive, with what it says of itself"
        )
        .catching(&[RegisterUnseen]),
        case!(
            should_get_a_greater_incarnation_when_it_registers_anew,
            "each registration has a greater incarnation, and ends the owner's earlier one"
        )
        .catching(&[IncarnationStands, BeatEveryone]),
        case!(
            should_show_the_latest_facts_when_it_beats,
            "a heartbeat replaces what the node says of itself"
        )
        .catching(&[FactsForgotten, HeartbeatForgotten]),
        case!(
            should_stay_alive_when_it_beats,
            "a node that beats is neither suspected nor dead, however long it lives"
        )
        .catching(&[HeartbeatForgotten]),
        case!(
            should_be_suspected_and_recover_when_it_is_silent_for_a_while,
            "a silent node is suspected by the store's clock, and alive again with its next heartbeat"
        )
        .catching(&[SuspicionHidden]),
        case!(
            should_have_left_for_good_when_it_says_good_bye,
            "a node that has left is shown so, and its incarnation never beats again"
        )
        .catching(&[LeaveForgotten, BeatEveryone]),
        case!(
            should_refuse_the_heartbeat_when_the_incarnation_is_anothers,
            "owner and incarnation must both be the node's own"
        )
        .catching(&[BeatEveryone]),
        case!(
            should_forget_what_has_ended_when_it_is_old,
            "what has ended is forgotten when it is old, a batch at a time, and nobody who lives"
        )
        .catching(&[ForgetNobody, ForgetLive]),
        case!(
            should_list_each_node_once_when_it_takes_several_pages,
            "pages hold each node once, in the order of their incarnations"
        )
        .catching(&[OneNodePage]),
        case!(
            should_show_who_has_not_ended_when_it_looks_at_the_living,
            "a look at the living has those that have not ended, each once, with their state"
        )
        .catching(&[LivingHideSuspected, LivingWithEnded, OneNodePage]),
        case!(
            should_be_refused_when_a_limit_or_a_cursor_is_malformed,
            "limits out of range and foreign cursors are Invalid"
        )
        .catching(&[NodesUnchecked]),
    ]
}

async fn should_be_seen_when_registered<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (member, other) = (Member::join(cx).await?, Member::join(cx).await?);
    let facts = NodeFacts::new(r#"{"in_flight":3,"city":"Zürich"}"#)?;
    let registration = Registration::new(owner(1), "orders", "host-1 🦀")?.with_facts(facts.clone());
    let incarnation = member.membership.register(&registration).await?;
    let nodes = other.nodes().await?;
    ensure_eq!(nodes.len(), 1, "nodes that another process sees");
    let node = &nodes[0];
    ensure_eq!(node.incarnation, incarnation, "its incarnation");
    ensure_eq!(node.owner, owner(1), "its owner");
    ensure_eq!(
        (&*node.service, &*node.node),
        ("orders", "host-1 🦀"),
        "its labels"
    );
    ensure_eq!(node.state, NodeState::Alive, "its state");
    ensure_eq!(node.facts, facts, "its facts");
    Ok(())
}

async fn should_get_a_greater_incarnation_when_it_registers_anew<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let first = member.register_for_long(owner(1)).await?;
    let other = member.register_for_long(owner(2)).await?;
    let again = member.register_for_long(owner(1)).await?;
    ensure!(
        first < other && other < again,
        "{first}, {other}, {again} do not rise"
    );
    ensure_eq!(
        member.beat(owner(1), first).await?,
        Beat::Ended,
        "the earlier one"
    );
    ensure_eq!(
        member.beat(owner(1), again).await?,
        Beat::Accepted,
        "the later one"
    );
    ensure_eq!(
        member.state(first).await?,
        Some(NodeState::Left),
        "the earlier one"
    );
    ensure_eq!(
        member.state(other).await?,
        Some(NodeState::Alive),
        "another owner"
    );
    Ok(())
}

async fn should_show_the_latest_facts_when_it_beats<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let incarnation = member.register_for_long(owner(1)).await?;
    for lag in [7, 5] {
        let facts = NodeFacts::new(format!(r#"{{"lag":{lag}}}"#))?;
        let beat = member.membership.heartbeat(owner(1), incarnation, &facts).await?;
        ensure_eq!(beat, Beat::Accepted, "the heartbeat");
        ensure_eq!(member.nodes().await?[0].facts, facts, "the facts");
    }
    Ok(())
}

async fn should_stay_alive_when_it_beats<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let dead_after = cx.lease();
    let incarnation = member.register(owner(1), dead_after).await?;
    // Three times as long as silence would have been its death.
    for _ in 0..12 {
        elapse(dead_after / 4).await;
        ensure_eq!(
            member.beat(owner(1), incarnation).await?,
            Beat::Accepted,
            "a heartbeat"
        );
        ensure_eq!(
            member.state(incarnation).await?,
            Some(NodeState::Alive),
            "its state"
        );
    }
    ensure_eq!(member.membership.bury(10).await?, vec![], "who was buried");
    Ok(())
}

async fn should_be_suspected_and_recover_when_it_is_silent_for_a_while<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    let registration = Registration::new(owner(1), "orders", "a node")?.with_silence(cx.lease(), LONG)?;
    let incarnation = member.membership.register(&registration).await?;
    outlast_lease(cx).await;
    let nodes = member.nodes().await?;
    ensure_eq!(nodes[0].state, NodeState::Suspected, "after its silence");
    ensure!(nodes[0].silent >= cx.lease(), "silent for {:?}", nodes[0].silent);
    ensure_eq!(
        member.beat(owner(1), incarnation).await?,
        Beat::Accepted,
        "its heartbeat"
    );
    ensure_eq!(
        member.state(incarnation).await?,
        Some(NodeState::Alive),
        "after its heartbeat"
    );
    Ok(())
}

async fn should_have_left_for_good_when_it_says_good_bye<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let incarnation = member.register_for_long(owner(1)).await?;
    ensure!(
        member.membership.leave(owner(1), incarnation).await?,
        "the good-bye"
    );
    ensure!(
        !member.membership.leave(owner(1), incarnation).await?,
        "a second good-bye is none"
    );
    ensure_eq!(
        member.state(incarnation).await?,
        Some(NodeState::Left),
        "its state"
    );
    ensure_eq!(
        member.beat(owner(1), incarnation).await?,
        Beat::Ended,
        "its heartbeat"
    );
    ensure_eq!(
        member.state(incarnation).await?,
        Some(NodeState::Left),
        "its state"
    );
    Ok(())
}

async fn should_refuse_the_heartbeat_when_the_incarnation_is_anothers<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    let incarnation = member.register_for_long(owner(1)).await?;
    ensure_eq!(
        member.beat(owner(2), incarnation).await?,
        Beat::Ended,
        "another owner"
    );
    let never = Incarnation::new(incarnation.get() + 1_000);
    for unknown in [never, Incarnation::new(u64::MAX)] {
        ensure_eq!(
            member.beat(owner(1), unknown).await?,
            Beat::Ended,
            "no such incarnation"
        );
        ensure!(
            !member.membership.leave(owner(1), unknown).await?,
            "no such incarnation"
        );
    }
    ensure!(
        !member.membership.leave(owner(2), incarnation).await?,
        "another owner"
    );
    ensure_eq!(
        member.beat(owner(1), incarnation).await?,
        Beat::Accepted,
        "its own"
    );
    Ok(())
}

async fn should_forget_what_has_ended_when_it_is_old<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    for n in 1..=3 {
        let incarnation = member.register_for_long(owner(n)).await?;
        ensure!(
            member.membership.leave(owner(n), incarnation).await?,
            "a good-bye"
        );
    }
    let live = member.register_for_long(owner(4)).await?;
    ensure_eq!(member.membership.forget(LONG, 10).await?, 0, "who is old enough");
    ensure_eq!(member.membership.forget(Duration::ZERO, 2).await?, 2, "one batch");
    ensure_eq!(member.membership.forget(Duration::ZERO, 2).await?, 1, "the rest");
    let left: Vec<Incarnation> = member
        .nodes()
        .await?
        .iter()
        .map(|node| node.incarnation)
        .collect();
    ensure_eq!(left, vec![live], "who is left");
    ensure_eq!(member.beat(owner(4), live).await?, Beat::Accepted, "who lives");
    Ok(())
}

async fn should_list_each_node_once_when_it_takes_several_pages<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let mut registered = Vec::new();
    for n in 1..=5 {
        registered.push(member.register_for_long(owner(n)).await?);
    }
    let mut listed = Vec::new();
    let mut after = None;
    for _ in 0..5 {
        let page = member.membership.list(after.as_ref(), 2).await?;
        ensure!(page.items.len() <= 2, "a page of {} rows", page.items.len());
        listed.extend(page.items.iter().map(|node| node.incarnation));
        // What ends meanwhile moves nobody to another page.
        member.membership.leave(owner(1), registered[0]).await?;
        member.membership.forget(Duration::ZERO, 1).await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure_eq!(listed, registered, "the nodes of all pages");
    Ok(())
}

async fn should_show_who_has_not_ended_when_it_looks_at_the_living<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    let left = member.register_for_long(owner(1)).await?;
    ensure!(member.membership.leave(owner(1), left).await?, "a good-bye");
    member.register(owner(2), cx.lease()).await?;
    let suspected = Registration::new(owner(3), "orders", "silent")?.with_silence(cx.lease(), LONG)?;
    let suspected = member.membership.register(&suspected).await?;
    outlast_lease(cx).await;
    let alive = member.register_for_long(owner(4)).await?;
    let mut seen = Vec::new();
    let mut after = None;
    for _ in 0..4 {
        let page = member.membership.living(after.as_ref(), 2).await?;
        ensure!(page.items.len() <= 2, "a page of {} rows", page.items.len());
        seen.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let states: Vec<_> = seen.iter().map(|node| (node.owner, node.state)).collect();
    let expected = [
        (owner(2), NodeState::Dead),
        (owner(3), NodeState::Suspected),
        (owner(4), NodeState::Alive),
    ];
    ensure_eq!(states, expected, "who has not ended");
    ensure_eq!(&*seen[1].node, "silent", "its label");
    ensure_eq!(
        (seen[1].incarnation, seen[2].incarnation),
        (suspected, alive),
        "their incarnations"
    );
    member.membership.bury(10).await?;
    let living = member.membership.living(None, 10).await?.items;
    let living: Vec<_> = living.iter().map(|node| node.owner).collect();
    ensure_eq!(living, [owner(3), owner(4)], "after a burial");
    Ok(())
}

async fn should_be_refused_when_a_limit_or_a_cursor_is_malformed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register_for_long(owner(1)).await?;
    let foreign = Cursor::new("nobody's");
    for (after, limit) in [(None, 0), (None, 1_001), (Some(&foreign), 10)] {
        let refused = member.membership.list(after, limit).await;
        let kind = refused.as_ref().err().map(headless_abstractions::Error::kind);
        ensure_eq!(kind, Some(ErrorKind::Invalid), "list with {after:?} and {limit}");
    }
    for (after, limit) in [(None, 0), (None, 1_001), (Some(&foreign), 10)] {
        let refused = member.membership.living(after, limit).await;
        let kind = refused.as_ref().err().map(headless_abstractions::Error::kind);
        ensure_eq!(
            kind,
            Some(ErrorKind::Invalid),
            "living with {after:?} and {limit}"
        );
    }
    for limit in [0, 1_001] {
        let refused = member.membership.bury(limit).await;
        let kind = refused.as_ref().err().map(headless_abstractions::Error::kind);
        ensure_eq!(kind, Some(ErrorKind::Invalid), "bury with {limit}");
        let refused = member.membership.sweep(limit).await;
        let kind = refused.as_ref().err().map(headless_abstractions::Error::kind);
        ensure_eq!(kind, Some(ErrorKind::Invalid), "sweep with {limit}");
    }
    Ok(())
}
