//! A transaction whose calls go as a plan has them.

use std::ops::{Deref, DerefMut};

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, Marked, Message, OwnedTx, Result, StoreTx,
};

use super::{Faults, Op};

/// Any store's transaction, with calls that fail, are slow, or lose their answer. After one that failed it can only be
/// rolled back. It derefs to the store's own, whose statements do not fail.
#[derive(Debug)]
pub struct FaultyTx<T> {
    inner: T,
    faults: Faults,
    doomed: bool,
}

impl<T> FaultyTx<T> {
    pub(super) fn new(inner: T, faults: &Faults) -> Self {
        Self {
            inner,
            faults: faults.clone(),
            doomed: false,
        }
    }

    fn note<A>(&mut self, answer: Result<A>) -> Result<A> {
        self.doomed |= answer.is_err();
        answer
    }
}

#[async_trait]
impl<T: OwnedTx> StoreTx for FaultyTx<T> {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        let append = self.inner.append(messages);
        let answer = self.faults.call_once(Op::any("append in tx"), append).await;
        self.note(answer)
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let mark = self.inner.mark_processed(marks);
        let answer = self.faults.call_once(Op::any("mark in tx"), mark).await;
        self.note(answer)
    }
}

#[async_trait]
impl<T: OwnedTx + 'static> OwnedTx for FaultyTx<T> {
    async fn commit(self: Box<Self>) -> Result<()> {
        if self.doomed {
            Box::new(self.inner).rollback().await?;
            return Err(Error::new(
                ErrorKind::Conflict,
                "the transaction is doomed since one of its calls failed",
            ));
        }
        // Lost on its way, the transaction is dropped, and so rolled back.
        let commit = Box::new(self.inner).commit();
        self.faults.call_once(Op::any("commit"), commit).await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        let rollback = Box::new(self.inner).rollback();
        self.faults.call_once(Op::any("rollback"), rollback).await
    }
}

impl<T> Deref for FaultyTx<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for FaultyTx<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
