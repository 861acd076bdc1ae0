//! One who sends what is published, and fails at it in every way.

use std::pin::pin;

use futures::future::{Either, select};
use headless_abstractions::{
    Abandon, AttemptUse, Claim, ClaimOutbox, InFlight, OutboxParts, OutboxRow, Owner, Result,
};

use super::{
    super::samples::{failure, number},
    Scene,
    dice::Dice,
};
use crate::{
    fixture::{StoreFixture, StoreNode},
    wait::{Stopwatch, elapse},
};

/// What a relay has sent and not yet said.
struct Relay<'a, 'b, F: StoreFixture> {
    scene: &'a Scene<'b, F>,
    node: StoreNode<F::Store>,
    outbox: OutboxParts,
    dice: Dice,
    index: usize,
    lives: u128,
    sent: Vec<Claim>,
}

/// Sends until everything is over and the outbox is empty.
pub(super) async fn relay<F: StoreFixture>(scene: &Scene<'_, F>, index: usize, dice: Dice) -> Result<()> {
    let (node, outbox) = scene.join().await?;
    let mut relay = Relay {
        scene,
        node,
        outbox,
        dice,
        index,
        lives: 0,
        sent: Vec::new(),
    };
    let mut seen = (0, Stopwatch::start());
    loop {
        scene.patient(&mut seen, &relay.outbox).await?;
        let found = relay.turn().await?;
        if !found && relay.sent.is_empty() {
            if scene.is_over() && relay.outbox.queries.stats().await?.total() == 0 {
                return Ok(());
            }
            elapse(relay.dice.millis(5)).await;
        }
    }
}

impl<F: StoreFixture> Relay<'_, '_, F> {
    fn owner(&self) -> Owner {
        Owner::from_bits((self.index as u128 + 1) << 64 | self.lives)
    }

    /// One claim and what becomes of it. Whether there was anything.
    async fn turn(&mut self) -> Result<bool> {
        let in_flight = if self.dice.below(3) == 0 {
            InFlight::OnePerKey
        } else {
            InFlight::RunPerKey
        };
        let most = [1, 5, 30][usize::try_from(self.dice.below(3)).unwrap_or(0)];
        let ride = if self.dice.below(2) == 0 {
            std::mem::take(&mut self.sent)
        } else {
            Vec::new()
        };
        let request = ClaimOutbox::new(self.owner(), most, F::LEASE)
            .with_in_flight(in_flight)
            .with_ack(ride);
        let watch = Stopwatch::start();
        let claimed = self.outbox.store.claim(&request).await?;
        self.say_late(&claimed.acked.lost);
        let found = !claimed.rows.is_empty();
        let mut rows = claimed.rows.into_iter();
        while let Some(row) = rows.next() {
            elapse(self.dice.millis(2)).await;
            if !self.scene.is_over() && self.dice.per_mille(3) {
                self.die().await?;
                return Ok(true);
            }
            // As a relay does whose lease is running out, and one to whom the broker is closed.
            if watch.elapsed() > F::LEASE / 2 || self.dice.per_mille(30) {
                self.give_back(&row, rows.as_slice()).await?;
                break;
            }
            if self.dice.per_mille(2) {
                self.bury(&row).await?;
                continue;
            }
            self.scene.history().send(number(row.claim.id));
            self.sent.push(row.claim);
            if self.dice.per_mille(50) {
                self.say().await?;
            }
        }
        if self.dice.below(3) > 0 {
            self.say().await?;
        }
        Ok(found)
    }

    /// Says what was sent.
    async fn say(&mut self) -> Result<()> {
        let sent = std::mem::take(&mut self.sent);
        if sent.is_empty() {
            return Ok(());
        }
        let settled = self.outbox.store.ack(self.owner(), &sent).await?;
        self.say_late(&settled.lost);
        Ok(())
    }

    /// Goes on as another one: what it held comes back when its lease ends. Sometimes its process goes with it.
    async fn die(&mut self) -> Result<()> {
        let sent = std::mem::take(&mut self.sent);
        let is_cut = self.dice.below(2) == 0;
        self.scene
            .history()
            .die(sent.iter().map(|claim| number(claim.id)), is_cut);
        if is_cut {
            self.cut(&sent).await;
            (self.node, self.outbox) = self.scene.join().await?;
        }
        self.lives += 1;
        Ok(())
    }

    /// Cuts the connections of its process, mostly in the middle of a call: whether that had its effect is not known.
    async fn cut(&mut self, sent: &[Claim]) {
        let (what, moment) = (self.dice.below(3), self.dice.millis(3));
        let owner = self.owner();
        let call = async {
            match what {
                0 if !sent.is_empty() => drop(self.outbox.store.ack(owner, sent).await),
                1 => {
                    let more = ClaimOutbox::new(owner, 30, F::LEASE).with_ack(sent.to_vec());
                    drop(self.outbox.store.claim(&more).await);
                }
                _ => {}
            }
        };
        let cut = async {
            elapse(moment).await;
            self.node.kill();
        };
        // A call that was quicker is followed by the cut; one that was not may never answer.
        match select(pin!(call), pin!(cut)).await {
            Either::Left(((), cut)) => cut.await,
            Either::Right(((), _call)) => {}
        }
    }

    async fn give_back(&mut self, first: &OutboxRow, rest: &[OutboxRow]) -> Result<()> {
        let claims: Vec<Claim> = std::iter::once(first).chain(rest).map(|row| row.claim).collect();
        // All of them, or what failed first and the others apart.
        let apart = if self.dice.below(2) == 0 { claims.len() } else { 1 };
        let mut how = Abandon::unused().with_after(self.dice.millis(60));
        if self.dice.below(2) == 0 {
            how.attempt = AttemptUse::Consume;
            how.failure = Some(failure("the broker is away"));
        }
        let (failed, others) = claims.split_at(apart);
        // What was lost is with another by now, as it would be if it had been given back.
        let _lost = self.outbox.store.abandon(self.owner(), failed, &how).await?;
        if !others.is_empty() {
            let _lost = self
                .outbox
                .store
                .abandon(self.owner(), others, &Abandon::unused())
                .await?;
        }
        Ok(())
    }

    async fn bury(&mut self, row: &OutboxRow) -> Result<()> {
        let settled = self
            .outbox
            .store
            .fail(self.owner(), &[row.claim], &failure("too large"))
            .await?;
        if settled.is_complete() {
            self.scene.history().bury(number(row.claim.id));
        }
        Ok(())
    }

    fn say_late(&self, claims: &[Claim]) {
        let mut history = self.scene.history();
        for claim in claims {
            history.say_late(number(claim.id));
        }
    }
}
