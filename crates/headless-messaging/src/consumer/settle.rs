//! The deliveries of one session with the transport: settling in batches, extending what is held.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    DeliveryToken, Error, ErrorKind, GroupName, Result, Settlement, Subscriber, TopicName,
};
use headless_core::{Backoff, CrashPoint, Environment, trace};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::outgoing::show_failure;

const MOST: usize = 512;
const AFTER_FAILURE: Backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_secs(2));

/// One subscriber and the deliveries that it has given and that are not settled.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) subscriber: Arc<dyn Subscriber>,
    /// What it reads, as the spans of settling say it.
    group: GroupName,
    topic: TopicName,
    system: &'static str,
    unsettled: Mutex<BTreeSet<DeliveryToken>>,
    pending: Mutex<Vec<Settlement>>,
    work: Notify,
    /// No more settlements will come.
    finished: CancellationToken,
}

impl Session {
    /// Of this subscriber of a group to a topic of the transport of this name.
    pub(crate) fn new(
        subscriber: Box<dyn Subscriber>,
        group: &GroupName,
        topic: &TopicName,
        system: &'static str,
    ) -> Arc<Self> {
        Arc::new(Self {
            subscriber: Arc::from(subscriber),
            group: group.clone(),
            topic: topic.clone(),
            system,
            unsettled: Mutex::default(),
            pending: Mutex::default(),
            work: Notify::new(),
            finished: CancellationToken::new(),
        })
    }

    pub(crate) fn received(&self, tokens: impl IntoIterator<Item = DeliveryToken>) {
        lock(&self.unsettled).extend(tokens);
    }

    /// Leaves a delivery to come back.
    pub(crate) fn forget(&self, token: DeliveryToken) {
        lock(&self.unsettled).remove(&token);
    }

    /// Settles a delivery, soon: with others that are settled while the last batch is on its way.
    pub(crate) fn settle(&self, settlement: Settlement) {
        self.forget(settlement.token());
        lock(&self.pending).push(settlement);
        self.work.notify_one();
    }

    /// Says that no more settlements will come, so that [`run`](Self::run) ends when all are done.
    pub(crate) fn finish(&self) {
        self.finished.cancel();
    }

    /// Settles until [`finish`](Self::finish) and nothing is pending, or until `over`: then what is pending comes
    /// back with its deliveries. Past the `deadline` of a shutdown a settlement that fails is not repeated.
    pub(crate) async fn run(
        self: Arc<Self>,
        environment: Environment,
        over: CancellationToken,
        deadline: CancellationToken,
    ) {
        let mut failures = 0;
        let group = &self.group;
        loop {
            let batch = self.take();
            if batch.is_empty() {
                if self.finished.is_cancelled() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = self.work.notified() => {}
                    () = self.finished.cancelled() => {}
                    () = over.cancelled() => return,
                }
                continue;
            }
            let answers = tokio::select! {
                biased;
                answers = self.settle_all(&batch) => answers,
                () = over.cancelled() => return,
            };
            // What a broken driver did not answer for is asked for again.
            let mut again: Vec<_> = batch.iter().skip(answers.len()).copied().collect();
            for (settlement, answer) in batch.into_iter().zip(answers) {
                let Err(error) = answer else { continue };
                if error.is_retryable() {
                    again.push(settlement);
                } else if matches!(
                    error.kind(),
                    ErrorKind::LeaseLost | ErrorKind::NotFound | ErrorKind::Closed
                ) {
                    tracing::debug!(%group, %error, "a settlement came late; the delivery comes back and is recognised");
                } else {
                    tracing::error!(%group, %error, "a settlement was refused; the delivery comes back");
                }
            }
            if again.is_empty() {
                failures = 0;
                continue;
            }
            lock(&self.pending).splice(0..0, again);
            let delay = AFTER_FAILURE.steady_delay(failures, &*environment.random);
            failures += 1;
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                () = deadline.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Asks the transport to settle these; answers for each.
    async fn settle_all(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        if let Err(error) = CrashPoint::ConsumerSettling.reach() {
            return each(batch, &error);
        }
        let span = trace::settle(self.system, &self.group, &self.topic, batch.len());
        let answers = self.subscriber.settle(batch).instrument(span.clone()).await;
        show_failure(&span, answers.iter().find_map(|answer| answer.as_ref().err()));
        match CrashPoint::ConsumerSettled.reach() {
            Ok(()) => answers,
            Err(error) => each(batch, &error),
        }
    }

    /// Extends what is unsettled, again and again, until finished. Run it on the control runtime.
    pub(crate) async fn extend(self: Arc<Self>, visibility: Duration) {
        let group = &self.group;
        loop {
            tokio::select! {
                biased;
                () = self.finished.cancelled() => return,
                () = tokio::time::sleep(visibility / 3) => {}
            }
            let tokens: Vec<_> = lock(&self.unsettled).iter().copied().collect();
            if tokens.is_empty() {
                continue;
            }
            let answers = tokio::select! {
                biased;
                () = self.finished.cancelled() => return,
                answers = self.extend_all(&tokens, visibility) => answers,
            };
            let failed = answers.iter().filter(|answer| answer.is_err()).count();
            if failed > 0 {
                // Settled in the meantime, or gone: then it is delivered again, and recognised.
                tracing::debug!(%group, failed, "some deliveries could not be extended");
            }
        }
    }

    /// Asks the transport to keep these deliveries; answers for each.
    async fn extend_all(&self, tokens: &[DeliveryToken], visibility: Duration) -> Vec<Result<()>> {
        if let Err(error) = CrashPoint::ConsumerExtending.reach() {
            return each(tokens, &error);
        }
        let answers = self.subscriber.extend(tokens, visibility).await;
        match CrashPoint::ConsumerExtended.reach() {
            Ok(()) => answers,
            Err(error) => each(tokens, &error),
        }
    }

    fn take(&self) -> Vec<Settlement> {
        let mut pending = lock(&self.pending);
        let most = pending.len().min(MOST);
        pending.drain(..most).collect()
    }
}

/// The same error for each of these.
fn each<T>(of: &[T], error: &Error) -> Vec<Result<()>> {
    let again = |_| Err(Error::new(error.kind(), error.message().to_owned()));
    of.iter().map(again).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
