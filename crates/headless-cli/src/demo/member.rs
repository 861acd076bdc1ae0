//! A member of the group.

use std::{future::Future, process, time::Duration};

use anyhow::Result;
use headless::testing::{Figures, Handled};
use headless::{Builder, Consumer, Environment, Event, Headless, Ordered, Preset, Spawner};
use serde::{Deserialize, Serialize};

use super::books;
use crate::{cli::Role, urls::Place};

/// How long everything may take to settle once all is published.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);
/// How long what a member holds is held without a word from it.
const LEASE: Duration = Duration::from_secs(2);

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
    handled: Handled,
    published: impl Future<Output = ()>,
) -> Result<Figures> {
    let mut builder = builder(&place).relays(role != Role::Consumer).registers(true);
    if role != Role::Relay {
        let handle = move |_: Payload, cx| {
            let (place, handled) = (place.clone(), handled.clone());
            async move {
                books::handle(&place.store, &cx).await?;
                if handled.tell(&place.store, &place.transport).is_err() {
                    process::exit(1); // It does not outlive who listens.
                }
                Ok(())
            }
        };
        let consumer = Consumer::group("demo").on(handle).ordered_by_key();
        builder = builder.consumer(consumer.lease(LEASE).visibility(LEASE));
    }
    let runtime = builder.start().await?;
    published.await;
    runtime.settled(PATIENCE).await?;
    let figures = Figures::of(&runtime).await?;
    runtime.shutdown(5 * LEASE).await?;
    Ok(figures)
}
