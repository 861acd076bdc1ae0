//! Which topics and groups there are. AMQP can make and delete, and tells nobody what there is; so it is written down in a
//! stream whose last record holds the whole. Readers take nothing away and do not wait for each other.
//!
//! Whoever changes it holds an exclusive queue as a lock. The lock goes with the connection that holds it, and what is
//! written goes over the same connection: who has lost the one cannot do the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use futures::future::{BoxFuture, Shared};
use headless_abstractions::{Error, ErrorKind, Result, TopicName};
use lapin::types::ShortString;
use tokio::time::timeout;

mod known;
mod lock;
mod stream;

pub(crate) use self::known::{Known, KnownTopic};
use self::{
    lock::Lock,
    stream::{read, read_for_change, write},
};
use crate::{
    Namespace,
    connection::Live,
    delay::Wait,
    error::{NAME, overdue},
};

/// A delay of a topic.
pub(crate) type TopicWait = (TopicName, Wait);

/// What makes the queues of some delays. All that need them wait for the same.
pub(crate) type UnderWay = Shared<BoxFuture<'static, Arc<Result<()>>>>;

/// What this handle knows of the registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    cached: RwLock<Arc<Known>>,
    /// The delays whose queues this handle has made, or has found to be there.
    made: Mutex<BTreeSet<TopicWait>>,
    /// Those whose queues a task of this handle is making.
    under_way: Mutex<BTreeMap<TopicWait, UnderWay>>,
    /// The server's lock is one of the connection: among the tasks of this handle this one decides.
    ours: tokio::sync::Mutex<()>,
}

impl Registry {
    /// What was last seen.
    pub(crate) fn cached(&self) -> Arc<Known> {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at everything anew when it is next needed.
    pub(crate) fn forget(&self) {
        self.forget_known();
        self.made().clear();
    }

    /// Looks at topics and groups anew when they are next needed.
    pub(crate) fn forget_known(&self) {
        self.cache(Arc::default());
    }

    /// Looks at the queues of these delays anew when they are next needed.
    pub(crate) fn forget_made(&self, waits: &BTreeSet<TopicWait>) {
        self.made().retain(|wait| !waits.contains(wait));
    }

    /// Those of these delays whose queues may be missing.
    pub(crate) fn unmade(&self, needed: BTreeSet<TopicWait>) -> BTreeSet<TopicWait> {
        let made = self.made();
        needed.into_iter().filter(|wait| !made.contains(wait)).collect()
    }

    pub(crate) fn note_made(&self, waits: BTreeSet<TopicWait>) {
        self.made().extend(waits);
    }

    pub(crate) fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeMap<TopicWait, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeSet<TopicWait>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self, known: Arc<Known>) {
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What is there now.
    pub(crate) async fn read(
        &self,
        live: &Live,
        stream: ShortString,
        at_most: Duration,
    ) -> Result<Arc<Known>> {
        let known = timeout(at_most, read(live, stream))
            .await
            .map_err(|_elapsed| overdue("read the registry", "call_timeout"))??;
        let known = Arc::new(known.unwrap_or_default());
        self.cache(known.clone());
        Ok(known)
    }

    /// Takes the lock to change it. End with [`Edit::end`].
    pub(crate) async fn edit<'a>(&'a self, live: &'a Arc<Live>, namespace: &Namespace) -> Result<Edit<'a>> {
        let ours = self.ours.lock().await;
        let lock = Lock::take(live, namespace).await?;
        let stream = namespace.registry();
        let (known, is_written) = match read_for_change(live, stream.clone()).await {
            Ok(read) => read,
            Err(error) => {
                // What went wrong first is what is told.
                let _released = lock.release().await;
                return Err(error);
            }
        };
        Ok(Edit {
            registry: self,
            live,
            stream,
            lock,
            known,
            is_written,
            _ours: ours,
        })
    }
}

/// The registry in the hands of who may change it.
pub(crate) struct Edit<'a> {
    registry: &'a Registry,
    live: &'a Arc<Live>,
    stream: ShortString,
    lock: Lock,
    known: Known,
    is_written: bool,
    _ours: tokio::sync::MutexGuard<'a, ()>,
}

impl Edit<'_> {
    pub(crate) const fn known(&self) -> &Known {
        &self.known
    }

    /// Makes this the last record, unless it is.
    pub(crate) async fn write(&mut self, known: Known) -> Result<()> {
        if known != self.known || !self.is_written {
            write(self.live, self.stream.clone(), &known).await?;
            self.is_written = true;
        }
        self.known = known;
        self.registry.cache(Arc::new(self.known.clone()));
        Ok(())
    }

    /// Lets others change it.
    pub(crate) async fn end(self) -> Result<()> {
        self.lock.release().await
    }
}

fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what).with_provider(NAME)
}
