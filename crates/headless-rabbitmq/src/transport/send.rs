//! Sending: what a batch may not have is refused before any of it is sent, and the rest goes over one channel with a
//! window of confirms.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    task::Poll,
};

use futures::{FutureExt, future::BoxFuture, poll};
use headless_abstractions::{Error, ErrorKind, Message, Result, Sent};
use lapin::{Confirmation, options::BasicPublishOptions};
use tokio::{task::unconstrained, time::timeout_at};

use super::{all_closed, same};
use crate::{
    channel::Chan,
    clock,
    connection::Live,
    envelope,
    error::{NAME, fault, overdue},
    rabbitmq::Shared,
};

mod plan;
mod prepare;
mod returned;

use self::{
    plan::{Going, waits},
    prepare::prepare,
    returned::{doubt, tell_returned},
};

/// How many bytes of payload may wait for their confirms, unless a single message is larger: the client keeps a copy.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

/// The outcome of each message so far.
type Answers = Vec<Option<Result<Sent>>>;

pub(super) async fn send(shared: &Arc<Shared>, batch: &[Message]) -> Vec<Result<Sent>> {
    // Taken before the look, so that closing waits for it or it sees that closing has begun.
    let _under_way = shared.tasks.token();
    if shared.closing.is_cancelled() {
        return all_closed(batch.len());
    }
    let mut answers: Answers = batch.iter().map(|_| None).collect();
    if let Err(error) = send_all(shared, batch, &mut answers).await {
        // What was neither refused nor sent.
        let mut error = Some(error);
        for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
            let again = error.as_ref().map(same);
            *answer = error.take().map(Err);
            error = again;
        }
    }
    answers
        .into_iter()
        .zip(batch)
        .map(|(answer, message)| {
            answer
                .unwrap_or_else(|| {
                    Err(Error::new(
                        ErrorKind::Internal,
                        "the message was not answered for",
                    ))
                })
                .map_err(|error| about(error, message))
        })
        .collect()
}

fn about(error: Error, message: &Message) -> Error {
    error
        .with_operation("send")
        .with_provider(NAME)
        .with_resource(format!("topic {}", message.topic))
}

async fn send_all(shared: &Arc<Shared>, batch: &[Message], answers: &mut Answers) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let at_most = shared.config.call_timeout;
    let until = clock::now() + at_most;
    let Some((live, going, channel)) = prepare(shared, batch, answers, until).await? else {
        return Ok(());
    };
    let mut flight = Flight {
        channel: &channel,
        window: shared.config.publish_window.get(),
        pending: VecDeque::new(),
        bytes: 0,
        returned: BTreeSet::new(),
        is_broken: false,
        refused: BTreeSet::new(),
    };
    let is_whole = timeout_at(until, flight.run(batch, &going, answers))
        .await
        .is_ok();
    if !is_whole {
        flight.give_up(&live, answers);
    }
    let (returned, is_broken) = (std::mem::take(&mut flight.returned), flight.is_broken);
    let mut suspect = std::mem::take(&mut flight.refused);
    drop(flight);
    if is_broken || (!is_whole && !returned.is_empty()) {
        doubt(&going, answers);
        // A topic or queue may have been deleted behind our back: look again next time.
        shared.registry.forget_known();
        suspect.extend(going.iter().map(|going| going.at));
    }
    if is_whole && !is_broken {
        channel.give_back();
    }
    if !returned.is_empty() {
        let known = if is_whole && !is_broken {
            timeout_at(until, shared.known(&live)).await.ok()
        } else {
            None
        };
        let known = known.and_then(Result::ok);
        let missing = tell_returned(known.as_deref(), batch, &going, &returned, answers);
        if !missing.is_empty() {
            shared.registry.forget_known();
            suspect.extend(missing);
        }
    }
    // A queue of theirs may be missing: the next send makes it again. Others' are not looked at for that.
    let suspect = going.iter().filter(|going| suspect.contains(&going.at));
    shared.registry.forget_made(&waits(batch, suspect));
    if is_whole { Ok(()) } else { Err(too_late()) }
}

/// Of what was not begun.
fn too_late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the message was not sent within call_timeout; send it again",
    )
}

/// The messages of one send, on a channel that it has for itself.
struct Flight<'a> {
    channel: &'a Chan,
    window: usize,
    /// What was sent and is not confirmed, in its order.
    pending: VecDeque<(usize, usize, Confirming<'a>)>,
    /// Of payload, in `pending`.
    bytes: usize,
    /// The ids of messages that came back. The client hangs them on any confirm of the channel.
    returned: BTreeSet<String>,
    is_broken: bool,
    /// The places of those to which the server said no.
    refused: BTreeSet<usize>,
}

type Confirming<'a> = BoxFuture<'a, lapin::Result<Confirmation>>;

impl<'a> Flight<'a> {
    async fn run(&mut self, batch: &'a [Message], going: &[Going], answers: &mut Answers) {
        for Going {
            at,
            exchange,
            key,
            delay,
        } in going
        {
            let Some(message) = batch.get(*at) else { continue };
            let size = message.payload.len();
            while self.pending.len() >= self.window || (self.bytes > 0 && self.bytes + size > WINDOW_BYTES) {
                self.confirm_next(answers).await;
            }
            if self.is_broken {
                // Not sent, and what was sent before it may have gone: its key is not to overtake.
                set(answers, *at, Err(not_sent()));
                continue;
            }
            let (channel, exchange, key) = (self.channel, exchange.clone(), key.clone());
            let mut properties = envelope::properties(message);
            if let Some(delay) = delay {
                properties = properties.with_expiration(delay.millis.to_string().into());
            }
            let mut confirming = async move {
                let confirm = channel.basic_publish(exchange, key, MANDATORY, &message.payload, properties);
                confirm.await?.await
            }
            .boxed();
            // The first poll writes it: in the order of the batch.
            match poll!(&mut confirming) {
                Poll::Ready(confirmed) => self.answer(*at, confirmed, answers),
                Poll::Pending => {
                    self.bytes += size;
                    self.pending.push_back((*at, size, confirming));
                }
            }
        }
        while !self.pending.is_empty() {
            self.confirm_next(answers).await;
        }
    }

    async fn confirm_next(&mut self, answers: &mut Answers) {
        // Left in its place while it is awaited: a send that is given up knows what it waits for.
        let Some((at, size, confirming)) = self.pending.front_mut() else {
            return;
        };
        let (at, size, confirmed) = (*at, *size, confirming.await);
        self.pending.pop_front();
        self.bytes -= size;
        self.answer(at, confirmed, answers);
    }

    fn answer(&mut self, at: usize, confirmed: lapin::Result<Confirmation>, answers: &mut Answers) {
        let answer = match confirmed {
            Ok(confirmation) => {
                let is_kept = confirmation.is_ack();
                self.note_returned(confirmation);
                if is_kept {
                    Ok(Sent::Accepted)
                } else {
                    self.refused.insert(at);
                    Err(refused())
                }
            }
            Err(error) => {
                self.is_broken = true;
                let unknown = Error::new(
                    ErrorKind::Unavailable,
                    "the channel went before the message was confirmed",
                );
                Err(unknown.with_outcome_unknown().with_source(fault(error)))
            }
        };
        set(answers, at, answer);
    }

    fn note_returned(&mut self, confirmation: Confirmation) {
        if let Some(returned) = confirmation.take_message()
            && let Some(id) = returned.delivery.properties.message_id()
        {
            self.returned.insert(id.as_str().to_owned());
        }
    }

    /// What waits for its confirm may have been sent; what follows was not.
    fn give_up(&mut self, live: &Live, answers: &mut Answers) {
        for (at, _, confirming) in std::mem::take(&mut self.pending) {
            // One that has come out of turn is read: what came back may hang on it. It is not believed, since what it
            // says may hang on one before it, which has come since that was looked at.
            match unconstrained(confirming).now_or_never() {
                Some(Ok(confirmation)) => self.note_returned(confirmation),
                Some(Err(_)) => self.is_broken = true,
                None => {}
            }
            let error = if live.is_blocked() {
                Error::new(
                    ErrorKind::Timeout,
                    "no confirm within call_timeout: the server holds publishers back, since it is short of memory or disk",
                )
                .with_outcome_unknown()
            } else {
                overdue("send", "call_timeout")
            };
            set(answers, at, Err(error));
        }
    }
}

fn set(answers: &mut Answers, at: usize, answer: Result<Sent>) {
    if let Some(place) = answers.get_mut(at) {
        *place = Some(answer);
    }
}

fn refused() -> Error {
    // Other groups' queues may have taken it.
    Error::new(
        ErrorKind::Unavailable,
        "the server refused the message (nack): the queue of a group on its topic is missing, over a limit, or has \
         failed; if it was deleted, declare it again",
    )
    .with_outcome_unknown()
}

fn not_sent() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the channel went before the message was sent; send it again",
    )
}
