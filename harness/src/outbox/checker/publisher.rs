//! One who publishes in transactions of every length.

use std::time::Duration;

use headless_abstractions::{OwnedTx, Result, StoreTx, UnitOfWorkStore};

use super::{
    super::samples::{keyed, message},
    Scene,
    dice::Dice,
};
use crate::{
    fixture::StoreFixture,
    wait::{Stopwatch, elapse},
};

/// Publishes until the time is over.
pub(super) async fn publish<F: StoreFixture>(scene: &Scene<'_, F>, mut dice: Dice) -> Result<()> {
    let (node, _) = scene.join().await?;
    let watch = Stopwatch::start();
    while watch.elapsed() < scene.check.duration {
        if scene.is_behind() {
            elapse(dice.millis(20)).await;
            continue;
        }
        let mut tx = node.store.begin().await?;
        let mut numbers = Vec::new();
        for _ in 0..=dice.below(3) {
            let mut batch = Vec::new();
            for _ in 0..=dice.below(3) {
                let key = match dice.below(10) {
                    0 => None,
                    1..=4 => Some(dice.below(scene.check.keys)),
                    _ => Some(0),
                };
                let number = scene.history().append(key);
                numbers.push(number);
                batch.push(match key {
                    Some(key) => keyed(number, &key.to_string()),
                    None => message(number),
                });
            }
            tx.append(&batch).await?;
            elapse(dawdle(&mut dice)).await;
        }
        match dice.below(20) {
            0 => Box::new(tx).rollback().await?,
            1 => drop(tx),
            _ => {
                Box::new(tx).commit().await?;
                scene.history().commit(&numbers);
            }
        }
        elapse(dice.millis(10)).await;
    }
    Ok(())
}

/// The time between an append and what comes after it: mostly short, now and then longer than everything else takes.
fn dawdle(dice: &mut Dice) -> Duration {
    match dice.below(200) {
        0 => dice.millis(3_000),
        1..=10 => dice.millis(300),
        11..=100 => dice.millis(15),
        _ => Duration::ZERO,
    }
}
