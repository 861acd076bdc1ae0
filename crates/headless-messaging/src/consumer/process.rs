//! The way of one message through a round: admit, run, mark, park or bury.

use std::{future::Future, sync::Arc, time::Duration};

use headless_abstractions::{
    Admission, AttemptUse, Bury, Claim, Failure, FailureCause, Hold, InboxParts, InboxState, Marked, Park,
    Parked, Result,
};
use headless_core::{Backoff, CrashPoint, Listener, Verdict, store_call};
use tokio_util::sync::CancellationToken;

use crate::{
    consumer::{
        attempt::{CallEnd, Failed, make_call},
        call::decode_call,
        group::Group,
        item::{End, Item},
        permits::Permit,
        topic::Topic,
        watch::HoldGuard,
    },
    context::{Attempt, CallContext},
    handler::Handler,
    plant::planted,
};

/// Between tries of what has to succeed in the end.
const INSIST: Backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5));

/// How often a message asks anew without a pause. What others do to it between two questions ends sooner.
const AT_ONCE: u32 = 4;

/// How long a delivery waits for room in the park before it asks again.
const FULL: Duration = Duration::from_secs(1);

/// One message on its way through a round.
pub(crate) struct Process<'a> {
    pub(crate) group: &'a Arc<Group>,
    pub(crate) topic: &'a Arc<Topic>,
    pub(crate) item: Item,
    pub(crate) permit: Option<Permit>,
    pub(crate) hold: Option<HoldGuard>,
    /// What failed in this round.
    pub(crate) failures: Vec<Failure>,
    /// Whether a call was made under the present hold.
    pub(crate) called: bool,
    /// Whether a call was ended by the deadline of a shutdown.
    shut_down: bool,
    /// Woken when what others held may be free.
    freed: Listener,
}

/// What to do next with the message.
enum Step {
    /// Ask the store where it stands, and go on from there.
    Again,
    End(End),
}

/// The wait was ended: by a shutdown, or because the delivery went to another member.
pub(super) struct Stopped;

pub(super) type Stoppable<T> = Result<T, Stopped>;

impl<'a> Process<'a> {
    pub(crate) fn new(
        group: &'a Arc<Group>,
        topic: &'a Arc<Topic>,
        item: Item,
        permit: Option<Permit>,
    ) -> Self {
        Self {
            group,
            topic,
            item,
            permit,
            hold: None,
            failures: Vec::new(),
            called: false,
            shut_down: false,
            freed: group.environment.wakeups.freed().listen(),
        }
    }

    /// Takes the message through its round. Whatever happens, it is settled as the answer says or comes back.
    pub(crate) async fn run(mut self) -> End {
        let Some(store) = self.group.store.clone() else {
            return crate::consumer::without_store::run(self).await;
        };
        for turns in 0.. {
            let step = match self.step(&store).await {
                // A store whose answers contradict each other must not be asked as fast as it answers.
                Ok(Step::Again) if turns >= AT_ONCE => {
                    let delay = INSIST.steady_delay(turns - AT_ONCE, &*self.group.environment.random);
                    self.hold_off(delay).await.map(|()| Step::Again)
                }
                step => step,
            };
            match step {
                Ok(Step::Again) => {}
                Ok(Step::End(end)) => return end,
                Err(Stopped) => break,
            }
        }
        self.give_back(&store).await;
        End::Unsettled
    }

    async fn step(&mut self, store: &InboxParts) -> Stoppable<Step> {
        if self.item.must_admit
            && let Some(step) = self.admit(store).await?
        {
            return Ok(step);
        }
        if self.is_expired() {
            if self.item.hold == Hold::Absent {
                // A first delivery: nothing is stored of it, and what has expired stays expired.
                self.group
                    .counters
                    .expired(&self.group.name, &self.item.message.topic, 1);
                return Ok(Step::End(End::Finished));
            }
            return self.discard(store, true).await;
        }
        if std::mem::take(&mut self.item.follows_parked) {
            return self.park_behind(store).await;
        }
        let retry = &self.group.settings.retry;
        if self.item.rounds > retry.max_rounds() {
            let message = format!(
                "{} rounds ended without an answer: it may kill its process",
                retry.max_rounds()
            );
            return self.bury_as(store, FailureCause::RoundsExhausted, message).await;
        }
        if let Some(error) = &self.item.malformed {
            let error = error.to_string();
            return self.bury_as(store, FailureCause::Undecodable, error).await;
        }
        let Some(handler) = self.topic.handler_of(&self.item.message) else {
            return self.park_unknown_type(store).await;
        };
        self.attempts(store, &handler).await
    }

    /// Asks the store whether the message may run; `None` when it may.
    async fn admit(&mut self, store: &InboxParts) -> Stoppable<Option<Step>> {
        let (owner, lease) = (self.group.environment.owner, self.group.settings.lease);
        let arrivals = [self.group.asked(self.topic, &self.item.arrival)];
        self.alive().await?;
        let environment = &self.group.environment;
        let admitted = self
            .insist("inbox.admit", || async {
                let asking = environment.life.asking();
                if !environment.is_alive() {
                    // The store was away for longer than this life lasts: what it gave now would be lost at once, and
                    // its round be counted.
                    return Ok(None);
                }
                // Of the try that succeeds: the lease is counted from no earlier one.
                let asked = environment.ask();
                CrashPoint::InboxAdmitting.reach()?;
                let answers = store.inbox.admit(owner, lease, &arrivals).await?;
                CrashPoint::InboxAdmitted.reach()?;
                Ok(Some((answers, asked, asking)))
            })
            .await?;
        let Some((answers, asked, asking)) = admitted else {
            return Ok(Some(Step::Again));
        };
        Ok(match answers.first() {
            Some(&Admission::Run { epoch, rounds }) => {
                self.item.hold = Hold::Running { owner, epoch };
                self.item.rounds = rounds;
                self.item.must_admit = false;
                self.item.follows_parked = self.item.may_follow_parked(epoch);
                self.called = false;
                self.hold = Some(
                    self.group
                        .watch
                        .hold(Claim::new(self.item.message.id, epoch), asked),
                );
                if !environment.life.allows(asked, environment.clock.monotonic()) {
                    // Answered too late. Before this node registers anew, which would free it and count the round.
                    self.let_go(store).await;
                    return Ok(Some(self.lost_hold()));
                }
                None
            }
            Some(&Admission::Settled(state)) => Some(Step::End(self.settled_before(state))),
            Some(&Admission::Busy { lease_left }) => {
                drop(asking);
                self.wait_for_holder(lease_left).await?;
                Some(Step::Again)
            }
            Some(Admission::Behind) => {
                drop(asking);
                Some(self.park_behind(store).await?)
            }
            None => {
                drop(asking);
                tracing::error!(group = %self.group.name, "the store answered an admission with nothing");
                self.hold_off(FULL).await?;
                Some(Step::Again)
            }
        })
    }

    /// The inline attempts of a round.
    async fn attempts(&mut self, store: &InboxParts, handler: &Handler) -> Stoppable<Step> {
        let retry = self.group.settings.retry;
        for inline in 0..=retry.inline_attempts() {
            if inline > 0 {
                self.wait(retry.inline_delay(inline - 1, &*self.group.environment.random))
                    .await?;
            }
            if inline > 0 || self.item.rounds > 1 {
                self.group
                    .counters
                    .retried(&self.group.name, &self.item.message.topic, 1);
            }
            match self.attempt(handler, inline + 1).await? {
                CallEnd::Committed => {
                    if planted!(self.group.planted, MarkAfterCommit) {
                        let marks = [(self.item.arrival.clone(), self.item.hold)];
                        self.insist("inbox.mark", || store.inbox.mark(&marks)).await?;
                    }
                    return Ok(Step::End(self.handled()));
                }
                CallEnd::Succeeded => return self.mark(store).await,
                CallEnd::Refused(marked) => {
                    let answer = marked.first().copied().unwrap_or(Marked::LeaseLost);
                    return self.refused(store, answer).await;
                }
                CallEnd::Expired => return Ok(Step::Again),
                CallEnd::Misconfigured(why) => return self.misconfigured(&why),
                CallEnd::Discarded(why) => {
                    tracing::info!(group = %self.group.name, id = %self.item.message.id, why, "a handler discarded a message");
                    return self.discard(store, false).await;
                }
                CallEnd::LeaseLost => {
                    self.let_go(store).await;
                    return Ok(self.lost_hold());
                }
                CallEnd::ShutDown => {
                    self.shut_down = true;
                    return Err(Stopped);
                }
                CallEnd::Failed(failed) => {
                    if failed.maybe_committed && self.was_processed(store).await? {
                        return Ok(Step::End(self.handled()));
                    }
                    if let Some(step) = self.failed(store, failed).await? {
                        return Ok(step);
                    }
                }
            }
        }
        let after = retry.round_delay(self.item.round(), &*self.group.environment.random);
        self.park_or_bury(store, after).await
    }

    /// Records a failed attempt; `None` when another inline attempt may follow.
    async fn failed(&mut self, store: &InboxParts, failed: Failed) -> Stoppable<Option<Step>> {
        let (name, topic) = (&self.group.name, &self.item.message.topic);
        let failure = &failed.failure;
        self.group.counters.failed(name, topic, failure.cause.as_str());
        tracing::warn!(group = %name, %topic, id = %self.item.message.id, round = self.item.round(), cause = %failure.cause, error = failure.message, "an attempt failed");
        self.failures.push(failed.failure);
        match failed.verdict {
            Verdict::Permanent => self.bury(store).await.map(Some),
            Verdict::RetryAfter(after) => self.park_or_bury(store, after).await.map(Some),
            _ => Ok(None),
        }
    }

    pub(super) async fn attempt(&mut self, handler: &Handler, inline: u32) -> Stoppable<CallEnd> {
        let revoked = self.item.revoked.clone();
        // What is from the park waits there for the end of a pause: another process may take it.
        let passed = self.topic.pass_circuit(
            self.group,
            &mut self.permit,
            revoked.cancelled(),
            !self.item.from_park,
        );
        let Some(pass) = passed.await else {
            return Err(Stopped);
        };
        if self.is_expired() {
            // It has expired while the call waited.
            return Ok(CallEnd::Expired);
        }
        if self.group.cancelled.is_cancelled() {
            return Err(Stopped);
        }
        if self.hold.as_ref().is_some_and(HoldGuard::is_lost) {
            // It was lost while the call waited: what is called now could not be marked.
            return Ok(CallEnd::LeaseLost);
        }
        let cx = self.call_context(Attempt {
            round: self.item.round(),
            inline,
        });
        let call = match decode_call(handler, &cx, self.group) {
            Ok(call) => call,
            Err(error) => {
                // Nothing was called, so a probe leaves its place to another.
                drop(pass);
                let environment = &self.group.environment;
                let failure = Failure::new(
                    FailureCause::Undecodable,
                    error.to_string(),
                    &*environment.node,
                    environment.clock.now(),
                );
                return Ok(CallEnd::Failed(Failed {
                    failure,
                    verdict: Verdict::Permanent,
                    maybe_committed: false,
                }));
            }
        };
        let never = CancellationToken::new();
        self.called = true;
        let lost = self.hold.as_ref().map_or(&never, HoldGuard::lost);
        let end = make_call(self.group, call, &cx, lost, handler.blocking).await;
        self.topic.record(pass, &end);
        Ok(end)
    }

    fn call_context(&self, attempt: Attempt) -> Arc<CallContext> {
        let messages = vec![self.item.message.clone()];
        let marks = vec![(self.group.asked(self.topic, &self.item.arrival), self.item.hold)];
        let mut failures = self.item.failures.clone();
        Failure::append(&mut failures, self.failures.iter().cloned());
        Arc::new(
            self.group
                .call_context(messages, marks, attempt, self.item.redelivery, failures),
        )
    }

    /// Marks what succeeded without a unit of work.
    async fn mark(&mut self, store: &InboxParts) -> Stoppable<Step> {
        let marks = [(self.item.arrival.clone(), self.item.hold)];
        let mark = || async {
            CrashPoint::InboxMarking.reach()?;
            let answers = store.inbox.mark(&marks).await?;
            CrashPoint::InboxMarked.reach()?;
            Ok(answers)
        };
        let answers = self.insist("inbox.mark", mark).await?;
        match answers.first().copied().unwrap_or(Marked::LeaseLost) {
            Marked::Now => Ok(Step::End(self.handled())),
            answer => self.refused(store, answer).await,
        }
    }

    async fn refused(&mut self, store: &InboxParts, answer: Marked) -> Stoppable<Step> {
        match answer {
            // A mark that was made now and rolled back with others, or a burial, is asked for anew.
            Marked::Now => Ok(Step::Again),
            Marked::Already(state) => Ok(Step::End(self.settled_before(state))),
            Marked::Busy { lease_left } => {
                // To ask for admission again would be to wait for the hold that is renewed here.
                self.item.must_admit = self.item.hold == Hold::Absent;
                self.wait_for_holder(lease_left).await?;
                Ok(Step::Again)
            }
            Marked::Behind => self.park_behind(store).await,
            Marked::LeaseLost => Ok(self.lost_hold()),
        }
    }

    /// The hold is gone: a delivery asks where its message stands, a parked message is with another owner.
    fn lost_hold(&mut self) -> Step {
        self.hold = None;
        if self.item.from_park {
            return Step::End(End::Unsettled);
        }
        self.item.hold = Hold::Absent;
        self.item.must_admit = true;
        Step::Again
    }

    async fn park_behind(&mut self, store: &InboxParts) -> Stoppable<Step> {
        if let Some(error) = &self.item.malformed {
            // The park keeps the message without its flaw; the note tells whoever claims it.
            let error = error.to_string();
            self.note(FailureCause::Undecodable, error);
        }
        let (message, arrival) = (self.item.message.clone(), self.item.arrival.clone());
        let mut park = Park::behind(message, arrival, self.item.hold);
        park.failures.clone_from(&self.failures);
        self.park(store, park, "behind").await
    }

    async fn park_unknown_type(&mut self, store: &InboxParts) -> Stoppable<Step> {
        let message = match &self.item.message.message_type {
            Some(name) => format!("no handler of group {} takes the type {name:?}", self.group.name),
            None => format!(
                "the message has no type, and group {} has several handlers",
                self.group.name
            ),
        };
        let (clock, node) = (&self.group.environment.clock, &self.group.environment.node);
        let failure = Failure::new(FailureCause::UnknownType, message, &**node, clock.now());
        let after = self.group.settings.unknown_type_delay;
        let (message, arrival) = (self.item.message.clone(), self.item.arrival.clone());
        // Repeating the note at each round would push the failures of real attempts out.
        let failures = if is_known(&self.item.failures, &failure) {
            Vec::new()
        } else {
            vec![failure]
        };
        let park =
            Park::failed(message, arrival, self.item.hold, after, failures).with_attempt(AttemptUse::Return);
        self.park(store, park, FailureCause::UnknownType.as_str()).await
    }

    async fn park_or_bury(&mut self, store: &InboxParts, after: Duration) -> Stoppable<Step> {
        if self.item.round() >= self.group.settings.retry.max_rounds() {
            return self.bury(store).await;
        }
        let (message, arrival) = (self.item.message.clone(), self.item.arrival.clone());
        let park = Park::failed(message, arrival, self.item.hold, after, self.failures.clone());
        self.park(store, park, "retry").await
    }

    async fn park(&mut self, store: &InboxParts, park: Park, reason: &'static str) -> Stoppable<Step> {
        let limits = self.group.settings.park_limits;
        let parks = [park];
        let topic = self.topic;
        let mut without_room = None;
        loop {
            let park = || async {
                CrashPoint::InboxParking.reach()?;
                let answers = store.parked.park(&parks, limits).await?;
                CrashPoint::InboxParked.reach()?;
                Ok(answers)
            };
            let answers = self.insist("parked.park", park).await?;
            match answers.first().copied().unwrap_or(Parked::LeaseLost) {
                Parked::Now => {
                    self.topic.remember_parked(&self.item.arrival);
                    self.group
                        .counters
                        .parked(&self.group.name, &self.item.message.topic, reason);
                    return Ok(Step::End(End::Parked));
                }
                Parked::Already(state) => return Ok(Step::End(self.settled_before(state))),
                Parked::KeyFree => return Ok(Step::Again),
                Parked::LeaseLost => return Ok(self.lost_hold()),
                Parked::Full => {
                    self.group.bound_hit("park_limits");
                    // A full key holds its own lane alone; a full group lets nothing more in.
                    if without_room.is_none() && self.is_group_full(store).await? {
                        without_room = Some(topic.pauses.without_room());
                    }
                    self.hold_off(FULL).await?;
                }
            }
        }
    }

    async fn is_group_full(&self, store: &InboxParts) -> Stoppable<bool> {
        let group = &self.group.name;
        let stats = self
            .insist("inbox.stats", || store.queries.stats(Some(group)))
            .await?;
        let most = self.group.settings.park_limits.per_group.get();
        Ok(stats.parked >= u64::try_from(most).unwrap_or(u64::MAX))
    }

    async fn bury_as(&mut self, store: &InboxParts, cause: FailureCause, message: String) -> Stoppable<Step> {
        self.note(cause, message);
        self.bury(store).await
    }

    /// Notes what is wrong with the message, once: a burial that has to wait is asked for anew.
    fn note(&mut self, cause: FailureCause, message: String) {
        let environment = &self.group.environment;
        let failure = Failure::new(cause, message, &*environment.node, environment.clock.now());
        if !is_known(&self.failures, &failure) {
            self.failures.push(failure);
        }
    }

    async fn bury(&mut self, store: &InboxParts) -> Stoppable<Step> {
        let (message, arrival) = (self.item.message.clone(), self.item.arrival.clone());
        let burials = [Bury::new(message, arrival, self.item.hold, self.failures.clone())];
        let bury = || async {
            CrashPoint::InboxBurying.reach()?;
            let answers = store.dead_letters.bury(&burials).await?;
            CrashPoint::InboxBuried.reach()?;
            Ok(answers)
        };
        let answers = self.insist("dead_letters.bury", bury).await?;
        match answers.first().copied().unwrap_or(Marked::LeaseLost) {
            Marked::Now => {
                let (name, topic) = (&self.group.name, &self.item.message.topic);
                let cause = self.failures.last().map_or("", |failure| failure.cause.as_str());
                self.group.counters.dead(name, topic, cause);
                tracing::error!(group = %name, %topic, id = %self.item.message.id, cause, "a message was dead-lettered");
                Ok(Step::End(End::Finished))
            }
            answer => self.refused(store, answer).await,
        }
    }

    /// Drops the message: it has expired, or its handler asked for it.
    async fn discard(&mut self, store: &InboxParts, expired: bool) -> Stoppable<Step> {
        let marks = [(self.item.arrival.clone(), self.item.hold)];
        let discard = || async {
            CrashPoint::InboxDiscarding.reach()?;
            let answers = store.inbox.discard(&marks).await?;
            CrashPoint::InboxDiscarded.reach()?;
            Ok(answers)
        };
        let answers = self.insist("inbox.discard", discard).await?;
        match answers.first().copied().unwrap_or(Marked::LeaseLost) {
            Marked::Now => {
                let (name, topic) = (&self.group.name, &self.item.message.topic);
                let counters = &self.group.counters;
                if expired {
                    counters.expired(name, topic, 1);
                } else {
                    counters.discarded(name, topic, 1);
                }
                Ok(Step::End(End::Finished))
            }
            answer => self.refused(store, answer).await,
        }
    }

    fn misconfigured(&self, why: &str) -> Stoppable<Step> {
        tracing::error!(group = %self.group.name, topic = %self.item.message.topic, why, "the consumer is paused until this is mended");
        self.topic.misconfigured(why);
        Err(Stopped)
    }

    pub(super) fn handled(&self) -> End {
        self.group
            .counters
            .handled(&self.group.name, &self.item.message.topic, 1);
        End::Finished
    }

    fn settled_before(&self, state: InboxState) -> End {
        match state {
            InboxState::Parked | InboxState::Running => End::Parked,
            InboxState::Processed | InboxState::Dead | InboxState::Discarded => {
                self.group
                    .counters
                    .duplicates(&self.group.name, &self.item.message.topic, 1);
                End::Finished
            }
        }
    }

    pub(super) fn is_expired(&self) -> bool {
        self.item.message.is_expired(self.group.environment.clock.now())
    }

    async fn was_processed(&self, store: &InboxParts) -> Stoppable<bool> {
        let (group, id) = (&self.group.name, self.item.message.id);
        let entry = self.insist("inbox.get", || store.queries.get(group, id)).await?;
        Ok(entry.is_some_and(|entry| entry.state == InboxState::Processed))
    }

    /// Waits, outside the concurrency count, while the store may have given this node up: what it claimed then would not
    /// be its own.
    async fn alive(&mut self) -> Stoppable<()> {
        let environment = &self.group.environment;
        if environment.is_alive() {
            return Ok(());
        }
        self.permit = None;
        tokio::select! {
            biased;
            () = self.group.stopping.cancelled() => return Err(Stopped),
            () = self.item.revoked.cancelled() => return Err(Stopped),
            () = environment.alive() => {}
        }
        self.permit = self.group.permits.acquire().await;
        Ok(())
    }

    /// Waits, outside the concurrency count, for the end of another's hold: of its lease, or of its owner, which may be
    /// buried meanwhile.
    async fn wait_for_holder(&mut self, lease_left: Duration) -> Stoppable<()> {
        self.permit = None;
        let time = lease_left.clamp(Duration::from_millis(10), self.group.settings.lease);
        let time = self.group.burials_each.map_or(time, |each| time.min(each));
        tokio::select! {
            biased;
            () = self.group.stopping.cancelled() => return Err(Stopped),
            () = self.item.revoked.cancelled() => return Err(Stopped),
            () = self.freed.woken() => {}
            () = tokio::time::sleep(time) => {}
        }
        self.permit = self.group.permits.acquire().await;
        Ok(())
    }

    /// Waits outside the concurrency count: there is no room for the message, or the store's answers make no sense.
    async fn hold_off(&mut self, time: Duration) -> Stoppable<()> {
        self.permit = None;
        self.wait(time.clamp(Duration::from_millis(10), self.group.settings.lease))
            .await?;
        self.permit = self.group.permits.acquire().await;
        Ok(())
    }

    /// Waits, unless the group stops or the delivery goes to another member.
    pub(super) async fn wait(&self, time: Duration) -> Stoppable<()> {
        tokio::select! {
            biased;
            () = self.group.stopping.cancelled() => Err(Stopped),
            () = self.item.revoked.cancelled() => Err(Stopped),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Makes a store call until it succeeds: what has been decided is not given up because the store is away.
    async fn insist<T, F, Fut>(&self, operation: &'static str, call: F) -> Stoppable<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let clock = &*self.group.environment.clock;
        self.insist_on(operation, || store_call(clock, operation, call()))
            .await
    }

    /// Makes any call until it succeeds.
    pub(super) async fn insist_on<T, F, Fut>(&self, operation: &'static str, call: F) -> Stoppable<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        for tries in 0.. {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(group = %self.group.name, id = %self.item.message.id, operation, %error, "a call failed; trying again");
                    if !error.is_retryable() {
                        self.topic.show_defect(Some(format!("{operation}: {error}")));
                    }
                    let delay = INSIST.steady_delay(tries, &*self.group.environment.random);
                    tokio::select! {
                        biased;
                        () = self.group.cancelled.cancelled() => return Err(Stopped),
                        () = self.item.revoked.cancelled() => return Err(Stopped),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        Err(Stopped)
    }

    /// Ends the hold on a message that was given up undone, so that others need not wait for its lease. The round is
    /// given back, unless a call of it was ended by the deadline: that was an attempt.
    pub(super) async fn give_back(&mut self, store: &InboxParts) {
        let attempt = if self.shut_down {
            AttemptUse::Consume
        } else {
            AttemptUse::Return
        };
        self.release(store, attempt).await;
    }

    /// Ends a hold that counts for nothing here any more: at the store it may be this node's own for a whole lease. A round
    /// without a call is given back.
    pub(super) async fn let_go(&mut self, store: &InboxParts) {
        let attempt = if self.called {
            AttemptUse::Consume
        } else {
            AttemptUse::Return
        };
        self.release(store, attempt).await;
    }

    /// Only the hold of this epoch: another that the store has given since is left alone.
    async fn release(&mut self, store: &InboxParts, attempt: AttemptUse) {
        let Hold::Running { owner, epoch } = self.item.hold else {
            return;
        };
        self.hold = None;
        let claims = [Claim::new(self.item.message.id, epoch)];
        let clock = &*self.group.environment.clock;
        let release = async {
            CrashPoint::InboxReleasing.reach()?;
            let released = store
                .inbox
                .release(&self.group.name, owner, &claims, attempt)
                .await?;
            CrashPoint::InboxReleased.reach()?;
            Ok(released)
        };
        if let Err(error) = store_call(clock, "inbox.release", release).await {
            tracing::warn!(group = %self.group.name, id = %self.item.message.id, %error, "releasing a hold failed; it ends with its lease");
        }
    }
}

/// Whether one of these says the same, whenever it did and wherever.
fn is_known(failures: &[Failure], failure: &Failure) -> bool {
    failures
        .iter()
        .any(|known| known.cause == failure.cause && known.message == failure.message)
}
