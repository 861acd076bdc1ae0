//! A transport that has no time for a message at first, and takes long for another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless::{Error, ErrorKind, GroupName, Message, Result};
use headless_abstractions::{Sent, Subscriber, Subscription, Topology, Transport, TransportInfo};

/// The line of a message that may be refused or delayed.
type LineOf = fn(&Message) -> Option<u32>;

/// Any transport, of which one send is refused and one takes long.
#[derive(Debug)]
pub(crate) struct Slow {
    inner: Arc<dyn Transport>,
    long: Duration,
    line_of: LineOf,
    /// What happens to a line when it is sent for the first time.
    plan: Mutex<BTreeMap<u32, Fate>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Delayed,
}

impl Slow {
    pub(crate) fn new(inner: Arc<dyn Transport>, long: Duration, line_of: LineOf) -> Self {
        Self {
            inner,
            long,
            line_of,
            plan: Mutex::default(),
        }
    }

    pub(crate) fn refusing(self, line: u32) -> Self {
        self.with(line, Fate::Refused)
    }

    pub(crate) fn delaying(self, line: u32) -> Self {
        self.with(line, Fate::Delayed)
    }

    fn with(self, line: u32, fate: Fate) -> Self {
        self.plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(line, fate);
        self
    }

    fn fate_of(&self, message: &Message) -> Option<Fate> {
        let line = (self.line_of)(message)?;
        self.plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&line)
    }
}

#[async_trait]
impl Transport for Slow {
    fn info(&self) -> TransportInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        let fates: Vec<Option<Fate>> = batch.iter().map(|message| self.fate_of(message)).collect();
        if fates.contains(&Some(Fate::Delayed)) {
            tokio::time::sleep(self.long).await;
        }
        let taken: Vec<Message> = batch
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| **fate != Some(Fate::Refused))
            .map(|(message, _)| message.clone())
            .collect();
        let mut answers = self.inner.send(&taken).await.into_iter();
        let answer = |fate| match fate {
            Some(Fate::Refused) => Err(Error::new(ErrorKind::Unavailable, "no time, as planned")),
            _ => answers.next().expect("the transport answers for each"),
        };
        fates.into_iter().map(answer).collect()
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        self.inner.subscribe(to).await
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.inner.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.inner.lag(group).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
