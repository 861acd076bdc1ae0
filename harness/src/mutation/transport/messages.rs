//! What goes wrong on the way of a message to the broker.

use headless_abstractions::{Error, Headers, Message, Result, Sent, Transport};

use crate::mutation::Mutation;

/// Sends the batch as a driver with this bug would.
pub(super) async fn send(inner: &dyn Transport, mutation: Mutation, batch: &[Message]) -> Vec<Result<Sent>> {
    let limit = inner
        .info()
        .capabilities
        .max_payload
        .map_or(usize::MAX, std::num::NonZeroUsize::get);
    let mut messages: Vec<Message> = batch
        .iter()
        .map(|message| changed(message, mutation, limit))
        .collect();
    match mutation {
        Mutation::DuplicateDelivery => {
            // The second copy is the bug; its answer is nobody's.
            let _second = inner.send(&messages).await;
            inner.send(&messages).await
        }
        Mutation::ReverseBatch => {
            messages.reverse();
            let mut answers = inner.send(&messages).await;
            answers.reverse();
            answers
        }
        Mutation::IgnorePrefix => each(inner, &messages, |_| None).await,
        Mutation::SkipEmptyPayload => {
            each(inner, &messages, |message| {
                message.payload.is_empty().then_some(Ok(Sent::Accepted))
            })
            .await
        }
        Mutation::PayloadLimitOffByOne => {
            each(inner, &messages, |message| {
                (message.payload.len() >= limit)
                    .then(|| Err(Error::too_large("payload", message.payload.len(), limit)))
            })
            .await
        }
        Mutation::SwallowSendError => {
            let answers = inner.send(&messages).await;
            answers
                .into_iter()
                .map(|answer| Ok(answer.unwrap_or(Sent::Accepted)))
                .collect()
        }
        Mutation::MisalignAnswers => {
            let mut answers = inner.send(&messages).await;
            answers.reverse();
            answers
        }
        Mutation::LieAboutRouting => {
            let answers = inner.send(&messages).await;
            answers
                .into_iter()
                .map(|answer| answer.map(|_| Sent::Accepted))
                .collect()
        }
        _ => inner.send(&messages).await,
    }
}

/// Sends one by one, unless `answer` already knows.
async fn each(
    inner: &dyn Transport,
    messages: &[Message],
    answer: impl Fn(&Message) -> Option<Result<Sent>>,
) -> Vec<Result<Sent>> {
    let mut answers = Vec::with_capacity(messages.len());
    for message in messages {
        match answer(message) {
            Some(answer) => answers.push(answer),
            None => answers.extend(inner.send(std::slice::from_ref(message)).await),
        }
    }
    answers
}

fn changed(message: &Message, mutation: Mutation, limit: usize) -> Message {
    let mut message = message.clone();
    match mutation {
        Mutation::DropEmptyHeader => {
            message.headers = rebuilt(&message.headers, |value| {
                (!value.is_empty()).then(|| value.to_owned())
            });
        }
        Mutation::MangleUnicode => {
            message.headers = rebuilt(&message.headers, |value| {
                Some(value.replace(|c: char| !c.is_ascii(), "?"))
            });
        }
        Mutation::DropEnvelope => {
            let mut bare = Message::new(message.id, message.topic, message.occurred_at, message.payload);
            bare.key = message.key;
            bare.message_type = message.message_type;
            bare.headers = message.headers;
            return bare;
        }
        Mutation::ForgetType => message.message_type = None,
        Mutation::PayloadAsText => {
            message.payload = String::from_utf8_lossy(&message.payload).into_owned().into();
        }
        Mutation::IgnorePayloadLimit => {
            let most = message.payload.len().min(limit);
            message.payload.truncate(most);
        }
        Mutation::IgnoreDelay => message.deliver_after = None,
        Mutation::IgnoreExpiry => message.expires_at = None,
        Mutation::IgnorePriority => message.priority = Default::default(),
        _ => {}
    }
    message
}

fn rebuilt(headers: &Headers, value: impl Fn(&str) -> Option<String>) -> Headers {
    let mut rebuilt = Headers::new();
    for (name, old) in headers.iter() {
        // A value that was valid stays so: it only lost characters.
        let _same = value(old).map(|new| rebuilt.insert(name, &new));
    }
    rebuilt
}
