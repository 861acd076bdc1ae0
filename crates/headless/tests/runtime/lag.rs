//! What a node says with its heartbeats about how much waits for its groups.

use std::time::Duration;

use headless::{Consumer, ErrorKind, GroupReport, Headless, Inbox, Memory, NodeReport, Ordered, Runtime};

use crate::{
    environment,
    settled::{Noted, Silent, handle},
};

const MINUTE: Duration = Duration::from_mins(1);

/// A node whose one group is paused, with three messages that wait for it, over a transport that fails to say so as often.
async fn node(memory: &Memory, silent: u32, kind: ErrorKind) -> Runtime {
    let runtime = Headless::builder("notes")
        .environment(environment())
        .store(memory)
        .transport(Silent(memory.clone(), silent.into(), kind))
        .topic::<Noted>(Ordered::no())
        .consumer(Consumer::group("readers").inbox(Inbox::Around).on(handle))
        .start()
        .await
        .unwrap();
    runtime.consumers()[0].pause();
    for _ in 0..3 {
        runtime.publisher().publish(&Noted).await.unwrap();
    }
    runtime
}

/// What it says of its group.
async fn said(runtime: &Runtime) -> GroupReport {
    let nodes = runtime.nodes().unwrap().list(None, 10).await.unwrap().items;
    NodeReport::read(&nodes[0].facts).unwrap().groups.remove(0)
}

#[tokio::test(start_paused = true)]
async fn should_say_how_much_waits_when_it_beats() {
    let memory = Memory::new();
    let runtime = node(&memory, 0, ErrorKind::Timeout).await;
    tokio::time::sleep(MINUTE).await;
    let group = said(&runtime).await;
    assert_eq!(group.lag, Some(3));
    assert!(group.lag_seconds_ago.unwrap() <= 30, "{group:?}");
    runtime.consumers()[0].resume();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(said(&runtime).await.lag, Some(0));
    runtime.shutdown(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_say_that_it_does_not_know_when_the_transport_does_not_say() {
    for kind in [ErrorKind::Timeout, ErrorKind::Unsupported] {
        let memory = Memory::new();
        let runtime = node(&memory, u32::MAX, kind).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(said(&runtime).await.lag, None);
        assert!(
            runtime.health().is_healthy(),
            "{kind:?}: {:?}",
            runtime.health().problems()
        );
        runtime.shutdown(MINUTE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn should_be_unhealthy_when_the_question_fails_for_good() {
    let memory = Memory::new();
    let runtime = node(&memory, u32::MAX, ErrorKind::NotFound).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(said(&runtime).await.lag, None);
    assert!(runtime.health().tasks["lag"].failing > 0);
}
