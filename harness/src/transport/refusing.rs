//! What a send refuses: each message by its own fault.

use std::{collections::BTreeSet, num::NonZeroUsize};

use headless_abstractions::{ErrorKind, Message, PartitionKey, Priority, Result};

use super::{
    member::body,
    node::{ordered, unordered},
};
use crate::{
    case::{Case, CaseError, CaseResult, Flag, case, ensure, ensure_eq, fail},
    cx::{Cx, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        IgnorePayloadLimit, IgnorePrefix, IgnorePriority, PayloadLimitOffByOne, SwallowSendError,
    },
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_refuse_when_the_topic_was_never_declared,
            "an unknown topic is `NotFound`"
        )
        .catching(&[SwallowSendError]),
        case!(
            should_keep_a_payload_when_it_is_at_the_limit,
            "the declared limit is the real one"
        )
        .described(Flag::max_payload)
        .catching(&[PayloadLimitOffByOne]),
        case!(
            should_refuse_a_payload_when_over_the_limit,
            "a larger payload is `TooLarge`, and nothing of it arrives"
        )
        .described(Flag::max_payload)
        .catching(&[IgnorePayloadLimit, SwallowSendError]),
        case!(
            should_refuse_an_ordered_message_when_it_has_no_key,
            "without a key it has no place in the order: `Invalid`"
        )
        .described(Flag::ordering)
        .catching(&[SwallowSendError]),
        case!(
            should_refuse_a_priority_when_the_topic_is_ordered,
            "priority and order contradict each other"
        )
        .described(Flag::ordering)
        .catching(&[SwallowSendError, IgnorePriority]),
        case!(
            should_stop_a_key_at_its_first_failure_when_a_batch_is_sent,
            "after a failure the later messages of its key are not sent and answer `Conflict`"
        )
        .described(Flag::accepts_by_prefix)
        .catching(&[IgnorePrefix, SwallowSendError]),
    ]
}

async fn should_refuse_when_the_topic_was_never_declared<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let node = cx.node().await?;
    refused(
        &node.driver.send(&[cx.message(&topic("nowhere"), 1)]).await,
        ErrorKind::NotFound,
    )
}

async fn should_keep_a_payload_when_it_is_at_the_limit<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let mut message = cx.message(&orders, "");
    message.payload = vec![b'x'; limit(&node.driver.info().capabilities.max_payload)?].into();
    node.send(std::slice::from_ref(&message)).await?;
    let arrived = member.work(1).await?;
    ensure!(
        arrived[0].payload == message.payload,
        "the payload at the limit changed on its way"
    );
    Ok(())
}

async fn should_refuse_a_payload_when_over_the_limit<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let limit = limit(&node.driver.info().capabilities.max_payload)?;
    let mut large = cx.message(&orders, "");
    large.payload = vec![b'x'; limit + 1].into();
    let small = cx.message(&orders, "small");
    let answers = node.driver.send(&[large, small]).await;
    ensure_eq!(answers.len(), 2, "the number of answers");
    let Err(error) = &answers[0] else {
        return Err(CaseError::failed("a payload over the limit was accepted"));
    };
    ensure_eq!(error.kind(), ErrorKind::TooLarge, "why it was refused");
    ensure!(
        error.to_string().contains(&limit.to_string()),
        "the error names no limit: {error}"
    );
    ensure!(answers[1].is_ok(), "its neighbour was kept back: {answers:?}");
    ensure_eq!(body(&member.work(1).await?[0]), "small", "what arrived");
    member.nothing().await
}

async fn should_refuse_an_ordered_message_when_it_has_no_key<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    refused(
        &node.driver.send(&[cx.message(&orders, 1)]).await,
        ErrorKind::Invalid,
    )?;
    ensure_eq!(node.lag("billing").await?, 0, "what waits after the refusal");
    Ok(())
}

async fn should_refuse_a_priority_when_the_topic_is_ordered<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let mut message = cx.message(&orders, 1).with_key(PartitionKey::parse("a")?);
    message.priority = Priority::MAX;
    let kind = if node.driver.info().capabilities.priority {
        ErrorKind::Invalid
    } else {
        ErrorKind::Unsupported
    };
    refused(&node.driver.send(&[message]).await, kind)?;
    ensure_eq!(node.lag("billing").await?, 0, "what waits after the refusal");
    Ok(())
}

async fn should_stop_a_key_at_its_first_failure_when_a_batch_is_sent<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    let capabilities = node.driver.info().capabilities;
    // Something that this transport refuses by itself, in the middle of a key.
    let mut refused = cx.message(&orders, "refused").with_key(PartitionKey::parse("a")?);
    if (Flag::ordering.on)(&capabilities) {
        node.declare(ordered(&orders, 4)?, &["billing"]).await?;
        refused.priority = Priority::MAX;
    } else if let Some(limit) = capabilities.max_payload {
        node.declare(unordered(&orders), &["billing"]).await?;
        refused.payload = vec![b'x'; limit.get() + 1].into();
    } else {
        return Err(CaseError::unproved(
            "no message is refused here in the middle of a batch",
        ));
    }
    let member = node.join(cx, "billing", &orders).await?;
    let with = |body: &str, key: &str| -> CaseResult<Message> {
        Ok(cx.message(&orders, body).with_key(PartitionKey::parse(key)?))
    };
    let batch = [
        with("a1", "a")?,
        refused,
        with("a3", "a")?,
        with("b1", "b")?,
        with("a4", "a")?,
    ];
    let answers = node.driver.send(&batch).await;
    let kinds: Vec<Option<ErrorKind>> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|e| e.kind()))
        .collect();
    let first = kinds.get(1).copied().flatten();
    ensure!(
        matches!(
            first,
            Some(ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::TooLarge)
        ),
        "the refused message: {first:?}"
    );
    let conflict = Some(ErrorKind::Conflict);
    ensure_eq!(
        kinds,
        vec![None, first, conflict, None, conflict],
        "the answers to the batch"
    );
    let arrived: BTreeSet<String> = member.work(2).await?.iter().map(body).collect();
    ensure_eq!(
        arrived,
        BTreeSet::from(["a1".to_owned(), "b1".to_owned()]),
        "what arrived"
    );
    member.nothing().await?;
    // The next batch goes on with the key.
    node.send(&[with("a5", "a")?]).await?;
    ensure_eq!(body(&member.work(1).await?[0]), "a5", "the key after its failure");
    Ok(())
}

/// The one answer to a batch of one.
pub(super) fn answer<T>(answers: Vec<Result<T>>) -> CaseResult<Result<T>> {
    ensure_eq!(answers.len(), 1, "the number of answers");
    answers
        .into_iter()
        .next()
        .ok_or_else(|| CaseError::failed("no answer"))
}

/// Sees that a batch of one was refused with this kind.
pub(super) fn refused<T: std::fmt::Debug>(answers: &[Result<T>], kind: ErrorKind) -> CaseResult {
    ensure_eq!(answers.len(), 1, "the number of answers");
    match &answers[0] {
        Ok(done) => fail!("it was to be refused as {kind}, and was {done:?}"),
        Err(error) => ensure_eq!(error.kind(), kind, "why it was refused ({error})"),
    }
    Ok(())
}

fn limit(limit: &Option<NonZeroUsize>) -> CaseResult<usize> {
    limit
        .map(NonZeroUsize::get)
        .ok_or_else(|| CaseError::failed("the limit went while the handle lives"))
}
