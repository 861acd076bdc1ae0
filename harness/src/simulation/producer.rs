//! The producers of a simulated run: each publishes its chain, through whichever node is there, until all of it is
//! confirmed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{MessageId, Result, UnitOfWorkStore};
use headless_core::{Environment, State, UnitOfWork};
use headless_messaging::{PublishExt, Publisher};

use super::{
    chance::Chance,
    handler::{Note, Order, Stock},
    history::{Fact, History},
    label::Label,
    script::{Chain, Expected, How, NOTES, ORDERS, STOCK, Script, Unit},
    store::SimStore,
};

/// After this a producer takes its node for dead and goes to another.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// What a producer needs of a node.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) node: Arc<str>,
    pub(super) store: SimStore,
    pub(super) state: State,
    pub(super) environment: Environment,
    pub(super) publisher: Publisher,
}

/// The nodes that producers may use now.
#[derive(Clone, Default)]
pub(super) struct Entrances(Arc<Mutex<Vec<Entrance>>>);

impl Entrances {
    pub(super) fn open(&self, entrance: Entrance) {
        self.with(|entrances| entrances.push(entrance));
    }

    pub(super) fn close(&self, node: &str) {
        self.with(|entrances| entrances.retain(|entrance| *entrance.node != *node));
    }

    fn any(&self, chance: &Chance) -> Option<Entrance> {
        self.with(|entrances| {
            let at = chance.below(entrances.len() as u64);
            entrances.get(usize::try_from(at).ok()?).cloned()
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Entrance>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The producer of one chain.
pub(super) struct Producer {
    pub(super) script: Arc<Script>,
    pub(super) chance: Arc<Chance>,
    pub(super) history: Arc<History>,
    pub(super) entrances: Entrances,
}

impl Producer {
    /// Publishes the chain with this number. A unit is tried again, with the same ids, until it is confirmed; one that
    /// is to be rolled back is tried once.
    pub(super) async fn run(self, number: usize) {
        let script = self.script.clone();
        let chain = &script.chains[number];
        for unit in &chain.units {
            tokio::time::sleep(unit.pause).await;
            match unit.how {
                How::Alone => {
                    for id in &unit.messages {
                        self.until_confirmed(chain, unit, &[*id]).await;
                    }
                }
                How::Work => self.until_confirmed(chain, unit, &unit.messages).await,
                How::RolledBack => {
                    if let Some(entrance) = self.entrances.any(&self.chance) {
                        self.attempt(&entrance, chain, unit, &unit.messages).await;
                    }
                }
            }
        }
    }

    async fn until_confirmed(&self, chain: &Chain, unit: &Unit, ids: &[MessageId]) {
        loop {
            if let Some(entrance) = self.entrances.any(&self.chance)
                && self.attempt(&entrance, chain, unit, ids).await
            {
                for id in ids {
                    self.history.fact(Fact::Confirmed(*id));
                }
                return;
            }
            tokio::time::sleep(self.chance.millis(20, 200)).await;
        }
    }

    async fn attempt(&self, entrance: &Entrance, chain: &Chain, unit: &Unit, ids: &[MessageId]) -> bool {
        let publishing = async {
            match unit.how {
                How::Alone => self.alone(entrance, chain, ids).await,
                How::Work | How::RolledBack => self.in_work(entrance, chain, unit.how, ids).await,
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, publishing).await;
        if let Ok(Err(error)) = &outcome
            && let Some(id) = ids.first()
        {
            let what = format_args!("publishing {} failed: {error}", Label(*id));
            self.history.note(&entrance.node, what);
        }
        matches!(outcome, Ok(Ok(())))
    }

    async fn alone(&self, entrance: &Entrance, chain: &Chain, ids: &[MessageId]) -> Result<()> {
        for id in ids {
            let publisher = &entrance.publisher;
            let message = match chain.topic {
                ORDERS => publisher.message(ORDERS, &Order),
                STOCK => publisher.message(STOCK, &Stock),
                _ => publisher.message(NOTES, &Note),
            };
            let message = message.key(&chain.key).id(*id);
            let message = match operation(self.script.expected.get(id)) {
                Some(key) => message.idempotency_key(key),
                None => message,
            };
            message.send().await?;
        }
        Ok(())
    }

    async fn in_work(&self, entrance: &Entrance, chain: &Chain, how: How, ids: &[MessageId]) -> Result<()> {
        let tx = entrance.store.begin().await?;
        let mut work = UnitOfWork::begun(tx, entrance.state.clone(), &entrance.environment);
        for id in ids {
            work.put("produced", &Label(*id).to_string()).await?;
            let message = match chain.topic {
                ORDERS => work.message(ORDERS, &Order),
                STOCK => work.message(STOCK, &Stock),
                _ => work.message(NOTES, &Note),
            };
            let message = message.key(&chain.key).id(*id);
            let message = match operation(self.script.expected.get(id)) {
                Some(key) => message.idempotency_key(key),
                None => message,
            };
            message.send().await?;
        }
        match how {
            How::RolledBack if self.chance.happens(5_000) => {
                drop(work);
                Ok(())
            }
            How::RolledBack => work.rollback().await,
            _ => work.commit().await,
        }
    }
}

fn operation(expected: Option<&Expected>) -> Option<&String> {
    expected?.idempotency_key.as_ref()
}
