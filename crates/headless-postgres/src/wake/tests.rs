//! Wake-ups between handles, over a real server.

use headless_harness::{FaultProxy, services};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::*;

const CONNECTIONS: &str = include_str!("tests/connections.sql");
const NOTIFY: &str = include_str!("tests/notify.sql");

/// What must come, comes within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any test: a wait of this ends by what it waits for.
const LONG: Duration = Duration::from_secs(600);

/// The server, and a schema's name that nobody else has.
struct Place {
    url: String,
    schema: Schema,
}

impl Place {
    /// None where there is no server and none is required.
    fn find() -> Option<Self> {
        match services::postgres() {
            Ok(url) => Some(Self {
                url,
                schema: Schema::parse(&format!("wake_{}", Uuid::new_v4().simple())).unwrap(),
            }),
            Err(absent) => {
                assert!(!services::is_required("postgres"), "{absent:?}");
                None
            }
        }
    }

    fn handle(&self) -> Waker {
        self.handle_at(&self.url)
    }

    fn handle_at(&self, url: &str) -> Waker {
        let options: PgConnectOptions = url.parse().unwrap();
        let options = options.application_name(self.schema.as_str());
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options.clone());
        Waker::new(Wake::On, &self.schema, options, pool)
    }

    /// A handle that listens.
    async fn listener(&self) -> Waker {
        let handle = self.handle();
        // Whoever begins to listen is woken once.
        woken(&handle, Signal::Store).await;
        handle
    }

    /// How many connections the handles of this place have.
    async fn connections(&self) -> i64 {
        let mut conn = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(CONNECTIONS)
            .bind(self.schema.as_str())
            .fetch_one(&mut conn)
            .await
            .unwrap()
    }

    async fn until_connections(&self, wanted: i64) {
        timeout(PATIENCE, async {
            while self.connections().await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the connections are as many as wanted");
    }
}

async fn woken(waker: &Waker, signal: Signal) {
    timeout(PATIENCE, waker.wait(signal, LONG))
        .await
        .expect("it is woken");
}

/// One who has seen this many.
const fn beyond(signal: Signal, seen: u64) -> Waiter {
    Waiter { signal, seen }
}

fn count(waker: &Waker, signal: Signal) -> u64 {
    *waker.shared.line(signal).count.borrow()
}

#[tokio::test]
async fn should_wake_this_handle_at_once_and_connect_to_nothing_when_off() {
    let options: PgConnectOptions = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
    let pool = PgPoolOptions::new().connect_lazy_with(options.clone());
    let waker = Waker::new(Wake::Off, &Schema::default(), options, pool);

    let ((), ()) = tokio::join!(woken(&waker, Signal::Store), async {
        waker.notify(Signal::Transport);
        waker.notify(Signal::Store);
    });
    assert!(waker.tasks.is_empty());
}

#[tokio::test]
async fn should_end_the_next_wait_at_once_when_told_between_two() {
    let Some(place) = Place::find() else { return };
    let waker = place.listener().await;
    waker.notify(Signal::Store);
    woken(&waker, Signal::Store).await;

    // One of several who wait keeps count for itself.
    let mut waiter = waker.waiter(Signal::Store);
    waker.notify(Signal::Store);
    woken(&waker, Signal::Store).await;
    timeout(PATIENCE, waiter.wait(&waker, LONG)).await.unwrap();

    let before = count(&waker, Signal::Store);
    waker.wait(Signal::Store, Duration::from_millis(1)).await;
    assert_eq!(
        count(&waker, Signal::Store),
        before,
        "it returned since its time was up"
    );
}

#[tokio::test]
async fn should_wake_the_other_handle_and_only_for_the_signal_given() {
    let Some(place) = Place::find() else { return };
    let (ours, other) = (place.handle(), place.listener().await);
    let transport = count(&other, Signal::Transport);
    ours.notify(Signal::Store);
    woken(&other, Signal::Store).await;
    assert_eq!(count(&other, Signal::Transport), transport);
    ours.notify(Signal::Transport);
    timeout(PATIENCE, beyond(Signal::Transport, transport).wait(&other, LONG))
        .await
        .unwrap();
}

#[tokio::test]
async fn should_wake_everyone_when_sql_notifies() {
    let Some(place) = Place::find() else { return };
    let other = place.listener().await;
    let mut conn = PgConnection::connect(&place.url).await.unwrap();
    sqlx::query(NOTIFY)
        .bind(format!("headless_{}", place.schema))
        .execute(&mut conn)
        .await
        .unwrap();
    woken(&other, Signal::Store).await;
}

#[tokio::test]
async fn should_pass_over_what_it_sent_itself() {
    let Some(place) = Place::find() else { return };
    let (ours, other) = (place.listener().await, place.listener().await);
    let before = count(&ours, Signal::Store);
    ours.notify(Signal::Store);
    woken(&other, Signal::Store).await;

    // The server keeps the order, so that our own has been heard by now.
    other.notify(Signal::Store);
    timeout(PATIENCE, beyond(Signal::Store, before + 1).wait(&ours, LONG))
        .await
        .unwrap();
    assert_eq!(count(&ours, Signal::Store), before + 2);
}

#[tokio::test]
async fn should_send_few_when_told_often() {
    let Some(place) = Place::find() else { return };
    let mut listener = PgListener::connect(&place.url).await.unwrap();
    listener
        .listen(&format!("headless_{}", place.schema))
        .await
        .unwrap();
    let ours = place.handle();
    let time = Duration::from_millis(400);
    let _over = timeout(time, async {
        loop {
            ours.notify(Signal::Store);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // The last one comes after all the others.
    ours.notify(Signal::Transport);
    let mut heard = 0;
    loop {
        let notification = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        if notification.payload().starts_with("transport") {
            break;
        }
        heard += 1;
    }
    assert!((2..=22).contains(&heard), "{heard} notifications in {time:?}");
}

#[tokio::test]
async fn should_listen_again_and_wake_everyone_when_the_connection_was_lost() {
    let Some(place) = Place::find() else { return };
    let proxy = FaultProxy::in_front_of(&place.url).unwrap();
    let other = place.handle_at(&proxy.url_for(&place.url).unwrap());
    woken(&other, Signal::Store).await;

    proxy.reset();
    let ours = place.handle();
    ours.notify(Signal::Store);
    proxy.pass();
    woken(&other, Signal::Store).await;

    // It listens again: nothing but a notification wakes it now.
    ours.notify(Signal::Store);
    woken(&other, Signal::Store).await;
    other.close().await.unwrap();
}

#[tokio::test]
async fn should_notice_within_30_s_when_the_other_side_is_gone_without_a_word() {
    let Some(place) = Place::find() else { return };
    let proxy = FaultProxy::in_front_of(&place.url).unwrap();
    let other = place.handle_at(&proxy.url_for(&place.url).unwrap());
    woken(&other, Signal::Store).await;

    proxy.half_open();
    timeout(Duration::from_secs(30), other.wait(Signal::Store, LONG))
        .await
        .expect("it has connected again");
}

#[tokio::test]
async fn should_join_its_tasks_and_end_waits_when_closed() {
    let Some(place) = Place::find() else { return };
    let waker = Arc::new(place.listener().await);
    waker.notify(Signal::Store);
    woken(&waker, Signal::Store).await;
    let waiting = tokio::spawn({
        let waker = waker.clone();
        async move { waker.wait(Signal::Transport, LONG).await }
    });
    waker.close().await.unwrap();
    waker.close().await.unwrap();
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(waker.tasks.is_empty());

    waker.notify(Signal::Store);
    woken(&waker, Signal::Transport).await;
    assert!(waker.tasks.is_empty(), "nothing begins after the end");
    waker.shared.pool.close().await;
    place.until_connections(0).await;
}

#[tokio::test]
async fn should_still_tell_others_what_there_is_to_tell_when_closed_at_once() {
    let Some(place) = Place::find() else { return };
    let other = place.listener().await;
    let ours = place.handle();
    ours.notify(Signal::Store);
    ours.close().await.unwrap();
    woken(&other, Signal::Store).await;
    assert!(ours.tasks.is_empty());

    // Within the gap after another one too.
    let ours = place.handle();
    ours.notify(Signal::Store);
    woken(&other, Signal::Store).await;
    ours.notify(Signal::Store);
    ours.close().await.unwrap();
    woken(&other, Signal::Store).await;
}

#[tokio::test]
async fn should_close_in_time_when_the_server_is_gone() {
    let Some(place) = Place::find() else { return };
    let proxy = FaultProxy::in_front_of(&place.url).unwrap();
    let waker = place.handle_at(&proxy.url_for(&place.url).unwrap());
    woken(&waker, Signal::Store).await;
    proxy.black_hole();
    waker.notify(Signal::Store);
    timeout(Duration::from_secs(4), waker.close())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn should_leave_no_connection_when_dropped() {
    let Some(place) = Place::find() else { return };
    let waker = place.listener().await;
    waker.notify(Signal::Store);
    place.until_connections(2).await;
    drop(waker);
    place.until_connections(0).await;
}

#[test]
fn should_begin_again_when_the_runtime_that_it_ran_on_is_gone() {
    let Some(place) = Place::find() else { return };
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let waker = first.block_on(place.listener());
    drop(first);
    runtime().block_on(async {
        let ours = place.handle();
        woken(&waker, Signal::Store).await;
        ours.notify(Signal::Store);
        woken(&waker, Signal::Store).await;
    });
}
