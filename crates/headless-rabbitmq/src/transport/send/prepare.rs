//! What a send needs before anything is sent.

use std::{collections::BTreeSet, sync::Arc};

use headless_abstractions::{Error, ErrorKind, Message, Result, TopicName};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Answers,
    plan::{Going, plan, waits},
    too_late,
};
use crate::{
    connection::Live,
    error::closed,
    publisher::Publisher,
    rabbitmq::Shared,
    registry::{Known, TopicWait},
    transport::declare,
};

/// Where the rest of a batch goes, over which channel; `None` when nothing is left to send.
pub(super) async fn prepare(
    shared: &Arc<Shared>,
    batch: &[Message],
    answers: &mut Answers,
    until: Instant,
) -> Result<Option<(Arc<Live>, Vec<Going>, Publisher)>> {
    let mut permit = permit(shared, until).await?;
    let looked = timeout_at(until, look(shared, batch, answers)).await;
    let (mut live, known, mut going, unmade) = looked.unwrap_or_else(|_elapsed| Err(too_late()))?;
    if !unmade.is_empty() {
        refuse_blocked(&live)?;
        // Others do not wait for what this one waits for, nor does what has no delay for all of the time.
        drop(permit);
        let part = shared.config.call_timeout / 2;
        let made = timeout(part, declare::see_to(shared, unmade)).await;
        if let Err(error) = made.unwrap_or_else(|_elapsed| Err(not_made())) {
            refuse_blocked(&live)?;
            going = plan(shared, &known, batch, Some(&error), answers);
        }
        permit = self::permit(shared, until).await?;
        live = shared.publish.live(&shared.config).await?;
    }
    if going.is_empty() {
        return Ok(None);
    }
    refuse_blocked(&live)?;
    let channel = timeout_at(until, live.publisher()).await;
    let mut channel = channel.unwrap_or_else(|_elapsed| Err(too_late()))?;
    channel.hold(permit);
    Ok(Some((live, going, channel)))
}

async fn permit(shared: &Shared, until: Instant) -> Result<OwnedSemaphorePermit> {
    timeout_at(until, shared.sends.clone().acquire_owned())
        .await
        .map_err(|_elapsed| {
            Error::new(
                ErrorKind::Timeout,
                "all publish_channels were in use for the whole of call_timeout",
            )
        })?
        .map_err(|_closed| closed("send"))
}

/// Where the batch goes, and for which delays the queues may be missing.
async fn look(
    shared: &Shared,
    batch: &[Message],
    answers: &mut Answers,
) -> Result<(Arc<Live>, Arc<Known>, Vec<Going>, BTreeSet<TopicWait>)> {
    let live = shared.publish.live(&shared.config).await?;
    let topics: BTreeSet<&TopicName> = batch.iter().map(|message| &message.topic).collect();
    let known = shared.known_with(&live, topics.into_iter()).await?;
    let going = plan(shared, &known, batch, None, answers);
    let unmade = shared.registry.unmade(waits(batch, &going));
    Ok((live, known, going, unmade))
}

fn refuse_blocked(live: &Live) -> Result<()> {
    if live.is_blocked() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server holds publishers back: it is short of memory or disk (see `rabbitmqctl status`)",
        ));
    }
    Ok(())
}

/// Of what was not begun.
fn not_made() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the queues that delayed messages wait in were not ready within half of call_timeout; they are still being made: \
         send it again",
    )
}
