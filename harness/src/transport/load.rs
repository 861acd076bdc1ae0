//! Under load: members that come, go and die while thousands of messages pass.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use headless_abstractions::{ErrorKind, Message, Sent};

use super::{
    member::Member,
    ordering::{OrderCheck, keyed, narrow},
    sending::arrived_once,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, fail},
    cx::{Cx, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        AckOnReceive, DropDelivery, DuplicateDelivery, HangAfterClose, ReorderDeliveries, SwallowSendError,
    },
    wait::{Stopwatch, elapse, within},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_deliver_each_once_when_members_work_under_load,
            "several members and senders, thousands of messages: none lost, none twice"
        )
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_keep_key_order_when_members_work_under_load,
            "several members and senders on an ordered topic, joins and leaves on the way: each key in order"
        )
        .described(Flag::ordering)
        .catching(&[ReorderDeliveries, DropDelivery]),
        case!(
            should_lose_nothing_when_members_die_under_load,
            "members are killed with deliveries in hand: every message arrives, on an ordered topic in order"
        )
        .described(Flag::ordering)
        .catching(&[DropDelivery, AckOnReceive, ReorderDeliveries]),
        case!(
            should_agree_with_an_independent_reader_when_some_sends_fail,
            "what was accepted is what another group observes, no more and no less"
        )
        .catching(&[SwallowSendError, DropDelivery, DuplicateDelivery]),
        case!(
            should_deliver_what_was_accepted_when_the_handle_closes_under_load,
            "closing waits for confirms: each send is answered, and what was accepted is there"
        )
        .catching(&[SwallowSendError, HangAfterClose]),
    ]
}

/// What the members of a case have worked off.
type Worked = Arc<Mutex<Vec<Message>>>;

/// Works until `enough` messages are done in all; answers how many it did itself.
async fn work(member: Member, worked: Worked, enough: usize, bound: Duration) -> CaseResult<usize> {
    let watch = Stopwatch::start();
    let mut mine = 0;
    loop {
        let done = worked.lock().unwrap_or_else(PoisonError::into_inner).len();
        if done >= enough {
            return Ok(mine);
        }
        ensure!(watch.elapsed() < bound, "{done} of {enough} messages are done");
        let received = member.receive(25, Duration::from_millis(50)).await?;
        // Each handler takes its time, so that members overlap.
        elapse(Duration::from_millis(1)).await;
        member.ack(&received.deliveries).await?;
        mine += received.deliveries.len();
        let messages = received.deliveries.into_iter().map(|delivery| delivery.message);
        worked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(messages);
    }
}

async fn should_deliver_each_once_when_members_work_under_load<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const COUNT: usize = 3_000;
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let worked = Worked::default();
    let mut workers = Vec::new();
    for _ in 0..4 {
        let member = cx.node().await?.join(cx, "billing", &orders).await?;
        workers.push(tokio::spawn(work(
            member,
            worked.clone(),
            COUNT,
            cx.patience() * 3,
        )));
    }
    let messages = cx.messages(&orders, COUNT);
    let sends = messages.chunks(COUNT / 3).map(|part| {
        let (node, part) = (node.clone(), part.to_vec());
        tokio::spawn(async move { send_in_batches(&node, &part).await })
    });
    for sent in join_all(sends).await {
        sent??;
    }
    for worker in join_all(workers).await {
        // Fair enough: nobody starves while the others take it all.
        let mine = worker??;
        ensure!(
            mine >= COUNT / 40,
            "one of four members did {mine} of {COUNT} messages"
        );
    }
    ensure_eq!(node.lag("billing").await?, 0, "the lag at the end");
    let arrived = std::mem::take(&mut *worked.lock().unwrap_or_else(PoisonError::into_inner));
    arrived_once(&messages, arrived)
}

async fn send_in_batches(node: &TransportNode, messages: &[Message]) -> CaseResult {
    for batch in messages.chunks(50) {
        node.send(batch).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn should_keep_key_order_when_members_work_under_load<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    const COUNT: usize = 4_000;
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 16, &["billing"]).await?;
    let messages = keyed(cx, &orders, COUNT, 40)?;
    let sending = {
        let (node, messages) = (node.clone(), messages.clone());
        tokio::spawn(async move {
            for batch in messages.chunks(40) {
                node.send(batch).await?;
                elapse(Duration::from_millis(2)).await;
            }
            CaseResult::Ok(())
        })
    };
    let mut members = vec![narrow(cx, &node, 20, cx.lease()).await?];
    let mut order = OrderCheck::default();
    let watch = Stopwatch::start();
    let mut round = 0;
    while order.different() < COUNT {
        ensure!(
            watch.elapsed() < cx.patience() * 3,
            "{} of {COUNT} messages came",
            order.different()
        );
        round += 1;
        match (round % 20, members.len()) {
            (5 | 15, 1..4) => members.push(narrow(cx, &cx.node().await?, 20, cx.lease()).await?),
            (10, 3..) => members.remove(round % members.len()).subscriber.close().await?,
            _ => {}
        }
        for member in &members {
            turn(member, &mut order).await?;
        }
    }
    sending.await??;
    Ok(())
}

/// One receive, whose deliveries are seen and acked.
async fn turn(member: &Member, order: &mut OrderCheck) -> CaseResult {
    let received = member.receive(30, Duration::from_millis(5)).await?;
    for delivery in &received.deliveries {
        order.see(&delivery.message)?;
    }
    member.ack(&received.deliveries).await
}

async fn should_lose_nothing_when_members_die_under_load<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    const COUNT: usize = 1_500;
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 8, &["billing"]).await?;
    let messages = keyed(cx, &orders, COUNT, 30)?;
    send_in_batches(&node, &messages).await?;
    let mut members = Vec::new();
    let mut order = OrderCheck::default();
    let mut deaths = 0;
    let watch = Stopwatch::start();
    while order.different() < COUNT {
        ensure!(
            watch.elapsed() < cx.patience() * 4,
            "{} of {COUNT} messages came after {deaths} deaths",
            order.different()
        );
        while members.len() < 2 {
            let process = cx.node().await?;
            let member = narrow(cx, &process, 10, cx.lease()).await?;
            members.push((process, member));
        }
        for _ in 0..3 {
            for (_, member) in &members {
                turn(member, &mut order).await?;
            }
        }
        if deaths < 6 {
            // One of them dies with what it has just been given: nobody has handled it.
            let (process, member) = members.remove(deaths % 2);
            let in_hand = member.receive(30, Duration::from_millis(50)).await?;
            process.kill();
            deaths += 1;
            drop(in_hand);
        }
    }
    ensure!(deaths > 0, "nobody died");
    let lag = node.lag("billing").await?;
    ensure_eq!(lag, 0, "the lag at the end");
    Ok(())
}

async fn should_agree_with_an_independent_reader_when_some_sends_fail<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (orders, nowhere) = (topic("orders"), topic("nowhere"));
    let node = cx.node_with(&orders, &["billing", "audit"]).await?;
    let mut accepted = Vec::new();
    for n in 0..20 {
        let batch: Vec<Message> = (0..20)
            .map(|m| {
                cx.message(
                    if (n + m) % 7 == 0 { &nowhere } else { &orders },
                    format!("{n}/{m}"),
                )
            })
            .collect();
        for (message, answer) in batch.iter().zip(node.driver.send(&batch).await) {
            match answer {
                Ok(Sent::Accepted) => accepted.push(message.clone()),
                Ok(Sent::Unrouted) => fail!("{message:?} was not routed"),
                Err(error) => ensure_eq!(error.kind(), ErrorKind::NotFound, "why it was refused ({error})"),
            }
        }
    }
    ensure_eq!(
        node.lag("audit").await?,
        accepted.len() as u64,
        "what waits for the reader"
    );
    let reader = cx.node().await?.join(cx, "audit", &orders).await?;
    arrived_once(&accepted, reader.work(accepted.len()).await?)?;
    reader.nothing().await
}

async fn should_deliver_what_was_accepted_when_the_handle_closes_under_load<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let senders = (0..8).map(|sender| {
        let driver = node.driver.clone();
        let messages: Vec<Message> = (0..200)
            .map(|n| cx.message(&orders, format!("{sender}/{n}")))
            .collect();
        tokio::spawn(async move {
            let mut answered = Vec::new();
            for message in messages {
                let answer = driver.send(std::slice::from_ref(&message)).await.pop();
                answered.push((message, answer));
                tokio::task::yield_now().await;
            }
            answered
        })
    });
    let closing = async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        node.driver.close().await
    };
    let both = futures::future::join(join_all(senders), closing);
    let (answers, closed) = within(cx.patience() * 3, "sends on a handle that closes", both).await?;
    closed?;
    let (mut accepted, mut unknown, mut refused) = (Vec::new(), BTreeSet::new(), 0);
    for answered in answers {
        for (message, answer) in answered? {
            match answer {
                Some(Ok(_)) => accepted.push(message),
                Some(Err(error)) if error.is_outcome_unknown() => {
                    unknown.insert(message.id);
                }
                Some(Err(error)) => {
                    ensure_eq!(error.kind(), ErrorKind::Closed, "why it was refused ({error})");
                    refused += 1;
                }
                None => fail!("a send was not answered"),
            }
        }
    }
    ensure!(refused > 0, "nothing was refused after closing");
    let member = cx.node().await?.join(cx, "billing", &orders).await?;
    let arrived = member.drain().await?;
    let arrived: Vec<Message> = arrived
        .into_iter()
        .filter(|message| !unknown.contains(&message.id))
        .collect();
    arrived_once(&accepted, arrived)
}
