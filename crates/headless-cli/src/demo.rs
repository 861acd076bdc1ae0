//! `headless demo`: publish through the outbox, handle with two members, take one of them away, and count what became of
//! it all. It uses the public facade alone.

mod member;
mod report;

use std::{mem, sync::Arc, sync::atomic::AtomicU64, time::Duration};

use anyhow::Result;
use headless::{Event, Memory, MemoryTx, Providers, PublishExt, Runtime, UnitOfWork};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::{member::Member, report::Report};
use crate::{bad_input::BadInput, cli::DemoArgs, input, input::Line, progress, urls};

/// How long everything may take to settle once all is published.
const PATIENCE: Duration = Duration::from_mins(10);

/// The body of a message, whatever it is.
#[derive(Serialize, Deserialize)]
struct Payload(Value);

impl Event for Payload {
    const TOPIC: &'static str = "demo.events";
}

/// Store and transport, as one process is connected to them.
struct Servers(Memory, Memory);

/// What the members tell as it happens; the figures of the report are counted from stored rows.
struct Live {
    bar: ProgressBar,
    /// How many messages there are to handle before the crash; 0 for no crash.
    until_crash: AtomicU64,
    crashed: mpsc::UnboundedSender<usize>,
}

/// Runs the demo until everything is settled.
pub(crate) async fn run(args: &DemoArgs) -> Result<Report> {
    let lines = match &args.input {
        Some(path) => input::read_keyed(path)?,
        None => orders(args.messages, args.keys),
    };
    let (count, providers) = (lines.len(), Providers::builtin());
    let store = urls::store_as(&providers, &args.store).await?;
    let servers = Servers(store, urls::transport_as(&providers, &args.transport).await?);
    let (crashed, mut crashes) = mpsc::unbounded_channel();
    let live = Arc::new(Live {
        bar: progress::line(Some(count as u64), "handled"),
        until_crash: AtomicU64::new(args.crash_after.unwrap_or(0)),
        crashed,
    });
    let mut members = Vec::new();
    for number in 0..2 {
        members.push(Member::start(number, &servers, &live).await?);
    }
    let (mut producing, mut published) = (tokio::spawn(produce(servers.connect(), lines)), false);
    loop {
        tokio::select! {
            biased;
            Some(number) = crashes.recv() => {
                live.bar.set_message("(one member was taken away)");
                let new = Member::start(number, &servers, &live).await?;
                // Leaked as it is: none of its destructors runs.
                mem::forget(mem::replace(&mut members[number], new));
            }
            done = &mut producing, if !published => {
                done??;
                published = true;
            }
            settled = members[0].runtime.settled(PATIENCE), if published => break settled?,
        }
    }
    let dead = members[0].runtime.backlog().await?.dead;
    let seconds = live.bar.elapsed().as_secs_f64();
    live.bar.finish_and_clear();
    let mut stats = Vec::new();
    for member in members {
        stats.push(member.stop().await?);
    }
    Ok(Report::of(&servers.0, count, dead, &stats, seconds)?)
}

/// Orders that are made up.
fn orders(count: u64, keys: u64) -> Vec<Line> {
    let order = |number| Line {
        number,
        id: Some(format!("order-{number}")),
        key: Some(format!("customer-{}", number % keys)),
        event: Some("order.placed".to_owned()),
        payload: json!({ "order": number, "total": number % 97 }),
        ..Line::default()
    };
    (1..=count).map(order).collect()
}

/// Publishes every line, or none if one of them could not be published.
async fn produce(servers: Servers, lines: Vec<Line>) -> Result<()> {
    let runtime = servers.builder().relays(false).start().await?;
    let mut mistakes = Vec::new();
    for line in &lines {
        // A unit of work that is dropped is rolled back.
        if let Err(error) = publish(&runtime, line).await {
            mistakes.push(format!("line {}: {error}", line.number));
        }
    }
    BadInput::unless_empty(mistakes)?;
    for line in &lines {
        publish(&runtime, line).await?.commit().await?;
    }
    Ok(runtime.shutdown(PATIENCE).await?)
}

/// A unit of work that publishes a line and writes its domain row.
async fn publish(runtime: &Runtime, line: &Line) -> headless::Result<UnitOfWork<MemoryTx>> {
    let mut work = runtime.begin::<Memory>().await?;
    let number = format!("{:020}", line.number); // so that it sorts as a number
    let message = line.describe(work.message(Payload::TOPIC, &line.payload));
    let id = message.header("line", &number).send().await?.id.to_string();
    let row = json!({ "line": number, "key": line.key, "idempotency_key": line.id, "message": id });
    work.put("published", &number, row.to_string()).await?;
    Ok(work)
}

impl Servers {
    /// As another process is connected to them.
    fn connect(&self) -> Self {
        Self(self.0.connect(), self.1.connect())
    }
}
