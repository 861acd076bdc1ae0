//! An outbox whose answers can be made to come late, or not at all. Written without `async_trait`, as `faulty`.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use headless_abstractions::{
    Abandon, Appended, Claim, ClaimOutbox, ClaimedOutbox, Error, ErrorKind, Failure, Message, OutboxStore,
    Owner, Result, Settled,
};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Passes everything on to another outbox.
#[derive(Debug)]
pub(crate) struct SlowOutbox {
    inner: Arc<dyn OutboxStore>,
    /// How long the answer of a claim takes, after the claim was made.
    pub(crate) latency: Mutex<Duration>,
    /// Whether claims fail.
    pub(crate) down: Mutex<bool>,
}

impl SlowOutbox {
    pub(crate) fn new(inner: Arc<dyn OutboxStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            latency: Mutex::default(),
            down: Mutex::default(),
        })
    }
}

/// Methods that are passed on as they are.
macro_rules! pass {
    ($($method:ident($owner:ident $(, $arg:ident: $type:ty)*);)*) => {$(
        fn $method<'s, 'c, 'h, 'a>(
            &'s self,
            $owner: Owner,
            claims: &'c [Claim],
            $($arg: &'h $type,)*
        ) -> Answer<'a, Settled>
        where
            's: 'a,
            'c: 'a,
            'h: 'a,
        {
            self.inner.$method($owner, claims $(, $arg)*)
        }
    )*};
}

impl OutboxStore for SlowOutbox {
    fn claim<'s, 'r, 'a>(&'s self, request: &'r ClaimOutbox) -> Answer<'a, ClaimedOutbox>
    where
        's: 'a,
        'r: 'a,
    {
        Box::pin(async move {
            if *self.down.lock().unwrap() {
                return Err(Error::new(ErrorKind::Unavailable, "the store is away"));
            }
            let claimed = self.inner.claim(request).await;
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            claimed
        })
    }

    pass! {
        abandon(owner, how: Abandon);
        fail(owner, failure: Failure);
    }

    fn ack<'s, 'c, 'a>(&'s self, owner: Owner, claims: &'c [Claim]) -> Answer<'a, Settled>
    where
        's: 'a,
        'c: 'a,
    {
        self.inner.ack(owner, claims)
    }

    fn append<'s, 'm, 'a>(&'s self, messages: &'m [Message]) -> Answer<'a, Vec<Appended>>
    where
        's: 'a,
        'm: 'a,
    {
        self.inner.append(messages)
    }

    fn renew<'s, 'c, 'a>(&'s self, owner: Owner, claims: &'c [Claim], lease: Duration) -> Answer<'a, Settled>
    where
        's: 'a,
        'c: 'a,
    {
        self.inner.renew(owner, claims, lease)
    }

    fn reap_expired<'s, 'a>(&'s self, limit: usize) -> Answer<'a, u64>
    where
        's: 'a,
    {
        self.inner.reap_expired(limit)
    }

    fn release_owner<'s, 'a>(&'s self, owner: Owner) -> Answer<'a, u64>
    where
        's: 'a,
    {
        self.inner.release_owner(owner)
    }

    fn purge<'s, 'a>(&'s self, older_than: Duration, limit: usize) -> Answer<'a, u64>
    where
        's: 'a,
    {
        self.inner.purge(older_than, limit)
    }
}
