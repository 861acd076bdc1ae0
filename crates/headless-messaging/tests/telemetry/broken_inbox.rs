//! An inbox that fails, or panics, in so many of its next admissions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, Error, ErrorKind, GroupName, Hold, InboxStore, Marked, Owner,
    Result, Settled,
};

#[derive(Debug)]
pub(crate) struct BrokenInbox {
    pub(crate) inner: Arc<dyn InboxStore>,
    pub(crate) failures: AtomicU32,
    pub(crate) panics: AtomicU32,
}

fn is_left(count: &AtomicU32) -> bool {
    let taken = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    taken.is_ok()
}

#[async_trait]
impl InboxStore for BrokenInbox {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        if is_left(&self.failures) {
            return Err(Error::new(ErrorKind::Unavailable, "away"));
        }
        assert!(!is_left(&self.panics), "a defect of the driver");
        self.inner.admit(owner, lease, arrivals).await
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.inner.mark(marks).await
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.inner.discard(marks).await
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        self.inner.renew(group, owner, claims, lease).await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        self.inner.release(group, owner, claims, attempt).await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        self.inner.release_owner(owner).await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.inner.purge(older_than, limit).await
    }
}
