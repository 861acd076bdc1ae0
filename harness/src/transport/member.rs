//! A member of a group, as cases use it.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{Delivery, Message, Received, Result, Settlement, Subscriber};

use crate::{
    case::{CaseResult, ensure, fail},
    cx::Cx,
    fixture::Fixture,
    wait::{Stopwatch, never_within, within},
};

/// How long one receive waits where a case waits for something.
const TURN: Duration = Duration::from_millis(200);
/// How long one receive waits where a case sees that nothing comes: it must not overstay the time it looks for.
const LOOK: Duration = Duration::from_millis(50);
/// What one receive takes where a case takes all that comes.
const MANY: usize = 1_000;

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) subscriber: Arc<dyn Subscriber>,
    patience: Duration,
    quiet: Duration,
}

impl Member {
    pub(super) fn new<F: Fixture>(cx: &Cx<F>, subscriber: Box<dyn Subscriber>) -> Self {
        Self {
            subscriber: subscriber.into(),
            patience: cx.patience(),
            quiet: cx.quiet(),
        }
    }

    /// Receives once, in the time that the call itself promises and a little more.
    pub(super) async fn receive(&self, max: usize, wait: Duration) -> CaseResult<Received> {
        let received = within(
            wait + self.patience,
            "receive",
            self.subscriber.receive(max, wait),
        )
        .await??;
        ensure!(
            received.deliveries.len() <= max,
            "receive({max}) gave {} deliveries",
            received.deliveries.len()
        );
        Ok(received)
    }

    /// Takes this many deliveries, which must come in time; leaves them unsettled.
    pub(super) async fn take(&self, count: usize) -> CaseResult<Vec<Delivery>> {
        let watch = Stopwatch::start();
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            ensure!(
                watch.elapsed() < self.patience,
                "{} deliveries of {count} came within {:?}: {:?}",
                taken.len(),
                self.patience,
                bodies(&taken)
            );
            let received = self.receive(count - taken.len(), TURN).await?;
            taken.extend(received.deliveries);
        }
        Ok(taken)
    }

    /// Takes one delivery.
    pub(super) async fn take_one(&self) -> CaseResult<Delivery> {
        match self.take(1).await?.pop() {
            Some(delivery) => Ok(delivery),
            None => fail!("no delivery came"),
        }
    }

    /// Takes this many deliveries, acking them as they come, so that any prefetch will do.
    pub(super) async fn work(&self, count: usize) -> CaseResult<Vec<Message>> {
        let watch = Stopwatch::start();
        let mut done = Vec::with_capacity(count);
        while done.len() < count {
            ensure!(
                watch.elapsed() < self.patience,
                "{} of {count} messages came within {:?}, the last: {:?}",
                done.len(),
                self.patience,
                done.last().map(body)
            );
            let received = self.receive(count - done.len(), TURN).await?;
            self.ack(&received.deliveries).await?;
            done.extend(received.deliveries.into_iter().map(|delivery| delivery.message));
        }
        Ok(done)
    }

    /// Takes and acks the next delivery of these members, which may not come before `delay` has passed on the watch. A look
    /// may end long after it began, so that what comes is judged by when it came and not by when it was looked for.
    pub(super) async fn work_one_not_before(
        members: &[&Self],
        since: Stopwatch,
        delay: Duration,
    ) -> CaseResult<Message> {
        loop {
            for member in members {
                let received = member.receive(1, LOOK).await?;
                if received.deliveries.is_empty() {
                    continue;
                }
                let passed = since.elapsed();
                let names = bodies(&received.deliveries);
                ensure!(
                    passed >= delay,
                    "{names:?} came after {passed:?}, not after {delay:?}"
                );
                member.ack(&received.deliveries).await?;
                match received.deliveries.into_iter().next() {
                    Some(delivery) => return Ok(delivery.message),
                    None => fail!("no delivery came"),
                }
            }
            let patience = members.iter().map(|member| member.patience).max();
            ensure!(
                since.elapsed() < delay + patience.unwrap_or_default(),
                "nothing came after {delay:?}"
            );
        }
    }

    /// Takes what comes and leaves it unsettled, until nothing has come for a while: all that the prefetch allows.
    pub(super) async fn hold(&self) -> CaseResult<Vec<Delivery>> {
        let mut held = Vec::new();
        let mut watch = Stopwatch::start();
        while watch.elapsed() < self.quiet {
            let received = self.receive(MANY, TURN.min(self.quiet)).await?;
            if !received.deliveries.is_empty() {
                held.extend(received.deliveries);
                watch = Stopwatch::start();
            }
        }
        ensure!(!held.is_empty(), "nothing came to hold");
        Ok(held)
    }

    /// Sees that nothing is delivered for this long; goes on receiving, so that partitions are held.
    pub(super) async fn nothing_for(&self, time: Duration) -> CaseResult {
        never_within(time, "nothing was to come, but", async || {
            let received = self.receive(MANY, LOOK.min(time)).await?;
            Ok((!received.deliveries.is_empty()).then(|| bodies(&received.deliveries)))
        })
        .await
    }

    /// Sees that nothing is delivered, for as long as such things are looked for.
    pub(super) async fn nothing(&self) -> CaseResult {
        self.nothing_for(self.quiet).await
    }

    /// Takes and acks whatever comes until nothing has come for a while.
    pub(super) async fn drain(&self) -> CaseResult<Vec<Message>> {
        let mut messages = Vec::new();
        let mut watch = Stopwatch::start();
        while watch.elapsed() < self.quiet {
            let received = self.receive(MANY, TURN.min(self.quiet)).await?;
            if !received.deliveries.is_empty() {
                self.ack(&received.deliveries).await?;
                messages.extend(received.deliveries.into_iter().map(|delivery| delivery.message));
                watch = Stopwatch::start();
            }
        }
        Ok(messages)
    }

    /// Acks these deliveries, each of which must succeed.
    pub(super) async fn ack(&self, deliveries: &[Delivery]) -> CaseResult {
        let acks: Vec<Settlement> = deliveries
            .iter()
            .map(|delivery| Settlement::Ack(delivery.token))
            .collect();
        let answers = self.subscriber.settle(&acks).await;
        ensure!(
            answers.len() == acks.len(),
            "{} answers to {} acks",
            answers.len(),
            acks.len()
        );
        for answer in answers {
            answer?;
        }
        Ok(())
    }

    /// Settles one delivery.
    pub(super) async fn settle(&self, settlement: Settlement) -> Result<()> {
        self.subscriber.settle(&[settlement]).await.into_iter().collect()
    }
}

/// The payloads as text, for comparing.
pub(super) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| body(&delivery.message))
        .collect()
}

/// The payload as text.
pub(super) fn body(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}
