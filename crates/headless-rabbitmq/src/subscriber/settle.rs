//! Settling and extending.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use headless_abstractions::{DeliveryToken, Error, ErrorKind, Result, Settlement};
use lapin::options::BasicQosOptions;
use tokio::time::timeout;

use super::{
    Member,
    push::Settles,
    state::{State, far},
};
use crate::{
    clock,
    error::{NAME, fault, overdue},
};

/// Settles, and answers once the server has seen it: AMQP acknowledges no acknowledgement, but what is asked on the
/// same channel afterwards is answered after it.
pub(super) async fn settle(member: &Member, batch: &[Settlement]) -> Vec<Result<()>> {
    let (mut answers, touched) = write(&mut member.state(), batch);
    if touched.is_empty() {
        member.changed.notify_one();
        return answers
            .into_iter()
            .map(|(_, answer)| answer.map_err(about))
            .collect();
    }
    // There is room again.
    member.changed.notify_one();
    let prefetch = member.prefetch();
    let asked = touched.iter().map(async |(at, channel)| {
        let seen = channel.basic_qos(prefetch, BasicQosOptions::default()).await;
        seen.map_err(|error| (*at, error))
    });
    let at_most = member.shared.config.call_timeout;
    match timeout(at_most, join_all(asked)).await {
        Ok(seen) => {
            for (lane, error) in seen.into_iter().filter_map(|seen| seen.err()) {
                let error = fault(error);
                fail(
                    &mut answers,
                    |at| at == lane,
                    || {
                        Error::new(
                            ErrorKind::Unavailable,
                            "the channel went before the settlement was seen: the delivery may come again",
                        )
                        .with_outcome_unknown()
                    },
                );
                tracing::debug!(%error, "settlements may be lost with their channel");
            }
        }
        Err(_elapsed) => fail(&mut answers, |_| true, || overdue("settle", "call_timeout")),
    }
    answers
        .into_iter()
        .map(|(_, answer)| answer.map_err(about))
        .collect()
}

/// The answers, each with the lane whose channel it depends on.
pub(super) type Answers = Vec<(Option<usize>, Result<()>)>;

fn fail(answers: &mut Answers, of: impl Fn(usize) -> bool, error: impl Fn() -> Error) {
    for (lane, answer) in answers {
        if lane.is_some_and(&of) && answer.is_ok() {
            *answer = Err(error());
        }
    }
}

/// Writes all of it, in one go under the lock: another settlement comes before or after it, on the wire too.
pub(super) fn write<C: Settles>(state: &mut State<C>, batch: &[Settlement]) -> (Answers, Vec<(usize, C)>) {
    let mut done: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut touched: BTreeSet<usize> = BTreeSet::new();
    let mut answers = Answers::with_capacity(batch.len());
    for settlement in batch {
        let (at, tag) = match state.find(settlement.token()) {
            Ok(found) => found,
            Err(error) => {
                answers.push((None, Err(error)));
                continue;
            }
        };
        let is_ordered = state.lanes.get(at).is_some_and(super::state::Lane::is_ordered);
        answers.push(match settlement {
            // A reject drops: what the server is told to reject goes to the dead queue.
            Settlement::Ack(_) | Settlement::Reject(_) => {
                state.finish(at, tag);
                done.entry(at).or_default().insert(tag);
                touched.insert(at);
                (Some(at), Ok(()))
            }
            Settlement::Requeue {
                after: Some(after), ..
            } if !after.is_zero() => (
                None,
                Err(Error::unsupported(
                    "requeue_delay is off: requeue without a delay, or let a store park the message",
                )),
            ),
            // Given back to the server it would come after what has been delivered since: it stays here, in its place.
            Settlement::Requeue { .. } if is_ordered => {
                state.put_back(at, tag);
                (None, Ok(()))
            }
            Settlement::Requeue { .. } => {
                if let Some(channel) = state.lanes.get(at).and_then(|lane| lane.channel.as_ref()) {
                    channel.requeue(tag);
                }
                state.finish(at, tag);
                touched.insert(at);
                (Some(at), Ok(()))
            }
        });
    }
    for (at, tags) in done {
        if let Some(lane) = state.lanes.get(at)
            && let Some(channel) = &lane.channel
        {
            acknowledge(channel, &tags, lane.settled_before());
        }
    }
    let touched = touched.into_iter().filter_map(|at| {
        let channel = state.lanes.get(at)?.channel.clone()?;
        Some((at, channel))
    });
    (answers, touched.collect())
}

/// Acknowledges with as few frames as can be: all that is before the first unsettled delivery of the channel with one, if
/// that is known.
fn acknowledge(channel: &impl Settles, tags: &BTreeSet<u64>, settled_before: Option<u64>) {
    let (before, after): (Vec<u64>, Vec<u64>) = tags
        .iter()
        .partition(|tag| settled_before.is_some_and(|first| **tag < first));
    if let Some(last) = before.last() {
        channel.ack(*last, true);
    }
    for tag in after {
        channel.ack(tag, false);
    }
}

/// Holds deliveries for longer. They are timed here, so that nothing has to be asked.
pub(super) fn extend(member: &Member, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
    let now = clock::now();
    let longest = member.longest_hold();
    let mut state = member.state();
    let mut one = |token: DeliveryToken| {
        let (at, tag) = state.find(token)?;
        let lane = state.lanes.get(at);
        if lane.is_some_and(super::state::Lane::is_ordered) {
            return Ok(());
        }
        let since = lane
            .and_then(|lane| lane.items.get(&tag))
            .map_or(now, |item| item.since);
        let until = far(now, by);
        let latest = far(since, longest);
        state.hold(at, tag, until.min(latest));
        if until > latest {
            return Err(Error::unsupported(
                "the server lets nobody hold a delivery for longer than its consumer_timeout; this one goes back shortly \
                 before: raise it on the server and in the settings",
            ));
        }
        Ok(())
    };
    let answers: Vec<Result<()>> = tokens.iter().map(|token| one(*token)).collect();
    answers
        .into_iter()
        .map(|answer| answer.map_err(about_extend))
        .collect()
}

fn about(error: Error) -> Error {
    error.with_operation("settle").with_provider(NAME)
}

fn about_extend(error: Error) -> Error {
    error.with_operation("extend").with_provider(NAME)
}
