//! The memory transport as a node of the simulation reaches it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Delivery, DeliveryToken, Error, ErrorKind, GroupName, Message, Received, Result, Sent, Settlement,
    Subscriber, Subscription, TopicName, TopicOrder, Topology, Transport, TransportInfo,
};
use headless_memory::Memory;

use super::{
    gate::{Fate, Gate, Op},
    label::{Label, list},
};
use crate::faults::refused_of;

/// The memory transport as one node reaches it.
#[derive(Debug)]
pub(super) struct SimTransport {
    memory: Memory,
    gate: Arc<Gate>,
}

impl SimTransport {
    pub(super) fn new(memory: Memory, gate: Arc<Gate>) -> Self {
        Self { memory, gate }
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn info(&self) -> TransportInfo {
        self.memory.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.gate
            .call(Op::never("declare"), self.memory.declare(topology), |()| {
                String::new()
            })
            .await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        const SEND: Op = Op::any("send");
        let fate = self.gate.arrive(SEND).await;
        let failed: Vec<Error> = batch
            .iter()
            .filter_map(|_| self.gate.failure(SEND, fate))
            .collect();
        if !failed.is_empty() {
            return failed.into_iter().map(Err).collect();
        }
        let refused = refused_of(batch, self.gate.chance(), self.gate.fault_rate());
        let taken: Vec<Message> = batch
            .iter()
            .zip(&refused)
            .filter(|(_, refused)| refused.is_none())
            .map(|(message, _)| message.clone())
            .collect();
        let mut answers = self.memory.send(&taken).await.into_iter();
        let ids = |refuse: bool| {
            let those = batch.iter().zip(&refused);
            list(
                those
                    .filter(|(_, error)| error.is_some() == refuse)
                    .map(|(message, _)| Label(message.id)),
            )
        };
        self.gate
            .note(format_args!("send {} refused [{}]", ids(false), ids(true)));
        self.gate.leave().await;
        refused
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                None => {
                    let answer = answers.next().unwrap_or_else(|| {
                        Err(Error::new(
                            ErrorKind::Internal,
                            "the memory transport gave no answer",
                        ))
                    });
                    match fate {
                        Fate::AnswerLost if answer.is_ok() => Err(self.gate.unanswered(SEND)),
                        _ => answer,
                    }
                }
            })
            .collect()
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        let tell = |_: &_| format!("{} {}", to.group, list(&to.topics));
        let subscriber = self
            .gate
            .call(Op::before("subscribe"), self.memory.subscribe(to), tell)
            .await?;
        Ok(Box::new(SimSubscriber {
            inner: subscriber,
            gate: self.gate.clone(),
            group: to.group.clone(),
            arriving: Mutex::default(),
        }))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.gate
            .call(Op::any("remove group"), self.memory.remove_group(group), |()| {
                group.to_string()
            })
            .await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.gate
            .call(Op::before("lag"), self.memory.lag(group), |lag| lag.to_string())
            .await
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        self.gate
            .call(
                Op::any("repartition"),
                self.memory.repartition(topic, order),
                |before| before.to_string(),
            )
            .await
    }

    async fn ping(&self) -> Result<()> {
        self.gate
            .call(Op::before("ping"), self.memory.ping(), |()| String::new())
            .await
    }

    async fn close(&self) -> Result<()> {
        let call = Transport::close(&self.memory);
        self.gate
            .call(Op::never("close transport"), call, |()| String::new())
            .await
    }
}

/// A member of a group as one node holds it.
#[derive(Debug)]
struct SimSubscriber {
    inner: Box<dyn Subscriber>,
    gate: Arc<Gate>,
    group: GroupName,
    /// What was received and is on its way: a receive that is dropped meanwhile loses nothing.
    arriving: Mutex<Received>,
}

impl SimSubscriber {
    fn put(&self, received: Received) {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.deliveries.extend(received.deliveries);
        arriving.revoked.extend(received.revoked);
    }

    fn take(&self) -> Received {
        std::mem::take(&mut *self.arriving.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One answer for each, all of them lost or refused together.
    async fn each(
        &self,
        op: Op,
        count: usize,
        call: impl Future<Output = Vec<Result<()>>> + Send,
        tell: impl FnOnce(&[Result<()>]) -> String + Send,
    ) -> Vec<Result<()>> {
        let fate = self.gate.arrive(op).await;
        let failed: Vec<Error> = (0..count).filter_map(|_| self.gate.failure(op, fate)).collect();
        if !failed.is_empty() {
            return failed.into_iter().map(Err).collect();
        }
        let answers = call.await;
        self.gate.note(format_args!("{} {}", op.name, tell(&answers)));
        self.gate.leave().await;
        if fate == Fate::AnswerLost {
            return answers
                .into_iter()
                .map(|answer| answer.and(Err(self.gate.unanswered(op))))
                .collect();
        }
        answers
    }
}

#[async_trait]
impl Subscriber for SimSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        let pending = self.take();
        if !pending.is_empty() {
            return Ok(pending);
        }
        let call = async {
            self.put(self.inner.receive(max, wait).await?);
            Ok(())
        };
        let tell = |(): &()| {
            let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            let delivery =
                |delivery: &Delivery| format!("{} {:?}", Label(delivery.message.id), delivery.redelivery);
            let (deliveries, revoked) = (arriving.deliveries.iter().map(delivery), &arriving.revoked);
            format!("{} {} revoked {revoked:?}", self.group, list(deliveries))
        };
        self.gate.call(Op::before("receive"), call, tell).await?;
        Ok(self.take())
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let call = self.inner.settle(batch);
        self.each(Op::any("settle"), batch.len(), call, |answers| {
            format!("{} {batch:?} {}", self.group, oks(answers))
        })
        .await
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        let call = self.inner.extend(tokens, by);
        self.each(Op::any("extend"), tokens.len(), call, |answers| {
            format!("{} {tokens:?} {}", self.group, oks(answers))
        })
        .await
    }

    async fn pause(&self) -> Result<()> {
        self.gate
            .call(Op::any("pause"), self.inner.pause(), |()| self.group.to_string())
            .await
    }

    async fn resume(&self) -> Result<()> {
        self.gate
            .call(Op::any("resume"), self.inner.resume(), |()| {
                self.group.to_string()
            })
            .await
    }

    async fn close(&self) -> Result<()> {
        self.gate
            .call(Op::any("close"), self.inner.close(), |()| self.group.to_string())
            .await
    }
}

fn oks(answers: &[Result<()>]) -> String {
    list(answers.iter().map(|answer| match answer {
        Ok(()) => "ok",
        Err(error) => error.kind().as_str(),
    }))
}
