//! What operators want of a service, as it is told to its nodes and acknowledged by them.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{sync::Arc, time::Duration};

use headless::{
    Consumer, Context, ControlSubject, ControlVersion, Environment, Event, GroupName, HandlerResult,
    Headless, Memory, NodeReport, Runtime, SeededRandom, Spawner, SystemClock,
};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_mins(1);
/// Longer than the time between two looks.
const A_LOOK: Duration = Duration::from_secs(6);

#[derive(Serialize, Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

async fn bill(_: Placed, _: Context) -> HandlerResult {
    Ok(())
}

/// A process that beats every ten minutes, unless it has something to say.
async fn start(memory: &Memory, registers: bool) -> Runtime {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    Headless::builder("orders")
        .store(memory)
        .transport(memory.clone())
        .consumer(Consumer::group("billing").on(bill).per_instance())
        .environment(Environment::new(clock, random, Spawner::current(), "ann"))
        .registers(registers)
        .membership_heartbeat(10 * MINUTE)
        .membership_suspect_after(30 * MINUTE)
        .membership_dead_after(60 * MINUTE)
        .start()
        .await
        .unwrap()
}

async fn pause(runtime: &Runtime, group: &str) -> ControlVersion {
    let subject = ControlSubject::group(GroupName::parse(group).unwrap());
    let control = runtime.control().unwrap();
    let changed = control
        .change("orders", &subject, "ada", |state| Ok(state.with_paused(true)))
        .await;
    changed.unwrap().version
}

async fn report(runtime: &Runtime) -> NodeReport {
    let nodes = runtime.nodes().unwrap().list(None, 10).await.unwrap().items;
    NodeReport::read(&nodes[0].facts).unwrap()
}

#[tokio::test(start_paused = true)]
async fn should_acknowledge_what_it_has_applied_before_its_next_heartbeat_is_due() {
    let memory = Memory::new();
    let runtime = start(&memory, true).await;
    let unknown = pause(&runtime, "shipping").await;
    let version = pause(&runtime, "billing").await;
    assert!(version > unknown);
    tokio::time::sleep(A_LOOK).await;
    let report = report(&runtime).await;
    assert!(report.has_applied(version), "{report:?}");
    assert!(!report.has_applied(ControlVersion::new(version.get() + 1)));
    assert_eq!(report.control.as_ref().unwrap().unknown, ["group:shipping"]);
    assert!(report.has_group("billing", Some("orders.placed")), "{report:?}");
    assert!(report.has_group(runtime.consumers()[0].group().as_str(), None));
    assert!(!report.has_group("billing", Some("orders.paid")) && !report.has_group("shipping", None));
    let group = &report.groups[0];
    assert_eq!(group.instance_of.as_deref(), Some("billing"));
    assert_eq!(group.subscriptions[0].paused, ["control"]);
    assert!(
        report
            .tasks
            .iter()
            .any(|task| task.name == "control" && task.failing == 0),
        "{report:?}"
    );
    // What an operator wants is nothing that is wrong.
    assert!(runtime.health().is_healthy(), "{:?}", runtime.health().problems());
    runtime.shutdown(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_apply_what_is_wanted_when_it_registers_nothing() {
    let memory = Memory::new();
    let runtime = start(&memory, false).await;
    let version = pause(&runtime, "billing").await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(runtime.control_status().unwrap().applied, Some(version));
    let paused = &runtime.consumers()[0].subscriptions()[0].paused;
    assert!(paused.contains(&headless::PauseReason::Control), "{paused:?}");
}
