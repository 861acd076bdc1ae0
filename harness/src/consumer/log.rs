//! What the handlers of a case did: their calls, and the effects that count.

use std::{
    collections::BTreeMap,
    future::{Future, ready},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use headless_abstractions::{Failure, Message};
use headless_core::{HandlerError, HandlerResult};
use headless_messaging::{Attempt, BatchContext, Context, Inbox};

use super::{Both, event::Work};
use crate::{
    case::{CaseResult, ensure, ensure_eq},
    cx::Cx,
    wait::{Stopwatch, eventually, never_within},
};

/// What the handlers of a case did, in all its processes.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// Marks the rows that are this log's.
    prefix: Arc<str>,
    watch: Stopwatch,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<Call>,
    effects: Vec<Work>,
    rows: u64,
    running: BTreeMap<String, u32>,
    most_running: u32,
    most_of_a_key: u32,
}

/// A call of a handler.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) work: Work,
    pub(super) attempt: Attempt,
    pub(super) message: Message,
    pub(super) failures: Vec<Failure>,
    /// When it began, since the log was made.
    pub(super) at: Duration,
}

/// A handler's call that has not ended.
#[derive(Debug)]
struct Running(Log, String);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(running) = self.0.lock().running.get_mut(&self.1) {
            *running -= 1;
        }
    }
}

impl Log {
    pub(super) fn new<F>(cx: &Cx<F>) -> Self {
        Self {
            prefix: cx.id().to_string().into(),
            watch: Stopwatch::start(),
            inner: Arc::default(),
        }
    }

    /// A handler that succeeds: it notes its call and makes the effect of its work.
    pub(super) fn handler<F: Both>(
        &self,
        form: Inbox,
    ) -> impl Fn(Work, Context) -> BoxFuture<'static, HandlerResult> + Send + Sync + use<F> {
        self.handler_after::<F, _, _>(form, |_, _| ready(Ok(())))
    }

    /// A handler that notes its call, does `first`, and if that succeeds makes the effect of its work.
    pub(super) fn handler_after<F, D, Fut>(
        &self,
        form: Inbox,
        first: D,
    ) -> impl Fn(Work, Context) -> BoxFuture<'static, HandlerResult> + Send + Sync + use<F, D, Fut>
    where
        F: Both,
        D: Fn(Work, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let log = self.clone();
        move |work, cx| {
            let running = log.call(&work, &cx);
            let first = first(work.clone(), cx.clone());
            let log = log.clone();
            Box::pin(async move {
                let _running = running;
                first.await?;
                log.effect::<F>(form, &work, &cx).await
            })
        }
    }

    /// Notes a call.
    fn call(&self, work: &Work, cx: &Context) -> Running {
        let mut inner = self.lock();
        inner.calls.push(Call {
            work: work.clone(),
            attempt: cx.attempt(),
            message: cx.message().clone(),
            failures: cx.failures().to_vec(),
            at: self.watch.elapsed(),
        });
        let of_key = inner.running.entry(work.key.clone()).or_default();
        *of_key += 1;
        let of_key = *of_key;
        let running = inner.running.values().sum();
        inner.most_running = inner.most_running.max(running);
        inner.most_of_a_key = inner.most_of_a_key.max(of_key);
        drop(inner);
        Running(self.clone(), work.key.clone())
    }

    /// Makes the effect of a work: a row in the handler's transaction where the form has one.
    pub(super) async fn effect<F: Both>(&self, form: Inbox, work: &Work, cx: &Context) -> HandlerResult {
        if form != Inbox::Transactional {
            self.lock().effects.push(work.clone());
            return Ok(());
        }
        let mut unit = cx.begin::<F::Store>().await?;
        F::write_row(&mut unit, &self.row(), &text(work)?).await?;
        unit.commit().await?;
        Ok(())
    }

    /// Makes the effects of a batch, together where the form has a transaction.
    pub(super) async fn batch_effect<F: Both>(
        &self,
        form: Inbox,
        works: &[Work],
        cx: &BatchContext,
    ) -> HandlerResult {
        if form != Inbox::Transactional {
            self.lock().effects.extend(works.iter().cloned());
            return Ok(());
        }
        let mut unit = cx.begin::<F::Store>().await?;
        for work in works {
            F::write_row(&mut unit, &self.row(), &text(work)?).await?;
        }
        unit.commit().await?;
        Ok(())
    }

    /// The key of a row that nobody has written; they rise.
    pub(super) fn row(&self) -> String {
        let mut inner = self.lock();
        inner.rows += 1;
        format!("{}/{:08}", self.prefix, inner.rows)
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The calls of this work so far.
    pub(super) fn calls_of(&self, n: u32) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.work.n == n);
        calls
    }

    /// The most calls that ran at once: of all, and of one key.
    pub(super) fn most_at_once(&self) -> (u32, u32) {
        let inner = self.lock();
        (inner.most_running, inner.most_of_a_key)
    }

    /// How many calls run now.
    pub(super) fn at_once(&self) -> u32 {
        self.lock().running.values().sum()
    }

    /// Forgets how many calls ran at once so far.
    pub(super) fn measure_anew(&self) {
        let mut inner = self.lock();
        inner.most_running = 0;
        inner.most_of_a_key = 0;
    }

    /// The effects so far, those of a key in their order.
    pub(super) async fn effects<F: Both>(&self, cx: &Cx<F>) -> CaseResult<Vec<Work>> {
        let mut effects = self.lock().effects.clone();
        for (key, value) in cx.fixture().rows().await? {
            if key.starts_with(&*self.prefix) {
                effects.push(serde_json::from_str(&value)?);
            }
        }
        Ok(effects)
    }

    /// The numbers of the effects so far.
    pub(super) async fn done<F: Both>(&self, cx: &Cx<F>) -> CaseResult<Vec<u32>> {
        Ok(self.effects(cx).await?.into_iter().map(|work| work.n).collect())
    }

    /// Waits until at least this many effects are there.
    pub(super) async fn wait_for<F: Both>(&self, cx: &Cx<F>, count: usize) -> CaseResult {
        let what = format!("{count} effects");
        let watch = Stopwatch::start();
        let waited = eventually(cx.patience(), &what, async || {
            Ok((self.effects(cx).await?.len() >= count).then_some(()))
        })
        .await;
        if waited.is_err() {
            let done = self.done(cx).await?;
            ensure!(
                done.len() >= count,
                "{} of {count} effects within {:?}: {done:?}; {} calls",
                done.len(),
                watch.elapsed(),
                self.calls().len()
            );
        }
        Ok(())
    }

    /// Waits until the works `1..=count` have had their effect, and then for a second one of any of them, which must
    /// not come.
    pub(super) async fn each_once<F: Both>(&self, cx: &Cx<F>, count: u32) -> CaseResult {
        self.wait_for(cx, count as usize).await?;
        never_within(cx.quiet(), "an effect too many", async || {
            Ok(Some(self.effects(cx).await?).filter(|effects| effects.len() > count as usize))
        })
        .await?;
        let mut done = self.done(cx).await?;
        done.sort_unstable();
        ensure_eq!(done, (1..=count).collect::<Vec<_>>(), "effects");
        Ok(())
    }

    /// The effects of each key are in the order of their numbers, repeats apart.
    pub(super) async fn in_key_order<F: Both>(&self, cx: &Cx<F>) -> CaseResult {
        let mut of_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for work in self.effects(cx).await? {
            let firsts = of_key.entry(work.key).or_default();
            if !firsts.contains(&work.n) {
                firsts.push(work.n);
            }
        }
        for (key, firsts) in of_key {
            ensure!(firsts.is_sorted(), "key {key:?} is out of order: {firsts:?}");
        }
        Ok(())
    }

    /// Waits until the handler was called at least this often.
    pub(super) async fn wait_for_calls<F: Both>(&self, cx: &Cx<F>, count: usize) -> CaseResult {
        eventually(cx.patience(), &format!("{count} calls"), async || {
            Ok((self.lock().calls.len() >= count).then_some(()))
        })
        .await
    }

    /// The handler is not called again for a while.
    pub(super) async fn no_more_calls<F: Both>(&self, cx: &Cx<F>, time: Duration) -> CaseResult {
        let so_far = self.lock().calls.len();
        let _ = cx;
        never_within(time, "another call", async || {
            let calls = self.calls();
            Ok((calls.len() > so_far).then(|| calls.last().cloned()))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(work: &Work) -> Result<String, HandlerError> {
    Ok(serde_json::to_string(work)?)
}
