use headless_abstractions::{ClaimOutbox, OutboxStore, OwnedTx, Pulse, PulseStore, StoreTx, UnitOfWorkStore};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

async fn waited(memory: &Memory) -> Duration {
    let start = memory.server.clock.monotonic();
    memory.wait_ready(HOUR).await.unwrap();
    memory.server.clock.monotonic() - start
}

#[tokio::test(start_paused = true)]
async fn should_say_how_soon_there_is_work_when_asked() {
    let memory = Memory::new();
    assert_eq!(memory.pulse().await.unwrap(), Pulse::idle());
    let mut delayed = message(1);
    delayed.deliver_after = Some(Duration::from_secs(50));
    memory.append(&[delayed]).await.unwrap();
    park(&memory, parked_for(&message(2), Hold::Absent, 20)).await;
    let idle = Pulse::idle()
        .with_outbox(Some(Duration::from_secs(50)))
        .with_parked(Some(Duration::from_secs(20)));
    assert_eq!(memory.pulse().await.unwrap(), idle);

    elapse(20).await;
    claim_parked(&memory, ANN, 1).await;
    let claimed = Pulse::idle()
        .with_outbox(Some(LEASE))
        .with_expired_lease(Some(LEASE));
    assert_eq!(memory.pulse().await.unwrap(), claimed);
    elapse(30).await;
    let due = Pulse::idle()
        .with_outbox(Some(Duration::ZERO))
        .with_parked(Some(Duration::ZERO));
    assert_eq!(memory.pulse().await.unwrap(), due, "it has reaped the lease");
}

#[tokio::test(start_paused = true)]
async fn should_return_when_something_becomes_ready() {
    let memory = Memory::new();
    assert_eq!(waited(&memory).await, HOUR);

    memory.append(&[message(1)]).await.unwrap();
    assert_eq!(
        waited(&memory).await,
        Duration::ZERO,
        "it happened before the wait, and counts once"
    );
    let waiter = tokio::spawn({
        let memory = memory.clone();
        async move { waited(&memory).await }
    });
    tokio::task::yield_now().await;
    elapse(5).await;
    let mut tx = memory.begin().await.unwrap();
    tx.append(&[message(2)]).await.unwrap();
    elapse(5).await;
    Box::new(tx).commit().await.unwrap();
    assert_eq!(waiter.await.unwrap(), Duration::from_secs(10));

    park(&memory, parked_for(&message(3), Hold::Absent, 7)).await;
    memory.wait_ready(HOUR).await.unwrap();
    assert_eq!(waited(&memory).await, Duration::from_secs(7), "by the time alone");
}

#[tokio::test(start_paused = true)]
async fn should_not_return_when_only_a_claim_was_made() {
    let memory = Memory::new();
    memory.append(&[message(1)]).await.unwrap();
    memory.wait_ready(HOUR).await.unwrap();
    OutboxStore::claim(&memory, &ClaimOutbox::new(ANN, 10, LEASE))
        .await
        .unwrap();
    assert_eq!(waited(&memory).await, LEASE, "then its lease ends");
}

#[tokio::test(start_paused = true)]
async fn should_never_answer_when_severed_while_it_waits() {
    let memory = Memory::new();
    let member = memory.connect();
    let waiter = tokio::spawn({
        let member = member.clone();
        async move { member.wait_ready(Duration::from_secs(1)).await }
    });
    tokio::task::yield_now().await;
    member.sever();
    tokio::time::sleep(HOUR).await;
    assert!(!waiter.is_finished());
    waiter.abort();
}
