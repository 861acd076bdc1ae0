//! Waiting for everything to be settled, where the transport does not always answer.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use headless::{
    Consumer, Context, Error, ErrorKind, Event, GroupName, HandlerResult, Headless, Inbox, Memory, Message,
    Ordered, Result, Runtime,
};
use headless_abstractions::{Sent, Subscriber, Subscription, Topology, Transport, TransportInfo};

use crate::environment;

/// Memory that fails to say its lag this many times.
#[derive(Debug)]
pub(crate) struct Silent(pub(crate) Memory, pub(crate) AtomicU32, pub(crate) ErrorKind);

#[async_trait]
impl Transport for Silent {
    fn info(&self) -> TransportInfo {
        self.0.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.0.declare(topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        self.0.send(batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        self.0.subscribe(to).await
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.0.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        let left = self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Error::new(self.2, "nobody answers")),
            Err(_) => self.0.lag(group).await,
        }
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Noted;

impl Event for Noted {
    const TOPIC: &'static str = "notes";
}

pub(crate) async fn handle(_: Noted, _: Context) -> HandlerResult {
    Ok(())
}

async fn started(silent: u32, kind: ErrorKind) -> Runtime {
    Headless::builder("notes")
        .environment(environment())
        .transport(Silent(Memory::new(), silent.into(), kind))
        .topic::<Noted>(Ordered::no())
        .consumer(Consumer::group("readers").inbox(Inbox::Off).on(handle))
        .start()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn should_ask_again_when_the_transport_does_not_answer_for_a_while() {
    let runtime = started(3, ErrorKind::Timeout).await;
    runtime.settled(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_say_what_the_transport_says_when_it_never_answers() {
    let runtime = started(u32::MAX, ErrorKind::Unavailable).await;
    let error = runtime.settled(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn should_not_ask_again_when_the_answer_would_be_the_same() {
    let runtime = started(1, ErrorKind::Denied).await;
    let error = runtime.settled(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}
