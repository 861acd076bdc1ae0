//! Random walks: members come, freeze, crash and go, and nothing is lost, doubled or reordered.

use std::collections::BTreeMap;

use super::*;

const KEYS: u32 = 6;
const STEPS: u32 = 400;

/// `SplitMix64` (Steele, Lea and Flood, 2014), so that a seed replays.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        if from.is_empty() {
            return None;
        }
        let n = self.roll(from.len());
        from.get_mut(n)
    }
}

struct Walker {
    link: Memory,
    subscriber: Box<dyn Subscriber>,
    held: Vec<(u32, DeliveryToken)>,
}

/// What is known of each message, by its number: key is the number modulo [`KEYS`].
#[derive(Default)]
struct Ledger {
    sent: u32,
    delivered: BTreeMap<u32, u32>,
    /// The next number of a key that was not delivered yet.
    next_of_key: BTreeMap<u32, u32>,
    settled: BTreeSet<u32>,
}

impl Ledger {
    fn note(&mut self, delivery: &Delivery, ordered: bool) -> u32 {
        let n = numbers(std::slice::from_ref(delivery))[0];
        assert!(
            !self.settled.contains(&n),
            "{n} was delivered after it was settled"
        );
        let before = self.delivered.entry(n).or_default();
        let mark = if *before == 0 {
            Redelivery::First
        } else {
            Redelivery::Again(*before)
        };
        assert_eq!(delivery.redelivery, mark, "of {n}");
        *before += 1;
        if ordered && *before == 1 {
            let next = self.next_of_key.entry(n % KEYS).or_insert(n % KEYS);
            assert_eq!(n, *next, "a first occurrence out of order");
            *next += KEYS;
        }
        n
    }
}

async fn walk(seed: u64, ordered: bool) {
    let memory = server(if ordered {
        partitions(4)
    } else {
        TopicOrder::Unordered
    })
    .await;
    let mut dice = Dice(seed);
    let mut ledger = Ledger::default();
    let mut walkers: Vec<Walker> = Vec::new();
    for step in 0..STEPS {
        match dice.roll(20) {
            0..4 => {
                for _ in 0..=dice.roll(8) {
                    let n = ledger.sent;
                    send(&memory, [keyed(n, &format!("k{}", n % KEYS))]).await;
                    ledger.sent += 1;
                }
            }
            4 if walkers.len() < 4 => {
                let link = memory.connect();
                let few =
                    membership(u128::from(step)).with_prefetch(NonZeroUsize::new(1 + dice.roll(4)).unwrap());
                let subscriber = link.subscribe(&few).await.unwrap();
                walkers.push(Walker {
                    link,
                    subscriber,
                    held: Vec::new(),
                });
            }
            5 if !walkers.is_empty() => {
                let gone = walkers.swap_remove(dice.roll(walkers.len()));
                match dice.roll(3) {
                    0 => gone.link.sever(),
                    1 => gone.link.close().await.unwrap(),
                    _ => drop(gone),
                }
            }
            6 => sleep(Duration::from_secs(dice.roll(45) as u64)).await,
            7..13 => {
                let (max, wait) = (dice.roll(6), Duration::from_secs(dice.roll(4) as u64));
                if let Some(walker) = dice.pick(&mut walkers) {
                    let received = walker.subscriber.receive(max, wait).await.unwrap();
                    assert!(received.deliveries.len() <= max);
                    for delivery in &received.deliveries {
                        walker.held.push((ledger.note(delivery, ordered), delivery.token));
                    }
                }
            }
            _ => {
                let choice = dice.roll(6);
                let longer = Duration::from_secs(dice.roll(90) as u64);
                if let Some(walker) = dice.pick(&mut walkers)
                    && !walker.held.is_empty()
                {
                    let (n, token) = walker.held.swap_remove(dice.roll(walker.held.len()));
                    if choice == 5 {
                        let extended = walker.subscriber.extend(&[token], longer).await;
                        assert!(matches!(
                            kinds(extended)[..],
                            [Ok(()) | Err(ErrorKind::LeaseLost)]
                        ));
                        walker.held.push((n, token));
                        continue;
                    }
                    let settlement = match choice {
                        0 => requeue(token, None),
                        1 => requeue(token, Some(5 * SECOND)),
                        _ => Settlement::Ack(token),
                    };
                    match settle(&*walker.subscriber, settlement).await {
                        Ok(()) if choice > 1 => assert!(ledger.settled.insert(n), "{n} was settled twice"),
                        Ok(()) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseLost),
                    }
                }
            }
        }
    }
    for walker in &walkers {
        walker.link.sever();
    }
    sleep(LAPSE).await;
    let last = member(&memory, u128::MAX).await;
    while lag(&memory).await > 0 {
        let received = timeout(10 * MINUTE, last.receive(10, MINUTE))
            .await
            .unwrap()
            .unwrap();
        assert!(!received.is_empty(), "{} never come", lag(&memory).await);
        for delivery in &received.deliveries {
            let n = ledger.note(delivery, ordered);
            assert!(ledger.settled.insert(n));
        }
        ack_all(&*last, &received.deliveries).await;
    }
    assert_eq!(ledger.settled, (0..ledger.sent).collect());
}

/// Says which walk went wrong, so that it can be walked again.
async fn walk_all(ordered: bool) {
    for seed in 0..200 {
        if let Err(error) = tokio::spawn(walk(seed, ordered)).await {
            panic!("seed {seed}, ordered {ordered}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn should_lose_and_reorder_nothing_when_members_of_an_ordered_topic_come_and_go() {
    walk_all(true).await;
}

#[tokio::test(start_paused = true)]
async fn should_lose_nothing_when_members_of_an_unordered_topic_come_and_go() {
    walk_all(false).await;
}
