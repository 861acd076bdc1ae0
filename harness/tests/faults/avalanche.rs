//! A dependency is down, and a hundred thousand messages need it.

use std::sync::atomic::{AtomicBool, AtomicU64};

use headless::{Backoff, CircuitBreaker, HandlerError, Inbox};
use headless_abstractions::{GroupName, Message, MessageId, TopicName, Transport};

use super::*;

const MESSAGES: u32 = 100_000;
const OUTAGE: Duration = Duration::from_mins(30);
/// One probe of the circuit each time that it is tried.
const PROBES: u64 = OUTAGE.as_secs() / 10;
const CONCURRENCY: usize = 16;

/// Unordered, and handled with a dependency alone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mail {
    line: u32,
}

impl Event for Mail {
    const TOPIC: &'static str = "mails";
}

async fn send_all(server: &Memory) {
    let topic = TopicName::parse(Mail::TOPIC).unwrap();
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(1_000) {
        let batch: Vec<Message> = chunk
            .iter()
            .map(|line| {
                let id = MessageId::from_uuid(uuid::Uuid::from_u128(u128::from(*line) + 1));
                let payload = serde_json::to_vec(&Mail { line: *line }).unwrap();
                Message::new(id, topic.clone(), DateTime::UNIX_EPOCH, payload.into())
            })
            .collect();
        for sent in server.send(&batch).await {
            sent.unwrap();
        }
    }
}

#[test]
fn should_try_few_and_lose_none_when_a_hundred_thousand_would_fail_at_once() {
    in_virtual_time(async {
        let clock = Virtual::begin();
        let server = Memory::with_config(MemoryConfig::default().with_clock(clock.clone()));
        let (up, calls, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(0)),
        );
        let handler = {
            let (up, calls, done) = (up.clone(), calls.clone(), done.clone());
            move |_: Mail, _: Context| {
                let (up, calls, done) = (up.clone(), calls.clone(), done.clone());
                async move {
                    calls.fetch_add(1, SeqCst);
                    if up.load(SeqCst) {
                        done.fetch_add(1, SeqCst);
                        return Ok(());
                    }
                    Err(HandlerError::retry("the dependency is down"))
                }
            }
        };
        let breaker = CircuitBreaker::after(20).open_for(Backoff::exponential(
            Duration::from_secs(20),
            Duration::from_secs(20),
        ));
        let consumer = Consumer::group("mailers")
            .on(handler)
            .inbox(Inbox::Around)
            .concurrency(CONCURRENCY)
            .retry(Retry::default().inline(0).rounds(1_000))
            .circuit_breaker(breaker);
        let environment = Environment::new(
            clock.clone(),
            Arc::new(SeededRandom::new(1)),
            Spawner::current(),
            "mailer",
        );
        let runtime = Headless::builder("mailer")
            .environment(environment)
            .store(&server)
            .transport(server.clone())
            .topic::<Mail>(Ordered::no())
            .consumer(consumer)
            .start()
            .await
            .unwrap();
        send_all(&server).await;
        tokio::time::sleep(OUTAGE).await;
        let (tried, backlog) = (calls.load(SeqCst), runtime.backlog().await.unwrap());
        // What was under way when the circuit opened, and one probe at a time.
        let most = 20 + CONCURRENCY as u64 + PROBES;
        assert!(
            tried <= most,
            "{tried} calls while nothing could succeed, the most are {most}"
        );
        assert_eq!(done.load(SeqCst), 0);
        assert_eq!(backlog.dead, 0, "{backlog:?}");
        let group = GroupName::parse("mailers").unwrap();
        let waiting = server.lag(&group).await.unwrap() + backlog.parked;
        assert_eq!(waiting, u64::from(MESSAGES), "{backlog:?}");

        up.store(true, SeqCst);
        runtime.settled(Duration::from_mins(10)).await.unwrap();
        assert_eq!(done.load(SeqCst), u64::from(MESSAGES));
        assert_eq!(runtime.backlog().await.unwrap().dead, 0);
        runtime.shutdown(Duration::from_mins(1)).await.unwrap();
    });
}
