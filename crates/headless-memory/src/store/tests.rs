//! The trickiest promises of the store, in virtual time; the conformance suite proves the rest.

mod inbox;
mod outbox;
mod parked;
mod pulse;
mod transaction;
mod walk;

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Arrival, Claim, ClaimParked, Epoch, Failure, FailureCause, GroupName, Hold, IdempotencyKey, Message,
    MessageId, Owner, Park, ParkLimits, ParkedRow, ParkedStore, PartitionKey, TopicName,
};
use uuid::Uuid;

use crate::Memory;

const LEASE: Duration = Duration::from_secs(30);
const ANN: Owner = Owner::from_bits(1);
const BOB: Owner = Owner::from_bits(2);

const fn id(n: u128) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(n))
}

fn message(n: u128) -> Message {
    let topic = TopicName::parse("orders").unwrap();
    Message::new(id(n), topic, DateTime::UNIX_EPOCH, Bytes::from(n.to_string()))
}

fn keyed(n: u128, key: &str) -> Message {
    message(n).with_key(PartitionKey::parse(key).unwrap())
}

fn operation(n: u128, key: &str) -> Message {
    message(n).with_idempotency_key(IdempotencyKey::parse(key).unwrap())
}

fn group() -> GroupName {
    GroupName::parse("billing").unwrap()
}

fn arrival(message: &Message) -> Arrival {
    Arrival::of(&group(), message, true)
}

fn absent(message: &Message) -> (Arrival, Hold) {
    (arrival(message), Hold::Absent)
}

fn failure() -> Failure {
    Failure::new(FailureCause::Error, "broken", "node", DateTime::UNIX_EPOCH)
}

fn parked_for(message: &Message, hold: Hold, seconds: u64) -> Park {
    let after = Duration::from_secs(seconds);
    Park::failed(message.clone(), arrival(message), hold, after, vec![failure()])
}

fn behind(message: &Message) -> Park {
    Park::behind(message.clone(), arrival(message), Hold::Absent)
}

async fn park(memory: &Memory, park: Park) -> headless_abstractions::Parked {
    memory.park(&[park], ParkLimits::default()).await.unwrap()[0]
}

async fn claim_parked(memory: &Memory, owner: Owner, limit: usize) -> Vec<ParkedRow> {
    let request = ClaimParked::new(owner, group(), limit, LEASE);
    ParkedStore::claim(memory, &request).await.unwrap()
}

fn parked_ids(rows: &[ParkedRow]) -> Vec<MessageId> {
    rows.iter().map(|row| row.claim.id).collect()
}

const fn held(owner: Owner, claim: Claim) -> Hold {
    Hold::Running {
        owner,
        epoch: claim.epoch,
    }
}

const fn epoch(n: u64) -> Epoch {
    Epoch::new(n)
}

async fn elapse(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}
