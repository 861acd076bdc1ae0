//! A start that is given up: nothing of it runs on, and another one finds everything as it should be.

use tokio::time::timeout;

use super::*;

/// A node as of [`node`], whose start has so long, over calls that take their time.
async fn start_within(
    limit: Duration,
    server: &Memory,
    faults: &Faults,
    clock: &Arc<Virtual>,
    seed: u64,
) -> Option<Node> {
    timeout(limit, node(server, [faults; 2], clock, seed)).await.ok()
}

#[test]
fn should_run_nothing_when_its_start_is_given_up_wherever_it_stands() {
    let (mut given_up, mut started) = (0, 0);
    for seed in 0..200 {
        in_virtual_time(async {
            let clock = Virtual::begin();
            let server = Memory::with_config(MemoryConfig::default().with_clock(clock.clone()));
            let faults = Faults::seeded(seed)
                .with_rate(0)
                .with_longest_delay(Duration::from_secs(2));
            let limit = Duration::from_millis(seed % 20 * 20);
            if let Some(node) = start_within(limit, &server, &faults, &clock, seed).await {
                node.runtime.shutdown(Duration::from_mins(1)).await.unwrap();
                started += 1;
            } else {
                given_up += 1;
            }

            // Nobody sends what waits in the outbox now, or handles it.
            let idle = Headless::builder("publisher")
                .environment(Environment::new(
                    clock.clone(),
                    Arc::new(SeededRandom::new(seed + 1_000)),
                    Spawner::current(),
                    "publisher",
                ))
                .store(&server)
                .transport(server.clone())
                .topic::<Order>(Ordered::partitions(2))
                .relays(false)
                .start()
                .await
                .unwrap();
            let mut work = idle.begin::<Memory>().await.unwrap();
            work.publish(&Order { line: 0 }).await.unwrap();
            work.commit().await.unwrap();
            tokio::time::sleep(Duration::from_mins(5)).await;
            assert_eq!(idle.backlog().await.unwrap().outbox, 1, "seed {seed}");
            assert_eq!(server.rows(EFFECTS).len(), 0, "seed {seed}");
            idle.shutdown(Duration::from_mins(1)).await.unwrap();

            // The next one is not in the way of the one that was given up.
            faults.calm();
            let next = node(&server, [&faults; 2], &clock, seed + 2_000).await;
            next.runtime.settled(Duration::from_mins(1)).await.unwrap();
            assert_eq!(server.rows(EFFECTS).len(), 1, "seed {seed}");
            next.runtime.shutdown(Duration::from_mins(1)).await.unwrap();
        });
    }
    assert!(given_up > 10, "starts were given up: {given_up}");
    assert!(started > 10, "starts were not given up: {started}");
}
