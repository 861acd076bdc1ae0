//! One member of a group.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Delivery, DeliveryToken, Error, ErrorKind, Received, Redelivery, Result, Settlement, Subscriber,
};
use tokio::time::timeout;

use crate::{
    broker::{Broker, Held, not_found},
    error::NAME,
    server::{Link, Locked, State},
};

/// How many tokens are remembered whose deliveries have gone to another.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub(crate) struct ToySubscriber {
    link: Arc<Link>,
    session: u64,
}

impl ToySubscriber {
    pub(crate) const fn new(link: Arc<Link>, session: u64) -> Self {
        Self { link, session }
    }

    fn set_paused(&self, paused: bool) -> Result<()> {
        let mut server = self.link.change("pause")?;
        server.broker.member(self.session)?.0.paused = paused;
        Ok(())
    }
}

/// What a look for deliveries found.
enum Look {
    Found(Vec<Delivery>),
    /// Nothing; look again at a change, or when the first delivery of anyone in the group becomes free.
    Nothing(Option<Duration>),
}

/// Takes what is free, the oldest first: never delivered, given back, or past its holder's visibility time.
fn take(server: &mut Locked<'_>, session: u64, max: usize) -> Result<Look> {
    let now = server.now;
    let State { broker, sequence, .. } = &mut **server;
    let (member, group) = broker.member(session)?;
    let surplus = member.given.len().saturating_sub(REMEMBERED + member.prefetch);
    let lost = member.given.iter().filter(|(token, copy)| {
        let held = group.copies.get(*copy).and_then(|copy| copy.held.as_ref());
        held.is_none_or(|held| held.token != **token)
    });
    for token in lost.map(|(token, _)| *token).take(surplus).collect::<Vec<_>>() {
        member.given.remove(&token);
    }
    let live = |held: &&Held| held.until > now;
    let holds = group
        .copies
        .values()
        .filter_map(|copy| copy.held.as_ref())
        .filter(live);
    let lapse = holds.clone().map(|held| held.until).min();
    let unsettled = holds.filter(|held| held.session == session).count();
    let room = if member.paused {
        0
    } else {
        max.min(member.prefetch.saturating_sub(unsettled))
    };
    let free = group.copies.iter_mut().filter(|(_, copy)| {
        member.topics.contains(&copy.message.topic) && copy.held.as_ref().filter(live).is_none()
    });
    let deliveries: Vec<Delivery> = free
        .take(room)
        .map(|(id, copy)| {
            let token = DeliveryToken::new(sequence.next());
            let until = now.saturating_add(member.visibility);
            copy.held = Some(Held {
                session,
                token,
                until,
            });
            member.given.insert(token, *id);
            // Without `delivery_count` nobody is told which delivery this is.
            Delivery::new(token, copy.message.clone()).with_redelivery(Redelivery::Unknown)
        })
        .collect();
    Ok(if deliveries.is_empty() {
        Look::Nothing(lapse)
    } else {
        Look::Found(deliveries)
    })
}

fn settle(broker: &mut Broker, session: u64, settlement: Settlement) -> Result<()> {
    let token = settlement.token();
    let (member, group) = broker.member(session)?;
    let Some(&copy) = member.given.get(&token) else {
        return Err(not_found("the delivery is settled or was never made"));
    };
    match settlement {
        Settlement::Requeue { .. } => Err(Error::unsupported("`requeue` is not offered").with_provider(NAME)),
        Settlement::Ack(_) | Settlement::Reject(_) => {
            let held = group.copies.get(&copy).and_then(|copy| copy.held.as_ref());
            if held.is_none_or(|held| held.token != token) {
                return Err(
                    Error::new(ErrorKind::LeaseLost, "the delivery has gone to another").with_provider(NAME),
                );
            }
            group.copies.remove(&copy);
            member.given.remove(&token);
            Ok(())
        }
    }
}

#[async_trait]
impl Subscriber for ToySubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        let deadline = self.link.now().saturating_add(wait);
        loop {
            let mut changed = pin!(self.link.changed().notified());
            changed.as_mut().enable();
            let pause = {
                let mut server = self.link.look("receive")?;
                match take(&mut server, self.session, max)? {
                    Look::Found(deliveries) => return Ok(Received::new(deliveries, Vec::new())),
                    Look::Nothing(_) if server.now >= deadline => return Ok(Received::nothing()),
                    Look::Nothing(lapse) => lapse.map_or(deadline, |lapse| lapse.min(deadline)) - server.now,
                }
            };
            // Woken or out of time: either way the next thing is to look again.
            let _woken = timeout(pause, changed).await;
        }
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let one = |settlement: &Settlement| {
            let mut server = self.link.change("settle")?;
            settle(&mut server.broker, self.session, *settlement)
        };
        batch
            .iter()
            .map(|settlement| one(settlement).map_err(|e| e.with_operation("settle")))
            .collect()
    }

    async fn extend(&self, tokens: &[DeliveryToken], _by: Duration) -> Vec<Result<()>> {
        let refuse = || {
            let mut server = self.link.look("extend")?;
            server.broker.member(self.session)?;
            Err(Error::unsupported("`extend` is not offered").with_provider(NAME))
        };
        tokens.iter().map(|_| refuse()).collect()
    }

    async fn pause(&self) -> Result<()> {
        self.set_paused(true)
    }

    async fn resume(&self) -> Result<()> {
        self.set_paused(false)
    }

    async fn close(&self) -> Result<()> {
        match self.link.change("close") {
            Ok(mut server) => server.broker.leave(self.session),
            // The handle was closed, and its members with it.
            Err(error) if error.kind() == ErrorKind::Closed => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Drop for ToySubscriber {
    fn drop(&mut self) {
        // Over a cut connection nobody is told; the deliveries come back once their visibility time has passed.
        if let Ok(mut server) = self.link.change("close") {
            server.broker.leave(self.session);
        }
    }
}
