//! Picks up parked messages that are due: a key's run serially, keys in parallel.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use headless_abstractions::{Abandon, Claim, ClaimParked, InboxParts, ParkedRow, Result, TopicName};
use headless_core::{CrashPoint, Next, panic_message, store_call};

use crate::consumer::{
    group::Group,
    item::{End, Item},
    permits::Permit,
    process::Process,
    topic::Topic,
    watch::HoldGuard,
};

/// Claims what is due, as many messages as may run, and starts them.
pub(crate) async fn pick_up(group: Arc<Group>, store: InboxParts) -> Result<Next> {
    if group.topics.values().all(|topic| !takes_parked(topic)) {
        return Ok(Next::Wait);
    }
    // A permit first: what is claimed and cannot run would burn its round if this process died.
    let permit = tokio::select! {
        biased;
        () = group.stopping.cancelled() => return Ok(Next::Wait),
        permit = group.permits.acquire() => permit,
    };
    let mut except: Vec<TopicName> = group
        .topics
        .values()
        .filter(|topic| !takes_parked(topic))
        .map(|topic| topic.name.clone())
        .collect();
    except.extend(group.strangers());
    // A circuit that waits for its probe needs one message, not as many as may run.
    let probes = group.topics.values().any(|topic| topic.circuit.wants_probe());
    let limit = if probes { 1 } else { group.permits.limit() };
    let owner = group.environment.owner;
    let request =
        ClaimParked::new(owner, group.name.clone(), limit, group.settings.lease).with_except_topics(except);
    let environment = &group.environment;
    let asking = environment.life.asking();
    if !environment.is_alive() {
        return Ok(Next::Wait);
    }
    let asked = environment.ask();
    CrashPoint::ParkClaiming.reach()?;
    let rows = store_call(&*environment.clock, "parked.claim", store.parked.claim(&request)).await?;
    if !rows.is_empty() {
        CrashPoint::ParkClaimed.reach()?;
    }
    if !environment.life.allows(asked, environment.clock.monotonic()) {
        // Answered too late. Before this node registers anew, which would free it and count the rounds.
        let claims = rows.iter().map(|row| row.claim).collect();
        give_back(&group, &store, claims, Abandon::unused()).await;
        return Ok(Next::Wait);
    }
    drop(asking);
    let next = if rows.len() >= limit {
        Next::Again
    } else {
        Next::Wait
    };
    let mut permit = permit;
    for rows in runs(rows) {
        let run = Run {
            rows: rows
                .into_iter()
                .map(|row| {
                    let guard = group.watch.hold(row.claim, asked);
                    (row, guard)
                })
                .collect(),
            group: group.clone(),
            store: store.clone(),
            permit: permit.take(),
        };
        let guarded = run.guarded(group.clone());
        group.environment.spawner.work(group.tasks.track_future(guarded));
    }
    Ok(next)
}

fn takes_parked(topic: &Topic) -> bool {
    !topic.pauses.stop_pickup() && (topic.circuit.is_closed() || topic.circuit.wants_probe())
}

/// The rows by key, those of a key in their order.
fn runs(rows: Vec<ParkedRow>) -> Vec<Vec<ParkedRow>> {
    let mut runs: Vec<Vec<ParkedRow>> = Vec::new();
    let mut of_key = BTreeMap::new();
    for row in rows {
        match row
            .arrival
            .key
            .clone()
            .map(|key| (row.arrival.topic.clone(), key))
        {
            Some(key) => {
                let at = *of_key.entry(key).or_insert_with(|| {
                    runs.push(Vec::new());
                    runs.len() - 1
                });
                runs[at].push(row);
            }
            None => runs.push(vec![row]),
        }
    }
    runs
}

/// The claimed messages of one key, in order.
struct Run {
    rows: std::collections::VecDeque<(ParkedRow, HoldGuard)>,
    group: Arc<Group>,
    store: InboxParts,
    permit: Option<Permit>,
}

impl Run {
    /// A panic that is caught here is ours, or a driver's: the leases of the rows end, and they are due again.
    async fn guarded(self, group: Arc<Group>) {
        let topic = self.rows.front().map(|(row, _)| row.arrival.topic.clone());
        let ended = AssertUnwindSafe(self.go()).catch_unwind().await;
        if let (Err(panic), Some(topic)) = (ended, topic.and_then(|name| group.topics.get(&name))) {
            group.panicked(topic, panic_message(&*panic));
        }
    }

    async fn go(mut self) {
        while let Some((row, guard)) = self.rows.pop_front() {
            let claim = row.claim;
            let is_awaited_elsewhere = row.arrival.idempotency_key.is_some();
            let Some(topic) = self.group.topics.get(&row.arrival.topic).cloned() else {
                // Parked by a member that reads this topic; this one does not know it, and leaves it to that one.
                self.group.meet_stranger(&row.arrival.topic);
                drop(guard);
                let after = self.group.settings.park_poll;
                self.give_back(vec![claim], Abandon::unused().with_after(after))
                    .await;
                self.abandon_rest().await;
                return;
            };
            let permit = match self.permit.take() {
                Some(permit) => Some(permit),
                None => tokio::select! {
                    biased;
                    () = self.group.stopping.cancelled() => None,
                    permit = self.group.permits.acquire() => permit,
                },
            };
            // It may have been paused since this was claimed.
            if permit.is_none() || topic.pauses.stop_pickup() {
                drop(guard);
                self.give_back(vec![claim], Abandon::unused()).await;
                self.abandon_rest().await;
                return;
            }
            let mut process = Process::new(
                &self.group,
                &topic,
                Item::parked(row, self.group.environment.owner),
                permit,
            );
            process.hold = Some(guard);
            if process.run().await != End::Finished {
                self.abandon_rest().await;
                return;
            }
            topic.show_defect(None);
            // What waited for its idempotency key is due now, and so is what waited behind the last one of the run; what
            // waited behind the others is the rest of the run.
            if is_awaited_elsewhere || self.rows.is_empty() {
                self.group.environment.wakeups.parked().wake();
            }
        }
    }

    /// Gives back what was claimed behind a message that has to wait again; none of it was tried.
    async fn abandon_rest(&mut self) {
        let claims = self.rows.drain(..).map(|(row, _)| row.claim).collect();
        self.give_back(claims, Abandon::unused()).await;
    }

    async fn give_back(&self, claims: Vec<Claim>, how: Abandon) {
        give_back(&self.group, &self.store, claims, how).await;
    }
}

/// Gives back what was claimed, so that others need not wait for its leases.
async fn give_back(group: &Group, store: &InboxParts, claims: Vec<Claim>, how: Abandon) {
    if claims.is_empty() {
        return;
    }
    let (name, owner) = (&group.name, group.environment.owner);
    let abandon = async {
        CrashPoint::ParkReturning.reach()?;
        let settled = store.parked.abandon(name, owner, &claims, &how).await?;
        CrashPoint::ParkReturned.reach()?;
        Ok(settled)
    };
    match store_call(&*group.environment.clock, "parked.abandon", abandon).await {
        Ok(settled) if settled.is_complete() => {}
        Ok(settled) => {
            tracing::debug!(group = %name, lost = settled.lost.len(), "claims on parked messages were lost");
        }
        Err(error) => {
            tracing::warn!(group = %name, %error, "giving back parked messages failed; they come back with their lease");
        }
    }
}
