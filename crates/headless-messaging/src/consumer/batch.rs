//! The way of several messages through one call.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::{FutureExt, select_all};
use headless_abstractions::{
    Admission, AttemptUse, Claim, Failure, Hold, InboxParts, Marked, Redelivery, Result,
};
use headless_core::{CrashPoint, WorkProgress, store_call};
use tokio_util::sync::CancellationToken;

use crate::{
    BatchContext,
    consumer::{
        attempt::{CallEnd, make_call},
        group::Group,
        item::{End, Item},
        permits::Permit,
        process::Process,
        topic::Topic,
        watch::HoldGuard,
    },
    context::Attempt,
    handler::{Handler, HandlerKind},
};

/// A batch on its way. What cannot go with the others goes alone afterwards, in order.
pub(crate) struct Batch<'a> {
    group: &'a Arc<Group>,
    topic: &'a Arc<Topic>,
    handler: Handler,
    entries: Vec<Entry>,
    lost: CancellationToken,
}

struct Entry {
    item: Item,
    hold: Option<HoldGuard>,
    /// Whether a call was made with it.
    called: bool,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Together,
    Alone,
    Ended(End),
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        group: &'a Arc<Group>,
        topic: &'a Arc<Topic>,
        handler: Handler,
        items: Vec<Item>,
    ) -> Self {
        let entries = items
            .into_iter()
            .map(|item| Entry {
                item,
                hold: None,
                called: false,
                way: Way::Together,
            })
            .collect();
        Self {
            group,
            topic,
            handler,
            entries,
            lost: CancellationToken::new(),
        }
    }

    /// Runs the batch, then alone what could not go with it; answers for each message in the order of the batch.
    pub(crate) async fn run(mut self, permit: Option<Permit>) -> Vec<End> {
        self.set_apart_what_is_special();
        if let Some(store) = self.group.store.clone() {
            self.admit(&store).await;
            self.together(Some(&store), permit).await;
        } else {
            self.together(None, permit).await;
        }
        self.alone().await
    }

    /// Repeats within the batch, expired and malformed messages go alone.
    fn set_apart_what_is_special(&mut self) {
        let (mut ids, now) = (BTreeSet::new(), self.group.environment.clock.now());
        for at in 0..self.entries.len() {
            let item = &self.entries[at].item;
            let special = item.malformed.is_some() || item.message.is_expired(now);
            if !ids.insert(item.message.id) || special {
                self.set_apart(at);
            }
        }
    }

    /// Sends a message alone, and what follows of its key with it.
    fn set_apart(&mut self, at: usize) {
        let key = self.entries[at].item.arrival.key.clone();
        for (n, entry) in self.entries.iter_mut().enumerate().skip(at) {
            if entry.way == Way::Together && (n == at || (key.is_some() && entry.item.arrival.key == key)) {
                entry.way = Way::Alone;
            }
        }
    }

    fn going(&self) -> Vec<usize> {
        (0..self.entries.len())
            .filter(|at| self.entries[*at].way == Way::Together)
            .collect()
    }

    /// Admits, in one request, what the store must be asked about.
    async fn admit(&mut self, store: &InboxParts) {
        let asked: Vec<usize> = self
            .going()
            .into_iter()
            .filter(|at| self.entries[*at].item.must_admit)
            .collect();
        if asked.is_empty() {
            return;
        }
        let arrivals: Vec<_> = asked
            .iter()
            .map(|at| self.entries[*at].item.arrival.clone())
            .collect();
        let (owner, lease) = (self.group.environment.owner, self.group.settings.lease);
        let environment = &self.group.environment;
        let _asking = environment.life.asking();
        if !environment.is_alive() {
            // Alone, each waits for its node to live again.
            return self.all_alone();
        }
        let when = environment.ask();
        let admit = async {
            CrashPoint::InboxAdmitting.reach()?;
            let answers = store.inbox.admit(owner, lease, &arrivals).await?;
            CrashPoint::InboxAdmitted.reach()?;
            Ok(answers)
        };
        let clock = &*self.group.environment.clock;
        let admitted: Result<Vec<Admission>> = store_call(clock, "inbox.admit", admit).await;
        let answers = match admitted {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(group = %self.group.name, %error, "admitting a batch failed; its messages go alone");
                Vec::new()
            }
        };
        for (n, at) in asked.into_iter().enumerate() {
            match answers.get(n) {
                Some(&Admission::Run { epoch, rounds }) => {
                    let entry = &mut self.entries[at];
                    entry.item.hold = Hold::Running { owner, epoch };
                    entry.item.rounds = rounds;
                    entry.item.must_admit = false;
                    let claim = Claim::new(entry.item.message.id, epoch);
                    entry.hold = Some(self.group.watch.hold_together(claim, when, self.lost.clone()));
                    entry.item.follows_parked = entry.item.may_follow_parked(epoch);
                    if entry.item.follows_parked || rounds > self.group.settings.retry.max_rounds() {
                        self.set_apart(at);
                    }
                }
                _ => self.set_apart(at),
            }
        }
        if !environment.life.allows(when, environment.clock.monotonic()) {
            // Answered too late. Before this node registers anew, which would free it and count the rounds.
            self.let_go(store).await;
        }
    }

    /// Gives back what was admitted; alone, each message asks anew.
    async fn let_go(&mut self, store: &InboxParts) {
        self.all_alone();
        let mut claims = Vec::new();
        for entry in &mut self.entries {
            if let (Some(_), Hold::Running { epoch, .. }) = (entry.hold.take(), entry.item.hold) {
                claims.push(Claim::new(entry.item.message.id, epoch));
                entry.item.hold = Hold::Absent;
                entry.item.must_admit = true;
            }
        }
        if claims.is_empty() {
            return;
        }
        let (name, environment) = (&self.group.name, &self.group.environment);
        let release = store
            .inbox
            .release(name, environment.owner, &claims, AttemptUse::Return);
        if let Err(error) = store_call(&*environment.clock, "inbox.release", release).await {
            tracing::warn!(group = %name, %error, "releasing holds failed; they end with their leases");
        }
    }

    /// Runs what goes together, again and again without what was refused, at most as often as it has messages.
    async fn together(&mut self, store: Option<&InboxParts>, mut permit: Option<Permit>) {
        loop {
            let going = self.going();
            if going.is_empty() {
                return;
            }
            let revoked = going
                .iter()
                .map(|at| self.entries[*at].item.revoked.clone())
                .map(|revoked| async move { revoked.cancelled().await }.boxed());
            let revoked = select_all(revoked).map(|_| ());
            let passed = self
                .topic
                .pass_circuit(self.group, &mut permit, revoked, false)
                .await;
            let Some(pass) = passed else {
                // Each waits for itself, and what it holds it holds no longer than its lease until its turn comes.
                for entry in &mut self.entries {
                    entry.hold = None;
                }
                return self.all_alone();
            };
            self.set_apart_what_is_special();
            if self.going().len() != going.len() {
                drop(pass);
                continue;
            }
            if self
                .entries
                .iter()
                .filter_map(|entry| entry.hold.as_ref())
                .any(HoldGuard::is_lost)
            {
                // While the call waited: what is called now could not be marked.
                return self.all_alone();
            }
            let Some((call, cx)) = self.call(&going) else {
                continue;
            };
            for at in &going {
                self.entries[*at].called = true;
            }
            let end = make_call(self.group, call, &cx, &self.lost, self.handler.blocking).await;
            self.topic.record(pass, &end);
            match end {
                CallEnd::Committed => return self.handled(&going),
                CallEnd::Succeeded => match store {
                    Some(store) => return self.mark(store, &going).await,
                    None => return self.handled(&going),
                },
                CallEnd::Refused(marked) => self.drop_refused(&going, &marked),
                CallEnd::Failed(failed) => {
                    let (name, failure) = (&self.group.name, &failed.failure);
                    self.group
                        .counters
                        .failed(name, &self.topic.name, failure.cause.as_str());
                    tracing::warn!(group = %name, topic = %self.topic.name, size = going.len(), cause = %failure.cause, error = failure.message, "a batch failed; its messages go alone");
                    return self.all_alone();
                }
                // Alone, each message finds out for itself what to do.
                CallEnd::Discarded(_)
                | CallEnd::Misconfigured(_)
                | CallEnd::Expired
                | CallEnd::LeaseLost
                | CallEnd::ShutDown => {
                    return self.all_alone();
                }
            }
        }
    }

    /// The call of what goes together; `None` when a message cannot be decoded, which then goes alone.
    fn call(&mut self, going: &[usize]) -> Option<(crate::handler::Call, Arc<crate::context::CallContext>)> {
        let HandlerKind::Batch { call, .. } = &self.handler.kind else {
            return None;
        };
        let messages: Vec<_> = going
            .iter()
            .map(|at| self.entries[*at].item.message.clone())
            .collect();
        let marks = going
            .iter()
            .map(|at| {
                (
                    self.entries[*at].item.arrival.clone(),
                    self.entries[*at].item.hold,
                )
            })
            .collect();
        let (round, redelivery) = match going {
            [at] => {
                let item = &self.entries[*at].item;
                (item.round(), item.redelivery)
            }
            // Of several, each has its own.
            _ => (1, Redelivery::Unknown),
        };
        let attempt = Attempt { round, inline: 1 };
        let failures: Vec<Failure> = Vec::new();
        let cx = Arc::new(
            self.group
                .call_context(messages, marks, attempt, redelivery, failures),
        );
        debug_assert_eq!(cx.slot.progress(), WorkProgress::Unused);
        let borrowed: Vec<_> = cx.messages.iter().collect();
        match call(&borrowed, &self.group.codecs, BatchContext::new(cx.clone())) {
            Ok(call) => Some((call, cx)),
            Err((n, _undecodable)) => {
                self.set_apart(going[n]);
                None
            }
        }
    }

    /// Takes out what a refused mark named. Each time that this is called the batch gets smaller.
    fn drop_refused(&mut self, going: &[usize], marked: &[Marked]) {
        let mut any = false;
        for (at, mark) in going.iter().zip(marked) {
            if *mark != Marked::Now {
                any = true;
                self.set_apart(*at);
            }
        }
        if !any {
            // A refusal that names nothing cannot be acted on together.
            self.all_alone();
        }
    }

    async fn mark(&mut self, store: &InboxParts, going: &[usize]) {
        let marks: Vec<_> = going
            .iter()
            .map(|at| {
                (
                    self.entries[*at].item.arrival.clone(),
                    self.entries[*at].item.hold,
                )
            })
            .collect();
        let mark = async {
            CrashPoint::InboxMarking.reach()?;
            let answers = store.inbox.mark(&marks).await?;
            CrashPoint::InboxMarked.reach()?;
            Ok(answers)
        };
        let clock = &*self.group.environment.clock;
        let marked: Result<Vec<Marked>> = store_call(clock, "inbox.mark", mark).await;
        match marked {
            Ok(marked) => {
                for (at, mark) in going.iter().zip(marked) {
                    match mark {
                        Marked::Now => self.handled(&[*at]),
                        _ => self.entries[*at].way = Way::Alone,
                    }
                }
            }
            Err(error) => {
                tracing::warn!(group = %self.group.name, %error, "marking a batch failed; its messages go alone");
                self.all_alone();
            }
        }
    }

    fn handled(&mut self, going: &[usize]) {
        self.group
            .counters
            .handled(&self.group.name, &self.topic.name, going.len() as u64);
        for at in going {
            self.entries[*at].way = Way::Ended(End::Finished);
            self.entries[*at].hold = None;
        }
    }

    fn all_alone(&mut self) {
        for entry in &mut self.entries {
            if entry.way == Way::Together {
                entry.way = Way::Alone;
            }
        }
    }

    async fn alone(self) -> Vec<End> {
        let mut ends = Vec::with_capacity(self.entries.len());
        let mut stopped = BTreeSet::new();
        let mut parked = BTreeSet::new();
        for entry in self.entries {
            if let Way::Ended(end) = entry.way {
                ends.push(end);
                continue;
            }
            let key = entry.item.arrival.key.clone();
            if key.as_ref().is_some_and(|key| stopped.contains(key)) {
                // Its key waits for a message that was given up undone; what is held of it was not tried.
                if let Some(store) = &self.group.store {
                    Process::new(self.group, self.topic, entry.item, None)
                        .give_back(store)
                        .await;
                }
                ends.push(End::Unsettled);
                continue;
            }
            let permit = self.group.permits.acquire().await;
            let mut process = Process::new(self.group, self.topic, entry.item, permit);
            process.called = entry.called;
            process.hold = entry.hold.filter(|hold| !hold.is_lost());
            if process.hold.is_none() && process.item.hold != Hold::Absent {
                if let Some(store) = &self.group.store {
                    process.let_go(store).await;
                }
                process.item.hold = Hold::Absent;
                process.item.must_admit = true;
            }
            // What is not held yet is told by the store itself that it is behind.
            process.item.follows_parked |=
                process.item.hold != Hold::Absent && key.as_ref().is_some_and(|key| parked.contains(key));
            let end = process.run().await;
            match end {
                End::Unsettled => stopped.extend(key),
                End::Parked => parked.extend(key),
                _ => {}
            }
            ends.push(end);
        }
        ends
    }
}
