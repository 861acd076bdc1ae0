//! Processes on one database, each of which is killed, or stopped for longer than its lease, in the middle of its work.
//!
//! It is stopped first, looked at, and let go on until it is where it is wanted: so what is done to it is known to have
//! hit it there.

use sqlx::Row;

use crate::{
    process::Process,
    trial::{assert_all_is_well, counts, named, relays, stop_where, told},
    world::{World, eventually},
};

const MESSAGES: i64 = 1_000;

/// A process; the one that something is to be done to has a name for its sessions on the server.
fn start(world: &World, role: &str, is_target: bool) -> Process {
    let (mut url, messages) = (world.url(), MESSAGES.to_string());
    if is_target {
        url = named(world, &url, "target");
    }
    Process::start(&[
        "demo-member",
        "--role",
        role,
        "--store",
        &url,
        "--transport",
        &url,
        "--keys",
        "40",
        "--messages",
        &messages,
    ])
}

/// Runs a test where the tables are.
async fn run_without_group(test: impl AsyncFnOnce(&World)) {
    World::run(async |world| {
        Process::start(&["migrate", "--store", &world.url()])
            .end_well()
            .await;
        world.execute(include_str!("../../queries/demo/create.sql")).await;
        test(world).await;
    })
    .await;
}

/// Runs a test where the tables are, and the group: what is sent to a topic without groups is kept for nobody.
async fn run(test: impl AsyncFnOnce(&World)) {
    run_without_group(async |world| {
        start(world, "consumer", false).end_well().await;
        test(world).await;
    })
    .await;
}

/// A member of the group.
struct Member {
    id: String,
    live: bool,
    partitions: i64,
    deliveries: i64,
}

/// The members that there are, or whose deliveries there are.
async fn members(world: &World) -> Vec<Member> {
    let rows = world.rows(include_str!("sql/members.sql")).await;
    rows.iter()
        .map(|row| Member {
            id: row.get("id"),
            live: row.get("live"),
            partitions: row.get("partitions"),
            deliveries: row.get("deliveries"),
        })
        .collect()
}

/// Publishes everything.
async fn publish(world: &World) {
    start(world, "producer", false).end_well().await;
    assert_eq!(counts(world).await, [MESSAGES, MESSAGES, 0]);
}

/// Sends everything.
async fn relay(world: &World) {
    start(world, "relay", false).end_well().await;
    assert_eq!(counts(world).await, [MESSAGES, 0, 0]);
}

#[tokio::test]
async fn should_publish_everything_once_when_a_producer_is_killed() {
    run(async |world| {
        let mut target = start(world, "producer", true);
        let before = stop_where(
            world,
            (&mut target, "target"),
            "a producer amid its transactions",
            async |open| {
                let [published, ..] = counts(world).await;
                (open > 0 && published > 0).then_some(published)
            },
        )
        .await;
        assert!(before < MESSAGES, "it was at its end");
        target.kill();
        eventually("the end of its transactions", async || {
            let sessions = world
                .row(&include_str!("sql/target.sql").replace("{target}", "target"))
                .await;
            (sessions.get::<i64, _>("open") == 0).then_some(())
        })
        .await;
        // Nothing of what was open is there: a row and its message came together, or neither.
        assert_eq!(counts(world).await, [before, before, 0]);

        publish(world).await;
        relay(world).await;
        told(start(world, "consumer", false)).await;
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

/// Stops a relay that holds messages, with some sent and some to be sent, and says who it is.
async fn stop_amid_relaying(world: &World, target: &mut Process) -> String {
    stop_where(world, (target, "target"), "a relay amid its work", async |_| {
        let [_, waiting, _] = counts(world).await;
        let holders = relays(world).await;
        (waiting < MESSAGES).then(|| holders.into_iter().next()).flatten()
    })
    .await
}

#[tokio::test]
async fn should_send_everything_when_a_relay_is_killed() {
    run(async |world| {
        publish(world).await;
        let mut target = start(world, "relay", true);
        let owner = stop_amid_relaying(world, &mut target).await;
        target.kill();
        assert_eq!(relays(world).await, [owner], "what it held when it was killed");

        relay(world).await;
        told(start(world, "consumer", false)).await;
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

#[tokio::test]
async fn should_send_everything_when_a_relay_is_stopped_past_its_lease() {
    run(async |world| {
        publish(world).await;
        let mut target = start(world, "relay", true);
        let owner = stop_amid_relaying(world, &mut target).await;
        // Another one ends what it held, and sends it.
        relay(world).await;
        assert_eq!(relays(world).await, Vec::<String>::new(), "held by {owner}");

        target.signal("CONT");
        let ended = target.end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        // It settles what is no longer its, and is told so.
        let told_so = [
            "leases of outbox rows ended",
            "the claim took longer than its lease",
        ];
        assert!(
            told_so.iter().any(|text| ended.stderr.contains(text)),
            "it was not told: {}",
            ended.stderr
        );
        told(start(world, "consumer", false)).await;
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

/// Stops the only consumer when it holds messages, with some handled and some to be handled, and says which member it is.
async fn stop_amid_handling(world: &World, target: &mut Process) -> String {
    stop_where(
        world,
        (target, "target"),
        "a consumer amid its work",
        async |_| {
            let [.., handled] = counts(world).await;
            let member = members(world).await.pop()?;
            (handled > 0 && handled < MESSAGES / 2 && member.deliveries > 0).then_some(member.id)
        },
    )
    .await
}

#[tokio::test]
async fn should_handle_everything_once_when_a_consumer_is_killed() {
    run(async |world| {
        publish(world).await;
        relay(world).await;
        let mut target = start(world, "consumer", true);
        let id = stop_amid_handling(world, &mut target).await;
        target.kill();
        let held = members(world).await.pop().unwrap();
        assert!(
            held.id == id && held.deliveries > 0,
            "what it held when it was killed"
        );

        let told = told(start(world, "consumer", false)).await;
        assert_ne!(told["redelivered"], 0, "what it held did not come again");
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

#[tokio::test]
async fn should_handle_everything_once_when_a_consumer_is_stopped_past_its_lease() {
    run(async |world| {
        publish(world).await;
        relay(world).await;
        let mut target = start(world, "consumer", true);
        let id = stop_amid_handling(world, &mut target).await;
        let handled = counts(world).await[2];

        let survivor = start(world, "consumer", false);
        eventually(
            "another member has taken everything from it, and goes on",
            async || {
                let members = members(world).await;
                let took_all = members.iter().any(|m| m.live && m.id != id && m.partitions == 16);
                let [.., now] = counts(world).await;
                (took_all && members.iter().all(|m| m.id != id) && now > handled).then_some(())
            },
        )
        .await;

        // It settles what is no longer its. It is told so, since it joins anew with nothing in its hands.
        target.signal("CONT");
        eventually("it is a member again", async || {
            let members = members(world).await;
            members.iter().any(|m| m.live && m.id == id).then_some(())
        })
        .await;
        assert!(target.is_running(), "it died of its pause");
        let [survivor, _] = [told(survivor).await, told(target).await];
        assert_ne!(survivor["redelivered"], 0, "what it held did not come again");
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

#[tokio::test]
async fn should_warn_once_when_no_group_takes_what_is_sent() {
    run_without_group(async |world| {
        publish(world).await;
        let ended = start(world, "relay", false).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let warnings = ended.stderr.matches("no group takes this topic").count();
        assert_eq!(warnings, 1, "{}", ended.stderr);
        assert_eq!(counts(world).await, [MESSAGES, 0, 0]);
    })
    .await;
}
