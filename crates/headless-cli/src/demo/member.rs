//! A member of the group.

use std::{future::Future, io, io::Write, process, time::Duration};

use anyhow::Result;
use headless::{Builder, Consumer, Environment, Event, Headless, Ordered, Preset, Spawner};
use serde::{Deserialize, Serialize};

use super::{Figures, books, crew::Place};
use crate::cli::Role;

/// How long everything may take to settle once all is published.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);
/// How long what a member holds is held without a word from it.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// What a process says of each message that it has handled.
pub(super) const HANDLED: &str = "handled";

/// The body of a message, whatever it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Payload(serde_json::Value);

impl Event for Payload {
    const TOPIC: &'static str = "demo.events";
}

/// What all members have in common. Even their renewals run on the runtime of the caller, and stop with it.
pub(super) fn builder(place: &Place) -> Builder {
    let node = format!("demo-{}", process::id());
    Headless::builder("demo")
        .environment(Environment::system(Spawner::current(), node))
        .any_store(&place.store)
        .any_transport(&place.transport)
        .topic::<Payload>(Ordered::partitions(16))
        .preset(Preset::Development)
        .relay_lease(LEASE)
}

/// Relays and handles, as its role is, until all is published and settled. Says its figures then.
pub(super) async fn serve(
    role: Role,
    place: Place,
    handled: impl Fn(&Place) + Clone + Send + Sync + 'static,
    published: impl Future<Output = ()>,
) -> Result<Figures> {
    let mut builder = builder(&place).relays(role != Role::Consumer);
    if role != Role::Relay {
        let handle = move |_: Payload, cx| {
            let (place, handled) = (place.clone(), handled.clone());
            async move { books::handle(&place.store, &cx).await.map(|()| handled(&place)) }
        };
        let consumer = Consumer::group("demo").on(handle).ordered_by_key();
        builder = builder.consumer(consumer.lease(LEASE).visibility(LEASE));
    }
    let runtime = builder.start().await?;
    published.await;
    runtime.settled(PATIENCE).await?;
    let dead = runtime.backlog().await?.dead;
    let stats = runtime.consumers().first().map(|consumer| consumer.stats());
    let stats = stats.unwrap_or_default();
    runtime.shutdown(5 * LEASE).await?;
    Ok(Figures {
        redelivered: stats.redelivered,
        retried: stats.retried,
        dead,
    })
}

/// Says of a process that a message is handled. It does not outlive who listens.
pub(super) fn tell_parent(_: &Place) {
    if writeln!(io::stdout(), "{HANDLED}").is_err() {
        process::exit(1);
    }
}
