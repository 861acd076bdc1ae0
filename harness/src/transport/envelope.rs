//! What travels: payload, headers and every field of the envelope.

use std::time::Duration;

use headless_abstractions::{
    ContentType, CorrelationId, HeaderValue, Headers, IdempotencyKey, Message, MessageType, PartitionKey,
    Tenant, TraceContext,
};

use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::{Cx, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        DropEmptyHeader, DropEnvelope, ForgetType, LieAboutCapability, MangleUnicode, PayloadAsText,
        SkipEmptyPayload,
    },
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_the_envelope_when_delivered,
            "id, type, key, times, correlation, causation, tenant, idempotency key, trace and headers arrive as sent"
        )
        .catching(&[DropEnvelope, ForgetType]),
        case!(
            should_keep_headers_when_they_are_unicode_or_empty,
            "header values arrive as they were, also empty ones and ones of many bytes"
        )
        .catching(&[DropEmptyHeader, MangleUnicode]),
        case!(
            should_keep_the_payload_when_it_is_empty,
            "an empty payload is a payload"
        )
        .catching(&[SkipEmptyPayload]),
        case!(
            should_keep_every_byte_when_the_payload_is_binary,
            "a payload is bytes, not text"
        )
        .catching(&[PayloadAsText]),
        case!(
            should_derive_a_stable_id_when_the_producer_is_foreign,
            "a message without our headers has the same id at each delivery"
        )
        .described(Flag::stable_foreign_ids)
        .catching(&[LieAboutCapability]),
    ]
}

async fn should_keep_the_envelope_when_delivered<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let mut message = cx.message(&orders, r#"{"total":12}"#);
    message.message_type = Some(MessageType::parse("order.placed/v2")?);
    message.key = Some(PartitionKey::parse("Zürich/42")?);
    message.content_type = Some(ContentType::parse("application/json; charset=utf-8")?);
    message.correlation_id = Some(CorrelationId::parse("conversation 7")?);
    message.causation_id = Some(cx.id());
    message.tenant = Some(Tenant::parse("acmé")?);
    message.idempotency_key = Some(IdempotencyKey::parse("place:42")?);
    message.expires_at = Some(cx.now() + Duration::from_secs(86_400));
    message.trace = Some(TraceContext::new(
        HeaderValue::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?,
        Some(HeaderValue::parse("congo=t61rcWkgMzE")?),
    ));
    message.headers.insert("source", "shop")?;
    let bare = cx.message(&orders, "bare");
    arrives(cx, &[message, bare]).await
}

async fn should_keep_headers_when_they_are_unicode_or_empty<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let mut headers = Headers::new();
    headers.insert("empty", "")?;
    headers.insert("city", "Zürich 東京 🦀")?;
    headers.insert("spaces", "  around  ")?;
    headers.insert("symbols", "a=b;c,d:\"e\" %41 \\ {{x}}")?;
    headers.insert("rtl", "\u{202e}txt.exe")?;
    headers.insert("long", &"é".repeat(4_000))?;
    headers.insert("a.b_c-9", "every character of a name")?;
    arrives(cx, &[cx.message(&topic("orders"), "x").with_headers(headers)]).await
}

async fn should_keep_the_payload_when_it_is_empty<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    arrives(cx, &[cx.message(&orders, ""), cx.message(&orders, "next")]).await
}

async fn should_keep_every_byte_when_the_payload_is_binary<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let mut binary = cx.message(&orders, "");
    binary.payload = every.repeat(16).into();
    let mut zeros = cx.message(&orders, "");
    zeros.payload = vec![0; 1_000].into();
    arrives(cx, &[binary, zeros]).await
}

async fn should_derive_a_stable_id_when_the_producer_is_foreign<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    for payload in ["first", "second"] {
        ensure!(
            cx.fixture().send_foreign(&orders, payload.as_bytes()).await?,
            "`stable_foreign_ids` is on, so the fixture must be able to send as a foreign producer does"
        );
    }
    let member = node.join(cx, "billing", &orders).await?;
    let taken = member.take(2).await?;
    ensure!(
        taken[0].message.id != taken[1].message.id,
        "two foreign messages have one id"
    );
    for delivery in &taken {
        ensure!(delivery.malformed.is_none(), "without headers is not malformed");
    }
    let mut before: Vec<_> = taken
        .iter()
        .map(|d| (d.message.id, d.message.payload.clone()))
        .collect();
    member.subscriber.close().await?;
    let next = node.join(cx, "billing", &orders).await?;
    let mut after: Vec<_> = next
        .take(2)
        .await?
        .into_iter()
        .map(|d| (d.message.id, d.message.payload))
        .collect();
    before.sort_unstable();
    after.sort_unstable();
    ensure_eq!(after, before, "ids and payloads at the second delivery");
    Ok(())
}

/// Sees that these messages arrive exactly as they were sent.
async fn arrives<F: TransportFixture>(cx: &Cx<F>, messages: &[Message]) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(messages).await?;
    for delivery in &member.take(messages.len()).await? {
        ensure!(
            delivery.malformed.is_none(),
            "malformed: {:?}",
            delivery.malformed
        );
        let sent = messages.iter().find(|message| message.id == delivery.message.id);
        ensure_eq!(Some(&delivery.message), sent, "the message as it arrived");
        ensure_eq!(delivery.partition, None, "the partition on an unordered topic");
    }
    Ok(())
}
