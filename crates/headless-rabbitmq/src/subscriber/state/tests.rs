//! What a member holds, without a server: the channels note what they are told.

use std::sync::{Arc, Mutex, PoisonError};

use headless_abstractions::{Message, MessageId, Partitions, Redelivery, Settlement, TopicName};
use uuid::Uuid;

use super::{super::settle::write, *};
use crate::clock;

/// What a channel was told: a tag, and whether it stands for all before it.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<(u64, bool)>>>);

impl Settles for Told {
    fn ack(&self, tag: u64, multiple: bool) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push((tag, multiple));
    }

    fn requeue(&self, _tag: u64) {}
}

impl Told {
    fn acks(&self) -> Vec<(u64, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A member with one queue, that of a partition if it is ordered, with a channel on it.
fn member(is_ordered: bool) -> (State<Told>, u64, Told) {
    let partition = is_ordered.then(|| Partitions::new(1).unwrap().iter().next().unwrap());
    let lanes = vec![Lane::new(TopicName::parse("orders").unwrap(), partition)];
    let mut state = State::new(lanes, 100, Duration::from_secs(30), clock::now());
    let channel = Told::default();
    let serial = state.open(0, channel.clone());
    (state, serial, channel)
}

fn item() -> Item {
    let message = Message::new(
        MessageId::from_uuid(Uuid::from_u128(1)),
        TopicName::parse("orders").unwrap(),
        chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        Vec::new().into(),
    );
    Item::new(message, None, Redelivery::First, clock::now())
}

fn arrive(state: &mut State<Told>, serial: u64, tags: impl IntoIterator<Item = u64>) {
    for tag in tags {
        state.arrived(0, serial, tag, item());
    }
}

fn tokens(state: &mut State<Told>, max: usize) -> Vec<DeliveryToken> {
    let received = state.take(max, clock::now()).unwrap().unwrap();
    received
        .deliveries
        .iter()
        .map(|delivery| delivery.token)
        .collect()
}

fn acks(tokens: &[DeliveryToken]) -> Vec<Settlement> {
    tokens.iter().map(|token| Settlement::Ack(*token)).collect()
}

#[test]
fn should_hand_out_nothing_more_of_a_partition_when_its_end_was_told() {
    let (mut state, serial, channel) = member(true);
    arrive(&mut state, serial, 1..=2);
    let held = tokens(&mut state, 10);
    assert_eq!(held.len(), 2);
    state.wanted.insert(0);
    let told = state.take(10, clock::now()).unwrap().unwrap();
    assert_eq!((told.deliveries.len(), told.revoked.len()), (0, 1));

    // The client had read on before the channel could be closed.
    arrive(&mut state, serial, 3..=9);
    assert!(state.take(10, clock::now()).is_none());
    let (answers, _) = write(&mut state, &acks(&held));
    assert!(
        answers
            .iter()
            .all(|(_, answer)| answer.as_ref().unwrap_err().kind() == ErrorKind::LeaseLost)
    );
    assert_eq!(channel.acks(), []);
}

#[test]
fn should_tell_the_end_of_a_partition_once_when_it_is_wanted_again_before_its_channel_is_closed() {
    let (mut state, serial, _) = member(true);
    arrive(&mut state, serial, 1..=2);
    state.wanted.insert(0);
    assert_eq!(state.take(10, clock::now()).unwrap().unwrap().revoked.len(), 1);
    state.wanted.insert(0);
    assert!(state.take(10, clock::now()).is_none());
    assert!(state.shut(0).is_some());
    assert!(state.take(10, clock::now()).is_none());
}

#[test]
fn should_read_on_when_a_partition_comes_back_through_another_channel() {
    let (mut state, serial, first) = member(true);
    arrive(&mut state, serial, 1..=2);
    state.wanted.insert(0);
    assert_eq!(state.take(10, clock::now()).unwrap().unwrap().revoked.len(), 1);
    assert!(state.shut(0).is_some());
    let second = Told::default();
    let reopened = state.open(0, second.clone());
    arrive(&mut state, serial, 3..=4);
    arrive(&mut state, reopened, 1..=2);

    let held = tokens(&mut state, 10);
    assert_eq!(held.len(), 2);
    write(&mut state, &acks(&held));
    assert_eq!(first.acks(), []);
    assert_eq!(second.acks(), [(2, true)]);
}

#[test]
fn should_acknowledge_with_one_frame_only_what_is_before_the_first_unsettled() {
    let (mut state, serial, channel) = member(false);
    arrive(&mut state, serial, 1..=5);
    let held = tokens(&mut state, 10);
    write(&mut state, &acks(&[held[0], held[1], held[3]]));
    assert_eq!(channel.acks(), [(2, true), (4, false)]);
}

#[test]
fn should_acknowledge_one_by_one_when_something_before_was_not_read() {
    let (mut state, serial, channel) = member(false);
    arrive(&mut state, serial, 3..=4);
    let held = tokens(&mut state, 10);
    write(&mut state, &acks(&held));
    assert_eq!(channel.acks(), [(3, false), (4, false)]);
}
