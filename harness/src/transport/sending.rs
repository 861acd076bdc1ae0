//! Sending: what arrives, how often, and what each message is told.

use std::collections::BTreeSet;

use futures::{FutureExt, future::join_all};
use headless_abstractions::{ErrorKind, Message, PartitionKey, Sent};

use super::{
    member::{bodies, body},
    node::unordered,
    refusing::answer,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::{Cx, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        DropDelivery, DuplicateDelivery, GroupsBeginLate, LieAboutRouting, LoseAck, MisalignAnswers,
        ReverseBatch, SwallowSendError,
    },
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_deliver_once_when_sent,
            "a message that was accepted is delivered, acked and gone"
        )
        .catching(&[DropDelivery, DuplicateDelivery, LoseAck]),
        case!(
            should_deliver_each_once_when_many_are_sent,
            "a thousand messages in batches arrive, none lost, none twice"
        )
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_deliver_each_once_when_many_tasks_send,
            "several sends may be under way on one handle and on several"
        )
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_keep_messages_when_nobody_has_subscribed,
            "a process may only send: its messages wait for a member"
        )
        .catching(&[GroupsBeginLate]),
        case!(
            should_answer_for_each_message_when_a_batch_fails_in_part,
            "answers come in the order of the batch, and a refused message does not keep its neighbours back"
        )
        .catching(&[SwallowSendError, MisalignAnswers]),
        case!(
            should_answer_nothing_when_the_batch_is_empty,
            "an empty batch is no error"
        )
        .catching(&[LieAboutRouting]),
        case!(
            should_say_unrouted_when_no_group_takes_the_topic,
            "a message that nobody takes is accepted and dropped, and says so"
        )
        .catching(&[LieAboutRouting]),
        case!(
            should_accept_in_the_order_of_the_batch_when_a_key_is_shared,
            "messages of one topic and key are accepted in the batch's order"
        )
        .described(Flag::ordering)
        .catching(&[ReverseBatch]),
        case!(
            should_send_whole_messages_or_none_when_the_send_is_dropped,
            "dropping a send leaves each message sent or not, and the handle sound"
        )
        .catching(&[DuplicateDelivery]),
    ]
}

async fn should_deliver_once_when_sent<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join_briefly(cx, "billing", &orders).await?;
    let message = cx.message(&orders, "one");
    node.send(std::slice::from_ref(&message)).await?;
    ensure_eq!(member.work(1).await?, vec![message], "what was delivered");
    ensure_eq!(node.lag("billing").await?, 0, "the lag after the ack");
    member.nothing_for(cx.lease() + cx.quiet()).await
}

async fn should_deliver_each_once_when_many_are_sent<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 1_000);
    for batch in messages.chunks(100) {
        node.send(batch).await?;
    }
    arrived_once(&messages, member.work(messages.len()).await?)?;
    member.nothing().await
}

async fn should_deliver_each_once_when_many_tasks_send<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let other = cx.node().await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 800);
    let sends = messages.chunks(20).enumerate().map(|(n, batch)| {
        let sender = if n % 2 == 0 { node.clone() } else { other.clone() };
        let batch = batch.to_vec();
        tokio::spawn(async move { sender.driver.send(&batch).await })
    });
    for answers in join_all(sends).await {
        for answer in answers? {
            ensure_eq!(answer?, Sent::Accepted, "what became of a message");
        }
    }
    arrived_once(&messages, member.work(messages.len()).await?)?;
    member.nothing().await
}

async fn should_keep_messages_when_nobody_has_subscribed<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let sender = cx.node_with(&orders, &["billing"]).await?;
    let messages = cx.messages(&orders, 50);
    sender.send(&messages).await?;
    sender.driver.close().await?;

    let node = cx.node().await?;
    let member = node.join(cx, "billing", &orders).await?;
    arrived_once(&messages, member.work(messages.len()).await?)?;
    member.nothing().await
}

async fn should_answer_for_each_message_when_a_batch_fails_in_part<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (orders, nowhere) = (topic("orders"), topic("nowhere"));
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let batch = [
        cx.message(&nowhere, 0),
        cx.message(&orders, 1),
        cx.message(&nowhere, 2),
        cx.message(&orders, 3),
        cx.message(&orders, 4),
    ];
    let answers = node.driver.send(&batch).await;
    ensure_eq!(answers.len(), batch.len(), "the number of answers");
    for (message, answer) in batch.iter().zip(answers) {
        match answer {
            Ok(sent) => {
                ensure_eq!(message.topic, orders, "the topic of what was accepted");
                ensure_eq!(sent, Sent::Accepted, "what became of it");
            }
            Err(error) => {
                ensure_eq!(message.topic, nowhere, "the topic of what was refused ({error})");
                ensure_eq!(error.kind(), ErrorKind::NotFound, "why it was refused");
            }
        }
    }
    arrived_once(
        &[batch[1].clone(), batch[3].clone(), batch[4].clone()],
        member.work(3).await?,
    )?;
    member.nothing().await
}

async fn should_answer_nothing_when_the_batch_is_empty<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let (orders, unheard) = (topic("orders"), topic("unheard"));
    let node = cx.node_with(&orders, &["billing"]).await?;
    node.declare(unordered(&unheard), &[]).await?;
    ensure!(
        node.driver.send(&[]).await.is_empty(),
        "an empty batch was answered for"
    );
    let member = node.join(cx, "billing", &orders).await?;
    ensure!(
        member.subscriber.settle(&[]).await.is_empty(),
        "no settlement was answered for"
    );
    ensure!(
        member.subscriber.extend(&[], cx.lease()).await.is_empty(),
        "no extension was answered for"
    );
    // The handle works as before, and its answers are those of what was sent.
    let answers = node
        .driver
        .send(&[cx.message(&orders, 1), cx.message(&unheard, 2)])
        .await;
    let answers: Vec<Sent> = answers.into_iter().collect::<Result<_, _>>()?;
    ensure_eq!(
        answers,
        vec![Sent::Accepted, Sent::Unrouted],
        "the answers to the next batch"
    );
    Ok(())
}

async fn should_say_unrouted_when_no_group_takes_the_topic<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &[]).await?;
    let answer = answer(node.driver.send(&[cx.message(&orders, 1)]).await)?;
    ensure_eq!(
        answer?,
        Sent::Unrouted,
        "what became of a message that nobody takes"
    );

    // Once there is a group the same topic routes, and what was dropped stays so.
    node.declare(unordered(&orders), &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, 2)]).await?;
    ensure_eq!(
        body(&member.work(1).await?[0]),
        "2",
        "the first message of the group"
    );
    member.nothing().await
}

async fn should_accept_in_the_order_of_the_batch_when_a_key_is_shared<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 1, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let key = PartitionKey::parse("a")?;
    let messages: Vec<Message> = cx
        .messages(&orders, 60)
        .into_iter()
        .map(|message| message.with_key(key.clone()))
        .collect();
    for batch in messages.chunks(20) {
        node.send(batch).await?;
    }
    let taken = member.take(messages.len()).await?;
    let expected: Vec<String> = messages.iter().map(body).collect();
    ensure_eq!(bodies(&taken), expected, "the order of the key");
    Ok(())
}

async fn should_send_whole_messages_or_none_when_the_send_is_dropped<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 100);
    for (polls, batch) in messages.chunks(10).enumerate() {
        let mut send = node.driver.send(batch);
        for _ in 0..polls {
            if (&mut send).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let last = cx.message(&orders, "last");
    node.send(std::slice::from_ref(&last)).await?;

    let arrived = member.drain().await?;
    ensure!(
        arrived.contains(&last),
        "the handle sends nothing after a send was dropped"
    );
    let sent: BTreeSet<_> = messages
        .iter()
        .map(|message| message.id)
        .chain([last.id])
        .collect();
    let mut seen = BTreeSet::new();
    for message in arrived {
        ensure!(sent.contains(&message.id), "{} was never sent", message.id);
        ensure!(seen.insert(message.id), "{} came twice", message.id);
    }
    Ok(())
}

/// Sees that these messages came, each once, in any order.
pub(super) fn arrived_once(sent: &[Message], arrived: Vec<Message>) -> CaseResult {
    let mut missing: std::collections::BTreeMap<_, _> =
        sent.iter().map(|message| (message.id, message)).collect();
    for message in arrived {
        match missing.remove(&message.id) {
            Some(sent) => ensure_eq!(message, *sent, "a message after its way"),
            None => crate::case::fail!("{} came twice, or was never sent", body(&message)),
        }
    }
    ensure!(missing.is_empty(), "{} messages did not come", missing.len());
    Ok(())
}
