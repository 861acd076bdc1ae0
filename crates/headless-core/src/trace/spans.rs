//! The spans of messaging. A span that nobody subscribes to costs a look at its call site: nothing is formatted, and
//! nothing is allocated.

use headless_abstractions::{CorrelationId, GroupName, Message, TopicName};
use tracing::{Level, Span, field::Empty};

use super::Propagator;

/// The target of every span.
pub const TARGET: &str = "headless::trace";

/// A row of the table of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanSpec {
    /// Its name. OpenTelemetry shows the name with the topic, where there is one: `process orders`.
    pub name: &'static str,
    /// Its kind, as OpenTelemetry calls it.
    pub kind: &'static str,
    /// Its level.
    pub level: Level,
    /// The names of its fields, in their order. Some stay empty: of a batch, what a single message has.
    pub fields: &'static [&'static str],
}

/// Every span, in the order of a message's way.
pub const SPANS: &[SpanSpec] = &[
    SpanSpec {
        name: "publish",
        kind: "producer",
        level: Level::INFO,
        fields: &[
            "otel.name",
            "otel.kind",
            "otel.status_code",
            "error.type",
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
            "messaging.message.id",
            "messaging.message.conversation_id",
            "messaging.message.body.size",
            "messaging.batch.message_count",
            "headless.route",
        ],
    },
    SpanSpec {
        name: "send",
        kind: "client",
        level: Level::DEBUG,
        fields: &[
            "otel.name",
            "otel.kind",
            "otel.status_code",
            "error.type",
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.batch.message_count",
        ],
    },
    SpanSpec {
        name: "process",
        kind: "consumer",
        level: Level::INFO,
        fields: &[
            "otel.name",
            "otel.kind",
            "otel.status_code",
            "error.type",
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
            "messaging.consumer.group.name",
            "messaging.message.id",
            "messaging.message.conversation_id",
            "messaging.message.body.size",
            "messaging.batch.message_count",
            "headless.round",
            "headless.inline_attempt",
        ],
    },
    SpanSpec {
        name: "settle",
        kind: "client",
        level: Level::DEBUG,
        fields: &[
            "otel.name",
            "otel.kind",
            "otel.status_code",
            "error.type",
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name",
            "messaging.consumer.group.name",
            "messaging.batch.message_count",
        ],
    },
];

/// Publishing these messages, of which there is at least one, by this route: `work`, `outbox` or `direct`. A child of
/// the current span.
///
/// Its context is what the messages carry that were given none; to a context that a message was given it is linked.
#[must_use]
pub fn publish(
    propagator: &dyn Propagator,
    system: &'static str,
    route: &'static str,
    messages: &[Message],
) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "publish",
        otel.name = %Name("publish", common_topic(messages)),
        otel.kind = "producer",
        otel.status_code = Empty,
        "error.type" = Empty,
        messaging.system = system,
        messaging.operation.name = "publish",
        "messaging.operation.type" = "send",
        messaging.destination.name = common_topic(messages).map(TopicName::as_str),
        messaging.message.id = single(messages).map(|message| tracing::field::display(message.id)),
        messaging.message.conversation_id = single(messages).and_then(conversation),
        messaging.message.body.size = single(messages).map(|message| message.payload.len()),
        messaging.batch.message_count = many(messages),
        headless.route = route,
    );
    link_all(propagator, &span, messages);
    span
}

/// A relay's sending of these messages: the root of a trace of its own, linked to each of them.
#[must_use]
pub fn send(propagator: &dyn Propagator, system: &'static str, messages: &[Message]) -> Span {
    let span = tracing::debug_span!(
        target: TARGET,
        parent: None,
        "send",
        otel.name = %Name("send", common_topic(messages)),
        otel.kind = "client",
        otel.status_code = Empty,
        "error.type" = Empty,
        messaging.system = system,
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.batch.message_count = messages.len(),
    );
    link_all(propagator, &span, messages);
    span
}

/// What is called, and how often it was before.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "one function takes it, and needs it whole"
)]
pub struct Called<'a> {
    /// The transport's name.
    pub system: &'static str,
    /// The group.
    pub group: &'a GroupName,
    /// The messages: at least one.
    pub messages: &'a [Message],
    /// The round, counted from 1; not shown of several messages, each of which has its own.
    pub round: u32,
    /// The attempt within the round, counted from 1; not shown of several.
    pub inline: u32,
    /// Whether it is the first attempt that is known of.
    pub is_first: bool,
}

/// One call of a handler. The first attempt at a single message is a child of the message's context; a later one, and a
/// batch, is the root of a trace of its own, linked to the context of each message.
#[must_use]
pub fn process(propagator: &dyn Propagator, called: Called<'_>) -> Span {
    let Called {
        system,
        group,
        messages,
        ..
    } = called;
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "process",
        otel.name = %Name("process", common_topic(messages)),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "error.type" = Empty,
        messaging.system = system,
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = common_topic(messages).map(TopicName::as_str),
        messaging.consumer.group.name = group.as_str(),
        messaging.message.id = single(messages).map(|message| tracing::field::display(message.id)),
        messaging.message.conversation_id = single(messages).and_then(conversation),
        messaging.message.body.size = single(messages).map(|message| message.payload.len()),
        messaging.batch.message_count = many(messages),
        headless.round = single(messages).map(|_| called.round),
        headless.inline_attempt = single(messages).map(|_| called.inline),
    );
    match single(messages).map(|message| &message.trace) {
        Some(Some(context)) if called.is_first && !span.is_disabled() => {
            propagator.set_parent(&span, context);
        }
        _ => link_all(propagator, &span, messages),
    }
    span
}

/// Telling the broker what became of this many deliveries: the root of a trace of its own.
#[must_use]
pub fn settle(system: &'static str, group: &GroupName, topic: &TopicName, count: usize) -> Span {
    tracing::debug_span!(
        target: TARGET,
        parent: None,
        "settle",
        otel.name = %Name("settle", Some(topic)),
        otel.kind = "client",
        otel.status_code = Empty,
        "error.type" = Empty,
        messaging.system = system,
        messaging.operation.name = "settle",
        "messaging.operation.type" = "settle",
        messaging.destination.name = topic.as_str(),
        messaging.consumer.group.name = group.as_str(),
        messaging.batch.message_count = count,
    )
}

/// Says on a span that what it is about has failed, and how: an error's kind, or a failure's cause.
pub fn fail(span: &Span, how: &'static str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", how);
}

/// An operation and its topic, as OpenTelemetry names spans.
struct Name<'a>(&'static str, Option<&'a TopicName>);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(topic) => write!(f, "{} {topic}", self.0),
            None => f.write_str(self.0),
        }
    }
}

fn single(messages: &[Message]) -> Option<&Message> {
    match messages {
        [message] => Some(message),
        _ => None,
    }
}

fn many(messages: &[Message]) -> Option<usize> {
    Some(messages.len()).filter(|count| *count > 1)
}

fn conversation(message: &Message) -> Option<&str> {
    message.correlation_id.as_ref().map(CorrelationId::as_str)
}

/// The topic of all of them.
fn common_topic(messages: &[Message]) -> Option<&TopicName> {
    let (first, rest) = messages.split_first()?;
    rest.iter()
        .all(|message| message.topic == first.topic)
        .then_some(&first.topic)
}

fn link_all(propagator: &dyn Propagator, span: &Span, messages: &[Message]) {
    if span.is_disabled() {
        return;
    }
    for context in messages.iter().filter_map(|message| message.trace.as_ref()) {
        propagator.link(span, context);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use chrono::DateTime;
    use headless_abstractions::{HeaderValue, MessageId, TraceContext};
    use uuid::Uuid;

    use super::*;

    const PAGE: &str = include_str!("../../../../docs/telemetry.md");

    /// The rows of the page's table under this heading.
    fn rows(heading: &str) -> Vec<&'static str> {
        let (_, section) = PAGE.split_once(heading).unwrap();
        let rows = section.lines().skip_while(|line| !line.starts_with("| ---"));
        rows.skip(1).take_while(|line| line.starts_with('|')).collect()
    }

    /// A propagator that nobody may ask anything.
    #[derive(Debug)]
    struct Unasked;

    impl Propagator for Unasked {
        fn context_of(&self, _: &Span) -> Option<TraceContext> {
            panic!("asked for a context");
        }

        fn set_parent(&self, _: &Span, _: &TraceContext) {
            panic!("told of a parent");
        }

        fn link(&self, _: &Span, _: &TraceContext) {
            panic!("told of a link");
        }
    }

    #[test]
    fn should_do_nothing_when_nobody_subscribes() {
        let topic = TopicName::parse("orders").unwrap();
        let group = GroupName::parse("billing").unwrap();
        let id = MessageId::from_uuid(Uuid::from_u128(1));
        let mut message = Message::new(id, topic.clone(), DateTime::UNIX_EPOCH, Bytes::new());
        let traceparent = HeaderValue::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        message.trace = Some(TraceContext::new(traceparent.unwrap(), None));
        let messages = [message];
        let called = Called {
            system: "memory",
            group: &group,
            messages: &messages,
            round: 1,
            inline: 1,
            is_first: true,
        };
        for span in [
            publish(&Unasked, "memory", "outbox", &messages),
            send(&Unasked, "memory", &messages),
            process(&Unasked, called),
            settle("memory", &group, &topic, 1),
        ] {
            assert!(span.is_disabled());
            fail(&span, "error");
        }
    }

    #[test]
    fn should_list_every_span_in_the_documentation() {
        let code: Vec<String> = SPANS
            .iter()
            .map(|span| {
                let level = span.level.as_str().to_lowercase();
                let fields: Vec<_> = span.fields.iter().map(|field| format!("`{field}`")).collect();
                let (name, kind, fields) = (span.name, span.kind, fields.join(" "));
                format!("| `{name}` | {kind} | {level} | {fields} |")
            })
            .collect();
        assert_eq!(
            rows("## Spans"),
            code,
            "docs/telemetry.md should have these rows:\n{}",
            code.join("\n")
        );
    }

    #[test]
    fn should_say_in_the_documentation_what_each_field_means() {
        let named: Vec<_> = rows("### Fields")
            .iter()
            .map(|row| row.split('`').nth(1).unwrap())
            .collect();
        let fields: BTreeSet<_> = SPANS.iter().flat_map(|span| span.fields).copied().collect();
        assert_eq!(named.len(), fields.len());
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), fields);
    }
}
